//! The Snapshot and its live state as the objects of the admin API.

mod nodes;
mod remarks;
mod routes;
mod rules;

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_core::balance;
use edgemesh_core::breaker::Stance;
use edgemesh_core::health::Health;
use edgemesh_core::mesh::Checked;
use edgemesh_core::snapshot::{
    Active, Backend, Host, ListedPolicy, Pool, Port, Service, Snapshot, Source, Tier,
};
use edgemesh_core::sniff::Declared;
use edgemesh_proto::record::{Locality, PolicyOrigin, RateLimit, Transport};

use crate::agent::guards;
use crate::agent::registering;
use crate::api;

pub(crate) use nodes::nodes;
pub(crate) use remarks::remarks;
pub(crate) use routes::{routes, unrouted};
#[cfg(feature = "cloud")]
pub(crate) use rules::view as rule_view;
pub(crate) use rules::{endpoints, idle_rules, rules, standing};

/// Every Service.
pub(crate) fn services(snapshot: &Snapshot, now: Instant) -> Vec<api::ServiceView> {
    snapshot.services().iter().map(|service| view(service, now)).collect()
}

fn view(service: &Service, now: Instant) -> api::ServiceView {
    let addresses: Vec<String> = service.addresses.iter().map(IpAddr::to_string).collect();
    let (own, virtual_addresses) =
        if service.is_virtual { (Vec::new(), addresses) } else { (addresses, Vec::new()) };
    api::ServiceView {
        namespace: service.name.namespace.to_string(),
        name: service.name.name.to_string(),
        addresses: own,
        virtual_addresses,
        external_name: service.external_name.as_deref().map(str::to_owned),
        hosts: service.hosts.iter().map(host).collect(),
        ports: service.ports.iter().map(|p| port(service, p, now)).collect(),
        policy: service.policy.name.is_some().then(|| summary(&service.policy)),
        source: match service.source {
            Source::Slices => api::BackendSource::Slice,
            Source::Workloads => api::BackendSource::Pods,
            Source::Nothing => api::BackendSource::None,
        },
    }
}

fn host(host: &Host) -> api::HostView {
    let virtual_addresses = host.addresses.iter().map(IpAddr::to_string).collect();
    api::HostView { name: host.name.to_string(), virtual_addresses }
}

fn port(service: &Service, port: &Port, now: Instant) -> api::PortView {
    let all = all_backends(port);
    let breaker = service.policy.breaker.as_ref();
    let admits = |b: &&&Backend| {
        !b.live.ill.load(Relaxed) && matches!(b.live.breaker.look(breaker, now), Stance::Admits)
    };
    api::PortView {
        name: port.name.to_string(),
        port: port.port,
        protocol: match (port.transport, port.declared) {
            (Transport::Udp | Transport::Sctp, _) => "", // nothing of it comes by to be looked at
            (Transport::Tcp, Declared::Unknown) => "sniffed",
            (Transport::Tcp, Declared::Http) => "http",
            (Transport::Tcp, Declared::Http2) => "http2",
            (Transport::Tcp, Declared::Tls) => "tls",
            (Transport::Tcp, Declared::Opaque) => "tcp",
        }
        .into(),
        transport: match port.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
            Transport::Sctp => "SCTP",
        }
        .into(),
        backends: all.len() as u64,
        ready: all.iter().filter(admits).count() as u64,
    }
}

/// The Backends of both families, each once.
fn all_backends(port: &Port) -> Vec<&Backend> {
    let [v4, v6]: [&Pool; 2] = [&port.pools[0], &port.pools[1]];
    let same = std::ptr::eq(v4, v6);
    v4.backends.iter().chain(v6.backends.iter().filter(|_| !same)).collect()
}

/// Every Backend, those that a check keeps from calls too, and by which of the `links`.
pub(crate) fn backends(
    snapshot: &Snapshot,
    checked: &[Checked],
    links: &api::Links,
    now: Instant,
) -> Vec<api::BackendView> {
    let mut views = Vec::new();
    for service in snapshot.services() {
        for port in &service.ports {
            views.extend(of_port(service, port, now));
        }
    }
    for Checked { service, address, health, .. } in checked {
        let (namespace, name, address) = (&*service.namespace, &*service.name, address.to_string());
        let health = Some(registering::health(health));
        let mut known = false;
        for view in views.iter_mut().filter(|view| {
            view.namespace == namespace && view.service == name && view.address == address
        }) {
            view.health.clone_from(&health);
            known = true;
        }
        if !known {
            views.push(waiting(namespace, name, address, health));
        }
    }
    for view in &mut views {
        view.path = links.to(&view.node).map(|link| link.path);
    }
    views.sort_by(|a, b| (&a.namespace, &a.service).cmp(&(&b.namespace, &b.service)));
    views
}

fn of_port(service: &Service, port: &Port, now: Instant) -> Vec<api::BackendView> {
    let named = if port.name.is_empty() { port.port.to_string() } else { port.name.to_string() };
    all_backends(port).into_iter().map(|b| backend(service, &named, b, now)).collect()
}

/// What the check of the Policy says of a Backend, where it asks for one.
fn check_says(service: &Service, backend: &Backend) -> Option<api::HealthView> {
    service.policy.health_check.as_ref()?;
    Some(registering::health(&match backend.live.ill.load(Relaxed) {
        true => Health::Unhealthy("its health check fails".into()),
        false => Health::Healthy,
    }))
}

/// A Backend of this node that gets no calls as long as its check fails.
fn waiting(
    namespace: &str,
    service: &str,
    address: String,
    health: Option<api::HealthView>,
) -> api::BackendView {
    api::BackendView {
        namespace: namespace.into(),
        service: service.into(),
        port: String::new(),
        address,
        node: String::new(),
        zone: String::new(),
        tier: Tier::Node.name().into(),
        path: None,
        state: api::BreakerState::Admits,
        health,
        until_seconds: None,
        in_flight: 0,
        requests: 0,
        failures: 0,
    }
}

/// A Service by name, all of it or one port.
pub(crate) fn lookup(
    service: Option<&Service>,
    (namespace, name): (&str, &str),
    port: Option<u16>,
    now: Instant,
) -> api::Lookup {
    let ports = service.into_iter().flat_map(|service| &service.ports);
    let ports: Vec<&Port> = ports.filter(|p| port.is_none_or(|number| p.port == number)).collect();
    let of = |service: &Service| -> (Vec<_>, Vec<_>) {
        let backends = ports.iter().flat_map(|port| of_port(service, port, now)).map(still);
        (ports.iter().map(|p| self::port(service, p, now)).collect(), backends.collect())
    };
    let (views, backends) = service.map(of).unwrap_or_default();
    let addresses = service.map(|s| s.addresses.iter().map(IpAddr::to_string).collect());
    api::Lookup {
        found: service.is_some() && (port.is_none() || !views.is_empty()),
        namespace: namespace.into(),
        name: name.into(),
        addresses: addresses.unwrap_or_default(),
        ports: views,
        backends,
    }
}

/// Without what moves with every call, which is no news to whoever follows.
fn still(view: api::BackendView) -> api::BackendView {
    api::BackendView { in_flight: 0, requests: 0, failures: 0, until_seconds: None, ..view }
}

fn backend(service: &Service, port: &str, backend: &Backend, now: Instant) -> api::BackendView {
    let (state, until) = match backend.live.breaker.look(service.policy.breaker.as_ref(), now) {
        Stance::Admits => (api::BreakerState::Admits, None),
        Stance::WouldProbe => (api::BreakerState::Probes, None),
        Stance::Rejects { wait } => (api::BreakerState::Rejects, Some(wait)),
    };
    api::BackendView {
        namespace: service.name.namespace.to_string(),
        service: service.name.name.to_string(),
        port: port.into(),
        address: backend.address.to_string(),
        node: backend.node.as_ref().map(ToString::to_string).unwrap_or_default(),
        zone: backend.zone.as_deref().unwrap_or_default().into(),
        tier: backend.tier.name().into(),
        path: None,
        state,
        health: check_says(service, backend),
        until_seconds: until.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0)),
        in_flight: backend.live.in_flight.load(Relaxed).into(),
        requests: backend.live.requests.load(Relaxed),
        failures: backend.live.failures.load(Relaxed),
    }
}

/// Backends, those of them that are ejected, and those whose health check fails.
pub(crate) fn count_backends(snapshot: &Snapshot, now: Instant) -> (u64, u64, u64) {
    let (mut all, mut ejected, mut ill) = (0, 0, 0);
    for service in snapshot.services() {
        let breaker = service.policy.breaker.as_ref();
        for backend in service.ports.iter().flat_map(all_backends) {
            all += 1;
            ill += u64::from(backend.live.ill.load(Relaxed));
            ejected +=
                u64::from(!matches!(backend.live.breaker.look(breaker, now), Stance::Admits));
        }
    }
    (all, ejected, ill)
}

/// Every Policy, the overruled ones too.
pub(crate) fn policies(snapshot: &Snapshot) -> Vec<api::PolicyView> {
    let view = |listed: &ListedPolicy| {
        let found = snapshot.by_name(&listed.service.namespace, &listed.service.name);
        let in_force = listed.overruled_by.is_none();
        let policy = &listed.policy;
        let of_service = |other: &&ListedPolicy| other.service == listed.service;
        let conflicted = listed.overruled_by.as_ref().map(|winner| {
            let mut rivals = snapshot.policies.iter().filter(of_service);
            match rivals.find(|rival| rival.overruled_by.is_none()).map(|r| r.policy.origin) {
                Some(origin) if origin != policy.origin => {
                    format!("TrafficPolicy {winner} counts in its place: it wins over any rule")
                }
                _ => format!("{winner} counts in its place: it is older, or first by name"),
            }
        });
        api::PolicyView {
            namespace: listed.service.namespace.to_string(),
            name: listed.name.to_string(),
            service: listed.service.name.to_string(),
            origin: match policy.origin {
                PolicyOrigin::TrafficPolicy => "TrafficPolicy",
                PolicyOrigin::DestinationRule => "DestinationRule",
            }
            .into(),
            active: in_force && found.is_some(),
            missing: (in_force && found.is_none())
                .then(|| format!("there is no Service {}", listed.service)),
            conflicted,
            policy: api::PolicySummary {
                balance: balance::name(policy.balance).into(),
                locality: locality(policy.locality).into(),
                client_qps: policy.client_limit.map(qps),
                server_qps: policy.server_limit.map(qps),
                consecutive_failures: policy.breaker.map(|b| b.consecutive_failures.get()),
                connect_timeout_ms: policy.connect_timeout.map(millis),
                request_timeout_ms: policy.request_timeout.map(millis),
                retries: Some(policy.retries.attempts.into()),
                guards: guards::written(policy),
            },
        }
    };
    snapshot.policies.iter().map(view).collect()
}

fn summary(active: &Active) -> api::PolicySummary {
    api::PolicySummary {
        balance: balance::name(active.balance).into(),
        locality: locality(active.locality).into(),
        client_qps: active.client.as_ref().map(|limiter| qps(limiter.limit())),
        server_qps: active.server.as_ref().map(|limiter| qps(limiter.limit())),
        consecutive_failures: active.breaker.map(|b| b.consecutive_failures.get()),
        connect_timeout_ms: Some(millis(active.connect_timeout)),
        request_timeout_ms: active.request_timeout.map(millis),
        retries: Some(active.retries.attempts.into()),
        guards: guards::active(active),
    }
}

fn qps(limit: RateLimit) -> f64 {
    limit.qps.get().into()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn locality(locality: Locality) -> &'static str {
    match locality {
        Locality::None => "none",
        Locality::PreferNode => "preferNode",
        Locality::OnlyNode => "onlyNode",
    }
}
