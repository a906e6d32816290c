//! The ports that a configuration asks for, and who holds them on this machine.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use crate::config::{AgentConfig, CloudConfig};
use crate::proc_net::{Socket, bound, owners};

/// Who else usually listens where we may.
const NEIGHBOURS: &[(u16, &str)] = &[
    (53, "a name server, or EdgeMesh of the Go version"),
    (9060, "the ServiceBus of KubeEdge's edgecore"),
    (9443, "the router of KubeEdge's cloudcore"),
    (10000, "the CloudHub of KubeEdge's cloudcore"),
    (10550, "the MetaServer of KubeEdge's edgecore"),
];

/// Protocol, address, key of the configuration.
pub(crate) type Wanted = (&'static str, SocketAddr, &'static str);

/// A socket at an address that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    /// `tcp` or `udp`.
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
    /// The key of the configuration that asks for it.
    pub(crate) key: &'static str,
    /// The process; `None`: it cannot be told.
    pub(crate) process: Option<(u32, String)>,
}

/// What an agent asks for.
pub(crate) fn of_agent(config: &AgentConfig) -> Vec<Wanted> {
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
    wanted
}

/// What a cloud asks for.
pub(crate) fn of_cloud(config: &CloudConfig) -> Vec<Wanted> {
    vec![
        ("tcp", config.hub.listen, "hub.listen"),
        ("tcp", config.router.listen, "router.listen"),
        ("tcp", config.admin.listen, "admin.listen"),
    ]
}

impl Holder {
    /// Whether it is a program of ours, which will make room or is what was asked for.
    pub(crate) fn is_ours(&self) -> bool {
        self.process.as_ref().is_some_and(|(_, name)| name == "edgemesh")
    }

    /// Who listens there where it is found beside us.
    fn neighbour(&self) -> Option<&'static str> {
        NEIGHBOURS.iter().find(|(port, _)| *port == self.port).map(|(_, who)| *who)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, port, key, process } = self;
        write!(f, "port {port}/{protocol} ({key}) is held by ")?;
        match process {
            Some((pid, name)) => write!(f, "pid {pid} ({name})")?,
            None => f.write_str("a process that only root can name, be it an agent")?,
        }
        match self.neighbour() {
            Some(who) => write!(f, "; there usually listens {who}"),
            None => Ok(()),
        }
    }
}

/// Who holds what is `wanted`.
pub(crate) fn holders(wanted: &[Wanted]) -> Vec<Holder> {
    let sockets: Vec<Socket> = ["tcp", "tcp6", "udp", "udp6"].into_iter().flat_map(bound).collect();
    let mut known = None;
    let mut holders: Vec<Holder> = Vec::new();
    for (protocol, address, key) in wanted.iter().copied() {
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
        SocketAddr::V6(v6) => {
            let word = |part: &[u8]| u32::from_le_bytes([part[0], part[1], part[2], part[3]]);
            let parts = v6.ip().octets();
            let kernels = parts.chunks_exact(4).map(|part| format!("{:08X}", word(part)));
            socket.address == kernels.collect::<String>()
        }
    };
    socket.port == address.port() && (anywhere || same || address.ip().is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_ipv6_are_compared() {
        // `::1` as the kernel writes it.
        let address = "00000000000000000000000001000000".to_owned();
        let loopback = Socket { protocol: "tcp", address, port: 53, inode: 7 };
        for (wanted, clash) in [("[::1]:53", true), ("[fd00::16]:53", false), ("[::]:53", true)] {
            assert_eq!(clashes(&loopback, wanted.parse().unwrap()), clash, "{wanted}");
        }
    }

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
