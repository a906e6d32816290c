//! Capture with real iptables, real pods and a real uplink, each test in a world of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "a starting point; the rest is reckoned from it")]

mod common {
    pub(crate) mod namespace;
    pub(crate) mod world;
}

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use common::namespace::{in_namespace, replace, sh};
use common::world::{self, DNS, MARK, OWN, PROXY, ask, reach};
use edgemesh_daemon::capture::{
    Capture, DeviceKind, DnsCapture, Healed, Input, remove_jumps, remove_leftovers,
};

fn input() -> Input {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
    Input {
        port: PROXY,
        addresses: OWN.iter().map(|own| own.parse().unwrap()).collect(),
        mark: MARK,
        include: nets(&["10.96.0.0/16", "fd96::/112", "198.18.0.0/16"]),
        exclude: nets(&["10.96.9.0/24", "fd96::9:0/120"]),
        exclude_ports: vec![22],
        dns: Some(DnsCapture {
            port: DNS,
            nameservers: ["10.7.7.7", "fd77::7"].map(|ns| ns.parse().unwrap()).to_vec(),
        }),
        outward: vec![],
        node_ports: Default::default(),
        udp: vec![],
    }
}

/// It may wait on a thread of its own.
const _: fn(Capture) = |capture| drop(std::thread::spawn(move || drop(capture)));

/// Looks once; what was healed.
fn look(capture: &mut Capture, now: Instant) -> Vec<Healed> {
    let mut healed = Vec::new();
    capture.check(now, &mut healed).unwrap();
    healed
}

fn start() -> Capture {
    let mut capture = Capture::prepare(input()).unwrap();
    world::agent();
    capture.start().unwrap();
    assert!(capture.report().notes.is_empty(), "{:?}", capture.report());
    capture
}

/// `from`, `to`, whether the socket is marked, what answers.
type Row = (&'static str, &'static str, bool, &'static str);

#[track_caller]
fn check(rows: &[Row]) {
    for (from, to, marked, want) in rows {
        let mark = if *marked { MARK } else { 0 };
        assert_eq!(reach(from, to, mark), *want, "from `{from}` to {to}, marked: {marked}");
    }
}

const CAPTURED: &[Row] = &[
    ("", "10.96.0.5:80", false, "proxy 10.96.0.5:80"),
    ("", "[fd96::5]:80", false, "proxy [fd96::5]:80"),
    ("", "198.18.3.3:4444", false, "proxy 198.18.3.3:4444"),
    ("", "10.96.7.7:80", false, "proxy 10.96.7.7:80"), // an address of this host, as with IPVS
    ("pod", "10.96.0.5:80", false, "proxy 10.96.0.5:80"),
    ("pod", "[fd96::5]:80", false, "proxy [fd96::5]:80"),
    ("pod", "10.96.7.7:80", false, "proxy 10.96.7.7:80"),
    ("bare", "10.96.0.5:80", false, "proxy 10.96.0.5:80"),
    ("bare", "[fd96::5]:80", false, "proxy [fd96::5]:80"),
    ("", "127.0.0.1:15001", false, "proxy 127.0.0.1:15001"), // the explicit proxy sees itself
    ("pod", "169.254.96.16:15001", false, "proxy 169.254.96.16:15001"),
    ("", "10.7.7.7:53", false, "dns 10.7.7.7:53"), // port 53 of the name servers
    ("", "[fd77::7]:53", false, "dns [fd77::7]:53"),
    ("pod", "10.7.7.7:53", false, "dns 10.7.7.7:53"),
    ("bare", "[fd77::7]:53", false, "dns [fd77::7]:53"),
];

const LEFT_ALONE: &[Row] = &[
    ("", "10.96.0.5:80", true, "real"), // our own sockets
    ("", "[fd96::5]:80", true, "real"),
    ("", "10.7.7.7:53", true, "real"),
    ("", "10.96.9.9:80", false, "real"), // exclude
    ("", "[fd96::9:9]:80", false, "real"),
    ("", "10.96.0.5:22", false, "real"), // excludePorts
    ("", "10.7.7.7:80", false, "real"),  // a name server, but not DNS
    ("", "192.0.2.1:80", false, "real"), // not included
    ("", "192.0.2.1:53", false, "real"), // DNS, but not our name server
    ("", "[fd99::1]:80", false, "real"),
    ("lan", "10.96.7.7:80", false, "real"), // from the uplink
    ("lan", "[fd96::77]:80", false, "real"),
];

fn everything(prelude: &str, backend: &str) {
    sh(prelude);
    world::pods();
    world::uplink();
    let capture = start();
    assert!(capture.report().backend.contains(backend), "{:?}", capture.report());
    assert!(capture.report().ipv6);
    check(CAPTURED);
    check(LEFT_ALONE);
    for from in ["", "pod", "bare"] {
        for server in ["10.7.7.7:53", "[fd77::7]:53"] {
            assert_eq!(ask(from, server), "dns", "from `{from}` to {server}");
        }
    }
}

#[test]
fn hosts_and_pods_are_captured_by_nft() {
    in_namespace("hosts_and_pods_are_captured_by_nft", || everything(":", "nf_tables"));
}

#[test]
fn hosts_and_pods_are_captured_by_legacy() {
    in_namespace("hosts_and_pods_are_captured_by_legacy", || {
        everything("iptables-legacy -A INPUT -j ACCEPT", "legacy");
        assert!(!sh("iptables-nft-save").contains("EDGEMESH"));
    });
}

#[test]
fn no_default_route_is_no_hindrance() {
    in_namespace("no_default_route_is_no_hindrance", || {
        world::pods();
        check(&[("", "10.96.0.5:80", false, "unreachable")]); // why routes are needed
        let mut capture = start();
        check(CAPTURED);
        assert_eq!(ask("", "10.7.7.7:53"), "dns");
        assert_eq!(ask("", "[fd77::7]:53"), "dns");
        // All else is as unreachable as it was, and says so at once.
        check(&[
            ("", "10.96.0.5:80", true, "unreachable"),
            ("", "[fd96::5]:80", true, "unreachable"),
            ("", "10.96.9.9:80", false, "unreachable"),
            ("", "[fd96::9:9]:80", false, "unreachable"),
            ("", "10.96.0.5:22", false, "unreachable"),
            ("", "10.7.7.7:80", false, "unreachable"),
            ("", "192.0.2.1:80", false, "unreachable"),
        ]);
        assert_eq!(ask("", "192.0.2.1:53"), "unreachable");
        // The uplink appears: what passes takes it, and nobody there is taken for a pod.
        world::uplink();
        let healed = look(&mut capture, Instant::now());
        assert_eq!(healed, [Healed::Outward(vec!["up0".into()])]);
        check(LEFT_ALONE);
        check(CAPTURED);
    });
}

/// All that an agent could leave behind: rules and chains of ours, rules of anybody, routes and their
/// rules, devices, addresses; not built-in chains, which stay, nor what the kernel finds out in its time.
fn state() -> String {
    sh("for f in iptables ip6tables iptables-legacy ip6tables-legacy; do
          echo $f; $f-save | grep -E '^(-A|:EDGEMESH)' | sed 's/ \\[.*//' || true; done
        for f in -4 -6; do ip $f rule; ip $f route show table all | grep -v fe80 | sed 's/ linkdown//' | sort; done
        ip link | sed -E 's/^[0-9]*: //; s/NO-CARRIER,|,LOWER_UP| state [A-Z]+//g' | grep -v '^ '
        ip -o addr | grep -v fe80 | sed 's/^[0-9]*: //; s/ tentative//'")
}

#[test]
fn removing_leaves_everything_as_it_was() {
    in_namespace("removing_leaves_everything_as_it_was", || {
        world::pods();
        world::uplink();
        let foreign = "iptables -t nat -A OUTPUT -d 10.96.0.5 -p tcp -j RETURN
            ip link add edgemesh0 type bridge; ip link set edgemesh0 up";
        for (prelude, device) in [(":", None), (foreign, Some(DeviceKind::Foreign))] {
            sh(prelude);
            let before = state();
            let mut capture = Capture::install(input()).unwrap();
            if let Some(device) = device {
                assert_eq!(capture.report().device, device);
            }
            let installed = state();
            assert_ne!(installed, before);
            // Again, by the same and by another: nothing is doubled.
            capture.start().unwrap();
            assert_eq!(state(), installed);
            let mut second = Capture::install(input()).unwrap();
            assert_eq!(state(), installed);
            second.remove().unwrap();
            capture.remove().unwrap();
            assert_eq!(state(), before);
            capture.remove().unwrap();
            assert_eq!(state(), before);
        }
    });
}

#[test]
fn leftovers_are_adopted_or_removed_however_broken() {
    in_namespace("leftovers_are_adopted_or_removed_however_broken", || {
        world::pods();
        let before = state();
        let capture = Capture::install(input()).unwrap();
        let installed = state();
        drop(capture); // as kill -9 does: nothing is removed
        let damages = [
            ":",
            "iptables -t nat -F EDGEMESH_OUT",
            "iptables -t nat -D EDGEMESH_IN 1; ip6tables -t nat -D EDGEMESH_OUT 2",
            "iptables -t nat -F OUTPUT; iptables -t nat -F EDGEMESH_OUT; iptables -t nat -X EDGEMESH_OUT",
            "iptables -t nat -I OUTPUT -j EDGEMESH_OUT; iptables -t nat -A PREROUTING -j EDGEMESH_IN",
            "iptables -t nat -F PREROUTING; ip6tables -t nat -F OUTPUT",
            "ip link del edgemesh0",
            "ip addr flush dev edgemesh0",
            "ip rule flush protocol 109",
            "ip route flush table 28005; ip -6 route flush table 28006",
            "ip route add 10.55.0.0/16 dev lo table 28005 proto 109",
        ];
        for damage in damages {
            sh(damage);
            let capture = Capture::install(input()).unwrap();
            assert_eq!(state(), installed, "after {damage}");
            drop(capture);
            sh(damage);
            assert!(remove_leftovers(&input().addresses).unwrap(), "{damage}");
            assert_eq!(state(), before, "after {damage}");
            assert!(!remove_leftovers(&input().addresses).unwrap(), "{damage}");
            drop(Capture::install(input()).unwrap());
        }
        remove_leftovers(&[]).unwrap();
        assert_eq!(state(), before);
        // The node changed its backend in between.
        drop(Capture::install(input()).unwrap());
        sh("iptables-legacy -A INPUT -j ACCEPT");
        let moved = Capture::install(input()).unwrap();
        assert!(moved.report().backend.contains("legacy"));
        assert!(!sh("iptables-nft-save").contains("EDGEMESH"));
        assert!(remove_leftovers(&[]).unwrap());
        assert!(!sh("iptables-legacy-save -t nat").contains("EDGEMESH"));
    });
}

#[test]
fn updates_leave_no_gap_and_touch_nothing_needlessly() {
    in_namespace("updates_leave_no_gap_and_touch_nothing_needlessly", || {
        world::pods();
        world::uplink();
        let mut capture = start();
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let client = std::thread::spawn(move || {
            let mut count = 0_u32;
            while !told.load(Ordering::Relaxed) {
                assert_eq!(reach("", "10.96.0.5:80", 0), "proxy 10.96.0.5:80", "the {count}th");
                count += 1;
            }
            count
        });
        let mut more = input();
        more.include.push("10.97.0.0/16".parse().unwrap());
        for _ in 0..20 {
            capture.update(more.clone()).unwrap();
            capture.update(input()).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        assert!(client.join().unwrap() > 20);
        check(&[("", "198.18.0.1:1", false, "proxy 198.18.0.1:1")]);
        let counters = || sh("iptables -t nat -L EDGEMESH_OUT -nvx");
        let before = counters();
        capture.update(input()).unwrap();
        assert_eq!(counters(), before, "an update that changes nothing loads nothing");
        capture.update(more).unwrap();
        assert_ne!(counters(), before);
    });
}

#[test]
fn stopping_keeps_what_is_established() {
    in_namespace("stopping_keeps_what_is_established", || {
        world::pods();
        world::uplink();
        let mut capture = start();
        let open: Vec<_> = ["", "pod"]
            .map(|from| world::connect(from, "10.96.0.5:80", 0).unwrap())
            .into_iter()
            .inspect(|stream| assert_eq!(world::hear(stream), "proxy 10.96.0.5:80"))
            .collect();
        capture.stop_new().unwrap();
        check(&[("", "10.96.0.5:80", false, "real")]);
        for mut stream in &open {
            stream.write_all(b"still here\n").unwrap();
            assert_eq!(world::hear(stream), "still here");
        }
        capture.start().unwrap();
        check(&[("", "10.96.0.5:80", false, "proxy 10.96.0.5:80")]);
        assert!(remove_jumps().unwrap()); // what the guard does
        check(&[("", "10.96.0.5:80", false, "real")]);
        assert!(!remove_jumps().unwrap());
        capture.remove().unwrap();
    });
}

#[test]
fn damage_is_healed() {
    in_namespace("damage_is_healed", || {
        world::pods();
        world::uplink();
        let mut capture = start();
        let installed = state();
        let now = Instant::now();
        let (from, v4) = ("OUTPUT", true);
        let rival = "-A OUTPUT -d 10.96.0.5/32 -p tcp -j DNAT --to-destination 192.0.2.1:80";
        let add_rival = format!("iptables -t nat {}", rival.replace("-A OUTPUT", "-I OUTPUT 1"));
        let drop_rival = format!("iptables -t nat {}", rival.replace("-A", "-D"));
        let bystander = "iptables -t nat -I OUTPUT 1 -m addrtype --dst-type LOCAL -j RETURN";
        let damages: Vec<(&str, Vec<Healed>, &str)> = vec![
            (":", vec![], ":"),
            ("iptables -t nat -F OUTPUT", vec![Healed::Jump { from, v4 }], ":"),
            ("ip6tables -t nat -F EDGEMESH_IN", vec![Healed::Chains { v4: false }], ":"),
            ("ip rule flush protocol 109", vec![Healed::Routes { v4 }], ":"),
            ("ip link del edgemesh0", vec![Healed::Device], ":"),
            (&add_rival, vec![Healed::Moved { from, v4, rival: rival.into() }], &drop_rival),
            (bystander, vec![], "iptables -t nat -D OUTPUT 1"),
        ];
        for (damage, want, afterwards) in damages {
            sh(damage);
            assert_eq!(look(&mut capture, now), want, "{damage}");
            check(&[("", "10.96.0.5:80", false, "proxy 10.96.0.5:80")]);
            check(&[("pod", "10.96.0.5:80", false, "proxy 10.96.0.5:80")]);
            sh(afterwards);
            assert_eq!(state(), installed, "{damage}");
        }
        // Once stopped, it stays so.
        capture.stop_new().unwrap();
        assert_eq!(look(&mut capture, now), []);
        assert!(!sh("iptables-save").contains("-A OUTPUT -m comment --comment edgemesh"));
    });
}

#[test]
fn without_devices_the_address_sits_on_lo() {
    in_namespace("without_devices_the_address_sits_on_lo", || {
        world::pods();
        replace("ip", "case \"$*\" in \"link add \"*) exit 2;; esac; exec $REAL \"$@\"");
        let before = state();
        let mut capture = start();
        assert_eq!(capture.report().device, DeviceKind::Loopback);
        check(CAPTURED);
        capture.remove().unwrap();
        assert_eq!(state(), before);
        drop(Capture::install(input()).unwrap());
        assert!(remove_leftovers(&input().addresses).unwrap());
        assert_eq!(state(), before);
    });
}

#[test]
fn lack_of_ipv6_is_a_note() {
    // what is lacking, how, whether IPv6 of this host's own processes is captured all the same
    let lacks: [(&str, fn(), bool); 3] = [
        ("the table", || replace("ip6tables", "echo cannot initialize >&2; exit 3"), false),
        ("a match", || replace("ip6tables-restore", "echo no such match >&2; exit 1"), false),
        ("addresses", || drop(sh("echo 1 | tee /proc/sys/net/ipv6/conf/*/disable_ipv6")), true),
    ];
    in_namespace("lack_of_ipv6_is_a_note", || {
        for (lacking, lack, ipv6) in lacks {
            lack();
            let mut capture = Capture::install(input()).unwrap();
            let report = capture.report().clone();
            assert_eq!(report.ipv6, ipv6, "{lacking}: {report:?}");
            assert!(report.notes[0].contains("IPv6"), "{lacking}: {report:?}");
            assert!(sh("iptables-save").contains("--comment edgemesh -j EDGEMESH_OUT"));
            assert_eq!(look(&mut capture, Instant::now()), [], "{lacking}");
            capture.remove().unwrap();
            sh("rm -f /run/first/*");
            assert!(!sh("ip6tables-save").contains("EDGEMESH"), "{lacking}");
        }
    });
}

#[test]
fn what_is_not_allowed_or_locked_is_told_with_the_fix() {
    in_namespace("what_is_not_allowed_or_locked_is_told_with_the_fix", || {
        let no_rights = "exec setpriv --bounding-set=-all --inh-caps=-all $REAL \"$@\"";
        let cases = [
            (no_rights, "needs CAP_NET_ADMIN: run as root, or set proxy.intercept: none"),
            ("echo 'Another app is currently holding the xtables lock' >&2; exit 4", "fuser"),
            ("XTABLES_LOCKFILE=/nonexistent/lock exec iptables-legacy \"$@\"", "XTABLES_LOCKFILE"),
        ];
        for (script, want) in cases {
            replace("iptables", script);
            let error = Capture::install(input()).err().expect("it cannot work").to_string();
            assert!(error.contains(want), "{script}: {error}");
            assert!(!sh("iptables-nft-save; ip link").contains("edgemesh"), "{script}");
        }
    });
}
