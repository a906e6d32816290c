//! Makes one [`Service`] of a Snapshot from the records that concern it.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{
    Backend as RecordBackend, BalancePolicy, MAX_WEIGHT, NodeName, Policy, RateLimit,
    Service as ServiceRecord, ServiceName, ServicePort, Slice, SlicePort, TargetPort, WEIGHT_LABEL,
    Workload,
};

use crate::limit::Limiter;
use crate::snapshot::builder::policies::{title, winner};
use crate::snapshot::builder::{Builder, selects};
use crate::snapshot::{
    Active, Backend, Host, LOCAL_SLICES, NODE_SLICES, Pool, Port, Service, Source,
};
use crate::sniff::{Declared, declared};

/// Longest TCP connect where no Policy says otherwise: on a site's network a backend that needs
/// longer is in trouble, and the retry goes elsewhere.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

impl Builder {
    pub(super) fn service(
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
        let hosts: Box<[Host]> = self.hosts.get(name).map(|hosts| &hosts[..]).unwrap_or(&[]).into();
        let slices = self.slices.get(name).map(Vec::as_slice);
        let workloads = self.workloads.get(&name.namespace);
        let policy = active(
            self.policies.get(name).and_then(winner),
            before.map(|before| &before.policy),
            now,
        );
        let hashed = record.affinity.is_some() || policy.balance == BalancePolicy::ConsistentHash;
        let (mut ports, mut found) = (Vec::with_capacity(record.ports.len()), false);
        for port in &record.ports {
            let before = before.and_then(|s| {
                s.ports.iter().find(|p| p.port == port.port.get() && p.transport == port.transport)
            });
            let (backends, app_protocol) = match (slices, workloads) {
                (Some(slices), workloads) => {
                    let (mut backends, protocol) =
                        self.sliced(record, port, slices, workloads, None);
                    // What was signed up joins the Pods; any other Slice stands in their place.
                    if let Some(workloads) = workloads.filter(|_| slices.iter().all(is_signed_up)) {
                        backends.extend(self.selected(record, port, workloads));
                    }
                    (backends, protocol)
                }
                (None, Some(workloads)) => (self.selected(record, port, workloads), None),
                (None, None) => (Vec::new(), None),
            };
            found |= !backends.is_empty();
            let app_protocol = app_protocol.or(port.app_protocol.as_deref());
            let declared = match record.proxy_protocol {
                false => declared(app_protocol, &port.name),
                // The header speaks of one client, so each client's connection is carried whole.
                true => Declared::Opaque,
            };
            let live = before.filter(|b| b.declared == declared).map(|b| b.live.clone());
            let pools = pools(backends, before, hashed, now);
            let of_host = |host: &Host| {
                let slices = slices.unwrap_or_default();
                let (backends, _) = self.sliced(record, port, slices, workloads, Some(&host.name));
                alone(backends, &pools, hashed, now)
            };
            ports.push(Port {
                name: port.name.clone(),
                port: port.port.get(),
                transport: port.transport,
                node_port: port.node_port.map(NonZeroU16::get),
                declared,
                routes: self.routing.of_port(name, (port.port.get(), &port.name)),
                hosts: hosts.iter().map(of_host).collect(),
                pools,
                live: live.unwrap_or_default(),
            });
        }
        let source = match (slices.is_some(), found) {
            (true, _) => Source::Slices,
            (false, true) => Source::Workloads,
            (false, false) => Source::Nothing,
        };
        if let Some(breaker) = &policy.breaker {
            ports.iter().flat_map(|port| &port.pools).for_each(|pool| pool.hold_share(breaker));
        }
        Service {
            name: name.clone(),
            addresses,
            is_virtual,
            external_ips: record.external_ips.as_slice().into(),
            external_name: record.external_name.clone(),
            proxy_protocol: record.proxy_protocol,
            hosts,
            ports,
            source,
            policy,
            affinity: record.affinity,
            live: before.map(|b| b.live.clone()).unwrap_or_default(),
        }
    }

    /// The Backends of Slices, of one host or all, and the protocol that a Slice declares.
    fn sliced<'r>(
        &self,
        record: &ServiceRecord,
        port: &ServicePort,
        slices: &'r [(Box<str>, Slice)],
        workloads: Option<&BTreeMap<Box<str>, Workload>>,
        host: Option<&str>,
    ) -> (Vec<Backend>, Option<&'r str>) {
        let (mut ready, mut leaving, mut app_protocol) = (Vec::new(), Vec::new(), None);
        let signed_up = slices.iter().filter(|named| is_signed_up(named));
        let speakers: Vec<&NodeName> = signed_up
            .flat_map(|(_, slice)| slice.backends.iter().filter_map(|b| b.node.as_ref()))
            .collect();
        for named in slices {
            let slice = &named.1;
            let fits = |p: &&SlicePort| p.name == port.name && p.transport == port.transport;
            let Some(slice_port) = slice.ports.iter().find(fits) else { continue };
            app_protocol = app_protocol.or(slice_port.app_protocol.as_deref());
            // Of what runs on a node, the node knows best.
            let spoken_for = |b: &&RecordBackend| {
                !speakers.is_empty() && b.node.as_ref().is_some_and(|node| speakers.contains(&node))
            };
            let meant = |b: &&RecordBackend| {
                (host.is_none() || b.hostname.as_deref() == host)
                    && (is_signed_up(named) || !spoken_for(b))
            };
            for backend in slice.backends.iter().filter(meant) {
                let into = match (backend.ready || record.publish_not_ready, backend.serving) {
                    (true, _) => &mut ready,
                    (false, true) if backend.terminating => &mut leaving,
                    (false, _) => continue,
                };
                // A selector makes this Service new whenever such a Pod changes.
                let pod = backend.workload.as_ref().and_then(|name| workloads?.get(name));
                let pod = pod.filter(|pod| selects(record, pod));
                let weight = pod.and_then(weight).or(backend.weight).unwrap_or(1);
                for address in &backend.addresses {
                    let (node, zone) = (backend.node.as_ref(), backend.zone.as_deref());
                    let at = (*address, slice_port.port.get()).into();
                    let workload = backend.workload.clone();
                    into.extend(self.placed(at, node, zone).map(|b| Backend {
                        workload,
                        weight,
                        ..b
                    }));
                }
            }
        }
        // As in Kubernetes: Backends on their way out serve only when nobody else does.
        (if ready.is_empty() { leaving } else { ready }, app_protocol)
    }

    fn selected(
        &self,
        record: &ServiceRecord,
        port: &ServicePort,
        workloads: &BTreeMap<Box<str>, Workload>,
    ) -> Vec<Backend> {
        let (mut ready, mut leaving) = (Vec::new(), Vec::new());
        for (name, workload) in workloads {
            if !selects(record, workload) {
                continue;
            }
            let into = match (workload.ready, workload.terminating) {
                (true, true) if !record.publish_not_ready => &mut leaving,
                (true, _) => &mut ready,
                (false, _) if record.publish_not_ready => &mut ready,
                (false, _) => continue,
            };
            let target = match &port.target {
                TargetPort::Same => Some(port.port),
                TargetPort::Number(number) => Some(*number),
                TargetPort::Name(name) => {
                    workload.ports.iter().find(|p| p.name == *name).map(|p| p.port)
                }
            };
            let Some(target) = target else { continue };
            into.extend(workload.addresses.iter().filter_map(|address| {
                let at = (*address, target.get()).into();
                let backend = self.placed(at, workload.node.as_ref(), None)?;
                let weight = weight(workload).unwrap_or(1);
                Some(Backend { workload: Some(name.clone()), weight, ..backend })
            }));
        }
        if ready.is_empty() { leaving } else { ready }
    }
}

/// Whether a Slice says what was signed up on a node, this one or another.
fn is_signed_up((name, _): &(Box<str>, Slice)) -> bool {
    name.starts_with(LOCAL_SLICES) || name.starts_with(NODE_SLICES)
}

/// One pool a family; a family without Backends borrows the other's, since the mesh, unlike a
/// packet filter, can answer an IPv6 client from an IPv4 Backend.
fn pools(
    backends: Vec<Backend>,
    before: Option<&Port>,
    hashed: bool,
    now: Instant,
) -> [Arc<Pool>; 2] {
    let (v6, v4): (Vec<_>, Vec<_>) = backends.into_iter().partition(|b| b.address.is_ipv6());
    let (no_v4, no_v6) = (v4.is_empty(), v6.is_empty());
    // A borrowed pool is no predecessor: two pools that count their turns together would each
    // visit only some of their Backends.
    let own = |family: usize| {
        let pool = before?.pools[family].as_ref();
        let first = pool.backends.first()?;
        (usize::from(first.address.is_ipv6()) == family).then_some(pool)
    };
    let pool = |backends, family| {
        let pool = Pool::new(backends, own(family), now);
        Arc::new(if hashed { pool.hashed() } else { pool })
    };
    let (v4, v6) = (pool(v4, 0), pool(v6, 1));
    match (no_v4, no_v6) {
        (_, true) => [v4.clone(), v4],
        (true, false) => [v6.clone(), v6],
        (false, false) => [v4, v6],
    }
}

/// The pools of one host. Its Backends are those of the Service's own pools, so their live state
/// is one; turns are its own.
fn alone(
    backends: Vec<Backend>,
    all: &[Arc<Pool>; 2],
    hashed: bool,
    now: Instant,
) -> [Arc<Pool>; 2] {
    let (v6, v4): (Vec<_>, Vec<_>) = backends.into_iter().partition(|b| b.address.is_ipv6());
    let (no_v4, no_v6) = (v4.is_empty(), v6.is_empty());
    let pool = |backends, all: &Pool| {
        let pool = Pool::part(backends, all, now);
        Arc::new(if hashed { pool.hashed() } else { pool })
    };
    let (v4, v6) = (pool(v4, &all[0]), pool(v6, &all[1]));
    match (no_v4, no_v6) {
        (_, true) => [v4.clone(), v4],
        (true, false) => [v6.clone(), v6],
        (false, false) => [v4, v6],
    }
}

/// What a Pod's label says; a label that says nothing sensible counts as none.
fn weight(workload: &Workload) -> Option<u16> {
    workload.labels.get(WEIGHT_LABEL)?.parse().ok().filter(|weight| *weight <= MAX_WEIGHT)
}

pub(super) fn active(
    policy: Option<(&str, &Policy)>,
    before: Option<&Active>,
    now: Instant,
) -> Active {
    let default = Policy::default();
    let (name, policy) = match policy {
        Some((name, policy)) => (Some(title(name).into()), policy),
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
        origin: policy.origin,
        balance: policy.balance,
        hash_key: policy.hash_key.clone(),
        locality: policy.locality,
        client: limiter(policy.client_limit, before.and_then(|b| b.client.as_ref())),
        server: limiter(policy.server_limit, before.and_then(|b| b.server.as_ref())),
        breaker: policy.breaker,
        connect_timeout: policy.connect_timeout.unwrap_or(DEFAULT_CONNECT_TIMEOUT),
        request_timeout: policy.request_timeout,
        retries: policy.retries,
        allow: policy.allow.as_deref().map(Into::into),
        connections: policy.connections,
        idle_timeout: policy.idle_timeout,
        health_check: policy.health_check.clone(),
    }
}
