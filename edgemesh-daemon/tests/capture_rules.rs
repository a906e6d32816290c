//! Golden files of the rules that people read; `UPDATE_GOLDEN=1` rewrites them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::path::Path;

use edgemesh_daemon::capture::node_ports::NodePorts;
use edgemesh_daemon::capture::udp::{UdpAt, UdpPort};
use edgemesh_daemon::capture::{DnsCapture, Input, render};

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn udp(at: UdpAt, backends: &[&str]) -> UdpPort {
    UdpPort { at, backends: backends.iter().map(|backend| address(backend)).collect() }
}

fn full() -> Input {
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
    Input {
        port: 15001,
        addresses: ["169.254.96.16", "fd00:6d65::16"].map(|ip| ip.parse().unwrap()).to_vec(),
        mark: 0x6d65,
        include: nets(&["10.96.0.0/16", "198.18.0.0/16", "fd00:10:96::/112", "fd96::/112"]),
        exclude: nets(&["10.96.9.0/24", "fd96::9:0/120"]),
        exclude_ports: vec![22, 6443],
        dns: Some(DnsCapture {
            port: 15053,
            nameservers: ["127.0.0.53", "10.0.0.1", "fd77::7"]
                .map(|ip| ip.parse().unwrap())
                .to_vec(),
        }),
        outward: vec!["eth0".into(), "wlan0".into()],
        node_ports: NodePorts {
            ports: (30_001..=30_016).collect(),
            external: ["192.0.2.5:80", "[2001:db8::5]:80"].map(|at| at.parse().unwrap()).to_vec(),
        },
        udp: vec![
            udp(
                UdpAt::Service(address("10.96.0.10:53")),
                &["10.1.0.1:53", "10.1.0.2:53", "10.1.0.3:53"],
            ),
            udp(UdpAt::Service(address("[fd96::a]:53")), &["[fd01::1]:53"]),
            udp(UdpAt::External(address("192.0.2.5:123")), &["10.1.0.1:1123"]),
            udp(UdpAt::Node { port: 30_123, v4: true }, &["10.1.0.1:1123", "10.1.0.2:1123"]),
            udp(UdpAt::Node { port: 30_123, v4: false }, &["[fd01::1]:1123"]),
        ],
    }
}

#[test]
fn rules_read_as_they_were_reviewed() {
    let full = full();
    let least = Input {
        addresses: vec!["169.254.96.16".parse().unwrap()],
        include: vec!["198.18.0.0/16".parse().unwrap()],
        exclude: vec![],
        exclude_ports: vec![],
        dns: None,
        outward: vec![],
        node_ports: NodePorts::default(),
        udp: vec![],
        ..full.clone()
    };
    for (name, input) in [("full", full), ("least", least)] {
        let rules = render(&input);
        check(&format!("rules-{name}-v4.txt"), &rules.v4);
        check(&format!("rules-{name}-v6.txt"), &rules.v6);
    }
}

fn check(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, got).unwrap();
        return;
    }
    let want = std::fs::read_to_string(&path).unwrap_or_default();
    if want == got {
        return;
    }
    let mut diff = String::new();
    for (number, (want, got)) in pairs(&want, got).into_iter().enumerate() {
        if want != got {
            let number = number + 1;
            diff.push_str(&format!("line {number}\n- {want}\n+ {got}\n"));
        }
    }
    panic!("{} differs (UPDATE_GOLDEN=1 rewrites it):\n{diff}", path.display());
}

/// The lines of both, side by side, the shorter one filled up.
fn pairs<'a>(want: &'a str, got: &'a str) -> Vec<(&'a str, &'a str)> {
    let (want, got): (Vec<_>, Vec<_>) = (want.lines().collect(), got.lines().collect());
    let line = |lines: &[&'a str], at: usize| lines.get(at).copied().unwrap_or("(nothing)");
    (0..want.len().max(got.len())).map(|at| (line(&want, at), line(&got, at))).collect()
}
