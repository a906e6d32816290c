//! The rules that look at more than one key.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use edgemesh_core::config::DnsIntercept;
use edgemesh_core::config::Intercept;

use crate::config::AgentConfig;
use crate::config::Source;
use crate::config::read::Reader;
use crate::config::sections::MANIFESTS;
use crate::config::sections::family;

/// Fewest bits for hosts in a virtual range: 256 addresses. Below it hashing names to addresses
/// runs into itself with a handful of Services.
const MIN_VIRTUAL_BITS: u8 = 8;

/// Notes every rule that `config` breaks.
pub(crate) fn across(reader: &mut Reader, config: &AgentConfig) {
    unserved(reader, config);
    proxy(reader, config);
    virtual_range(reader, config);
    ports(reader, config);
    let admin = config.admin.listen;
    if !admin.ip().is_loopback() {
        let text = format!("{admin} is not on loopback; the admin API asks nobody who they are");
        reader.problem("admin.listen", text);
    }
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

/// What the file may say and this version does not do: refused here, so that `check` and `agent`
/// agree.
fn unserved(reader: &mut Reader, config: &AgentConfig) {
    let word = match config.source {
        Source::Manifests(_) | Source::None => None,
        Source::Cloud => Some("cloud"),
        Source::Kubernetes { .. } => Some("kubernetes"),
    };
    if let Some(word) = word {
        let text = if reader.is_given("source") {
            format!("this version does not serve {word}; name a folder: {MANIFESTS}")
        } else {
            format!("is missing; name a folder: {MANIFESTS}")
        };
        reader.problem("source", text);
    }
    if config.cloud.is_some() {
        reader.problem("cloud", "this version has no Links yet; leave the section out");
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
fn ports(reader: &mut Reader, config: &AgentConfig) {
    let listeners = listeners(config);
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
