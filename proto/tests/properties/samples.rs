//! Any record and any Message that is valid, for property tests.

mod routes;
mod rules;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use edgemesh_proto::message::{Content, Header, Message, Route};
use edgemesh_proto::record::{
    Agent, AllowedCaller, Backend, BalancePolicy, Body, BreakerPolicy, ConnectionCaps, HashKey,
    HealthCheck, HealthQuestion, LimitBy, Locality, MAX_WEIGHT, NamedPort, Node, NodeName, Policy,
    PolicyOrigin, RateLimit, Record, RetryPolicy, Revocation, Service, ServicePort, Slice,
    SlicePort, SuccessRate, TargetPort, Transport, Workload,
};
use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

type Labels = BTreeMap<Box<str>, Box<str>>;

fn list<S: Strategy>(entry: S) -> impl Strategy<Value = Vec<S::Value>> {
    proptest::collection::vec(entry, 0..4)
}

fn text() -> impl Strategy<Value = Box<str>> {
    ".{0,12}".prop_map(Into::into)
}

fn name() -> impl Strategy<Value = Box<str>> {
    "[a-z0-9.-]{1,20}".prop_map(Into::into)
}

fn node_name() -> impl Strategy<Value = Option<NodeName>> {
    option::of(name().prop_map(NodeName))
}

fn port() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

fn flag() -> impl Strategy<Value = bool> {
    any::<bool>()
}

fn time() -> impl Strategy<Value = Option<Duration>> {
    any::<Option<Duration>>()
}

fn labels() -> impl Strategy<Value = Labels> {
    proptest::collection::btree_map(text(), text(), 0..4)
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    list(any::<IpAddr>())
}

fn transport() -> impl Strategy<Value = Transport> {
    select(vec![Transport::Tcp, Transport::Udp, Transport::Sctp])
}

fn target() -> impl Strategy<Value = TargetPort> {
    prop_oneof![
        Just(TargetPort::Same),
        port().prop_map(TargetPort::Number),
        name().prop_map(TargetPort::Name),
    ]
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    let fields = (text(), port(), target(), transport(), option::of(text()), option::of(port()));
    fields.prop_map(|(name, port, target, transport, app_protocol, node_port)| ServicePort {
        name,
        port,
        target,
        transport,
        app_protocol,
        node_port,
    })
}

fn service() -> impl Strategy<Value = Service> {
    let names = (list(service_port()), option::of(text()), labels());
    let rest = (addresses(), addresses(), time(), any::<i64>(), (flag(), flag(), flag()));
    (names, rest).prop_map(|((ports, external_name, selector), rest)| {
        let (cluster_ips, external_ips, affinity, created, flags) = rest;
        let (headless, publish_not_ready, proxy_protocol) = flags;
        Service {
            ports,
            cluster_ips,
            external_ips,
            headless,
            external_name,
            selector,
            affinity,
            publish_not_ready,
            created,
            proxy_protocol,
        }
    })
}

fn slice() -> impl Strategy<Value = Slice> {
    let port = (text(), port(), transport(), option::of(text()));
    let port = port.prop_map(|(name, port, transport, app_protocol)| SlicePort {
        name,
        port,
        transport,
        app_protocol,
    });
    (name(), list(port), list(backend())).prop_map(|(service, ports, backends)| Slice {
        service,
        ports,
        backends,
    })
}

fn backend() -> impl Strategy<Value = Backend> {
    let names = (option::of(text()), node_name(), option::of(text()), option::of(text()));
    let weight = option::of(0..=MAX_WEIGHT);
    (addresses(), any::<[bool; 3]>(), names, weight).prop_map(
        |(addresses, states, names, weight)| {
            let ([ready, serving, terminating], (hostname, node, zone, workload)) = (states, names);
            Backend {
                addresses,
                ready,
                serving,
                terminating,
                hostname,
                node,
                zone,
                workload,
                weight,
            }
        },
    )
}

fn node() -> impl Strategy<Value = Node> {
    let agent = list(text()).prop_map(|links| Agent { links });
    (addresses(), option::of(text()), labels(), option::of(agent), flag()).prop_map(
        |(addresses, zone, labels, agent, via_cloud)| Node {
            addresses,
            zone,
            labels,
            agent,
            via_cloud,
        },
    )
}

fn workload() -> impl Strategy<Value = Workload> {
    let port = (name(), port()).prop_map(|(name, port)| NamedPort { name, port });
    (addresses(), node_name(), labels(), flag(), flag(), list(port), text()).prop_map(
        |(addresses, node, labels, ready, terminating, ports, owner)| Workload {
            addresses,
            node,
            labels,
            ready,
            terminating,
            ports,
            owner,
        },
    )
}

fn limit() -> impl Strategy<Value = Option<RateLimit>> {
    let by = select(vec![LimitBy::Service, LimitBy::Workload, LimitBy::Namespace, LimitBy::Ip]);
    let fields = (any::<[NonZeroU32; 2]>(), by);
    option::of(fields.prop_map(|([qps, burst], by)| RateLimit { qps, burst, by }))
}

fn breaker() -> impl Strategy<Value = Option<BreakerPolicy>> {
    let rate = (1..=100_u8, any::<Duration>(), any::<NonZeroU32>());
    let rate = rate.prop_map(|(percent, window, min_requests)| SuccessRate {
        percent,
        window,
        min_requests,
    });
    let fields =
        (any::<NonZeroU32>(), any::<Duration>(), any::<Duration>(), 0..=100_u8, option::of(rate));
    option::of(fields.prop_map(
        |(consecutive_failures, eject_for, max_eject_for, max_ejected_percent, rate)| {
            BreakerPolicy {
                consecutive_failures,
                eject_for,
                max_eject_for,
                max_ejected_percent,
                success_rate: rate,
            }
        },
    ))
}

fn retries() -> impl Strategy<Value = RetryPolicy> {
    (any::<[u8; 2]>(), any::<[bool; 4]>()).prop_map(|([attempts, budget_percent], flags)| {
        let [on_connect, on_reset, on_503, non_idempotent] = flags;
        RetryPolicy { attempts, on_connect, on_reset, on_503, budget_percent, non_idempotent }
    })
}

fn caller() -> impl Strategy<Value = AllowedCaller> {
    let fields = (option::of(name()), option::of(name()), node_name());
    fields
        .prop_map(|(namespace, service, node)| AllowedCaller { namespace, service, node })
        .prop_filter("says something", |caller| *caller != AllowedCaller::default())
}

fn caps() -> impl Strategy<Value = Option<ConnectionCaps>> {
    let caps = any::<[Option<NonZeroU32>; 2]>();
    option::of(caps.prop_map(|[max, max_requests]| ConnectionCaps { max, max_requests }))
}

fn health() -> impl Strategy<Value = Option<HealthCheck>> {
    let how = prop_oneof![
        name().prop_map(HealthQuestion::Http),
        Just(HealthQuestion::Tcp),
        text().prop_map(HealthQuestion::Grpc),
    ];
    let fields = (how, any::<[Duration; 2]>(), any::<[NonZeroU32; 2]>());
    option::of(fields.prop_map(|(how, [interval, timeout], [healthy, unhealthy])| HealthCheck {
        how,
        interval,
        timeout,
        healthy,
        unhealthy,
    }))
}

fn policy() -> impl Strategy<Value = Policy> {
    let origin = select(vec![PolicyOrigin::TrafficPolicy, PolicyOrigin::DestinationRule]);
    let balance = select(vec![
        BalancePolicy::RoundRobin,
        BalancePolicy::Random,
        BalancePolicy::LeastRequest,
        BalancePolicy::PeakEwma,
        BalancePolicy::ConsistentHash,
    ]);
    let hash_key = prop_oneof![
        Just(HashKey::SourceIp),
        name().prop_map(HashKey::Header),
        name().prop_map(HashKey::Cookie),
        name().prop_map(HashKey::Query),
    ];
    let locality = select(vec![Locality::None, Locality::PreferNode, Locality::OnlyNode]);
    let choices = (name(), origin, any::<i64>(), balance, hash_key, locality);
    let times = (time(), time(), time());
    let guards = (option::of(list(caller())), caps(), health());
    (choices, limit(), limit(), breaker(), times, retries(), guards).prop_map(
        |(choices, client_limit, server_limit, breaker, times, retries, guards)| {
            let (service, origin, created, balance, hash_key, locality) = choices;
            let (connect_timeout, request_timeout, idle_timeout) = times;
            let (allow, connections, health_check) = guards;
            Policy {
                service,
                origin,
                created,
                balance,
                hash_key,
                locality,
                client_limit,
                server_limit,
                breaker,
                connect_timeout,
                request_timeout,
                retries,
                allow,
                connections,
                idle_timeout,
                health_check,
            }
        },
    )
}

/// Any valid record of a kind that has a body.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    let body = prop_oneof![
        service().prop_map(Body::Service),
        slice().prop_map(Body::Slice),
        node().prop_map(Body::Node),
        workload().prop_map(Body::Workload),
        policy().prop_map(Body::Policy),
        routes::route().prop_map(Body::Route),
        rules::endpoint().prop_map(Body::Endpoint),
        rules::rule().prop_map(Body::Rule),
        any::<i64>().prop_map(|before| Body::Revocation(Revocation { before })),
    ];
    (text(), name(), body).prop_map(|(namespace, name, body)| Record { namespace, name, body })
}

fn content() -> impl Strategy<Value = Content> {
    let json = proptest::collection::btree_map(any::<String>(), any::<Option<i64>>(), 0..4);
    prop_oneof![
        Just(Content::Null),
        any::<String>().prop_map(Content::Text),
        any::<Vec<u8>>().prop_map(|bytes| Content::Bytes(bytes.into())),
        json.prop_map(|map| Content::json(&map).expect("text keys")),
        any::<bool>().prop_map(|flag| Content::json(&flag).expect("a bool")),
    ]
}

/// Any valid Message.
pub(crate) fn message() -> impl Strategy<Value = Message> {
    let text = || "[\\PC\u{0}-\u{1f}<>&\u{2028}]{0,20}";
    let numbers = (any::<i64>(), any::<bool>(), any::<u64>());
    let header = ([text(); 5], numbers).prop_map(|(texts, (timestamp, sync, deadline_ms))| {
        let [id, parent_id, message_type, resource_version, trace] = texts;
        Header {
            id,
            parent_id,
            timestamp,
            sync,
            message_type,
            resource_version,
            deadline_ms,
            trace,
        }
    });
    let route = [text(); 5].prop_map(|[source, group, operation, resource, destination]| Route {
        source,
        group,
        operation,
        resource,
        destination,
    });
    (header, route, content()).prop_map(|(header, route, content)| Message {
        header,
        route,
        content,
        body: None,
    })
}
