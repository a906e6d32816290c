//! What the benches share: a world of many Services, as records.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

use edgemesh_core::snapshot::Change;
use edgemesh_proto::record::{
    Backend, BalancePolicy, Body, NodeName, Policy, Record, Route, RouteBackend, RouteEdits,
    RouteMatch, RouteParent, RoutePath, RouteRule, RouteTarget, Service, ServicePort, Slice,
    SlicePort, TargetPort, Transport,
};

/// The port of every Service.
pub const PORT: u16 = 80;

/// Cluster IP of the `index`-th Service.
pub fn address(index: u32) -> IpAddr {
    Ipv4Addr::from(0x0a60_0001 + index).into()
}

/// `services` Services in namespaces of a hundred, each with one Slice of `backends` Backends on
/// as many nodes, and a Policy with `balance`.
pub fn world(services: u32, backends: u32, balance: BalancePolicy) -> Change {
    let records = (0..services).flat_map(|index| {
        let policy = Policy { service: name(index), balance, ..Policy::default() };
        [
            record(index, Body::Service(service(index))),
            slice(index, backends),
            record(index, Body::Policy(policy)),
        ]
    });
    Change { revision: 1, put: records.collect(), ..Change::default() }
}

/// The Slice of the `index`-th Service.
pub fn slice(index: u32, backends: u32) -> Record {
    let backend = |n: u32| Backend {
        addresses: vec![Ipv4Addr::from(0x0af4_0000 + (index << 6) + n).into()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: Some(NodeName(format!("edge-{n}").into())),
        zone: None,
        workload: Some(format!("pod-{index}-{n}").into()),
        weight: None,
    };
    let port = SlicePort {
        name: "http".into(),
        port: target(),
        transport: Transport::Tcp,
        app_protocol: None,
    };
    let backends = (0..backends).map(backend).collect();
    record(index, Body::Slice(Slice { service: name(index), ports: vec![port], backends }))
}

/// An HTTPRoute of the `index`-th Service: `rules - 1` rules by path, and one
/// for the rest, all back to it and the next one.
pub fn route(index: u32, rules: usize) -> Record {
    let namespace = format!("team-{:03}", index / 100);
    let parent = RouteParent {
        namespace: namespace.as_str().into(),
        service: name(index),
        port: None,
        section: "".into(),
    };
    let backend = |index: u32, weight: u32| RouteBackend {
        target: Ok(RouteTarget {
            namespace: namespace.as_str().into(),
            service: name(index),
            port: NonZeroU16::new(PORT).expect("it is not 0"),
        }),
        weight,
        edits: RouteEdits::default(),
    };
    let rule = |n: usize| RouteRule {
        matches: match n + 1 == rules {
            true => Vec::new(),
            false => vec![RouteMatch {
                path: RoutePath::Prefix(format!("/rule-{n}").into()),
                ..RouteMatch::default()
            }],
        },
        backends: vec![backend(index, 90), backend(index + 1, 10)],
        ..RouteRule::default()
    };
    let rules = (0..rules).map(rule).collect();
    record(index, Body::Route(Route { created: 0, parents: vec![parent], rules }))
}

fn service(index: u32) -> Service {
    let port = ServicePort {
        name: "http".into(),
        port: NonZeroU16::new(PORT).expect("it is not 0"),
        target: TargetPort::Number(target()),
        transport: Transport::Tcp,
        app_protocol: None,
        node_port: None,
    };
    Service { ports: vec![port], cluster_ips: vec![address(index)], ..Service::default() }
}

fn record(index: u32, body: Body) -> Record {
    let namespace = format!("team-{:03}", index / 100);
    Record { namespace: namespace.into(), name: name(index), body }
}

fn name(index: u32) -> Box<str> {
    format!("service-{index:05}").into()
}

const fn target() -> NonZeroU16 {
    NonZeroU16::MIN.saturating_add(8079)
}
