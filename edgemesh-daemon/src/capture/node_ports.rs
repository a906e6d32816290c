//! NodePorts and external IPs (`proxy.nodePorts`): captured from everywhere, since that is what
//! they are for, and compared with the programs that listen on the same ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::capture::rules::{Input, PORTS_A_RULE, Text};
use crate::capture::udp;

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
    let mut found = BTreeMap::new();
    for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        // A kernel without IPv6 has no such file.
        let table = fs::read_to_string(file).unwrap_or_default();
        found.extend(table.lines().filter_map(listener).filter(|(port, _)| ports.contains(port)));
    }
    if found.is_empty() {
        return BTreeMap::new();
    }
    let mut names = holders(&found.values().cloned().collect());
    found.into_iter().map(|(port, inode)| (port, names.remove(&inode))).collect()
}

/// Port and inode of a line of `/proc/net/tcp`, if it is a listener.
fn listener(line: &str) -> Option<(u16, String)> {
    const LISTEN: &str = "0A";
    let words: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
    let (_, port) = local.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (*state == LISTEN).then(|| (port, (*inode).to_owned()))
}

/// The programs that hold these sockets, by inode.
fn holders(inodes: &BTreeSet<String>) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten() {
            let Ok(link) = fs::read_link(file.path()) else { continue };
            let link = link.to_string_lossy();
            let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            let Some(inode) = inode.filter(|inode| inodes.contains(*inode)) else { continue };
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let id = process.file_name();
            names.insert(inode.to_owned(), format!("{} ({})", name.trim(), id.display()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_told_from_connections() {
        let row = |state: &str| {
            format!("  0: 0100007F:7530 00000000:0000 {state} 00000000:00000000 00:0 0 0 0 4711 1")
        };
        assert_eq!(listener(&row("0A")), Some((30000, "4711".into())));
        assert_eq!(listener(&row("01")), None);
        assert_eq!(listener("  sl  local_address rem_address   st tx_queue"), None);
        assert_eq!(listener(""), None);
    }

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
