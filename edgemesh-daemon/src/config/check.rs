//! The rules that look at more than one key.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use edgemesh_core::config::DnsIntercept;
use edgemesh_core::config::Intercept;
use edgemesh_core::identity::check_node_name;

use crate::config::AgentConfig;
use crate::config::PeerPath;
use crate::config::Source;
use crate::config::read::Reader;
use crate::config::sections::family;

/// Fewest bits for hosts in a virtual range: 256 addresses. Below it hashing names to addresses
/// runs into itself with a handful of Services.
const MIN_VIRTUAL_BITS: u8 = 8;

/// Notes every rule that `config` breaks.
pub(crate) fn across(reader: &mut Reader, config: &AgentConfig) {
    cloud(reader, config);
    proxy(reader, config);
    virtual_range(reader, config);
    ports(reader, &listeners(config));
    admin(reader, config.admin.listen);
    router(reader, config);
    let captures = config.proxy.intercept == Intercept::Iptables;
    if config.dns.intercept == DnsIntercept::On && !captures {
        let text = format!(
            "on needs proxy.intercept: iptables, which is none ({})",
            reader.place("proxy.intercept")
        );
        reader.problem("dns.intercept", text);
    }
    if config.dns.intercept == DnsIntercept::On && config.dns.listen.is_empty() {
        reader.problem("dns.intercept", "on needs an address in dns.listen");
    }
}

/// What needs a cloud says so, and what the cloud is called nobody else is.
fn cloud(reader: &mut Reader, config: &AgentConfig) {
    if config.cloud.is_some() {
        // Nor can a name be too long for its certificate.
        let wrong = check_node_name(&config.node).err().filter(|_| !config.node.is_empty());
        if let Some(why) = wrong {
            reader.problem("node", format!("no node with a cloud can be called so: {why}"));
        }
        return;
    }
    let needs = |word: &str| {
        format!("{word} needs to know where the cloud is: `cloud: {{ servers: [HOST:PORT] }}`")
    };
    if config.source == Source::Cloud {
        reader.problem("source", needs("cloud"));
    }
    if config.peer.path == PeerPath::Hub {
        reader.problem("peer.path", needs("hub"));
    }
}

/// The admin API is for this machine alone.
pub(crate) fn admin(reader: &mut Reader, listen: SocketAddr) {
    if !listen.ip().is_loopback() {
        let text = format!("{listen} is not on loopback; the admin API asks nobody who they are");
        reader.problem("admin.listen", text);
    }
}

/// The ServiceBus is for this node's applications alone; and who has a password has a name.
fn router(reader: &mut Reader, config: &AgentConfig) {
    let listen = config.service_bus.listen;
    if !listen.ip().is_loopback() {
        let text = format!("{listen} is not on loopback; the ServiceBus asks nobody who they are");
        reader.problem("serviceBus.listen", text);
    }
    if config.event_bus.password_file.is_some() && config.event_bus.username.is_none() {
        reader.problem("eventBus.passwordFile", "needs eventBus.username beside it");
    }
}

fn proxy(reader: &mut Reader, config: &AgentConfig) {
    let proxy = &config.proxy;
    one_a_family(reader, "proxy.address", proxy.address.iter().copied());
    for address in &proxy.address {
        if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            let text = format!("{address} cannot be an address of the mesh's own device");
            reader.problem("proxy.address", text);
        }
        if let Some(range) = config.dns.virtual_range.iter().find(|range| range.contains(address)) {
            let place = reader.place("dns.virtualRange");
            let text = format!("{address} lies in dns.virtualRange {range} ({place})");
            reader.problem("proxy.address", text);
        }
    }
    if proxy.intercept == Intercept::Iptables && proxy.mark == 0 {
        let text = "0 marks nothing, so the mesh would capture itself; \
                    name another, or set proxy.intercept: none";
        reader.problem("proxy.mark", text);
    }
}

fn virtual_range(reader: &mut Reader, config: &AgentConfig) {
    let ranges = &config.dns.virtual_range;
    const KEY: &str = "dns.virtualRange";
    one_a_family(reader, KEY, ranges.iter().map(ipnet::IpNet::addr));
    if ranges.is_empty() {
        reader.problem(KEY, "is empty; headless Services need addresses from it");
    }
    for range in ranges {
        if range.max_prefix_len() - range.prefix_len() < MIN_VIRTUAL_BITS {
            let text = format!(
                "{range} is too small: a /{} or larger",
                range.max_prefix_len() - MIN_VIRTUAL_BITS
            );
            reader.problem(KEY, text);
        }
    }
}

fn one_a_family(reader: &mut Reader, key: &str, addresses: impl Iterator<Item = IpAddr>) {
    let (v4, v6): (Vec<_>, Vec<_>) = addresses.partition(IpAddr::is_ipv4);
    for same in [v4, v6] {
        if let [first, second, ..] = same[..] {
            let text = format!("at most one of {}, found {first} and {second}", family(first));
            reader.problem(key, text);
        }
    }
}

/// No two listeners on one address and port. Port 0 lets the kernel choose and clashes with none.
pub(crate) fn ports(reader: &mut Reader, listeners: &[(&'static str, SocketAddr)]) {
    for (index, (key, address)) in listeners.iter().enumerate() {
        let rival = listeners[..index].iter().find(|(other, have)| {
            (other != key || *other == "dns.listen") && overlap(*have, *address)
        });
        if let Some((other, have)) = rival {
            let place = reader.place(other);
            let text = format!("{address} is taken by {other}, {have} ({place})");
            reader.problem(key, text);
        }
    }
}

fn listeners(config: &AgentConfig) -> Vec<(&'static str, SocketAddr)> {
    let mut listeners = vec![
        ("admin.listen", config.admin.listen),
        ("metrics.listen", config.metrics.listen),
        ("peer.listen", config.peer.listen),
        ("serviceBus.listen", config.service_bus.listen),
        ("proxy.port", SocketAddr::from((Ipv4Addr::LOCALHOST, config.proxy.port))),
        ("proxy.port", SocketAddr::from((Ipv6Addr::LOCALHOST, config.proxy.port))),
    ];
    for address in &config.proxy.address {
        listeners.push(("proxy.port", SocketAddr::new(*address, config.proxy.port)));
    }
    for address in &config.dns.listen {
        listeners.push(("dns.listen", *address));
    }
    listeners
}

/// Whether one kernel would refuse both: `[::]` takes IPv4 too unless told otherwise.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let takes = |a: IpAddr, b: IpAddr| match a {
        IpAddr::V4(any) => any.is_unspecified() && b.is_ipv4(),
        IpAddr::V6(any) => any.is_unspecified(),
    };
    let (ip, other) = (a.ip(), b.ip());
    a.port() != 0 && a.port() == b.port() && (ip == other || takes(ip, other) || takes(other, ip))
}
