//! Records and deltas at their border: what does not fit is refused by the name of its field.

use bytes::Bytes;
use edgemesh_proto::pb;
use edgemesh_proto::record::{
    Body, BreakerPolicy, Delta, Key, Kind, LimitBy, MAX_BODY, MAX_NAME, Policy, Put, RateLimit,
    Record, RetryPolicy,
};
use prost::Message as _;

fn port(port: u32) -> pb::ServicePort {
    pb::ServicePort { port, ..Default::default() }
}

fn service(ports: Vec<pb::ServicePort>) -> Vec<u8> {
    pb::Service { ports, ..Default::default() }.encode_to_vec()
}

fn slice(change: impl Fn(&mut pb::Slice)) -> Vec<u8> {
    let backend =
        pb::Backend { addresses: vec![Bytes::from_static(&[1; 4])], ..Default::default() };
    let entry = pb::SlicePort { port: 1, ..Default::default() };
    let mut slice = pb::Slice {
        service: "s".into(),
        ports: vec![entry],
        backends: vec![Default::default(), backend],
    };
    change(&mut slice);
    slice.encode_to_vec()
}

fn policy(change: impl Fn(&mut pb::Policy)) -> Vec<u8> {
    let mut policy = pb::Policy { service: "s".into(), ..Default::default() };
    change(&mut policy);
    policy.encode_to_vec()
}

fn breaker(change: impl Fn(&mut pb::BreakerPolicy)) -> Vec<u8> {
    let second = Some(pb::Span { seconds: 1, nanos: 0 });
    let mut breaker = pb::BreakerPolicy {
        consecutive_failures: 1,
        eject_for: second,
        max_eject_for: second,
        max_ejected_percent: 100,
        success_rate_percent: 0,
        window: None,
        min_requests: 0,
    };
    change(&mut breaker);
    policy(|p| p.breaker = Some(breaker))
}

fn retries(change: impl Fn(&mut pb::RetryPolicy)) -> Vec<u8> {
    let mut retries = pb::RetryPolicy::default();
    change(&mut retries);
    policy(|p| p.retries = Some(retries))
}

fn route(change: impl Fn(&mut pb::HttpRoute)) -> Vec<u8> {
    let (namespace, service) = ("ns".to_owned(), "s".to_owned());
    let parent = pb::RouteParent {
        namespace: namespace.clone(),
        service: service.clone(),
        ..Default::default()
    };
    let header = pb::RouteField { name: "x".into(), ..Default::default() };
    let mut route = pb::HttpRoute {
        parents: vec![parent],
        rules: vec![pb::RouteRule {
            matches: vec![pb::RouteMatch { headers: vec![header], ..Default::default() }],
            backends: vec![pb::RouteBackend { namespace, service, port: 1, ..Default::default() }],
            ..Default::default()
        }],
        ..Default::default()
    };
    change(&mut route);
    route.encode_to_vec()
}

fn endpoint(change: impl Fn(&mut pb::Endpoint)) -> Vec<u8> {
    let mut endpoint = pb::Endpoint { id: "e".into(), r#type: "rest".into(), ..Default::default() };
    change(&mut endpoint);
    endpoint.encode_to_vec()
}

fn rule(change: impl Fn(&mut pb::Rule)) -> Vec<u8> {
    let side = Some(pb::EndpointRef { namespace: "ns".into(), name: "e".into() });
    let (id, project_id) = ("r".into(), "p".into());
    let mut rule =
        pb::Rule { id, project_id, source: side.clone(), target: side, ..Default::default() };
    change(&mut rule);
    rule.encode_to_vec()
}

fn target(target: pb::service_port::Target) -> Vec<u8> {
    service(vec![pb::ServicePort { target: Some(target), ..port(1) }])
}

fn limit(qps: u32, burst: u32) -> Option<pb::RateLimit> {
    Some(pb::RateLimit { qps, burst, by: 0 })
}

/// Kind, body, and how the error reads or begins; empty = it fits.
#[test]
fn bodies_are_checked_field_by_field() {
    use pb::service_port::Target::{TargetName, TargetNumber};
    let long_time = Some(pb::Span { seconds: 0, nanos: 1_000_000_000 });
    let rows: Vec<(Kind, Vec<u8>, &str)> = vec![
        (Kind::Service, service(vec![]), ""),
        (Kind::Service, service(vec![port(1), port(65535)]), ""),
        (Kind::Service, service(vec![port(1), port(0)]), "ports[1].port: 0 is no port: 1 to 65535"),
        (Kind::Service, service(vec![port(65536)]), "ports[0].port: 65536 is no port"),
        (Kind::Service, target(TargetNumber(65535)), ""),
        (Kind::Service, target(TargetNumber(0)), "ports[0].target_number: 0 is no port"),
        (Kind::Service, target(TargetName(String::new())), "ports[0].target_name: is empty"),
        (
            Kind::Service,
            service(vec![pb::ServicePort { node_port: Some(0), ..port(1) }]),
            "ports[0].node_port: 0 is no port",
        ),
        (
            Kind::Service,
            service(vec![pb::ServicePort { transport: 3, ..port(1) }]),
            "ports[0].transport: 3 is no value that this version knows",
        ),
        (
            Kind::Service,
            pb::Service { affinity: long_time, ..Default::default() }.encode_to_vec(),
            "affinity.nanos: a whole second or more",
        ),
        (
            Kind::Service,
            pb::Service { cluster_ips: vec![Bytes::from_static(&[1; 5])], ..Default::default() }
                .encode_to_vec(),
            "cluster_ips[0]: an address of 5 bytes: 4 or 16",
        ),
        (Kind::Service, vec![0xff], "body: "),
        (Kind::Service, vec![0; MAX_BODY + 1], "body: 2097153 bytes: at most 2097152"),
        (Kind::Slice, slice(|_| {}), ""),
        (Kind::Slice, slice(|s| s.service.clear()), "service: is empty"),
        (Kind::Slice, slice(|s| s.ports[0].port = 0), "ports[0].port: 0 is no port"),
        (Kind::Slice, slice(|s| s.ports[0].transport = -1), "ports[0].transport: -1 is no value"),
        (
            Kind::Slice,
            slice(|s| s.backends[1].addresses.push(Bytes::new())),
            "backends[1].addresses[1]: an address of 0 bytes: 4 or 16",
        ),
        (Kind::Slice, slice(|s| s.backends[1].weight = Some(1000)), ""),
        (
            Kind::Slice,
            slice(|s| s.backends[1].weight = Some(1001)),
            "backends[1].weight: 1001 is too much: 0 to 1000",
        ),
        (
            Kind::Slice,
            slice(|s| s.backends[1].node = Some(String::new())),
            "backends[1].node: is empty",
        ),
        (
            Kind::Node,
            pb::Node { addresses: vec![Bytes::new()], ..Default::default() }.encode_to_vec(),
            "addresses[0]: an address of 0 bytes",
        ),
        (
            Kind::Workload,
            pb::Workload {
                ports: vec![pb::NamedPort { name: String::new(), port: 1 }],
                ..Default::default()
            }
            .encode_to_vec(),
            "ports[0].name: is empty",
        ),
        (Kind::Policy, policy(|_| {}), ""),
        (Kind::Policy, policy(|p| p.service.clear()), "service: is empty"),
        (Kind::Policy, policy(|p| p.balance = 5), "balance: 5 is no value"),
        (Kind::Policy, policy(|p| p.hash_key = Some(pb::HashKey { of: None })), ""),
        (
            Kind::Policy,
            policy(|p| {
                let of = Some(pb::hash_key::Of::Header(String::new()));
                p.hash_key = Some(pb::HashKey { of });
            }),
            "hash_key.header: is empty",
        ),
        (Kind::Policy, policy(|p| p.locality = 3), "locality: 3 is no value"),
        (Kind::Policy, policy(|p| p.origin = 2), "origin: 2 is no value"),
        (Kind::Policy, policy(|p| p.client_limit = limit(1, 1)), ""),
        (
            Kind::Policy,
            policy(|p| p.client_limit = limit(0, 1)),
            "client_limit.qps: is 0: 1 or more",
        ),
        (Kind::Policy, policy(|p| p.server_limit = limit(1, 0)), "server_limit.burst: is 0"),
        (Kind::Policy, policy(|p| p.connect_timeout = long_time), "connect_timeout.nanos: "),
        (Kind::Policy, policy(|p| p.request_timeout = long_time), "request_timeout.nanos: "),
        (Kind::Policy, breaker(|_| {}), ""),
        (
            Kind::Policy,
            breaker(|b| b.consecutive_failures = 0),
            "breaker.consecutive_failures: is 0",
        ),
        (Kind::Policy, breaker(|b| b.eject_for = None), "breaker.eject_for: is missing"),
        (
            Kind::Policy,
            breaker(|b| b.max_ejected_percent = 101),
            "breaker.max_ejected_percent: 101 is too much: 0 to 100",
        ),
        (Kind::Policy, retries(|r| r.attempts = 255), ""),
        (
            Kind::Policy,
            retries(|r| r.attempts = 256),
            "retries.attempts: 256 is too much: 0 to 255",
        ),
        (Kind::Policy, retries(|r| r.budget_percent = 256), "retries.budget_percent: 256"),
        (Kind::Route, vec![], ""),
        (Kind::Route, route(|_| {}), ""),
        (Kind::Route, route(|r| r.parents[0].service.clear()), "parents[0].service: is empty"),
        (Kind::Route, route(|r| r.parents[0].port = 65536), "parents[0].port: 65536 is no port"),
        (
            Kind::Route,
            route(|r| r.rules[0].backends[0].port = 0),
            "rules[0].backends[0].port: 0 is no port",
        ),
        (
            Kind::Route,
            route(|r| r.rules[0].backends[0].service.clear()),
            "rules[0].backends[0].service: is empty",
        ),
        (
            Kind::Route,
            route(|r| {
                r.rules[0].backends[0] =
                    pb::RouteBackend { fault: Some("no such kind".into()), ..Default::default() };
            }),
            "",
        ),
        (
            Kind::Route,
            route(|r| r.rules[0].redirect = Some(pb::RouteRedirect::default())),
            "rules[0].redirect.status: 0: 300 to 399",
        ),
        (
            Kind::Route,
            route(|r| r.rules[0].request_timeout = long_time),
            "rules[0].request_timeout.nanos: a whole second or more",
        ),
        (
            Kind::Route,
            route(|r| r.rules[0].matches[0].headers[0].kind = 1),
            "rules[0].matches[0].headers[0].kind: a prefix is for paths only",
        ),
        (
            Kind::Route,
            route(|r| {
                r.rules[0].matches[0].path = Some(pb::RoutePath { kind: 3, value: "/".into() })
            }),
            "rules[0].matches[0].path.kind: 3 is no value that this version knows",
        ),
        (Kind::Endpoint, vec![], "id: 0 bytes: 1 to 36"),
        (Kind::Endpoint, endpoint(|_| {}), ""),
        (Kind::Endpoint, endpoint(|e| e.r#type = "x".repeat(65)), "type: 65 bytes: 1 to 64"),
        (
            Kind::Endpoint,
            endpoint(|e| drop(e.properties.insert("x".repeat(10_240), String::new()))),
            "properties: 10247 bytes as JSON: at most 10240",
        ),
        (Kind::Rule, vec![], "id: 0 bytes: 1 to 36"),
        (Kind::Rule, rule(|_| {}), ""),
        (Kind::Rule, rule(|r| r.source = None), "source: is missing"),
        (
            Kind::Rule,
            rule(|r| r.target = Some(pb::EndpointRef::default())),
            "target.namespace: is empty",
        ),
        (
            Kind::Rule,
            rule(|r| drop(r.target_resource.insert("x".repeat(1024), String::new()))),
            "target_resource: 1031 bytes as JSON: at most 1024",
        ),
        (Kind::Revocation, vec![0xff], "body: "),
    ];
    for (kind, body, want) in rows {
        let got = Record::decode(kind, "ns", "name", &body);
        match &got {
            Ok(record) => assert_eq!((want, record.kind()), ("", kind)),
            Err(e) => assert!(!want.is_empty() && e.to_string().starts_with(want), "{e}: {want}"),
        }
    }
}

#[test]
fn identities_are_bounded() {
    let long = "n".repeat(MAX_NAME + 1);
    let rows = [
        ("", "n", None),
        ("", &long[1..], None),
        ("", "", Some("name")),
        ("", &long, Some("name")),
        (&long, "n", Some("namespace")),
    ];
    for (namespace, name, want) in rows {
        let got = Record::decode(Kind::Node, namespace, name, b"").err();
        assert_eq!(got.as_ref().map(|e| &*e.field), want);
    }
}

#[test]
fn absent_parts_have_the_defaults_of_the_checked_types() {
    let record = Record::decode(Kind::Policy, "", "p", b"\x0a\x01s").unwrap();
    let want = Policy { service: "s".into(), ..Policy::default() };
    assert_eq!(record.body, Body::Policy(want));
}

/// A Policy down to its bytes: a change here makes every agent fetch every Policy again.
#[test]
fn bytes_of_a_policy_are_fixed() {
    let (qps, burst) = (100.try_into().unwrap(), 20.try_into().unwrap());
    let limit = RateLimit { qps, burst, by: LimitBy::Service };
    let policy = Policy {
        service: "hello".into(),
        client_limit: Some(limit),
        breaker: Some(BreakerPolicy::default()),
        retries: RetryPolicy::default(),
        ..Policy::default()
    };
    let body = Body::Policy(policy);
    let record = Record { namespace: "default".into(), name: "hello".into(), body };
    let want = b"\x0a\x05hello\x32\x04\x08\x64\x10\x14\
        \x42\x0d\x08\x05\x12\x02\x08\x0a\x1a\x03\x08\xac\x02\x20\x32\x5a\x06\x08\x02\x10\x01\x28\x14";
    assert_eq!(record.encode_body(), want);
}

fn key(kind: i32, name: &str) -> pb::Key {
    pb::Key { kind, namespace: "ns".into(), name: name.into() }
}

#[test]
fn a_bad_record_harms_only_itself() {
    let put = |key| pb::Record { key, body: Bytes::from_static(b"\xff not looked into") };
    let delta = pb::Delta {
        epoch: Bytes::from_static(&[7; 16]),
        from: 3,
        to: 4,
        put: vec![
            put(Some(key(1, "good"))),
            put(None),
            put(Some(key(99, "newer"))),
            put(Some(key(6, "route"))),
        ],
        delete: vec![key(0, "unsaid"), key(2, ""), key(5, "gone")],
        ..Default::default()
    };
    let (delta, bad) = Delta::decode(delta.encode_to_vec().into()).unwrap();
    let names = |keys: Vec<&Key>| keys.iter().map(|k| k.to_string()).collect::<Vec<_>>();
    assert_eq!(
        names(delta.put.iter().map(|p| &p.key).collect()),
        ["service ns/good", "route ns/route"]
    );
    assert_eq!(names(delta.delete.iter().collect()), ["policy ns/gone"]);
    let bad: Vec<_> = bad.iter().map(ToString::to_string).collect();
    let want = [
        "put[1].key: is missing",
        "put[2].key.kind: 99 is no value that this version knows",
        "delete[0].kind: is missing",
        "delete[1].name: is empty",
    ];
    assert_eq!(bad, want);
    assert_eq!(delta.put[0].record().unwrap_err().field, "body");
}

#[test]
fn a_bad_delta_is_refused_whole() {
    let delta = |epoch: &'static [u8], from, to, reset| {
        let epoch = Bytes::from_static(epoch);
        pb::Delta { epoch, from, to, reset, ..Default::default() }.encode_to_vec()
    };
    let rows = [
        (vec![0xff], Some("delta")),
        (vec![], Some("epoch")),
        (delta(&[0; 15], 0, 0, false), Some("epoch")),
        (delta(&[0; 16], 5, 4, false), Some("to")),
        (delta(&[0; 16], 5, 4, true), None),
        (delta(&[0; 16], 5, 5, false), None),
    ];
    for (bytes, want) in rows {
        let got = Delta::decode(bytes.into()).err();
        assert_eq!(got.as_ref().map(|e| &*e.field), want, "{got:?}");
    }
}

/// What a newer version wrote stays as it is on the way through.
#[test]
fn unknown_fields_travel_on() {
    let body = Bytes::from_static(b"\xfa\x01\x01x"); // field 31, which no version has yet
    let key = Key { kind: Kind::Node, namespace: "".into(), name: "n".into() };
    let delta = Delta { put: vec![Put { key, body: body.clone() }], ..Delta::default() };
    let (again, bad) = Delta::decode(delta.encode().into()).unwrap();
    assert_eq!((&again, bad.len()), (&delta, 0));
    assert!(again.put[0].record().is_ok());
}
