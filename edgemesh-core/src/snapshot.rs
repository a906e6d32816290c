//! The Snapshot: an immutable index over one revision of the records, read by every decision.
//!
//! [`Builder`] keeps the records and makes the next Snapshot from a change; what did not change
//! is shared with the one before, live state always is.

mod backend;
mod builder;
mod callers;
mod describe;
mod group;
mod index;
mod pool;
mod routes;
pub mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_proto::record::{
    AllowedCaller, BalancePolicy, BreakerPolicy, ConnectionCaps, HashKey, HealthCheck, Locality,
    Node, PolicyOrigin, RetryPolicy, Revocation, ServiceName, Transport,
};

use crate::backends::{NodeLive, PortLive, ServiceLive};
use crate::limit::Limiter;
use crate::snapshot::index::{Index, Place};
use crate::sniff::Declared;

pub use backend::{Backend, Reach, Spot, Tier};
pub use builder::{Builder, Change, ListedPolicy};
pub use callers::{Callers, Who};
pub use group::Group;
pub use pool::Pool;
pub use routes::{
    Candidate, Edits, Entry as RouteEntry, Fields, Match, PortRoutes, Rule, Share, Split, pattern,
};
pub use rules::Rules;

/// Name of every Slice that was made on this node, from what runs here, begins so.
pub const LOCAL_SLICES: &str = "edgemesh-local.";
/// Name of every Slice that a node offers to others begins so; the node's name and a dot follow.
pub const NODE_SLICES: &str = "edgemesh-node.";

/// Index over one revision.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Identity of the registry that counted the revision.
    pub epoch: [u8; 16],
    /// Revision of the records.
    pub revision: u64,
    /// Grows with each Snapshot that this process makes, whatever the registry counts.
    pub serial: u64,
    /// Every Policy, for whoever lists them.
    pub policies: Arc<[ListedPolicy]>,
    /// The Node records, for whoever lists them.
    pub nodes: Arc<BTreeMap<Box<str>, Node>>,
    /// Live state of the nodes that Links lead to, by name.
    pub lives: Arc<BTreeMap<Box<str>, Arc<NodeLive>>>,
    /// Nodes whose identity no longer counts, by name.
    pub revocations: Arc<BTreeMap<Box<str>, Revocation>>,
    /// Every Route, by name.
    pub routes: Arc<[Arc<RouteEntry>]>,
    /// Rules and Endpoints.
    pub rules: Arc<Rules>,
    /// Who is behind an address.
    pub callers: Arc<Callers>,
    index: Arc<Index>,
    /// By slot, sorted by name.
    services: Vec<Arc<Service>>,
}

/// One Service, ready to be decided on.
#[derive(Debug)]
pub struct Service {
    /// Namespace and name.
    pub name: ServiceName,
    /// Cluster IPs, else virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// The addresses are ours: nobody else answers there.
    pub is_virtual: bool,
    /// Addresses of other machines that lead here where `proxy.nodePorts` is on.
    pub external_ips: Box<[IpAddr]>,
    /// The DNS name that the Service stands for; it has no addresses then.
    pub external_name: Option<Box<str>>,
    /// Connections to Backends begin with a PROXY protocol header, so each client has its own.
    pub proxy_protocol: bool,
    /// Backends with a name and addresses of their own, sorted by name.
    pub hosts: Box<[Host]>,
    /// In the order of the manifest.
    pub ports: Vec<Port>,
    /// Where the Backends were taken from.
    pub source: Source,
    /// How calls are treated.
    pub policy: Active,
    /// Session affinity by the caller's address: how long after its last call.
    pub affinity: Option<Duration>,
    /// Live state of the Service.
    pub live: Arc<ServiceLive>,
}

/// A Backend with a name of its own: `hostname.service.namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As its Slice calls it.
    pub name: Box<str>,
    /// Virtual addresses that lead to it alone.
    pub addresses: Vec<IpAddr>,
}

/// Where the Backends of a Service were taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Slices.
    Slices,
    /// Ready Workloads that its selector matches, since no Slice exists.
    Workloads,
    /// Nowhere: no Slice, and no selector or nobody that it matches.
    Nothing,
}

/// One port of a Service.
#[derive(Debug)]
pub struct Port {
    /// Empty for an unnamed one.
    pub name: Box<str>,
    /// The port that clients dial.
    pub port: u16,
    /// TCP is carried; others are listed only.
    pub transport: Transport,
    /// The same, at each address of a node, where `proxy.nodePorts` is on.
    pub node_port: Option<u16>,
    /// What the manifest says about the protocol.
    pub declared: Declared,
    /// Backends for clients of IPv4 and of IPv6 addresses; the same pool where one family has
    /// none of its own.
    pub pools: [Arc<Pool>; 2],
    /// The same for each of the Service's `hosts` alone.
    pub hosts: Box<[[Arc<Pool>; 2]]>,
    /// What becomes of its requests; `None` = the Service takes them all.
    pub routes: Option<Arc<PortRoutes>>,
    /// Live state of the port.
    pub live: Arc<PortLive>,
}

/// A Policy in force, or the defaults.
#[derive(Debug)]
pub struct Active {
    /// Name of the Policy record; `None` = defaults.
    pub name: Option<Box<str>>,
    /// The kind of object it was made from.
    pub origin: PolicyOrigin,
    /// Load-balancing policy.
    pub balance: BalancePolicy,
    /// What is hashed, where it balances by hash.
    pub hash_key: HashKey,
    /// Which Backends come first.
    pub locality: Locality,
    /// Limit on the caller's side.
    pub client: Option<Arc<Limiter>>,
    /// Limit on the Backend's side.
    pub server: Option<Arc<Limiter>>,
    /// When to leave a Backend alone.
    pub breaker: Option<BreakerPolicy>,
    /// Longest TCP connect.
    pub connect_timeout: Duration,
    /// Longest request; `None` = no bound.
    pub request_timeout: Option<Duration>,
    /// What is tried again.
    pub retries: RetryPolicy,
    /// Who may call; `None` = everyone.
    pub allow: Option<Box<[AllowedCaller]>>,
    /// How much may be under way at once.
    pub connections: Option<ConnectionCaps>,
    /// A connection of bytes on which nothing is said for so long is closed.
    pub idle_timeout: Option<Duration>,
    /// How Backends are asked whether they are well.
    pub health_check: Option<HealthCheck>,
}

/// A Service port that an address or a name stands for.
#[derive(Clone, Copy, Debug)]
pub struct Found<'s> {
    /// The Service.
    pub service: &'s Arc<Service>,
    /// Index of the port in it.
    pub port: usize,
    /// Index of the one host that is meant; `None` = any Backend.
    pub host: Option<usize>,
}

impl Snapshot {
    /// The Service port behind an address, TCP.
    pub fn by_address(&self, address: IpAddr, port: u16) -> Option<Found<'_>> {
        self.index.by_address.get(&(address, port)).map(|place| self.found(*place))
    }

    /// The Service port behind a port of every node, TCP.
    pub fn by_node_port(&self, port: u16) -> Option<Found<'_>> {
        self.index.by_node_port.get(&port).map(|place| self.found(*place))
    }

    fn found(&self, place: Place) -> Found<'_> {
        Found {
            service: &self.services[place.service as usize],
            port: place.port as usize,
            host: place.host.map(|host| host as usize),
        }
    }

    /// The Service that owns an address, whatever the port.
    pub fn owner(&self, address: IpAddr) -> Option<&Arc<Service>> {
        self.index.owners.get(&address).map(|owner| &self.services[owner.service as usize])
    }

    /// Whether an address was given out by the mesh: nobody else answers there.
    pub fn is_virtual(&self, address: IpAddr) -> bool {
        let owner = self.index.owners.get(&address);
        owner.is_some_and(|o| o.host.is_some() || self.services[o.service as usize].is_virtual)
    }

    /// What has this address: Services, and their hosts by virtual or Backend address. Looks at
    /// every host there is: for questions that are rare.
    pub fn named(&self, address: IpAddr) -> Vec<(&Arc<Service>, Option<&Host>)> {
        if let Some(owner) = self.index.owners.get(&address) {
            let service = &self.services[owner.service as usize];
            return vec![(service, owner.host.map(|host| &service.hosts[host as usize]))];
        }
        let mut found = Vec::new();
        for service in &self.services {
            let at = |host: &usize| {
                let pools = service.ports.iter().flat_map(|port| &port.hosts[*host]);
                pools.flat_map(|pool| &pool.backends).any(|b| b.address.ip() == address)
            };
            let hosts = (0..service.hosts.len()).filter(at);
            found.extend(hosts.map(|host| (service, Some(&service.hosts[host]))));
        }
        found
    }

    /// The Service of that name, lower case.
    pub fn by_name(&self, namespace: &str, name: &str) -> Option<&Arc<Service>> {
        let slot = self.index.by_name.get(namespace)?.get(name)?;
        Some(&self.services[*slot as usize])
    }

    /// Namespace of whoever calls from `address`; only where a Route asks for it.
    pub fn namespace_of(&self, address: IpAddr) -> Option<&str> {
        self.callers.who(Some(address))?.namespace.as_deref()
    }

    /// All Services, sorted by name.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }
}

impl Service {
    /// The TCP port of that number.
    pub fn port(&self, number: u16) -> Option<usize> {
        self.ports.iter().position(|p| p.port == number && p.transport == Transport::Tcp)
    }

    /// Index of the host of that name, in any case of letters.
    pub fn host(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.name.eq_ignore_ascii_case(name))
    }
}

impl<'s> Found<'s> {
    /// The port.
    pub fn port(&self) -> &'s Port {
        &self.service.ports[self.port]
    }

    /// The pool for clients of addresses of `like`'s family.
    pub fn pool(&self, like: Option<IpAddr>) -> &'s Arc<Pool> {
        let port = self.port();
        match self.host {
            None => port.pool(like),
            Some(host) => &port.hosts[host][family(like)],
        }
    }
}

impl Port {
    /// The Backends of both families, each once.
    pub fn backends(&self) -> impl Iterator<Item = &Backend> {
        let [v4, v6] = &self.pools;
        let other = (!Arc::ptr_eq(v4, v6)).then_some(v6);
        v4.backends.iter().chain(other.into_iter().flat_map(|pool| &pool.backends))
    }

    /// The pool for clients of addresses of `like`'s family.
    pub fn pool(&self, like: Option<IpAddr>) -> &Arc<Pool> {
        &self.pools[family(like)]
    }
}

fn family(like: Option<IpAddr>) -> usize {
    usize::from(like.is_some_and(|ip| ip.is_ipv6()))
}

/// Splits the host part of a mesh name into namespace and name: `svc.ns`, `svc.ns.svc` or
/// `svc.ns.svc.<domain>`, without port. Both parts borrow from `host`; case is the caller's.
pub fn split_name<'h>(host: &'h str, domain: &str) -> Option<(&'h str, &'h str)> {
    let host = host.strip_suffix('.').unwrap_or(host);
    let (name, rest) = host.split_once('.')?;
    let (namespace, rest) = rest.split_once('.').unwrap_or((rest, "svc"));
    let tail = rest.strip_prefix("svc")?;
    let known = tail.is_empty()
        || tail.strip_prefix('.').is_some_and(|tail| tail.eq_ignore_ascii_case(domain));
    (known && !name.is_empty() && !namespace.is_empty()).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (host, want) in [
            ("hello.default", Some(("default", "hello"))),
            ("hello.default.", Some(("default", "hello"))),
            ("hello.default.svc", Some(("default", "hello"))),
            ("hello.default.svc.cluster.local", Some(("default", "hello"))),
            ("hello.default.svc.Cluster.Local.", Some(("default", "hello"))),
            ("hello", None),
            ("hello.default.pod", None),
            ("hello.default.svc.other.zone", None),
            ("hello.default.svcx", None),
            (".default", None),
            ("a..svc", None),
        ] {
            assert_eq!(split_name(host, "cluster.local"), want, "{host}");
        }
    }
}
