//! Registrations become records beside those of other sources.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use edgemesh_proto::record::{
    Backend, Body, Key, Kind, NodeName, Record, Service, ServiceName, ServicePort, Slice,
    SlicePort, TargetPort, Transport,
};

use crate::registrations::{Listed, Name, Registration};
use crate::snapshot::LOCAL_SLICES;

/// Marks a Service that nobody but registrations made. No Pod has this label.
const MARK: (&str, &str) = ("edgemesh.io/registered", "true");
/// A Service that nobody made otherwise is called here too, so that `http://name.namespace/` works.
const HTTP: NonZeroU16 = NonZeroU16::new(80).expect("80 is not 0");

/// What is to be said of a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) name: Name,
    pub(crate) reason: String,
}

/// Adds the records of `listed` to those of other sources. `ready` says which of them take calls.
pub(crate) fn merge(
    records: &mut BTreeMap<Key, Record>,
    listed: &[Listed],
    node: &NodeName,
    ready: impl Fn(&Listed) -> bool,
) -> Vec<Said> {
    let (made, said) = made(|name| service_in(records, name), listed, node, ready);
    records.extend(made.into_iter().map(|record| (record.key(), record)));
    said
}

/// The Service of that name among `records`.
pub(crate) fn service_in<'r>(
    records: &'r BTreeMap<Key, Record>,
    name: &ServiceName,
) -> Option<&'r Service> {
    let ServiceName { namespace, name } = name.clone();
    records.get(&Key { kind: Kind::Service, namespace, name })?.body.service()
}

/// The records of `listed`, beside the Services of other sources that `known` gives. `ready` says
/// which of them take calls.
pub(crate) fn made<'k>(
    known: impl Fn(&ServiceName) -> Option<&'k Service>,
    listed: &[Listed],
    node: &NodeName,
    ready: impl Fn(&Listed) -> bool,
) -> (Vec<Record>, Vec<Said>) {
    let mut by_service = BTreeMap::<ServiceName, Vec<&Listed>>::new();
    for one in listed {
        by_service.entry(one.name.service()).or_default().push(one);
    }
    let (mut records, mut said) = (Vec::new(), Vec::new());
    for (name, registered) in by_service {
        let theirs = known(&name);
        // What only registrations made, of other nodes, is there for as long as somebody makes it.
        let is_own = theirs.is_none_or(is_made);
        let own = is_own.then(|| own_service(&registered));
        let Some(service) = theirs.or(own.as_ref()) else { continue };
        for one in registered {
            let ports = match attached(service, &one.registration, is_own) {
                Ok(ports) => ports,
                Err(reason) => {
                    said.push(Said { name: one.name.clone(), reason });
                    continue;
                }
            };
            records.push(slice(one, ports, node, ready(one)));
        }
        if let Some(own) = own {
            let ServiceName { namespace, name } = name;
            records.push(Record { namespace, name, body: Body::Service(own) });
        }
    }
    (records, said)
}

/// Whether a record was made here.
pub(crate) fn is_local(record: &Record) -> bool {
    match &record.body {
        Body::Slice(_) => record.name.starts_with(LOCAL_SLICES),
        Body::Service(service) => is_made(service),
        Body::Node(_)
        | Body::Workload(_)
        | Body::Policy(_)
        | Body::Route(_)
        | Body::Endpoint(_)
        | Body::Rule(_)
        | Body::Revocation(_) => false,
    }
}

/// Whether nobody but registrations made a Service.
fn is_made(service: &Service) -> bool {
    service.selector.get(MARK.0).is_some_and(|v| **v == *MARK.1)
}

/// The Slice of a registration.
pub(crate) fn slice_key(name: &Name) -> Key {
    let ServiceName { namespace, name: service } = name.service();
    let name = format!("{LOCAL_SLICES}{service}.{}", name.id()).into();
    Key { kind: Kind::Slice, namespace, name }
}

/// The ports that its registrations ask for, each once. No address: it gets a virtual one.
fn own_service(registered: &[&Listed]) -> Service {
    let numbers: BTreeSet<_> =
        registered.iter().flat_map(|one| wanted(&one.registration)).collect();
    let several = numbers.len() > 1;
    let port = |port: NonZeroU16| ServicePort {
        name: if several { format!("p{port}").into() } else { "".into() },
        port,
        target: TargetPort::Same,
        transport: Transport::Tcp,
        app_protocol: None,
        node_port: None,
    };
    let selector = [(MARK.0.into(), MARK.1.into())].into();
    Service { ports: numbers.into_iter().map(port).collect(), selector, ..Service::default() }
}

/// The ports of a Service of its own.
fn wanted(registration: &Registration) -> BTreeSet<NonZeroU16> {
    match registration.service_port {
        Some(port) => [port].into(),
        None => [HTTP, registration.port].into(),
    }
}

/// The Service's ports that the registration backs.
fn attached<'s>(
    service: &'s Service,
    registration: &Registration,
    own: bool,
) -> Result<Vec<&'s ServicePort>, String> {
    if let Some(name) = &service.external_name {
        return Err(format!("the Service stands for {name} (ExternalName) and has no Backends"));
    }
    let tcp = || service.ports.iter().filter(|port| port.transport == Transport::Tcp);
    let known = || {
        let all: Vec<_> = tcp().map(|port| port.port.to_string()).collect();
        all.join(", ")
    };
    if own {
        let wanted = wanted(registration);
        let ports: Vec<_> = tcp().filter(|port| wanted.contains(&port.port)).collect();
        let elsewhere = || format!("servicePort: is missing; the Service has {}", known());
        return if ports.is_empty() { Err(elsewhere()) } else { Ok(ports) };
    }
    let of = |number: NonZeroU16| tcp().find(|port| port.port == number);
    if let Some(number) = registration.service_port {
        let missing =
            || format!("servicePort: the Service has no TCP port {number}; it has {}", known());
        return Ok(vec![of(number).ok_or_else(missing)?]);
    }
    let mut all = tcp();
    match (all.next(), all.next()) {
        (None, _) => Err("the Service has no TCP port".into()),
        (Some(only), None) => Ok(vec![only]),
        (Some(_), Some(_)) => {
            let same = of(registration.port).map(|port| vec![port]);
            same.ok_or_else(|| format!("servicePort: is missing; the Service has {}", known()))
        }
    }
}

fn slice(one: &Listed, ports: Vec<&ServicePort>, node: &NodeName, ready: bool) -> Record {
    let Listed { name, registration, .. } = one;
    let port = |port: &ServicePort| SlicePort {
        name: port.name.clone(),
        port: registration.port,
        transport: Transport::Tcp,
        app_protocol: registration.protocol.clone(),
    };
    let backend = Backend {
        addresses: vec![registration.address],
        ready,
        serving: ready,
        terminating: false,
        hostname: None,
        node: Some(node.clone()),
        zone: registration.zone.clone(),
        workload: Some(name.id().into()),
        weight: None,
    };
    let service = name.service().name;
    let ports = ports.into_iter().map(port).collect();
    let Key { namespace, name, .. } = slice_key(name);
    let body = Body::Slice(Slice { service, ports, backends: vec![backend] });
    Record { namespace, name, body }
}
