//! Where mesh names are looked up: the questions that an answer needs, and the Snapshot's replies.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edgemesh_proto::record::Transport;

use crate::snapshot::{Host, Port, Service, Snapshot};

/// Where mesh names are looked up; in an agent, the Snapshot of the moment ([`Live`]).
///
/// A closure `Fn(namespace, name) -> Option<Vec<IpAddr>>` is one that knows addresses of Services
/// only. Names arrive in lower case.
pub trait Names: Send + Sync {
    /// What a Service's name stands for; `None` when there is no such Service.
    fn service(&self, namespace: &str, name: &str) -> Option<Named>;

    /// Addresses of one host of a Service; `None` when there is no such host.
    fn host(&self, _namespace: &str, _service: &str, _host: &str) -> Option<Vec<IpAddr>> {
        None
    }

    /// Where a named port (`_http._tcp`, both without `_`) of a Service is served; `None` when
    /// there is no such port.
    fn port(&self, _namespace: &str, _service: &str, _wanted: PortName<'_>) -> Option<Vec<Place>> {
        None
    }

    /// Who has an address; empty: nobody of the mesh.
    fn owners(&self, _address: IpAddr) -> Vec<OwnName> {
        Vec::new()
    }
}

/// What a Service's name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// Addresses of both families, which may be none.
    Addresses(Vec<IpAddr>),
    /// Another name, without a final dot.
    Alias(Box<str>),
}

/// Name and transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortName<'a> {
    /// Such as `http`.
    pub name: &'a str,
    /// `tcp`, `udp` or `sctp`.
    pub transport: &'a str,
}

/// Where a port of a Service is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The Service, or one host of it.
    pub owner: OwnName,
    /// The port there.
    pub port: u16,
    /// Addresses of both families.
    pub addresses: Vec<IpAddr>,
}

/// The name of a Service, or of one host of it, without the domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnName {
    /// `None` = the Service itself.
    pub host: Option<Box<str>>,
    /// The Service.
    pub service: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
}

impl<F: Fn(&str, &str) -> Option<Vec<IpAddr>> + Send + Sync> Names for F {
    fn service(&self, namespace: &str, name: &str) -> Option<Named> {
        self(namespace, name).map(Named::Addresses)
    }
}

/// The Snapshot of the moment.
#[derive(Clone, Debug)]
pub struct Live(pub Arc<ArcSwap<Snapshot>>);

impl Names for Live {
    fn service(&self, namespace: &str, name: &str) -> Option<Named> {
        let snapshot = self.0.load();
        let service = snapshot.by_name(namespace, name)?;
        Some(match &service.external_name {
            Some(other) => Named::Alias(other.clone()),
            None => Named::Addresses(service.addresses.clone()),
        })
    }

    fn host(&self, namespace: &str, service: &str, host: &str) -> Option<Vec<IpAddr>> {
        let snapshot = self.0.load();
        let service = snapshot.by_name(namespace, service)?;
        Some(service.hosts[service.host(host)?].addresses.clone())
    }

    fn port(&self, namespace: &str, service: &str, wanted: PortName<'_>) -> Option<Vec<Place>> {
        let snapshot = self.0.load();
        let service = snapshot.by_name(namespace, service)?;
        let fits = |port: &&Port| {
            *port.name == *wanted.name && transport(port.transport) == wanted.transport
        };
        let port = service.ports.iter().find(fits)?;
        let place = |host: Option<&Host>, addresses: &[IpAddr]| Place {
            owner: own_name(service, host),
            port: port.port,
            addresses: addresses.to_vec(),
        };
        // Hosts are told only where a headless Service leaves the choice to its client, and only
        // those that have a Backend.
        let serving = service.hosts.iter().zip(&port.hosts);
        let hosts: Vec<Place> = serving
            .filter(|(_, pools)| service.is_virtual && !pools[0].backends.is_empty())
            .map(|(host, _)| place(Some(host), &host.addresses))
            .collect();
        Some(if hosts.is_empty() { vec![place(None, &service.addresses)] } else { hosts })
    }

    fn owners(&self, address: IpAddr) -> Vec<OwnName> {
        let snapshot = self.0.load();
        let named = snapshot.named(address);
        named.into_iter().map(|(service, host)| own_name(service, host)).collect()
    }
}

fn own_name(service: &Service, host: Option<&Host>) -> OwnName {
    OwnName {
        host: host.map(|host| host.name.clone()),
        service: service.name.name.clone(),
        namespace: service.name.namespace.clone(),
    }
}

const fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Sctp => "sctp",
    }
}
