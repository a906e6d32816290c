//! The ports that the agent needs, and who holds them.

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::AgentConfig;
use crate::doctor::facts::Facts;
use crate::doctor::report::{Finding, bad, ok, or_ok};
use crate::proc_net::{Socket, bound, owners};

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
    if config.cloud.is_some() {
        wanted.push(("tcp", config.peer.listen, "peer.listen"));
    }
    for listen in &config.dns.listen {
        wanted.push(("udp", *listen, "dns.listen"));
        wanted.push(("tcp", *listen, "dns.listen"));
    }
    let sockets: Vec<Socket> = ["tcp", "tcp6", "udp", "udp6"].into_iter().flat_map(bound).collect();
    let mut known = None;
    let mut holders: Vec<Holder> = Vec::new();
    for (protocol, address, key) in wanted {
        let held = |socket: &&Socket| socket.protocol == protocol && clashes(socket, address);
        for socket in sockets.iter().filter(held) {
            let process = known.get_or_insert_with(owners).get(&socket.inode).cloned();
            let holder = Holder { protocol, port: address.port(), key, process };
            if !holders.contains(&holder) {
                holders.push(holder);
            }
        }
    }
    holders
}

/// Whether `socket` keeps somebody from listening at `address`.
fn clashes(socket: &Socket, address: SocketAddr) -> bool {
    let anywhere = socket.address.bytes().all(|digit| digit == b'0');
    let same = match address {
        SocketAddr::V4(v4) => {
            let kernels = format!("{:08X}", u32::from_le_bytes(v4.ip().octets()));
            socket.address == kernels
        }
        SocketAddr::V6(_) => socket.address.len() == 32 && !anywhere,
    };
    socket.port == address.port() && (anywhere || same || address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_clash_are_found() {
        let at = |address: &str| Socket {
            protocol: "tcp",
            address: address.into(),
            port: 15001,
            inode: 77,
        };
        let (loopback, anywhere) = (at("0100007F"), at("00000000"));
        let cases = [
            ("127.0.0.1:15001", true, true),
            ("127.0.0.1:15002", false, false),
            ("127.0.0.2:15001", false, true),
            ("0.0.0.0:15001", true, true),
        ];
        for (wanted, clash, clash_anywhere) in cases {
            let wanted = wanted.parse().unwrap();
            assert_eq!(clashes(&loopback, wanted), clash, "{wanted}");
            assert_eq!(clashes(&anywhere, wanted), clash_anywhere, "{wanted}");
        }
    }
}
