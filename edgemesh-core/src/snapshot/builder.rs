//! Keeps the records and makes the next Snapshot from a change, touching only what it concerns.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{
    Body, Key, Kind, Node, NodeName, Policy, RateLimit, Record, Service as ServiceRecord,
    ServiceName, Slice, TargetPort, Transport, Workload,
};

use crate::limit::Limiter;
use crate::snapshot::{Active, Backend, Index, Place, Pool, Port, Service, Snapshot, Source, Tier};
use crate::sniff::declared;

/// A step from one Snapshot to the next.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Identity of the registry.
    pub epoch: [u8; 16],
    /// Revision after the step.
    pub revision: u64,
    /// Records that are new or different.
    pub put: Vec<Record>,
    /// Records that are gone.
    pub delete: Vec<Key>,
    /// Virtual addresses of Services, all of each; none = taken away.
    pub addresses: Vec<(ServiceName, Vec<IpAddr>)>,
}

/// The records behind the Snapshots of one node. Owned by the one writer, `sync`.
#[derive(Debug)]
pub struct Builder {
    node: NodeName,
    own_zone: Option<Box<str>>,
    services: BTreeMap<ServiceName, ServiceRecord>,
    /// Slices by Service, then by the Slice's own name.
    slices: BTreeMap<ServiceName, BTreeMap<Box<str>, Slice>>,
    /// Which Service a Slice belonged to when it was put.
    slice_owner: HashMap<ServiceName, ServiceName>,
    workloads: BTreeMap<Box<str>, BTreeMap<Box<str>, Workload>>,
    nodes: BTreeMap<Box<str>, Node>,
    policies: BTreeMap<ServiceName, BTreeMap<Box<str>, Policy>>,
    policy_owner: HashMap<ServiceName, ServiceName>,
    addresses: HashMap<ServiceName, Vec<IpAddr>>,
    current: Arc<Snapshot>,
}

/// A Policy, and whether it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedPolicy {
    /// Its name, in the namespace of the Service.
    pub name: Box<str>,
    /// The Service that it is for.
    pub service: ServiceName,
    /// What it says.
    pub policy: Policy,
    /// The Policy for the same Service that counts in its place.
    pub overruled_by: Option<Box<str>>,
}

/// Longest TCP connect where no Policy says otherwise: on a site's network a backend that needs
/// longer is in trouble, and the retry goes elsewhere.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What a change makes necessary.
#[derive(Default)]
struct Dirty {
    services: BTreeSet<ServiceName>,
    /// Names, addresses or ports changed: the maps must be made anew.
    index: bool,
    policies: bool,
    nodes: bool,
    all: bool,
}

impl Builder {
    /// An empty index for `node`; `zone` overrides the zone of its Node record.
    pub fn new(node: NodeName, zone: Option<Box<str>>) -> Self {
        Self {
            node,
            own_zone: zone,
            services: BTreeMap::new(),
            slices: BTreeMap::new(),
            slice_owner: HashMap::new(),
            workloads: BTreeMap::new(),
            nodes: BTreeMap::new(),
            policies: BTreeMap::new(),
            policy_owner: HashMap::new(),
            addresses: HashMap::new(),
            current: Arc::default(),
        }
    }

    /// Takes the change in and returns the next Snapshot. `now` is the time at which new
    /// limiters are full.
    pub fn apply(&mut self, change: Change, now: Instant) -> Arc<Snapshot> {
        let mut dirty = Dirty::default();
        for key in &change.delete {
            self.delete(key, &mut dirty);
        }
        for record in change.put {
            self.put(record, &mut dirty);
        }
        for (service, addresses) in change.addresses {
            dirty.index = true;
            dirty.services.insert(service.clone());
            match addresses.is_empty() {
                true => self.addresses.remove(&service),
                false => self.addresses.insert(service, addresses),
            };
        }
        let services = self.services_after(&dirty, now);
        let index = match dirty.index {
            true => Arc::new(Index::new(&services)),
            false => self.current.index.clone(),
        };
        let policies = match dirty.policies {
            true => self.listed_policies().into(),
            false => self.current.policies.clone(),
        };
        let nodes = match dirty.nodes {
            true => Arc::new(self.nodes.clone()),
            false => self.current.nodes.clone(),
        };
        let (epoch, revision) = (change.epoch, change.revision);
        let next = Snapshot { epoch, revision, policies, nodes, index, services };
        self.current = Arc::new(next);
        self.current.clone()
    }

    fn listed_policies(&self) -> Vec<ListedPolicy> {
        let mut out = Vec::new();
        for (service, policies) in &self.policies {
            let winner = winner(policies).map(|(name, _)| name);
            out.extend(policies.iter().map(|(name, policy)| ListedPolicy {
                name: name.clone(),
                service: service.clone(),
                policy: policy.clone(),
                overruled_by: winner.filter(|winner| *winner != name).cloned(),
            }));
        }
        out
    }

    fn put(&mut self, record: Record, dirty: &mut Dirty) {
        let own = ServiceName::new(&record.namespace, &record.name);
        match record.body {
            Body::Service(service) => {
                dirty.index = true;
                dirty.services.insert(own.clone());
                self.services.insert(own, service);
            }
            Body::Slice(slice) => {
                self.forget_slice(&own, dirty);
                let owner = ServiceName::new(&own.namespace, &slice.service);
                dirty.services.insert(owner.clone());
                self.slices.entry(owner.clone()).or_default().insert(own.name.clone(), slice);
                self.slice_owner.insert(own, owner);
            }
            Body::Policy(policy) => {
                self.forget_policy(&own, dirty);
                dirty.policies = true;
                let owner = ServiceName::new(&own.namespace, &policy.service);
                dirty.services.insert(owner.clone());
                self.policies.entry(owner.clone()).or_default().insert(own.name.clone(), policy);
                self.policy_owner.insert(own, owner);
            }
            Body::Workload(workload) => {
                self.selecting(&own.namespace, &workload, dirty);
                let of_namespace = self.workloads.entry(own.namespace.clone()).or_default();
                if let Some(before) = of_namespace.insert(own.name.clone(), workload) {
                    self.selecting(&own.namespace, &before, dirty);
                }
            }
            Body::Node(node) => {
                let zone = node.zone.clone();
                let before = self.nodes.insert(record.name, node);
                dirty.nodes = true;
                dirty.all |= before.is_none_or(|before| before.zone != zone);
            }
        }
    }

    fn delete(&mut self, key: &Key, dirty: &mut Dirty) {
        let own = ServiceName::new(&key.namespace, &key.name);
        match key.kind {
            Kind::Service => {
                dirty.index = true;
                self.services.remove(&own);
            }
            Kind::Slice => self.forget_slice(&own, dirty),
            Kind::Policy => self.forget_policy(&own, dirty),
            Kind::Workload => {
                let gone = self.workloads.get_mut(&key.namespace).and_then(|w| w.remove(&key.name));
                if let Some(gone) = gone {
                    self.selecting(&key.namespace, &gone, dirty);
                }
            }
            Kind::Node => {
                dirty.nodes = true;
                dirty.all |= self.nodes.remove(&key.name).is_some();
            }
            // Nothing in here is made from these yet.
            Kind::Route | Kind::Endpoint | Kind::Rule | Kind::Revocation => {}
        }
    }

    fn forget_slice(&mut self, slice: &ServiceName, dirty: &mut Dirty) {
        if let Some(owner) = self.slice_owner.remove(slice) {
            if let Some(slices) = self.slices.get_mut(&owner) {
                slices.remove(&slice.name);
                if slices.is_empty() {
                    self.slices.remove(&owner);
                }
            }
            dirty.services.insert(owner);
        }
    }

    fn forget_policy(&mut self, policy: &ServiceName, dirty: &mut Dirty) {
        if let Some(owner) = self.policy_owner.remove(policy) {
            dirty.policies = true;
            if let Some(policies) = self.policies.get_mut(&owner) {
                policies.remove(&policy.name);
                if policies.is_empty() {
                    self.policies.remove(&owner);
                }
            }
            dirty.services.insert(owner);
        }
    }

    /// Marks the Services whose selector matches `workload`.
    fn selecting(&self, namespace: &str, workload: &Workload, dirty: &mut Dirty) {
        let first = ServiceName::new(namespace, "");
        let of_namespace =
            self.services.range(first..).take_while(|(n, _)| *n.namespace == *namespace);
        for (name, service) in of_namespace {
            if selects(service, workload) {
                dirty.services.insert(name.clone());
            }
        }
    }

    fn services_after(&self, dirty: &Dirty, now: Instant) -> Vec<Arc<Service>> {
        let before = |name: &ServiceName| self.current.by_name(&name.namespace, &name.name);
        if !dirty.index && !dirty.all {
            let mut services = self.current.services.clone();
            for name in &dirty.services {
                let slot = services.binary_search_by(|s| s.name.cmp(name));
                if let (Ok(slot), Some(record)) = (slot, self.services.get(name)) {
                    services[slot] =
                        Arc::new(self.service(name, record, Some(&services[slot]), now));
                }
            }
            return services;
        }
        let fresh = |(name, record)| {
            let before = before(name);
            match before {
                Some(same) if !dirty.all && !dirty.services.contains(name) => same.clone(),
                _ => Arc::new(self.service(name, record, before.map(Arc::as_ref), now)),
            }
        };
        self.services.iter().map(fresh).collect()
    }

    fn service(
        &self,
        name: &ServiceName,
        record: &ServiceRecord,
        before: Option<&Service>,
        now: Instant,
    ) -> Service {
        let own = self.addresses.get(name);
        let is_virtual = record.cluster_ips.is_empty() && own.is_some();
        let addresses = match is_virtual {
            true => own.cloned().unwrap_or_default(),
            false => record.cluster_ips.clone(),
        };
        let slices = self.slices.get(name);
        let workloads = self.workloads.get(&name.namespace);
        let (mut ports, mut found) = (Vec::with_capacity(record.ports.len()), false);
        for port in &record.ports {
            let before = before.and_then(|s| {
                s.ports.iter().find(|p| p.port == port.port.get() && p.transport == port.transport)
            });
            let (backends, app_protocol) = match (slices, workloads) {
                (Some(slices), _) => self.from_slices(record, port, slices),
                (None, Some(workloads)) => (self.from_workloads(record, port, workloads), None),
                (None, None) => (Vec::new(), None),
            };
            found |= !backends.is_empty();
            let app_protocol = app_protocol.or(port.app_protocol.as_deref());
            let declared = declared(app_protocol, &port.name);
            let live = before.filter(|b| b.declared == declared).map(|b| b.live.clone());
            ports.push(Port {
                name: port.name.clone(),
                port: port.port.get(),
                transport: port.transport,
                declared,
                pools: pools(backends, before),
                live: live.unwrap_or_default(),
            });
        }
        let source = match (slices.is_some(), found) {
            (true, _) => Source::Slices,
            (false, true) => Source::Workloads,
            (false, false) => Source::Nothing,
        };
        let policy = self.policies.get(name).and_then(winner);
        Service {
            name: name.clone(),
            addresses,
            is_virtual,
            ports,
            source,
            policy: active(policy, before.map(|b| &b.policy), now),
            live: before.map(|b| b.live.clone()).unwrap_or_default(),
        }
    }

    fn from_slices<'r>(
        &self,
        record: &ServiceRecord,
        port: &edgemesh_proto::record::ServicePort,
        slices: &'r BTreeMap<Box<str>, Slice>,
    ) -> (Vec<Backend>, Option<&'r str>) {
        let (mut ready, mut leaving, mut app_protocol) = (Vec::new(), Vec::new(), None);
        for slice in slices.values() {
            let fits = |p: &&edgemesh_proto::record::SlicePort| {
                p.name == port.name && p.transport == port.transport
            };
            let Some(slice_port) = slice.ports.iter().find(fits) else { continue };
            app_protocol = app_protocol.or(slice_port.app_protocol.as_deref());
            for backend in &slice.backends {
                let into = match (backend.ready || record.publish_not_ready, backend.serving) {
                    (true, _) => &mut ready,
                    (false, true) if backend.terminating => &mut leaving,
                    (false, _) => continue,
                };
                for address in &backend.addresses {
                    let (tier, zone) = self.place(backend.node.as_ref(), backend.zone.as_ref());
                    into.push(Backend {
                        node: backend.node.clone(),
                        zone: zone.cloned(),
                        workload: backend.workload.clone(),
                        ..Backend::new((*address, slice_port.port.get()).into(), tier)
                    });
                }
            }
        }
        // As in Kubernetes: Backends on their way out serve only when nobody else does.
        (if ready.is_empty() { leaving } else { ready }, app_protocol)
    }

    fn from_workloads(
        &self,
        record: &ServiceRecord,
        port: &edgemesh_proto::record::ServicePort,
        workloads: &BTreeMap<Box<str>, Workload>,
    ) -> Vec<Backend> {
        let mut out = Vec::new();
        for (name, workload) in workloads {
            let counts = (workload.ready && !workload.terminating) || record.publish_not_ready;
            if !counts || !selects(record, workload) {
                continue;
            }
            let target = match &port.target {
                TargetPort::Same => Some(port.port),
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => {
                    workload.ports.iter().find(|p| p.name == *name).map(|p| p.port)
                }
            };
            let Some(target) = target else { continue };
            let (tier, zone) = self.place(workload.node.as_ref(), None);
            out.extend(workload.addresses.iter().map(|address| Backend {
                node: workload.node.clone(),
                zone: zone.cloned(),
                workload: Some(name.clone()),
                ..Backend::new((*address, target.get()).into(), tier)
            }));
        }
        out
    }

    /// How far away a Backend on `node` is, and in which zone.
    fn place<'b>(
        &'b self,
        node: Option<&NodeName>,
        zone: Option<&'b Box<str>>,
    ) -> (Tier, Option<&'b Box<str>>) {
        let zone_of = |node: &NodeName| self.nodes.get(&node.0).and_then(|n| n.zone.as_ref());
        let zone = zone.or_else(|| node.and_then(zone_of));
        let own_zone = self.own_zone.as_ref().or_else(|| zone_of(&self.node));
        let tier = match (node == Some(&self.node), zone.is_some() && zone == own_zone) {
            (true, _) => Tier::Node,
            (false, true) => Tier::Zone,
            (false, false) => Tier::Anywhere,
        };
        (tier, zone)
    }
}

impl Index {
    fn new(services: &[Arc<Service>]) -> Self {
        let mut index = Self::default();
        for (slot, service) in services.iter().enumerate() {
            let slot = slot as u32;
            let of_namespace = index.by_name.entry(service.name.namespace.clone()).or_default();
            of_namespace.insert(service.name.name.clone(), slot);
            for address in &service.addresses {
                index.owners.entry(*address).or_insert(slot);
                let tcp = |(_, p): &(usize, &Port)| p.transport == Transport::Tcp;
                for (port, of_port) in service.ports.iter().enumerate().filter(tcp) {
                    let place = Place { service: slot, port: port as u32 };
                    index.by_address.entry((*address, of_port.port)).or_insert(place);
                }
            }
        }
        index
    }
}

fn selects(service: &ServiceRecord, workload: &Workload) -> bool {
    !service.selector.is_empty()
        && service.selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
}

/// TrafficPolicy before DestinationRule, then the older, then the name.
fn winner(policies: &BTreeMap<Box<str>, Policy>) -> Option<(&Box<str>, &Policy)> {
    // An unknown age is the youngest: whoever knows better wins.
    let age = |policy: &Policy| (policy.created == 0, policy.created);
    policies.iter().min_by_key(|(name, policy)| (policy.origin, age(policy), *name))
}

/// One pool a family; a family without Backends borrows the other's, since the mesh, unlike a
/// packet filter, can answer an IPv6 client from an IPv4 Backend.
fn pools(backends: Vec<Backend>, before: Option<&Port>) -> [Arc<Pool>; 2] {
    let (v6, v4): (Vec<_>, Vec<_>) = backends.into_iter().partition(|b| b.address.is_ipv6());
    let (no_v4, no_v6) = (v4.is_empty(), v6.is_empty());
    let v4 = Arc::new(Pool::new(v4, before.map(|p| p.pools[0].as_ref())));
    let v6 = Arc::new(Pool::new(v6, before.map(|p| p.pools[1].as_ref())));
    match (no_v4, no_v6) {
        (_, true) => [v4.clone(), v4],
        (true, false) => [v6.clone(), v6],
        (false, false) => [v4, v6],
    }
}

fn active(policy: Option<(&Box<str>, &Policy)>, before: Option<&Active>, now: Instant) -> Active {
    let default = Policy::default();
    let (name, policy) = match policy {
        Some((name, policy)) => (Some(name.clone()), policy),
        None => (None, &default),
    };
    // A limiter whose numbers did not change keeps its fill.
    let limiter = |limit: Option<RateLimit>, before: Option<&Arc<Limiter>>| {
        let limit = limit?;
        let same = before.filter(|before| before.limit() == limit).cloned();
        Some(same.unwrap_or_else(|| Arc::new(Limiter::new(limit, now))))
    };
    Active {
        name,
        balance: policy.balance,
        locality: policy.locality,
        client: limiter(policy.client_limit, before.and_then(|b| b.client.as_ref())),
        server: limiter(policy.server_limit, before.and_then(|b| b.server.as_ref())),
        breaker: policy.breaker,
        connect_timeout: policy.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        request_timeout: policy.request_timeout,
        retries: policy.retries,
    }
}
