//! What of the records the kernel is told beyond captured ranges: NodePorts, external IPs, UDP.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use edgemesh_core::snapshot::{Port, Service, Snapshot};
use edgemesh_proto::record::Transport;
use ipnet::IpNet;

use crate::capture::covers;
use crate::capture::node_ports::{MAX_EXTERNAL, NodePorts};
use crate::capture::udp::{UdpAt, UdpPort, bounded, same_family};

/// What limits it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'c> {
    /// Captured destinations.
    pub(super) include: &'c [IpNet],
    /// Destination ports that are never captured.
    pub(super) exclude_ports: &'c [u16],
    /// Whether NodePorts and external IPs are captured.
    pub(super) node_ports: bool,
    /// Ports of our own listeners, which would be loops, or would be hidden.
    pub(super) own: &'c [(Transport, u16)],
}

/// What the kernel is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outside {
    pub(super) node_ports: NodePorts,
    pub(super) udp: Vec<UdpPort>,
    /// For `status`.
    pub(super) counts: Counts,
    /// What could not be had, one line each.
    pub(super) notes: Vec<String>,
}

/// UDP in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Service ports that are served.
    pub(super) ports: u64,
    /// Of their Backends, those on other nodes, or nobody said where.
    pub(super) elsewhere: u64,
}

impl Bounds<'_> {
    /// Whether the NodePort `number` of `port` may be captured.
    fn spare(&self, port: &Port, number: u16) -> bool {
        !self.exclude_ports.contains(&number) && !self.own.contains(&(port.transport, number))
    }
}

impl Outside {
    pub(super) fn of(snapshot: &Snapshot, bounds: Bounds<'_>) -> Self {
        let mut outside = Self::default();
        let mut all = Vec::new();
        for service in snapshot.services() {
            for port in &service.ports {
                match port.transport {
                    Transport::Tcp if bounds.node_ports => outside.tcp(service, port, bounds),
                    Transport::Tcp | Transport::Sctp => {}
                    Transport::Udp => {
                        let before = all.len();
                        udp(service, port, bounds, &mut all);
                        if all.len() > before {
                            outside.counts.ports += 1;
                            outside.counts.elsewhere += elsewhere(&all[before..], port);
                        }
                    }
                }
            }
        }
        if bounds.node_ports {
            outside.notes.extend(snapshot.services().iter().flat_map(|s| refused(s, bounds)));
        }
        outside.node_ports.ports.sort_unstable();
        outside.node_ports.external.sort_unstable();
        let (kept, left_out) = bounded(all);
        outside.udp = kept;
        if left_out > 0 {
            outside
                .notes
                .push(format!("UDP: {left_out} addresses are not served, too many Backends"));
        }
        outside.bound_external();
        outside
    }

    fn tcp(&mut self, service: &Service, port: &Port, bounds: Bounds<'_>) {
        self.node_ports.ports.extend(port.node_port.filter(|number| bounds.spare(port, *number)));
        if !bounds.exclude_ports.contains(&port.port) {
            let at = service.external_ips.iter().map(|ip| SocketAddr::new(*ip, port.port));
            self.node_ports.external.extend(at);
        }
    }

    fn bound_external(&mut self) {
        let external = &mut self.node_ports.external;
        let count = external.len();
        if count > MAX_EXTERNAL {
            external.truncate(MAX_EXTERNAL);
            let most =
                format!("external IPs: {count} with their ports, the first {MAX_EXTERNAL} count");
            self.notes.push(most);
        }
    }
}

/// NodePorts that are ours, one line each.
fn refused(service: &Service, bounds: Bounds<'_>) -> impl Iterator<Item = String> {
    let ports = service.ports.iter().filter_map(|port| Some((port.transport, port.node_port?)));
    let ours = ports.filter(move |port| bounds.own.contains(port));
    let name = &service.name;
    ours.map(move |(_, number)| format!("NodePort {number} of {name} is a port of the agent's own"))
}

/// Where clients of a UDP port send to, each with the Backends that they may get.
fn udp(service: &Service, port: &Port, bounds: Bounds<'_>, all: &mut Vec<UdpPort>) {
    if bounds.exclude_ports.contains(&port.port) {
        return;
    }
    let mut add = |at: UdpAt, host: Option<usize>, v4: bool| {
        let backends = nearest(service, port, host, v4);
        if !backends.is_empty() {
            all.push(UdpPort { at, backends });
        }
    };
    let own = service.addresses.iter().map(|address| (*address, None));
    let hosts = service.hosts.iter().enumerate();
    let hosts = hosts.flat_map(|(at, host)| host.addresses.iter().map(move |a| (*a, Some(at))));
    for (address, host) in own.chain(hosts).filter(|(a, _)| covers(bounds.include, *a)) {
        add(UdpAt::Service(SocketAddr::new(address, port.port)), host, address.is_ipv4());
    }
    if !bounds.node_ports {
        return;
    }
    for address in &service.external_ips {
        add(UdpAt::External(SocketAddr::new(*address, port.port)), None, address.is_ipv4());
    }
    if let Some(number) = port.node_port.filter(|number| bounds.spare(port, *number)) {
        for v4 in [true, false] {
            add(UdpAt::Node { port: number, v4 }, None, v4);
        }
    }
}

/// The Backends of the first tier that has any, as the Policy's locality has it.
fn nearest(service: &Service, port: &Port, host: Option<usize>, v4: bool) -> Vec<SocketAddr> {
    let pools = host.map_or(&port.pools, |host| &port.hosts[host]);
    let pool = &pools[usize::from(!v4)];
    let Some(tier) = pool.groups(service.policy.locality).next() else { return Vec::new() };
    let like: IpAddr = if v4 { [0; 4].into() } else { [0u16; 8].into() };
    let addresses = tier.backends.iter().map(|backend| backend.address);
    addresses.filter(|backend| same_family(like, backend)).collect()
}

/// Backends in `used` that do not run on this node.
fn elsewhere(used: &[UdpPort], port: &Port) -> u64 {
    use edgemesh_core::snapshot::Tier;
    let used: BTreeSet<&SocketAddr> = used.iter().flat_map(|port| &port.backends).collect();
    let all = port.pools.iter().flat_map(|pool| &pool.backends);
    let far = all.filter(|b| b.tier != Tier::Node && used.contains(&b.address));
    far.map(|b| b.address).collect::<BTreeSet<_>>().len() as u64
}
