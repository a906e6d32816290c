//! NodePorts and external IPs (`proxy.nodePorts`): captured from everywhere, since that is what
//! they are for, and compared with the programs that listen on the same ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::capture::rules::{Input, PORTS_A_RULE, Text};
use crate::capture::udp;
use crate::proc_net::{bound, owners};

/// Most external addresses with a port that are captured, a family: each is a rule that new
/// connections walk.
pub const MAX_EXTERNAL: usize = 256;

/// TCP ports and addresses through which the outside reaches Services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePorts {
    /// Ports of every address of this node, sorted.
    pub ports: Vec<u16>,
    /// Addresses with a port of their own, sorted.
    pub external: Vec<SocketAddr>,
}

/// The rules in `chain`, which come before interfaces of the uplink are left alone.
pub(super) fn write(text: &mut Text, chain: &str, input: &Input, v4: bool, target: &str) {
    let NodePorts { ports, external } = &input.node_ports;
    if !ports.is_empty() {
        text.why("NodePorts, at each of this node's own addresses (proxy.nodePorts).");
    }
    for ports in ports.chunks(PORTS_A_RULE) {
        let ports = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
        let matches = format!("-p tcp -m multiport --dports {ports} -m addrtype --dst-type LOCAL");
        text.rule(chain, &matches, target);
    }
    let external: Vec<_> = external.iter().filter(|at| at.is_ipv4() == v4).collect();
    if !external.is_empty() {
        text.why("External IPs of Services (proxy.nodePorts).");
    }
    for at in external {
        let matches = format!("-d {} -p tcp --dport {}", IpNet::from(at.ip()), at.port());
        text.rule(chain, &matches, target);
    }
    udp::for_all(text, chain, input, v4);
}

/// Programs of this network namespace that listen on one of `ports` too: what they serve cannot be
/// reached any more. Names need the right to look at other processes; else there is none.
pub fn listening(ports: &[u16]) -> BTreeMap<u16, Option<String>> {
    let sockets = ["tcp", "tcp6"].into_iter().flat_map(bound);
    let found: Vec<_> = sockets.filter(|socket| ports.contains(&socket.port)).collect();
    if found.is_empty() {
        return BTreeMap::new();
    }
    let owners = owners();
    let named = |inode| owners.get(&inode).map(|(pid, name)| format!("{name} ({pid})"));
    found.into_iter().map(|socket| (socket.port, named(socket.inode))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_is_named() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let found = listening(&[port]);
        let name = found[&port].as_deref().unwrap();
        assert!(name.ends_with(&format!("({})", std::process::id())), "{name}");
        assert!(listening(&[]).is_empty());
    }
}
