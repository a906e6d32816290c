//! Rules and Endpoints for tests of the decision, and Snapshots of them for three kinds of places.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgemesh_core::snapshot::{Builder, Change, Snapshot};
use edgemesh_proto::record::{Body, Endpoint, EndpointName, Kind, NodeName, Record, Rule};
use edgemesh_proto::rule::{object_id, project_id};

use crate::grammar::{Words, record};
use crate::world::World;

pub(crate) type Map<'a> = &'a [(&'a str, &'a str)];

pub(crate) fn map(entries: Map<'_>) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

pub(crate) fn endpoint(name: &str, kind: &str, properties: Map<'_>) -> Record {
    let body = Body::Endpoint(Endpoint {
        id: object_id(Kind::Endpoint, "default", name),
        endpoint_type: kind.to_owned().try_into().unwrap(),
        project_id: Some(project_id("default")),
        is_shared: false,
        properties: map(properties).try_into().unwrap(),
        created_at: 0,
        updated_at: 0,
    });
    Record { namespace: "default".into(), name: name.into(), body }
}

pub(crate) fn rule(name: &str, source: (&str, Map<'_>), target: (&str, Map<'_>)) -> Record {
    let body = Body::Rule(Rule {
        id: object_id(Kind::Rule, "default", name),
        project_id: project_id("default"),
        domain_id: String::new().try_into().unwrap(),
        source: EndpointName::new("default", source.0),
        source_resource: map(source.1).try_into().unwrap(),
        target: EndpointName::new("default", target.0),
        target_resource: map(target.1).try_into().unwrap(),
        in_use: true,
        is_deleted: false,
        created_at: 0,
        updated_at: 0,
    });
    Record { namespace: "default".into(), name: name.into(), body }
}

/// The records of every test; each may change what it likes.
pub(crate) fn records() -> Vec<Record> {
    let lines = [
        "node edge-1 agent",
        "node edge-2 agent",
        "node edge-3",
        "node cloud-1 viaCloud",
        "service default/shop 10.96.0.1 80",
        "slice default/shop-1 for=shop ports=80 10.1.0.1@edge-1",
        "service default/cart 10.96.0.2 80",
        "slice default/cart-1 for=cart ports=80 10.1.0.2@cloud-1",
        "service default/asked 10.96.0.3 80",
    ];
    let of = |line: &&str| {
        let mut words = Words(line.split_whitespace().collect());
        record(words.next("a verb").unwrap(), words).unwrap()
    };
    let mut all: Vec<Record> = lines.iter().map(of).collect();
    all.extend([
        endpoint("web", "rest", &[]),
        endpoint("bus", "eventbus", &[]),
        endpoint("app", "servicebus", &[("service_port", "6666")]),
        endpoint("shop", "service", &[]),
        endpoint("cart", "service", &[("service", "cart")]),
        endpoint("asked", "service", &[("service", "asked:80")]),
        rule("to-app", ("web", &[("path", "/a")]), ("app", &[("path", "/target")])),
        rule("to-topic", ("web", &[("path", "/t")]), ("bus", &[("topic", "test/a")])),
        rule("to-shop", ("web", &[("path", "/s")]), ("shop", &[])),
        rule(
            "to-fixed",
            ("web", &[("path", "/f")]),
            ("app", &[("path", "/"), ("node_name", "edge-2")]),
        ),
        rule("shop-to-cart", ("shop", &[]), ("cart", &[])),
        rule("asked", ("asked", &[]), ("web", &[("resource", "http://cloud.example/asked")])),
        rule("up", ("bus", &[("topic", "up")]), ("web", &[("resource", "http://c/up")])),
    ]);
    all
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Seat {
    Alone,
    Edge,
    Cloud,
}

pub(crate) fn snapshot(seat: Seat, put: Vec<Record>) -> Arc<Snapshot> {
    let now = World::default().now();
    let mut builder = match seat {
        Seat::Alone => Builder::new(NodeName("edge-1".into()), None),
        Seat::Edge => Builder::new(NodeName("edge-1".into()), None).below_cloud(now),
        Seat::Cloud => Builder::new(NodeName("cloud".into()), None).covering_cloud(),
    };
    builder.apply(Change { put, ..Change::default() }, now)
}
