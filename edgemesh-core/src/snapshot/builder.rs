//! Keeps the records and makes the next Snapshot from a change, touching only what it concerns.

mod callers;
mod make;
mod nodes;
mod policies;
mod records;
mod routing;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use edgemesh_proto::record::{
    Body, EndpointName, Key, Kind, Node, NodeName, Policy, Record, Revocation, RuleName,
    Service as ServiceRecord, ServiceName, Slice, Workload,
};

use crate::backends::{NodeLive, Tally};
use crate::snapshot::builder::routing::Routing;
use crate::snapshot::builder::rules::Book;
use crate::snapshot::index::Index;
use crate::snapshot::{Host, Service, Snapshot};

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
    /// Hosts of Services with their virtual addresses, all of each, sorted by name.
    pub hosts: Vec<(ServiceName, Vec<Host>)>,
}

/// The records behind the Snapshots of one node. Owned by the one writer, `sync`.
#[derive(Debug)]
pub struct Builder {
    node: NodeName,
    own_zone: Option<Box<str>>,
    services: BTreeMap<ServiceName, ServiceRecord>,
    /// Slices by Service, then sorted by the Slice's own name. Most Services have one: a map of
    /// its own for each would take a kilobyte.
    slices: BTreeMap<ServiceName, Vec<(Box<str>, Slice)>>,
    /// Which Service a Slice belonged to when it was put.
    slice_owner: HashMap<ServiceName, ServiceName>,
    workloads: BTreeMap<Box<str>, BTreeMap<Box<str>, Workload>>,
    nodes: BTreeMap<Box<str>, Node>,
    /// Of the nodes that Links lead to.
    lives: BTreeMap<Box<str>, Arc<NodeLive>>,
    /// Nodes that have a live state, ever.
    numbered: u32,
    seat: Seat,
    /// Of the cloud, where this node's records come from there.
    cloud: Option<Arc<NodeLive>>,
    revocations: BTreeMap<Box<str>, Revocation>,
    policies: BTreeMap<ServiceName, BTreeMap<Box<str>, Policy>>,
    policy_owner: HashMap<ServiceName, ServiceName>,
    routing: Routing,
    book: Book,
    addresses: HashMap<ServiceName, Vec<IpAddr>>,
    hosts: HashMap<ServiceName, Vec<Host>>,
    /// Addresses of this machine's own interfaces.
    own: Vec<IpAddr>,
    /// A Policy or a Route asks who calls.
    asked: bool,
    /// What says who is behind an address changed.
    moved: bool,
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

/// Whose Snapshots these are: who calls which Backends by their address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seat {
    /// An agent's: Links lead to the Backends of others.
    Agent,
    /// The cloud's own process, which calls for nodes in the cloud without an agent.
    Cloud,
    /// An application's, which has no Links.
    Application,
}

/// What a change makes necessary.
#[derive(Default)]
struct Dirty {
    services: BTreeSet<ServiceName>,
    /// Names, addresses or ports changed: the maps must be made anew.
    index: bool,
    policies: bool,
    nodes: bool,
    /// Nodes whose Backends are elsewhere now, or reached otherwise.
    moved: BTreeSet<Box<str>>,
    revocations: bool,
    routes: bool,
    rules: bool,
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
            lives: BTreeMap::new(),
            numbered: 0,
            seat: Seat::Agent,
            cloud: None,
            revocations: BTreeMap::new(),
            policies: BTreeMap::new(),
            policy_owner: HashMap::new(),
            routing: Routing::default(),
            book: Book::default(),
            addresses: HashMap::new(),
            hosts: HashMap::new(),
            own: Vec::new(),
            asked: false,
            moved: false,
            current: Arc::default(),
        }
    }

    /// Takes the change in and returns the next Snapshot. `now` is the time at which new
    /// limiters are full.
    pub fn apply(&mut self, change: Change, now: Instant) -> Arc<Snapshot> {
        let mut dirty = Dirty::default();
        self.moved |= !change.delete.is_empty() || change.put.iter().any(|put| self.moves(put));
        for key in &change.delete {
            self.delete(key, &mut dirty);
        }
        for record in change.put {
            self.put(record, &mut dirty, now);
        }
        self.mark_moved(&mut dirty);
        for (service, addresses) in change.addresses {
            dirty.index = true;
            dirty.services.insert(service.clone());
            match addresses.is_empty() {
                true => self.addresses.remove(&service),
                false => self.addresses.insert(service, addresses),
            };
        }
        for (service, hosts) in change.hosts {
            dirty.index = true;
            dirty.services.insert(service.clone());
            match hosts.is_empty() {
                true => self.hosts.remove(&service),
                false => self.hosts.insert(service, hosts),
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
        let lives = match dirty.nodes {
            true => Arc::new(self.lives.clone()),
            false => self.current.lives.clone(),
        };
        let revocations = match dirty.revocations {
            true => Arc::new(self.revocations.clone()),
            false => self.current.revocations.clone(),
        };
        let routes = match dirty.routes {
            true => self.routing.all(),
            false => self.current.routes.clone(),
        };
        let rules = match dirty.rules {
            true => self.book.read(self.rules_seat(), now),
            false => self.current.rules.clone(),
        };
        let (epoch, revision) = (change.epoch, change.revision);
        if dirty.policies || dirty.routes {
            self.asked = self.asks_who_calls();
        }
        let callers = self.callers();
        let next = Snapshot {
            epoch,
            revision,
            serial: self.current.serial + 1,
            policies,
            nodes,
            lives,
            revocations,
            routes,
            rules,
            callers,
            index,
            services,
        };
        self.current = Arc::new(next);
        self.current.clone()
    }

    /// What messages of a Rule left behind in an earlier life of this node; said before its record
    /// is put.
    pub fn counted(&mut self, rule: RuleName, before: Tally) {
        self.book.counted(rule, before);
    }

    fn put(&mut self, record: Record, dirty: &mut Dirty, now: Instant) {
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
                let slices = self.slices.entry(owner.clone()).or_default();
                let place = slices.partition_point(|(name, _)| *name < own.name);
                slices.reserve_exact(1); // most Services have one
                slices.insert(place, (own.name.clone(), slice));
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
            Body::Route(route) => self.routing.put(own, route, dirty),
            Body::Workload(workload) => {
                self.selecting(&own.namespace, &workload, dirty);
                let of_namespace = self.workloads.entry(own.namespace.clone()).or_default();
                if let Some(before) = of_namespace.insert(own.name.clone(), workload) {
                    self.selecting(&own.namespace, &before, dirty);
                }
            }
            Body::Node(node) => self.put_node(record.name, node, dirty, now),
            Body::Endpoint(endpoint) => {
                dirty.rules = true;
                self.book.put_endpoint(EndpointName::new(&own.namespace, &own.name), endpoint);
            }
            Body::Rule(rule) => {
                dirty.rules = true;
                self.book.put_rule(RuleName::new(&own.namespace, &own.name), rule);
            }
            Body::Revocation(revocation) => {
                dirty.revocations = true;
                self.revocations.insert(record.name, revocation);
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
            Kind::Node => self.delete_node(&key.name, dirty),
            Kind::Route => drop(self.routing.forget(&own, dirty)),
            Kind::Revocation => {
                dirty.revocations = true;
                self.revocations.remove(&key.name);
            }
            Kind::Endpoint => {
                dirty.rules = true;
                self.book.forget_endpoint(key);
            }
            Kind::Rule => {
                dirty.rules = true;
                self.book.forget_rule(key);
            }
        }
    }

    fn forget_slice(&mut self, slice: &ServiceName, dirty: &mut Dirty) {
        if let Some(owner) = self.slice_owner.remove(slice) {
            if let Some(slices) = self.slices.get_mut(&owner) {
                slices.retain(|(name, _)| *name != slice.name);
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
}

fn selects(service: &ServiceRecord, workload: &Workload) -> bool {
    !service.selector.is_empty()
        && service.selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
}
