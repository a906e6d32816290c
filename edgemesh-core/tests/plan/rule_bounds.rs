//! What a Rule must not get around: who may call, what a Service speaks, and where the first attempt
//! went.

use std::sync::Arc;

use edgemesh_core::plan::{
    Arrival, Destination, Head, Hop, Outcome, Purpose, Ruled, Target, Vouched, plan,
};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::{Snapshot, Spot, Who};
use edgemesh_proto::record::{Body, NodeName, Record, RuleName, ServiceName};
use http::Request;

use crate::grammar::{Words, record};
use crate::rule_records::{Seat, endpoint, records, rule, snapshot};
use crate::world::World;

fn line(line: &str) -> Record {
    let mut words = Words(line.split_whitespace().collect());
    record(words.next("a verb").unwrap(), words).unwrap()
}

/// Where a request to `to` goes, for `node` if it comes from one.
fn went(snapshot: &Snapshot, to: Target<'_>, node: Option<&str>) -> String {
    let request = Request::get("/x").body(()).unwrap();
    let from = node.map(|node| {
        let node = NodeName(node.into());
        Vouched { who: Who { node: Some(node.clone()), ..Who::default() }, node }
    });
    let arrival = if node.is_some() { Arrival::Link } else { Arrival::Library };
    let destination = Destination {
        request: Some(Head::of(&request)),
        from: from.as_ref(),
        ..Destination::new(to, arrival, Purpose::Call)
    };
    match plan(snapshot, &destination, World::default().now()) {
        Ok(hop) => hop.address().to_string(),
        Err(refusal) => refusal.row().label.to_owned(),
    }
}

#[test]
fn who_may_not_call_a_service_may_not_by_a_rule() {
    let event = rule("event", ("bus", &[("topic", "up")]), ("shop", &[]));
    let shop = ServiceName::new("default", "shop");
    let directly = Target::Service { service: &shop, port: 80, hostname: None };
    let stands_for = ServiceName::new("default", "rule:event");
    let over_a_link = Target::Service { service: &stands_for, port: 1, hostname: None };
    let name = RuleName::new("default", "event");
    let by_rule = Target::Rule { rule: &name, node: None };
    for (allow, direct, here) in
        [("node:edge-9", "notAllowed", "notAllowed"), ("node:edge-2", "10.1.0.1:80", "notAllowed")]
    {
        let mut all = records();
        all.push(event.clone());
        all.push(line(&format!("policy default/shop for=shop allow={allow}")));
        let edge = snapshot(Seat::Edge, all.clone());
        assert_eq!(went(&edge, directly, Some("edge-2")), direct, "{allow}");
        // An honest node asks for the Service; nobody needs the Rule over a Link.
        assert_eq!(went(&edge, over_a_link, Some("edge-2")), "noRule", "{allow}");
        assert_eq!(went(&snapshot(Seat::Alone, all), by_rule, None), here, "{allow}");
    }
}

#[test]
fn a_service_that_wants_a_proxy_header_takes_no_requests_by_a_rule() {
    let mut all = records();
    for record in &mut all {
        if let (Body::Service(service), true) = (&mut record.body, *record.name == *"shop") {
            service.proxy_protocol = true;
        }
    }
    let name = RuleName::new("default", "to-shop");
    let cloud = snapshot(Seat::Cloud, all);
    assert_eq!(went(&cloud, Target::Rule { rule: &name, node: None }, None), "proxyProtocol");
}

/// One call of Service `a`, whose Rule leads `/v1` to Service `b`, attempt by attempt.
struct Attempts {
    snapshot: Arc<Snapshot>,
    first: Hop,
}

impl Attempts {
    fn begin() -> Self {
        let mut all = records();
        all.extend(
            [
                "service default/a 10.96.0.50 80",
                "slice default/a-1 for=a ports=80 10.1.0.50@edge-1",
                "service default/b 10.96.0.51 80",
                "slice default/b-1 for=b ports=80 10.1.0.51@edge-1 10.1.0.52@edge-1",
            ]
            .map(line),
        );
        all.push(endpoint("a", "service", &[]));
        all.push(endpoint("b", "service", &[]));
        all.push(rule("a-b", ("a", &[("path", "/v1")]), ("b", &[("path", "/v2")])));
        let snapshot = snapshot(Seat::Alone, all);
        let first = attempt(&snapshot, "/v1/x", &[], Ruled::Unknown).unwrap();
        Self { snapshot, first }
    }

    /// The next attempt, after `tried`; the path is what the Rule made of it.
    fn again(&self, snapshot: &Snapshot, tried: &[Spot]) -> Result<Hop, Refusal> {
        attempt(snapshot, "/v2/x", tried, Ruled::By(self.first.rule().unwrap()))
    }
}

fn attempt(
    snapshot: &Snapshot,
    path: &str,
    tried: &[Spot],
    ruled: Ruled<'_>,
) -> Result<Hop, Refusal> {
    let request = Request::get(path).body(()).unwrap();
    let purpose = if tried.is_empty() { Purpose::Call } else { Purpose::Retry(tried) };
    let to = Target::Address(([10, 96, 0, 50], 80).into());
    let head = Some(Head::of(&request));
    let asked =
        Destination { request: head, ruled, ..Destination::new(to, Arrival::Captured, purpose) };
    plan(snapshot, &asked, World::default().now())
}

#[test]
fn a_further_attempt_goes_by_the_rule_of_the_first() {
    let attempts = Attempts::begin();
    let second = attempts.again(&attempts.snapshot, &[attempts.first.spot()]).unwrap();
    assert_eq!(&*second.service().name.name, "b", "never the Service that was called");
    assert_ne!(second.spot(), attempts.first.spot());
    let tried = [attempts.first.spot(), second.spot()];
    assert!(attempts.again(&attempts.snapshot, &tried).is_err(), "both were tried");
}

#[test]
fn a_further_attempt_does_not_go_where_the_rule_leads_since() {
    let attempts = Attempts::begin();
    let without = snapshot(Seat::Alone, records());
    let again = attempts.again(&without, &[attempts.first.spot()]);
    assert!(again.is_err(), "the Rule is gone, and so is the path that the client sent");
}

#[test]
fn what_a_broker_brings_is_a_post() {
    let cloud = snapshot(Seat::Cloud, records());
    let service = ServiceName::new("default", "rule:up");
    let to = Target::Service { service: &service, port: 1, hostname: None };
    for (method, want) in [("POST", Ok(())), ("GET", Err("noRule")), ("DELETE", Err("noRule"))] {
        let request = Request::builder().method(method).uri("/up").body(()).unwrap();
        let head = Some(Head::of(&request));
        let asked = Destination::new(to, Arrival::Link, Purpose::Call);
        let asked = Destination { request: head, ..asked };
        let got = plan(&cloud, &asked, World::default().now());
        let got = got.map(|hop| hop.finish(Outcome::Good, World::default().now()));
        assert_eq!(got.map_err(|refusal| refusal.row().label), want, "{method}");
    }
}
