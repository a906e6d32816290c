//! What a call without a TCP port of a Service met: a port of UDP, or a Service with other ports.

use edgemesh_core::plan::Target;
use edgemesh_core::snapshot::{Port, Service, Snapshot, split_name};
use edgemesh_proto::record::Transport;

use crate::api;

/// The port of UDP that is meant, as a step; the kernel carries it.
pub(super) fn datagrams(to: Target<'_>, snapshot: &Snapshot) -> Option<api::Step> {
    let (service, number) = (owner(to, snapshot)?, number(to));
    let meant = |p: &&Port| {
        p.transport == Transport::Udp && number.map_or(service.ports.len() == 1, |n| p.port == n)
    };
    let port = service.ports.iter().find(meant)?;
    let [v4, v6] = &port.pools;
    let mut backends: Vec<_> =
        v4.backends.iter().chain(&v6.backends).map(|b| b.address.to_string()).collect();
    backends.sort_unstable();
    backends.dedup();
    let backends = if backends.is_empty() { "none".into() } else { backends.join(", ") };
    Some(api::Step {
        step: "resolve".into(),
        what: format!("Service {}, port {} is UDP; Backends: {backends}", service.name, port.port),
        why: "the kernel's rules carry datagrams; edgemesh never sees them".into(),
    })
}

/// The Service that was found and has no such port, with those that it has.
pub(super) fn ports(to: Target<'_>, snapshot: &Snapshot) -> Option<api::Step> {
    let service = owner(to, snapshot)?;
    let there: Vec<_> = service.ports.iter().map(written).collect();
    let there = if there.is_empty() { "none".into() } else { there.join(", ") };
    let which = match number(to) {
        Some(port) => format!("has no port {port}; it has {there}"),
        None => format!("has several ports, name one: {there}"),
    };
    let what = match to {
        Target::Address(_) => format!("the address is Service {}'s, which {which}", service.name),
        Target::Name { .. } | Target::Service { .. } | Target::Rule { .. } => {
            format!("Service {} {which}", service.name)
        }
    };
    Some(api::Step { step: "resolve".into(), what, why: String::new() })
}

/// The Service with that name or address.
pub(super) fn owner<'s>(to: Target<'_>, snapshot: &'s Snapshot) -> Option<&'s Service> {
    match to {
        Target::Address(address) => snapshot.owner(address.ip().to_canonical()).map(AsRef::as_ref),
        Target::Name { host, domain, .. } => {
            let (namespace, name) = split_name(host, domain)?;
            let (namespace, name) = (namespace.to_ascii_lowercase(), name.to_ascii_lowercase());
            snapshot.by_name(&namespace, &name).map(AsRef::as_ref)
        }
        Target::Service { service, .. } => {
            snapshot.by_name(&service.namespace, &service.name).map(AsRef::as_ref)
        }
        Target::Rule { .. } => None,
    }
}

fn number(to: Target<'_>) -> Option<u16> {
    match to {
        Target::Address(address) => Some(address.port()),
        Target::Name { port, .. } => port,
        Target::Service { port, .. } => Some(port),
        Target::Rule { .. } => None,
    }
}

fn written(port: &Port) -> String {
    match port.transport {
        Transport::Tcp => port.port.to_string(),
        Transport::Udp => format!("{}/UDP", port.port),
        Transport::Sctp => format!("{}/SCTP", port.port),
    }
}
