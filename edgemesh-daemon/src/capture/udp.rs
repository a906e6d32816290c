//! UDP Services as kernel rules: no datagram of theirs passes through the agent.
//!
//! The kernel draws a Backend for each new flow (a client's address and port) and remembers it;
//! datagrams after that cost what they cost without the mesh. Every flow leaves from an address of
//! this node, as TCP that the agent carries does: else a Backend that can answer its client
//! directly, on the same bridge for one, would do so from an address that the client never asked.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::capture::conntrack;
use crate::capture::rules::{IN, Input, OUT, Text};

/// Our chain that draws a Backend for what the other chains lead there.
pub const UDP: &str = "EDGEMESH_UDP";
/// Our chain for UDP flows on their way to the Backend that was drawn.
pub const POST: &str = "EDGEMESH_POST";
/// Most rules that draw Backends, a family: each new flow to a captured range walks them.
pub const MAX_UDP_RULES: usize = 2048;

/// Where clients send datagrams for a Service port, and who takes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpPort {
    /// Where clients send to.
    pub at: UdpAt,
    /// All of the family of `at`, at least one; each new flow goes to one by chance.
    pub backends: Vec<SocketAddr>,
}

/// Where clients send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpAt {
    /// An address of the Service's own, from this host and its pods.
    Service(SocketAddr),
    /// An address of the outside that leads to the Service, from anywhere.
    External(SocketAddr),
    /// A port of every address of this node, of one family, from anywhere.
    Node {
        /// The NodePort.
        port: u16,
        /// IPv4, else IPv6.
        v4: bool,
    },
}

impl UdpPort {
    fn is(&self, v4: bool) -> bool {
        match self.at {
            UdpAt::Service(at) | UdpAt::External(at) => at.is_ipv4() == v4,
            UdpAt::Node { v4: is_v4, .. } => is_v4 == v4,
        }
    }

    fn is_for_all(&self) -> bool {
        !matches!(self.at, UdpAt::Service(_))
    }

    fn matches(&self) -> String {
        match self.at {
            UdpAt::Service(at) | UdpAt::External(at) => {
                format!("-d {} -p udp --dport {}", IpNet::from(at.ip()), at.port())
            }
            // Not from loopback: its answer could not come back to an address of loopback's.
            UdpAt::Node { port, v4 } => {
                let loopback = if v4 { "127.0.0.0/8" } else { "::1/128" };
                format!("! -d {loopback} -p udp --dport {port} -m addrtype --dst-type LOCAL")
            }
        }
    }

    /// One rule a Backend: the first of n is taken by one flow in n, the next by one in n - 1 of
    /// those that are left, the last by all that come so far.
    fn draw(&self, text: &mut Text, chain: &str) {
        for (at, backend) in self.backends.iter().enumerate() {
            let left = self.backends.len() - at;
            let chance = match left {
                1 => String::new(),
                _ => format!(" -m statistic --mode random --probability {:.8}", 1.0 / left as f64),
            };
            let matches = format!("{}{chance}", self.matches());
            text.rule(chain, &matches, &format!("DNAT --to-destination {backend}"));
        }
    }

    /// Flows that were sent here, on their way on.
    fn masquerade(&self, text: &mut Text) {
        let original = match self.at {
            UdpAt::Service(at) | UdpAt::External(at) => {
                format!("--ctorigdst {} --ctorigdstport {}", at.ip(), at.port())
            }
            UdpAt::Node { port, .. } => format!("--ctorigdstport {port}"),
        };
        let matches = format!("-p udp -m conntrack --ctstate DNAT {original}");
        text.rule(POST, &matches, "MASQUERADE");
    }
}

/// The rules of [`UDP`].
pub(super) fn services(text: &mut Text, input: &Input, v4: bool) {
    text.part("UDP Services (led to from the chains above)");
    let mut ours = input.udp.iter().filter(|port| port.is(v4) && !port.is_for_all()).peekable();
    match ours.peek() {
        Some(_) => text.why("A Backend for each new flow, by chance; the kernel remembers which."),
        None => text.why("There is none of this family."),
    }
    ours.for_each(|port| port.draw(text, UDP));
}

/// The rules of [`POST`].
pub(super) fn on_the_way(text: &mut Text, input: &Input, v4: bool) {
    text.part("UDP flows on their way to a Backend (POSTROUTING)");
    let mut ours = input.udp.iter().filter(|port| port.is(v4)).peekable();
    match ours.peek() {
        Some(_) => {
            text.why("From an address of this node, so that the answer comes back this way.")
        }
        None => text.why("There is none of this family."),
    }
    ours.for_each(|port| port.masquerade(text));
}

/// Leads to [`UDP`], in `chain`, what is captured there, if there are any of this family.
pub(super) fn lead(text: &mut Text, chain: &str, input: &Input, v4: bool) {
    debug_assert!(matches!(chain, OUT | IN));
    if input.udp.iter().any(|port| port.is(v4) && !port.is_for_all()) {
        text.why("UDP Services: the kernel itself sends their flows to Backends.");
        text.rule(chain, "-p udp", UDP);
    }
}

/// The rules, in `chain`, for datagrams to NodePorts and external IPs.
pub(super) fn for_all(text: &mut Text, chain: &str, input: &Input, v4: bool) {
    let mut ours = input.udp.iter().filter(|port| port.is(v4) && port.is_for_all()).peekable();
    if ours.peek().is_some() {
        text.why("UDP NodePorts and external IPs (proxy.nodePorts).");
    }
    ours.for_each(|port| port.draw(text, chain));
}

/// Keeps as many ports as fit, and says how many do not.
pub fn bounded(ports: Vec<UdpPort>) -> (Vec<UdpPort>, usize) {
    let (all, mut used) = (ports.len(), [0; 2]);
    let fits = |port: &UdpPort| {
        let used = &mut used[usize::from(port.is(true))];
        *used += port.backends.len();
        *used <= MAX_UDP_RULES
    };
    let kept: Vec<_> = ports.into_iter().filter(fits).collect();
    let left_out = all - kept.len();
    (kept, left_out)
}

/// Deletes the kernel's memory of flows that no rule would send that way any more: to Backends that
/// are gone, and to nowhere, from the time before there was a Backend. `before` is what was served.
///
/// # Errors
/// As [`conntrack::forget`]: such flows end when their clients pause for a minute or two.
pub(super) fn forget_stale(before: &[UdpPort], now: &[UdpPort]) -> io::Result<()> {
    for v4 in [true, false] {
        if before.iter().chain(now).any(|port| port.is(v4)) {
            conntrack::forget(v4, |entry| is_stale(entry.to, entry.from, before, now))?;
        }
    }
    Ok(())
}

/// Whether a flow towards `to` that `from` answers is stale.
fn is_stale(to: SocketAddr, from: SocketAddr, before: &[UdpPort], now: &[UdpPort]) -> bool {
    let leads = |port: &&UdpPort| match port.at {
        UdpAt::Service(at) | UdpAt::External(at) => at == to,
        UdpAt::Node { port, v4 } => port == to.port() && v4 == to.is_ipv4(),
    };
    let serves = |port: &UdpPort| port.backends.contains(&from);
    match (before.iter().find(leads), now.iter().find(leads)) {
        // A port of this node's may be another's on the way through: only what we sent counts.
        (Some(before), now) if before.is_for_all() || now.is_none() => {
            serves(before) && !now.is_some_and(serves)
        }
        (_, Some(now)) => !now.is_for_all() && !serves(now),
        (_, None) => false,
    }
}

/// Whether a Backend can be drawn for a client of `address`: the kernel changes no family.
pub fn same_family(address: IpAddr, backend: &SocketAddr) -> bool {
    address.is_ipv4() == backend.is_ipv4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_flows_are_told_from_good_ones() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let port = |at: UdpAt, backends: &[&str]| {
            let backends = backends.iter().map(|b| b.parse().unwrap()).collect();
            UdpPort { at, backends }
        };
        let service = UdpAt::Service(at("10.96.0.1:53"));
        let node = UdpAt::Node { port: 30053, v4: true };
        let before = [port(service, &["10.1.0.1:5", "10.1.0.2:5"]), port(node, &["10.1.0.1:5"])];
        let now = [port(service, &["10.1.0.2:5", "10.1.0.3:5"]), port(node, &["10.1.0.3:5"])];
        let rows = [
            // where to, who answers, stale when Backends change, when the Service goes, when it comes
            ("10.96.0.1:53", "10.1.0.1:5", true, true, true),
            ("10.96.0.1:53", "10.1.0.2:5", false, true, false),
            ("10.96.0.1:53", "10.96.0.1:53", true, false, true),
            ("10.96.0.1:54", "10.1.0.1:5", false, false, false),
            ("192.0.2.1:30053", "10.1.0.1:5", true, true, false),
            ("192.0.2.1:30053", "192.0.2.1:30053", false, false, false),
        ];
        for (to, from, changed, left, came) in rows {
            let stale = |before, now| is_stale(at(to), at(from), before, now);
            let got = [stale(&before, &now), stale(&before, &[]), stale(&[], &now)];
            assert_eq!(got, [changed, left, came], "{to} by {from}");
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let port = |last: u8, backends: usize| UdpPort {
            at: UdpAt::Service(([10, 96, 0, last], 53).into()),
            backends: vec![([10, 1, 0, 1], 53).into(); backends],
        };
        let (kept, left_out) = bounded(vec![port(1, 1), port(2, 2047), port(3, 1), port(4, 1)]);
        assert_eq!((kept.len(), left_out), (2, 2));
    }
}
