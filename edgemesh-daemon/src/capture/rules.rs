//! The iptables rules as reviewed text: what is captured, what is not, and why.

use std::fmt::Write;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::capture::chains::{CHAINS, jumps};
use crate::capture::error::CaptureError;
use crate::capture::include::{covers, of_family};
use crate::capture::node_ports::{self, NodePorts};
use crate::capture::udp::{self, UdpPort};

/// Our chain for connections of this host's own processes.
pub const OUT: &str = "EDGEMESH_OUT";
/// Our chain for connections that arrive from pods and containers.
pub const IN: &str = "EDGEMESH_IN";
/// Most prefixes of `include` or of `exclude` in a chain, a family, after merging neighbours.
/// Each new connection walks them: a thousand cost some tens of microseconds.
pub const MAX_PREFIXES: usize = 1024;
/// Ports that one `multiport` match can hold.
pub(super) const PORTS_A_RULE: usize = 15;

/// What to capture, and where to send it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// Port of the proxy's listener, on loopback and on each of `addresses`.
    pub port: u16,
    /// Addresses of our own device (`proxy.address`), at most one a family is used.
    pub addresses: Vec<IpAddr>,
    /// fwmark of the mesh's own sockets.
    pub mark: u32,
    /// Destinations to capture.
    pub include: Vec<IpNet>,
    /// Destinations never to capture; wins over `include`.
    pub exclude: Vec<IpNet>,
    /// Destination ports never to capture. 53 among them leaves DNS alone too.
    pub exclude_ports: Vec<u16>,
    /// Whether port 53 towards some name servers comes to us.
    pub dns: Option<DnsCapture>,
    /// Interfaces that hold a default route: what arrives there is not ours to capture.
    pub outward: Vec<String>,
    /// What is captured from everywhere.
    pub node_ports: NodePorts,
    /// UDP that the kernel sends to Backends.
    pub udp: Vec<UdpPort>,
}

/// Port 53 towards these name servers comes to our own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsCapture {
    /// Port of our name server (UDP and TCP), on loopback and on each of `Input::addresses`.
    pub port: u16,
    /// The name servers of resolv.conf.
    pub nameservers: Vec<IpAddr>,
}

/// The rules of both families, each in the form that `iptables-restore --noflush` loads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// For `iptables-restore`.
    pub v4: String,
    /// For `ip6tables-restore`.
    pub v6: String,
}

impl Input {
    /// Refuses lists that would make each new connection slow.
    ///
    /// # Errors
    /// [`CaptureError::TooMany`].
    pub fn validate(&self) -> Result<(), CaptureError> {
        let lists = [("proxy.include", &self.include), ("proxy.exclude", &self.exclude)];
        for (key, list) in lists {
            for v4 in [true, false] {
                let count = of_family(list, v4).len();
                if count > MAX_PREFIXES {
                    return Err(CaptureError::TooMany { key, count, most: MAX_PREFIXES });
                }
            }
        }
        Ok(())
    }

    /// Our own address of one family.
    pub(super) fn address(&self, v4: bool) -> Option<IpAddr> {
        self.addresses.iter().copied().find(|address| address.is_ipv4() == v4)
    }

    /// The name servers of one family whose port 53 comes to us, and our port.
    pub fn nameservers(&self, v4: bool) -> Option<(u16, Vec<IpAddr>)> {
        let dns = self.dns.as_ref().filter(|_| !self.exclude_ports.contains(&53))?;
        let ours = |server: &IpAddr| {
            // Our own address is served without any rule.
            server.is_ipv4() == v4
                && !self.addresses.contains(server)
                && !covers(&self.exclude, *server)
        };
        let mut servers: Vec<IpAddr> = dns.nameservers.iter().copied().filter(ours).collect();
        servers.sort_unstable();
        servers.dedup();
        Some((dns.port, servers)).filter(|(_, servers)| !servers.is_empty())
    }
}

/// The rules for `input`. Loading them replaces our chains whole, in one step, and touches no
/// other chain; the jumps to them are placed apart.
pub fn render(input: &Input) -> Ruleset {
    Ruleset { v4: family(input, true), v6: family(input, false) }
}

fn family(input: &Input, v4: bool) -> String {
    let mut text = Text::new(if v4 { "IPv4" } else { "IPv6" });
    for chain in CHAINS {
        (chain.write)(&mut text, input, v4);
    }
    text.0.push_str("COMMIT\n");
    text.0
}

/// REDIRECT, since on this host it leads to loopback.
pub(super) fn from_host(text: &mut Text, input: &Input, v4: bool) {
    text.part("From this host's own processes (OUTPUT)");
    let mark = input.mark;
    text.why("The mesh's own sockets: never capture ourselves. Others may add bits to the mark.");
    text.rule(OUT, &format!("-m mark --mark {mark:#x}/{mark:#x}"), "RETURN");
    exceptions(text, OUT, input, v4);
    let target = format!("REDIRECT --to-ports {}", input.port);
    node_ports::write(text, OUT, input, v4, &target);
    if let Some((port, servers)) = input.nameservers(v4) {
        text.why("Port 53 to the name servers of resolv.conf: our own name server answers.");
        for server in servers {
            dns(text, OUT, server, &format!("REDIRECT --to-ports {port}"));
        }
    }
    text.why("What stays inside this host is none of ours, whatever is included below.");
    let loopback = if v4 { "127.0.0.0/8" } else { "::1/128" };
    text.rule(OUT, &format!("-d {loopback}"), "RETURN");
    udp::lead(text, OUT, input, v4);
    included(text, OUT, input, v4, &target);
}

/// DNAT to our own address: REDIRECT would lead to the incoming interface's, which may have none.
pub(super) fn from_pods(text: &mut Text, input: &Input, v4: bool) {
    text.part("From pods and containers (PREROUTING)");
    let Some(own) = input.address(v4) else {
        text.why("Nothing: proxy.address has no address of this family.");
        return;
    };
    let to = |port: u16| match own {
        IpAddr::V4(own) => format!("DNAT --to-destination {own}:{port}"),
        IpAddr::V6(own) => format!("DNAT --to-destination [{own}]:{port}"),
    };
    exceptions(text, IN, input, v4);
    node_ports::write(text, IN, input, v4, &to(input.port));
    if !input.outward.is_empty() {
        text.why("Interfaces with a default route: what comes in there is not from a pod.");
    }
    for interface in &input.outward {
        text.rule(IN, &format!("-i {interface}"), "RETURN");
    }
    if let Some((port, servers)) = input.nameservers(v4) {
        text.why("Port 53 to the name servers of resolv.conf: our own name server answers.");
        for server in servers.into_iter().filter(|server| !server.is_loopback()) {
            dns(text, IN, server, &to(port));
        }
    }
    udp::lead(text, IN, input, v4);
    included(text, IN, input, v4, &to(input.port));
}

/// What is left alone, for both directions.
fn exceptions(text: &mut Text, chain: &str, input: &Input, v4: bool) {
    if let Some(own) = input.address(v4) {
        text.why("Our own listeners, addressed directly: capturing that would be a loop.");
        text.rule(chain, &format!("-d {}", IpNet::from(own)), "RETURN");
    }
    let exclude = of_family(&input.exclude, v4);
    if !exclude.is_empty() {
        text.why("Told to leave alone (proxy.exclude), or Services that are left to others.");
    }
    for net in exclude {
        text.rule(chain, &format!("-d {net}"), "RETURN");
    }
    if !input.exclude_ports.is_empty() {
        text.why("Told to leave alone (proxy.excludePorts).");
    }
    for ports in input.exclude_ports.chunks(PORTS_A_RULE) {
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        text.rule(chain, &format!("-p tcp -m multiport --dports {ports}"), "RETURN");
    }
}

fn dns(text: &mut Text, chain: &str, server: IpAddr, target: &str) {
    for protocol in ["udp", "tcp"] {
        let to = IpNet::from(server);
        text.rule(chain, &format!("-d {to} -p {protocol} --dport 53"), target);
    }
}

fn included(text: &mut Text, chain: &str, input: &Input, v4: bool, target: &str) {
    let include = of_family(&input.include, v4);
    if include.is_empty() {
        text.why("Nothing of this family is told to be captured.");
        return;
    }
    text.why("Told to capture (proxy.include and dns.virtualRange). Anything else goes its way.");
    for net in include {
        text.rule(chain, &format!("-d {net} -p tcp"), target);
    }
}

/// A ruleset under construction.
pub(super) struct Text(String);

impl Text {
    fn new(family: &str) -> Self {
        let mut text = Self(format!(
            "# EdgeMesh captures these connections, {family}. Only our own chains are written, whole and at once.\n\
             # The jumps to them are apart, first in their chains, and go first when we stop:\n"
        ));
        for (from, to) in jumps() {
            text.line(format_args!("#   {from:10} {}", jump(to)));
        }
        text.line(format_args!("*nat"));
        for chain in CHAINS {
            text.line(format_args!(":{} - [0:0]", chain.name));
        }
        text
    }

    /// Opens the part of one chain: whom it is for.
    pub(super) fn part(&mut self, title: &str) {
        self.line(format_args!("\n# === {title} ==="));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("a String takes all that is written to it");
    }

    /// The reason for the rules that follow.
    pub(super) fn why(&mut self, reason: &str) {
        self.line(format_args!("# {reason}"));
    }

    /// A rule of ours, tagged as such.
    pub(super) fn rule(&mut self, chain: &str, matches: &str, target: &str) {
        self.line(format_args!("-A {chain} {matches} {TAG} -j {target}"));
    }
}

/// By which an operator, and we, know a rule as ours.
const TAG: &str = "-m comment --comment edgemesh";

/// The rule that leads to `chain` (no quotes in it: the iptables crate splits at spaces).
pub(super) fn jump(chain: &str) -> String {
    format!("{TAG} -j {chain}")
}

/// How many rules of `chain` are in `text`.
pub(super) fn count(text: &str, chain: &str) -> usize {
    let start = format!("-A {chain} ");
    text.lines().filter(|line| line.starts_with(&start)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input() -> Input {
        Input {
            port: 15001,
            addresses: vec![],
            mark: 1,
            include: vec![],
            exclude: vec![],
            exclude_ports: vec![],
            dns: None,
            outward: vec![],
            node_ports: NodePorts::default(),
            udp: vec![],
        }
    }

    #[test]
    fn neighbours_merge_and_long_lists_are_refused() {
        let many = |step: u32| -> Vec<IpNet> {
            (0..2000_u32)
                .map(|i| IpAddr::from((0x0a00_0000 + i * step).to_be_bytes()).into())
                .collect()
        };
        let merged = Input { include: many(1), ..input() };
        merged.validate().unwrap();
        assert!(count(&render(&merged).v4, OUT) < 12);
        let error = Input { exclude: many(2), ..input() }.validate().unwrap_err().to_string();
        assert!(error.contains("`proxy.exclude` has 2000 prefixes"), "{error}");
    }

    #[test]
    fn dns_is_left_alone_where_excluded_or_served_directly() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let nameservers = vec![ip("10.0.0.1"), ip("10.0.1.1"), ip("169.254.96.16"), ip("fd00::1")];
        let with = Input {
            addresses: vec![ip("169.254.96.16")],
            exclude: vec!["10.0.1.0/24".parse().unwrap()],
            dns: Some(DnsCapture { port: 15053, nameservers }),
            ..input()
        };
        assert_eq!(with.nameservers(true), Some((15053, vec![ip("10.0.0.1")])));
        assert_eq!(render(&with).v4.matches("--dport 53 ").count(), 4); // UDP and TCP, OUT and IN
        let without = Input { exclude_ports: vec![53], ..with };
        assert!(!render(&without).v4.contains("--dport 53 "));
    }

    #[test]
    fn more_ports_than_a_match_holds_make_more_rules() {
        let ports = Input { exclude_ports: (1..=31).collect(), ..input() };
        assert_eq!(render(&ports).v4.matches("multiport").count(), 3);
    }
}
