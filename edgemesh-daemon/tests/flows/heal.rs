//! What others break while the agent runs: healed within a bound, or named, and traffic flows again.

use std::sync::Arc;
use std::time::Duration;

use crate::agent::{Agent, PATIENCE};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{Running, need, run};
use crate::common::wait::{eventually, throughout, timed};
use crate::world::{ONE, World};

/// Longest until a change is healed that the kernel tells of: routes, devices, nft tables. At
/// most two seconds lie between two looks; a look takes some 100 ms, and this machine is busy.
const TOLD: Duration = Duration::from_secs(5);
/// Longest until damage to legacy tables is healed, which are looked at every five seconds.
const LOOKED_AT: Duration = Duration::from_secs(8);

/// Longest until a jump is first again when another was moved just before.
const TURN: Duration = Duration::from_secs(5 + 5);

/// Damage, and what undoes the part of it that is not ours to heal.
type Row = (&'static str, &'static str);

/// [`stand_ins`] makes `ipt` and its kin.
const RULES: &[Row] = &[
    ("ipt -t nat -F", ""),
    ("ipt -F; ip6t -F; ipt -t nat -F OUTPUT", ""),
    ("ip6t -t nat -F OUTPUT", ""),
    // Half of a chain, another order, another rule in the same place.
    ("ipt -t nat -D EDGEMESH_OUT 1", ""),
    ("ip6t -t nat -D EDGEMESH_IN 2", ""),
    ("r=$(ipt -t nat -S EDGEMESH_OUT 1); ipt -t nat -D EDGEMESH_OUT 1; ipt -t nat $r", ""),
    ("ipt -t nat -R EDGEMESH_OUT 2 -j RETURN", ""),
    ("ipt -t nat -F; ipt -t nat -X", ""),
    // Somebody's saved rules: none of ours in them, and ours as they were long ago.
    ("echo '*nat\nCOMMIT' | ipt-restore; echo '*nat\nCOMMIT' | ip6t-restore", ""),
    ("ipt-save | grep -v -e '-j REDIRECT' >/run/old; ipt-restore </run/old", ""),
];

/// A rival goes first.
const RIVALS: &[Row] = &[
    (
        "ipt -t nat -N KUBE-SERVICES; ipt -t nat -I OUTPUT -j KUBE-SERVICES",
        "ipt -t nat -D OUTPUT -j KUBE-SERVICES; ipt -t nat -X KUBE-SERVICES",
    ),
    (
        "ip6t -t nat -N ISTIO_OUTPUT; ip6t -t nat -I PREROUTING -j ISTIO_OUTPUT",
        "ip6t -t nat -D PREROUTING -j ISTIO_OUTPUT; ip6t -t nat -X ISTIO_OUTPUT",
    ),
];

const NFT_ONLY: &[Row] = &[("nft flush ruleset", "")];

const NETWORK: &[Row] = &[
    ("ip link del edgemesh0", ""),
    ("ip link set edgemesh0 down", ""),
    ("ip addr del 169.254.96.16/32 dev edgemesh0", ""),
    ("ip -6 addr del fd00:6d65::16/128 dev edgemesh0", ""),
    ("ip rule flush protocol 109", ""),
    ("ip -6 rule flush protocol 109", ""),
    ("ip rule del pref 32771", ""),
    ("ip route flush table 28005; ip -6 route flush table 28005", ""),
    (
        "ip route del default; ip -6 route del default",
        "ip route add default via 10.3.0.2; ip -6 route add default via fd03::2",
    ),
];

/// A node whose Service `one` has addresses of both families, and an uplink.
fn world() -> (World, Arc<Backend>) {
    need(&["nft", "flock"]);
    let world = World::new();
    sh("ip link add up0 type veth peer name up1; ip link set up0 up; ip link set up1 up
        ip addr add 10.3.0.1/24 dev up0; ip addr add fd03::1/64 dev up0 nodad
        ip route add default via 10.3.0.2; ip -6 route add default via fd03::2");
    let one = Backend::start("", "one", ONE, 8080);
    world.service("one", &["10.96.0.80", "fd10::80"], &[":80:8080"], &[ONE]);
    (world, one)
}

/// Rules and chains of all backends, policy rules, routes and addresses: all that healing is about.
fn state() -> String {
    sh("for f in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
          echo $f; $f-save -t nat | grep -E '^(-A|:EDGEMESH)' | sed 's/ \\[.*//' || true; done
        for f in -4 -6; do
          ip $f rule; for t in 28005 28006; do ip $f route show table $t 2>&1 || true; done; done
        ip -o addr show dev edgemesh0 up | sed 's/^[0-9]*: //' || true")
}

/// Whether a host process and a pod reach the Service, by both families.
fn flows() -> bool {
    let asked =
        "for a in 10.96.0.80 '[fd10::80]'; do curl -sS --connect-timeout 0.3 http://$a/; done";
    ["", "pod"].iter().all(|place| run(place, asked).out == "oneone")
}

/// Whether all six of our jumps are there, each the first rule of its chain.
fn ours_first(state: &str) -> bool {
    let mut last = "";
    let mut first = 0;
    for rule in state.lines() {
        let chain =
            rule.strip_prefix("-A ").and_then(|rest| rest.split(' ').next()).unwrap_or(rule);
        let begins = chain != last;
        last = chain;
        first +=
            usize::from(begins && rule.contains("-j EDGEMESH_") && !chain.contains("EDGEMESH"));
    }
    first == 6
}

/// Puts the programs `ipt`, `ip6t-save`… on the PATH, which are those of one backend.
fn stand_ins(backend: &str) {
    for (short, long) in [("ipt", "iptables"), ("ip6t", "ip6tables")] {
        for what in ["", "-save", "-restore"] {
            let at = format!("/run/first/{short}{what}");
            std::fs::write(&at, format!("#!/bin/sh\nexec {long}-{backend}{what} \"$@\"\n"))
                .unwrap();
            sh(&format!("chmod +x {at}"));
        }
    }
}

fn heals(backend: &str, rows: &[(&[Row], Duration)]) {
    let (world, _one) = world();
    stand_ins(backend);
    sh("ipt -A INPUT -j ACCEPT; ip6t -A INPUT -j ACCEPT");
    let _agent = Agent::start(&world);
    eventually("traffic flows", PATIENCE, || flows().then_some(()));
    let before = state();
    assert!(ours_first(&before), "{before}");
    let rows = rows.iter().flat_map(|(rows, bound)| rows.iter().map(move |row| (row, *bound)));
    for ((damage, afterwards), bound) in rows {
        sh(damage);
        let mended = |state: &str| match *afterwards {
            "" => state == before,
            _ => ours_first(state),
        };
        let ((), took) = timed(|| {
            eventually(damage, PATIENCE, || (mended(&state()) && flows()).then_some(()));
        });
        eprintln!("{backend}: whole again after {} ms: {damage}", took.as_millis());
        assert!(took < bound, "{damage}: {took:?}");
        sh(afterwards);
        eventually(afterwards, bound, || (state() == before && flows()).then_some(()));
    }
}

#[test]
fn damage_to_nft_and_the_network_is_healed_in_time() {
    in_namespace("heal::damage_to_nft_and_the_network_is_healed_in_time", || {
        heals("nft", &[(RULES, TOLD), (NFT_ONLY, TOLD), (NETWORK, TOLD), (RIVALS, TURN)]);
    });
}

#[test]
fn damage_to_legacy_is_healed_in_time() {
    in_namespace("heal::damage_to_legacy_is_healed_in_time", || {
        heals("legacy", &[(RULES, LOOKED_AT), (RIVALS, TURN)]);
    });
}

/// How long a rival insists.
const INSISTS: Duration = Duration::from_secs(12);

#[test]
fn a_rival_that_insists_is_named_and_not_raced() {
    in_namespace("heal::a_rival_that_insists_is_named_and_not_raced", || {
        let (world, _one) = world();
        let agent = Agent::start(&world);
        sh("iptables -t nat -N KUBE-SERVICES");
        let insist = "while :; do
            iptables -t nat -S OUTPUT 1 | grep -q KUBE || {
              iptables -t nat -D OUTPUT -j KUBE-SERVICES; iptables -t nat -I OUTPUT -j KUBE-SERVICES; }
            sleep 0.2; done";
        let rival = Running::start("", &["sh", "-c", insist], &world.path("rival.log"));
        // Its rules take nothing, so that all flows on.
        assert!(throughout(INSISTS, flows), "{}", agent.log());
        drop(rival);
        let moved = agent.log().matches("stood first in OUTPUT: ours moved first").count();
        assert!((2..=3).contains(&moved), "moved {moved} times in {INSISTS:?}: {}", agent.log());
        let notes = agent.get("/v1/status")["capture"]["notes"].to_string();
        for word in ["rival in OUTPUT (IPv4)", "of kube-proxy", "-j KUBE-SERVICES"] {
            assert!(notes.contains(word), "`{word}` is not in {notes}");
        }
    });
}

/// How long the lock of legacy iptables is held: longer than iptables waits.
const HELD: u32 = 9;

#[test]
fn a_lock_that_is_held_is_named_and_waited_for() {
    in_namespace("heal::a_lock_that_is_held_is_named_and_waited_for", || {
        let (world, _one) = world();
        stand_ins("legacy");
        sh("ipt -A INPUT -j ACCEPT; ip6t -A INPUT -j ACCEPT");
        let agent = Agent::start(&world);
        // What holds the lock may change rules; others may not, and our repair has to wait.
        let hold = format!(
            "XTABLES_LOCKFILE=/run/other iptables-legacy -t nat -F OUTPUT; exec sleep {HELD}"
        );
        let holder = Running::start(
            "",
            &["flock", "-o", "/run/xtables.lock", "sh", "-c", &hold],
            &world.path("lock.log"),
        );
        let note = || agent.get("/v1/status")["capture"]["notes"].to_string();
        let pid = format!("held by pid {} (flock)", holder.child.id());
        eventually("the lock's holder is named", PATIENCE, || note().contains(&pid).then_some(()));
        assert_eq!(agent.get("/v1/status")["capture"]["state"], "failed");
        eventually("what was damaged is whole", PATIENCE, || {
            (ours_first(&state()) && flows()).then_some(())
        });
        eventually("the trouble is over", PATIENCE, || (!note().contains(&pid)).then_some(()));
        drop(holder);
    });
}
