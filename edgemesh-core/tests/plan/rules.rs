//! Rules in the decision: who takes a message, from where it leads where, and what it costs.

use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::plan::{
    Arrival, Destination, Head, Hop, Outcome, Purpose, Target, Via, Vouched, explain, plan, rule_of,
};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::rules::{Rule as Known, Standing, TOPIC};
use edgemesh_core::snapshot::{Builder, Change, Snapshot, Who};
use edgemesh_proto::record::{
    Body, EndpointName, Key, Kind, NodeName, Record, Rule, RuleName, ServiceName,
};
use edgemesh_proto::rule::project_id;
use http::Request;

use crate::rule_records::{Map, Seat, endpoint, map, records, rule, snapshot};
use crate::world::World;

fn name(rule: &str) -> RuleName {
    RuleName::new("default", rule)
}

/// Decides about a request for `path`, whose topic is the same.
fn ask(snapshot: &Snapshot, to: Target<'_>, arrival: Arrival, path: &str) -> Result<Hop, Refusal> {
    let mut request = Request::post(path).body(()).unwrap();
    let topic = path.trim_start_matches('/').parse().unwrap();
    request.headers_mut().insert(TOPIC, topic);
    let request = Some(Head::of(&request));
    let destination = Destination { request, ..Destination::new(to, arrival, Purpose::Call) };
    plan(snapshot, &destination, World::default().now())
}

/// `via address reach node`.
fn said(hop: Result<Hop, Refusal>) -> String {
    let hop = match hop {
        Ok(hop) => hop,
        Err(refusal) => return refusal.row().label.into(),
    };
    let node = hop.backend().node.as_ref().map_or("-", |node| &node.0);
    let text =
        format!("{} {} {} {node}", hop.via().name(), hop.address(), hop.backend().reach.name());
    hop.finish(Outcome::Good, World::default().now());
    text
}

/// Seat, Rule, node that the message names, and where it leads.
const BY_NAME: &[(Seat, &str, Option<&str>, &str)] = &[
    (Seat::Cloud, "to-app", Some("edge-1"), "direct 127.0.0.1:6666 linked edge-1"),
    (Seat::Cloud, "to-app", Some("edge-3"), "noPath"),
    (Seat::Cloud, "to-app", Some("edge-9"), "noPath"),
    (Seat::Cloud, "to-app", None, "ruleFault"),
    (Seat::Cloud, "to-fixed", None, "direct 127.0.0.1:6666 linked edge-2"),
    (Seat::Cloud, "to-fixed", Some("edge-1"), "direct 127.0.0.1:6666 linked edge-2"),
    (Seat::Cloud, "to-topic", Some("edge-2"), "direct 0.0.0.0:0 linked edge-2"),
    (Seat::Cloud, "to-shop", Some("edge-1"), "direct 10.1.0.1:80 linked edge-1"),
    (Seat::Cloud, "up", None, "local 0.0.0.0:0 inbox -"),
    (Seat::Cloud, "gone", None, "noRule"),
    (Seat::Edge, "up", None, "hub 0.0.0.0:0 cloud cloud"),
    (Seat::Edge, "to-app", None, "local 127.0.0.1:6666 here -"),
    (Seat::Edge, "to-topic", Some("edge-1"), "local 0.0.0.0:0 inbox -"),
    (Seat::Edge, "to-topic", Some("edge-2"), "direct 0.0.0.0:0 linked edge-2"),
    (Seat::Alone, "up", None, "local 0.0.0.0:0 inbox -"),
];

#[test]
fn messages_go_where_their_rule_says() {
    for (seat, rule, node, want) in BY_NAME {
        let snapshot = snapshot(*seat, records());
        let to = Target::Rule { rule: &name(rule), node: *node };
        let got = said(ask(&snapshot, to, Arrival::Ingress, "/a"));
        assert_eq!(&got, want, "{seat:?} {rule} {node:?}");
    }
}

/// Seat, Rule that another node asks for, what it made of the message, and where that leads.
const PASSED_ON: &[(Seat, &str, &str, &str)] = &[
    (Seat::Edge, "to-app", "/target", "local 127.0.0.1:6666 here -"),
    (Seat::Edge, "to-app", "/target/b", "local 127.0.0.1:6666 here -"),
    (Seat::Edge, "to-app", "/target//b/", "local 127.0.0.1:6666 here -"),
    (Seat::Edge, "to-app", "/secret", "noRule"),
    (Seat::Edge, "to-app", "/targetsecret", "noRule"),
    (Seat::Edge, "to-app", "/target/../admin", "noRule"),
    (Seat::Edge, "to-app", "/target/b/%2E%2e/x", "noRule"),
    (Seat::Edge, "to-topic", "/test/a/b", "local 0.0.0.0:0 inbox -"),
    (Seat::Edge, "to-topic", "/other", "noRule"),
    (Seat::Edge, "to-fixed", "/", "noLocalBackend"),
    (Seat::Edge, "up", "/up", "noLocalBackend"),
    (Seat::Edge, "gone", "/", "noRule"),
    (Seat::Cloud, "up", "/up", "local 0.0.0.0:0 inbox -"),
    (Seat::Cloud, "up", "/up/b", "noRule"),
    (Seat::Cloud, "up", "/up?x=1", "noRule"),
    (Seat::Cloud, "to-app", "/target", "ruleFault"),
];

#[test]
fn what_another_node_asks_for_stays_here() {
    for (seat, rule, made, want) in PASSED_ON {
        let snapshot = snapshot(*seat, records());
        let service = ServiceName::new("default", &format!("rule:{rule}"));
        let to = Target::Service { service: &service, port: 1, hostname: None };
        let got = said(ask(&snapshot, to, Arrival::Link, made));
        assert_eq!(&got, want, "{seat:?} {rule} {made}");
    }
}

#[test]
fn nodes_ask_for_what_may_begin_there() {
    let mut all = changed("up", |rule| {
        let source = [("topic", "up"), ("node_name", "edge-1")];
        rule.source_resource = map(&source).try_into().unwrap();
    });
    all.push(rule("to-url", ("web", &[("path", "/u")]), ("web", &[("resource", "http://c/")])));
    let cloud = snapshot(Seat::Cloud, all);
    for (rule, node, path, want) in [
        ("up", "edge-1", "/up", "local 0.0.0.0:0 inbox -"),
        ("up", "edge-2", "/up", "notAllowed"),
        ("asked", "edge-2", "/asked", "local 0.0.0.0:0 inbox -"),
        ("to-url", "edge-1", "/", "notAllowed"),
        ("to-url", "cloud", "/", "local 0.0.0.0:0 inbox -"),
    ] {
        let service = ServiceName::new("default", &format!("rule:{rule}"));
        let to = Target::Service { service: &service, port: 1, hostname: None };
        let node = NodeName(node.into());
        let from = Vouched { who: Who { node: Some(node.clone()), ..Who::default() }, node };
        let request = Request::post(path).body(()).unwrap();
        let request = Some(Head::of(&request));
        let asked = Destination::new(to, Arrival::Link, Purpose::Call);
        let asked = Destination { request, from: Some(&from), ..asked };
        assert_eq!(
            said(plan(&cloud, &asked, World::default().now())),
            want,
            "{rule} {node:?}",
            node = from.node
        );
    }
}

#[test]
fn calls_of_a_service_go_by_its_rule() {
    let edge = snapshot(Seat::Edge, records());
    let at = |last: u8| Target::Address(([10, 96, 0, last], 80).into());
    // To a Service in the cloud, also connections of bytes.
    assert_eq!(said(ask(&edge, at(1), Arrival::Captured, "/x")), "hub 10.1.0.2:80 cloud cloud-1");
    let bytes = Destination::new(at(1), Arrival::Captured, Purpose::Call);
    let hop = plan(&edge, &bytes, World::default().now()).unwrap();
    assert_eq!((hop.via(), &*hop.service().name.name), (Via::Hub, "cart"));
    assert_eq!(hop.rule().map(|rule| &*rule.name.name), Some("shop-to-cart"));
    // To a URL only requests can.
    assert_eq!(said(ask(&edge, at(3), Arrival::Captured, "/x")), "hub 0.0.0.0:0 cloud cloud");
    let bytes = Destination::new(at(3), Arrival::Captured, Purpose::Call);
    assert_eq!(plan(&edge, &bytes, World::default().now()).unwrap_err(), Refusal::Unsupported);
    // A Service that is not there lets nothing pass through.
    let gone = records().into_iter().filter(|r| *r.name != *"cart" || r.kind() != Kind::Service);
    let waits = snapshot(Seat::Edge, gone.collect());
    assert_eq!(said(ask(&waits, at(1), Arrival::Captured, "/x")), "ruleWaiting");
    // What came over a Link is for this node's Backends, whatever Rules say; one step is enough.
    assert_eq!(said(ask(&edge, at(1), Arrival::Link, "/x")), "local 10.1.0.1:80 here edge-1");
    assert_eq!(said(ask(&edge, at(2), Arrival::Captured, "/x")), "hub 10.1.0.2:80 cloud cloud-1");
}

fn changed(rule: &str, change: impl Fn(&mut Rule)) -> Vec<Record> {
    let mut all = records();
    for record in &mut all {
        if let (Body::Rule(body), true) = (&mut record.body, *record.name == *rule) {
            change(body);
        }
    }
    all
}

#[test]
fn rules_that_take_nothing_say_why() {
    let gone = |name: &'static str| {
        let all = records().into_iter();
        all.filter(|record| *record.name != *name || record.kind() != Kind::Endpoint).collect()
    };
    let pairs = |entries| map(entries).try_into().unwrap();
    let rows: Vec<(&str, Vec<Record>, &str, &str)> = vec![
        ("to-app", changed("to-app", |r| r.in_use = false), "rule-paused", "paused"),
        ("to-app", changed("to-app", |r| r.is_deleted = true), "noRule", "deleted"),
        ("to-app", gone("app"), "ruleWaiting", "there is no Endpoint default/app yet"),
        ("to-app", gone("web"), "ruleWaiting", "there is no Endpoint default/web yet"),
        (
            "to-app",
            changed("to-app", |r| r.source_resource = pairs(&[])),
            "ruleFault",
            "source: path: is missing",
        ),
        (
            "to-topic",
            changed("to-topic", |r| r.target_resource = pairs(&[("topic", "wild/#")])),
            "ruleFault",
            "`wild/#` has a wildcard",
        ),
        (
            "to-topic",
            changed("to-topic", |r| r.target_resource = pairs(&[("topic", "a\0b")])),
            "ruleFault",
            "control character, such as NUL",
        ),
        (
            "up",
            changed("up", |r| r.target_resource = pairs(&[("resource", "http://{id}.x/")])),
            "ruleFault",
            "has a {name} in its host",
        ),
        (
            "to-topic",
            changed("to-topic", |r| r.target_resource = pairs(&[("topic", "a/x{id}")])),
            "ruleFault",
            "target: topic: `x{id}` is neither a segment nor a {name}",
        ),
        (
            "to-app",
            changed("to-app", |r| r.target_resource = pairs(&[("path", "/a/{}")])),
            "ruleFault",
            "target: path: `{}` is neither a segment nor a {name}",
        ),
        (
            "to-shop",
            changed("to-shop", |r| r.target_resource = pairs(&[("path", "/{a")])),
            "ruleFault",
            "target: path: `{a` is neither a segment nor a {name}",
        ),
        (
            "up",
            changed("up", |r| r.target_resource = pairs(&[("resource", "ftp://x")])),
            "ruleFault",
            "begins with neither http:// nor https://",
        ),
    ];
    for (rule, put, label, why) in rows {
        let snapshot = snapshot(Seat::Cloud, put);
        let name = name(rule);
        let to = Target::Rule { rule: &name, node: Some("edge-1") };
        assert_eq!(said(ask(&snapshot, to, Arrival::Ingress, "/")), label, "{why}");
        let standing = snapshot.rules.get(&name).unwrap().standing.to_string();
        assert!(standing.contains(why), "{standing}: {why}");
    }
}

/// The elder's target, who takes `/a/x`, and who is overruled by it.
type Elder = (Map<'static>, &'static str, Option<&'static str>);

const ELDERS: &[Elder] = &[
    (&[("path", "/elder")], "elder", Some("to-app")),
    // One that can never be served keeps nobody out.
    (&[("path", "/{no}")], "to-app", None),
];

#[test]
fn of_two_on_one_path_the_older_counts() {
    for (target, takes, loser) in ELDERS {
        let mut all = changed("to-app", |rule| rule.created_at = 2000);
        let mut other = rule("elder", ("web", &[("path", "a/")]), ("app", target));
        if let Body::Rule(rule) = &mut other.body {
            rule.created_at = 1000;
        }
        all.push(other);
        let rules = &snapshot(Seat::Cloud, all).rules;
        let found = rules.rest("default", "/a/x").unwrap();
        assert_eq!(&*found.name.name, *takes, "{target:?}");
        let overruled = |rule: &&Arc<Known>| rule.standing == Standing::Overruled(name(takes));
        let losers = rules.all().find(overruled).map(|rule| &*rule.name.name);
        assert_eq!(losers, *loser, "{target:?}");
        assert!(rules.rest("shop", "/a/x").is_none(), "each namespace has its own");
    }
}

/// An Endpoint, and what on it a Rule is about.
type Side<'a> = (&'a str, Map<'a>);

/// Sources of two Rules, and whether the younger takes nothing.
const SAME: &[(Side<'_>, Side<'_>, bool)] = &[
    (("web", &[("path", "/d/{id}/x")]), ("web", &[("path", "d/{other}/x/")]), true),
    (("web", &[("path", "/d/{id}")]), ("web", &[("path", "/d/id")]), false),
    (("web", &[("path", "/d/{id}")]), ("web", &[("path", "/d/{id}/x")]), false),
    (("app", &[("target_url", "u")]), ("app", &[("target_url", "u")]), true),
    (
        ("app", &[("target_url", "u")]),
        ("app", &[("target_url", "u"), ("node_name", "edge-1")]),
        false,
    ),
    (("cart", &[]), ("cart", &[]), true),
    (("cart", &[("path", "/{x}")]), ("cart", &[("path", "/{y}")]), true),
    (("cart", &[]), ("cart", &[("path", "/")]), false),
    (("cart", &[]), ("shop", &[]), false),
    (("bus", &[("topic", "t")]), ("bus", &[("topic", "t")]), false),
];

#[test]
fn of_two_that_want_the_same_one_takes_it() {
    for (one, other, want) in SAME {
        let mut all = records();
        all.retain(|record| record.kind() != Kind::Rule);
        all.extend([rule("one", *one, ("app", &[])), rule("two", *other, ("app", &[]))]);
        let snapshot = snapshot(Seat::Cloud, all);
        let standing = |rule| snapshot.rules.get(&name(rule)).unwrap().standing.clone();
        assert_eq!(standing("one"), Standing::Active, "{one:?} {other:?}");
        let is_overruled = standing("two") == Standing::Overruled(name("one"));
        assert_eq!(is_overruled, *want, "{one:?} {other:?}");
    }
}

#[test]
fn endpoints_of_others_must_be_shared() {
    for (shared, want) in [(false, "ruleFault"), (true, "direct 127.0.0.1:6666 linked edge-1")] {
        let mut all = changed("to-app", |rule| rule.target = EndpointName::new("lab", "app"));
        let mut lab = endpoint("app", "servicebus", &[("service_port", "6666")]);
        lab.namespace = "lab".into();
        if let Body::Endpoint(endpoint) = &mut lab.body {
            (endpoint.is_shared, endpoint.project_id) = (shared, Some(project_id("lab")));
        }
        all.push(lab);
        let to = Target::Rule { rule: &name("to-app"), node: Some("edge-1") };
        assert_eq!(said(ask(&snapshot(Seat::Cloud, all), to, Arrival::Ingress, "/")), want);
    }
}

#[test]
fn limits_are_taken_once_where_a_message_enters() {
    let limited = |all: &mut Vec<Record>| {
        all.push(endpoint("app", "servicebus", &[("service_port", "6666"), ("qps", "2")]));
    };
    let mut all = changed("to-app", |rule| {
        rule.source_resource = map(&[("path", "/a"), ("qps", "3")]).try_into().unwrap();
    });
    limited(&mut all);
    let cloud = snapshot(Seat::Cloud, all);
    let rule_name = name("to-app");
    let to = Target::Rule { rule: &rule_name, node: Some("edge-1") };
    let destination = Destination::new(to, Arrival::Ingress, Purpose::Call);
    let request = Request::get("/").body(()).unwrap();
    let destination = Destination { request: Some(Head::of(&request)), ..destination };
    (0..100).for_each(|_| drop(explain(&cloud, &destination, World::default().now())));
    let labels: Vec<_> =
        (0..3).map(|_| said(ask(&cloud, to, Arrival::Ingress, "/")).contains("6666")).collect();
    assert_eq!(labels, [true, true, false], "the Endpoint's bound is the lower one");
    let refused = ask(&cloud, to, Arrival::Ingress, "/").unwrap_err();
    let Refusal::RateLimited { retry_after } = refused else { panic!("{refused:?}") };
    assert!(!retry_after.is_zero() && retry_after <= Duration::from_millis(500));
    // Whoever it is passed on to takes none.
    let mut all = records();
    limited(&mut all);
    let edge = snapshot(Seat::Edge, all);
    let service = ServiceName::new("default", "rule:to-app");
    let to = Target::Service { service: &service, port: 1, hostname: None };
    for _ in 0..10 {
        assert!(said(ask(&edge, to, Arrival::Link, "/target")).contains("6666"));
    }
}

#[test]
fn live_state_of_rules_survives_a_swap() {
    let now = World::default().now();
    let mut builder = Builder::new(NodeName("edge-1".into()), None);
    let first = builder.apply(Change { put: records(), ..Change::default() }, now);
    first.rules.get(&name("up")).unwrap().live.failed("broken", 5);
    let put = changed("up", |rule| rule.updated_at = 9);
    let next = builder.apply(Change { put, ..Change::default() }, now);
    assert_eq!(next.rules.get(&name("up")).unwrap().live.counts(), (0, 1));
    let key = Key { kind: Kind::Rule, namespace: "default".into(), name: "up".into() };
    let delete = vec![key];
    builder.apply(Change { delete, ..Change::default() }, now);
    let again = builder.apply(Change { put: records(), ..Change::default() }, now);
    assert_eq!(again.rules.get(&name("up")).unwrap().live.counts(), (0, 0), "a new life");
}

#[test]
fn a_rule_is_known_before_it_is_decided() {
    let edge = snapshot(Seat::Edge, records());
    let known = |to| {
        let destination = Destination::new(to, Arrival::Captured, Purpose::Call);
        rule_of(&edge, &destination).map(|rule| rule.name.name.to_string())
    };
    assert_eq!(known(Target::Address(([10, 96, 0, 1], 80).into())), Some("shop-to-cart".into()));
    assert_eq!(known(Target::Address(([10, 96, 0, 2], 80).into())), None);
    let by_name = name("up");
    assert_eq!(known(Target::Rule { rule: &by_name, node: None }), Some("up".into()));
    let stand_in = edge.rules.get(&by_name).unwrap().stand_in.as_ref().unwrap();
    assert_eq!(stand_in.policy.request_timeout, Some(Duration::from_secs(60)));
}
