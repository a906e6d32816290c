//! Indexes who is behind an address, for the Policies that ask for it.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use edgemesh_proto::record::{
    Backend, Body, LimitBy, NodeName, Policy, RateLimit, Record, ServiceName, Workload,
};

use crate::snapshot::builder::{Builder, selects};
use crate::snapshot::callers::Callers;

impl Builder {
    /// Addresses of this machine, from the next change on: what calls from there is a process of
    /// this node, whether the Node's record says so or not.
    pub fn own_addresses(&mut self, own: Vec<IpAddr>) {
        self.moved |= own != self.own;
        self.own = own;
    }

    /// The index after a change. Without a Policy that asks who calls there is none, and it costs
    /// nothing.
    pub(super) fn callers(&mut self) -> Arc<Callers> {
        match (self.asked, std::mem::take(&mut self.moved)) {
            (false, _) => Arc::new(Callers::new(self.node.clone())),
            (true, false) => self.current.callers.clone(),
            (true, true) => Arc::new(self.all_callers()),
        }
    }

    pub(super) fn asks_who_calls(&self) -> bool {
        self.policies.values().flat_map(|policies| policies.values()).any(asks)
            || self.routing.asks_who_calls()
    }

    /// Whether a record that is put may change who is behind an address. One that only says that a
    /// Backend is ready or not, which most do, does not.
    pub(super) fn moves(&self, put: &Record) -> bool {
        let Body::Slice(slice) = &put.body else { return true };
        let own = ServiceName::new(&put.namespace, &put.name);
        self.slice(&own).is_none_or(|before| {
            let same = |(a, b): (&Backend, &Backend)| {
                (&a.addresses, &a.workload, &a.node) == (&b.addresses, &b.workload, &b.node)
            };
            before.service != slice.service
                || before.backends.len() != slice.backends.len()
                || !before.backends.iter().zip(&slice.backends).all(same)
        })
    }

    fn all_callers(&self) -> Callers {
        let mut callers = Callers::new(self.node.clone());
        let machines = self.machines(&mut callers);
        // A Pod with its host's network cannot be told from the host: its address says no more
        // than which node it is.
        let own = |address: &&IpAddr| !machines.contains(*address);
        // One that Workloads of two namespaces have is a machine's too, and nobody's.
        let mut shared = HashSet::new();
        for (namespace, workloads) in &self.workloads {
            let namespace: Arc<str> = (&**namespace).into();
            for (name, workload) in workloads {
                let full = full_name(&namespace, name, workload);
                for address in workload.addresses.iter().filter(own) {
                    let who = callers.entry(*address);
                    if who.namespace.as_ref().is_some_and(|other| *other != namespace) {
                        shared.insert(*address);
                    }
                    who.namespace = Some(namespace.clone());
                    who.workload = Some(full.clone());
                    who.node.clone_from(&workload.node);
                }
            }
        }
        for (service, slices) in &self.slices {
            for backend in slices.iter().flat_map(|(_, slice)| &slice.backends) {
                let Some(pod) = &backend.workload else { continue };
                for address in backend.addresses.iter().filter(own) {
                    let who = callers.entry(*address);
                    if who.namespace.is_none() {
                        who.namespace = Some((&*service.namespace).into());
                        who.workload = Some(format!("{}/{pod}", service.namespace).into());
                        who.node.clone_from(&backend.node);
                    }
                }
            }
        }
        for address in shared {
            let who = callers.entry(address);
            (who.namespace, who.workload) = (None, None);
        }
        self.members(&mut callers);
        callers
    }

    /// Notes the machines, and returns their addresses.
    fn machines(&self, callers: &mut Callers) -> HashSet<IpAddr> {
        let mut machines: HashSet<_> = self.own.iter().copied().collect();
        for own in &self.own {
            callers.entry(*own).node = Some(self.node.clone());
        }
        for (name, node) in &self.nodes {
            for address in &node.addresses {
                machines.insert(*address);
                callers.entry(*address).node = Some(NodeName(name.clone()));
            }
        }
        machines
    }

    /// Notes who is a Backend, ready or not, of the Services that `allow` lists name: a Pod that
    /// is starting calls others before it is ready.
    fn members(&self, callers: &mut Callers) {
        for name in self.named() {
            let mut addresses = BTreeSet::new();
            for (_, slice) in self.slices.get(&name).into_iter().flatten() {
                addresses.extend(slice.backends.iter().flat_map(|b| &b.addresses).copied());
            }
            if let Some(service) = self.services.get(&name)
                && let Some(workloads) = self.workloads.get(&name.namespace)
            {
                let selected = workloads.values().filter(|workload| selects(service, workload));
                addresses.extend(selected.flat_map(|workload| &workload.addresses).copied());
            }
            for address in addresses {
                callers.entry(address).services.push(name.clone());
            }
        }
    }

    /// Services that `allow` lists name.
    fn named(&self) -> BTreeSet<ServiceName> {
        let mut named = BTreeSet::new();
        for (owner, policies) in &self.policies {
            for entry in policies.values().flat_map(|policy| policy.allow.iter().flatten()) {
                let namespace = entry.namespace.as_deref().unwrap_or(&owner.namespace);
                named.extend(entry.service.as_deref().map(|s| ServiceName::new(namespace, s)));
            }
        }
        named
    }
}

/// Whether a Policy wants to know who calls.
fn asks(policy: &Policy) -> bool {
    let by = |limit: &RateLimit| match limit.by {
        LimitBy::Workload | LimitBy::Namespace => true,
        LimitBy::Service | LimitBy::Ip => false,
    };
    policy.allow.is_some() || [policy.client_limit, policy.server_limit].iter().flatten().any(by)
}

fn full_name(namespace: &str, name: &str, workload: &Workload) -> Arc<str> {
    match &*workload.owner {
        "" => format!("{namespace}/{name}").into(),
        owner => format!("{namespace}/{owner}").into(),
    }
}
