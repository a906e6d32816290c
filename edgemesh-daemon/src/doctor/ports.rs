//! The ports that the agent needs, and who holds them.

use std::collections::HashMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use crate::config::AgentConfig;
use crate::doctor::facts::Facts;
use crate::doctor::processes::pids;
use crate::doctor::report::{Finding, bad, ok, or_ok};

/// The state of a listening TCP socket in `/proc/net/tcp`.
const LISTEN: &str = "0A";

/// A socket at an address that the agent needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// `tcp` or `udp`.
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    /// The key of the configuration that asks for it.
    pub(super) key: &'static str,
    /// The process; `None`: it cannot be told.
    pub(super) process: Option<(u32, String)>,
}

/// Whether each port that the agent needs is the agent's.
pub(super) fn held(facts: &Facts) -> Vec<Finding> {
    let others = facts.ports.iter().filter(|holder| match &holder.process {
        Some((pid, _)) => !facts.agents.iter().any(|agent| agent.pid == *pid),
        None => facts.agent.is_err(),
    });
    let findings = others.map(|holder| {
        let by = holder.process.as_ref().map_or_else(
            || "a process that only root can name".to_owned(),
            |(pid, name)| format!("pid {pid} ({name})"),
        );
        bad(
            format!("port {}/{} ({}) is held by {by}", holder.port, holder.protocol, holder.key),
            format!("stop it, or choose another `{}`", holder.key),
        )
    });
    let findings: Vec<_> = findings.collect();
    match facts.told() {
        None => ok("not looked at: the configuration cannot be read"),
        Some(_) if facts.agent.is_ok() => or_ok(findings, "all held by the agent"),
        Some(_) => or_ok(findings, "free, or held by an agent"),
    }
}

/// Who holds the ports that `config` asks for.
pub(super) fn holders(config: &AgentConfig) -> Vec<Holder> {
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, config.proxy.port));
    let mut wanted = vec![
        ("tcp", own, "proxy.port"),
        ("tcp", config.admin.listen, "admin.listen"),
        ("tcp", config.metrics.listen, "metrics.listen"),
    ];
    for listen in &config.dns.listen {
        wanted.push(("udp", *listen, "dns.listen"));
        wanted.push(("tcp", *listen, "dns.listen"));
    }
    let sockets: Vec<Socket> =
        ["tcp", "tcp6", "udp", "udp6"].into_iter().flat_map(sockets).collect();
    let mut owners = None;
    let mut holders: Vec<Holder> = Vec::new();
    for (protocol, address, key) in wanted {
        let clashes = |socket: &&Socket| socket.protocol == protocol && socket.clashes(address);
        for socket in sockets.iter().filter(clashes) {
            let owners = owners.get_or_insert_with(owners_of_sockets);
            let process = owners.get(&socket.inode).cloned();
            let holder = Holder { protocol, port: address.port(), key, process };
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    holders
}

/// A bound socket.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Socket {
    protocol: &'static str,
    /// The address in the kernel's hexadecimal.
    address: String,
    port: u16,
    inode: u64,
}

impl Socket {
    /// Whether it keeps somebody from listening at `address`.
    fn clashes(&self, address: SocketAddr) -> bool {
        let anywhere = self.address.bytes().all(|digit| digit == b'0');
        let same = match address {
            SocketAddr::V4(v4) => {
                let kernels = format!("{:08X}", u32::from_le_bytes(v4.ip().octets()));
                self.address == kernels
            }
            SocketAddr::V6(_) => self.address.len() == 32 && !anywhere,
        };
        self.port == address.port() && (anywhere || same || address.ip().is_unspecified())
    }
}

fn sockets(file: &str) -> Vec<Socket> {
    let text = fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    let protocol = if file.starts_with("tcp") { "tcp" } else { "udp" };
    text.lines().skip(1).filter_map(|line| socket(protocol, line)).collect()
}

/// A line such as `0: 0100007F:3A99 00000000:0000 0A … uid timeout inode`.
fn socket(protocol: &'static str, line: &str) -> Option<Socket> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    if protocol == "tcp" && *words.get(3)? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Socket { protocol, address: address.into(), port, inode: words.get(9)?.parse().ok()? })
}

/// Which process holds which socket, as far as we may see.
fn owners_of_sockets() -> HashMap<u64, (u32, String)> {
    let mut owners = HashMap::new();
    for pid in pids() {
        let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        for target in files.filter_map(|file| fs::read_link(file.path()).ok()) {
            let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|inode| inode.parse().ok()) {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                owners.insert(inode, (pid, name.trim().to_owned()));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_clash_are_found() {
        let line =
            "0: 0100007F:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1";
        let at = socket("tcp", line).unwrap();
        assert_eq!((at.port, at.inode), (15001, 77));
        assert_eq!(socket("tcp", &line.replace(" 0A ", " 01 ")), None);
        let anywhere = socket("tcp", &line.replace("0100007F", "00000000")).unwrap();
        let cases = [
            ("127.0.0.1:15001", true, true),
            ("127.0.0.1:15002", false, false),
            ("127.0.0.2:15001", false, true),
            ("0.0.0.0:15001", true, true),
        ];
        for (wanted, clash, clash_anywhere) in cases {
            let wanted = wanted.parse().unwrap();
            assert_eq!(at.clashes(wanted), clash, "{wanted}");
            assert_eq!(anywhere.clashes(wanted), clash_anywhere, "{wanted}");
        }
    }
}
