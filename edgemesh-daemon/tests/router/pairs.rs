//! Pairs of Endpoint types that Rules join beside KubeEdge's own, on real traffic.

use crate::PATIENCE;
use crate::apps::{App, Arrived, Broker};
use crate::common::namespace::in_namespace;
use crate::common::run::{Running, need, run};
use crate::common::wait::eventually;
use crate::nodes;
use crate::site::{EDGE, INGRESS, Site, named, rule};
use crate::world::{B1, C2};

const ENDPOINTS: &str = "
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: asked, namespace: default}
spec: {ruleEndpointType: service}
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: to-cloud, namespace: default}
spec: {ruleEndpointType: service, properties: {service: answering}}
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: by-url, namespace: default}
spec: {ruleEndpointType: service, properties: {service: \"default/by-url:80\"}}
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: any, namespace: default}
spec: {ruleEndpointType: service, properties: {service: any.default}}
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: bus-to-any, namespace: default}
spec: {ruleEndpointType: servicebus, properties: {service: any}}
";

fn manifests() -> Vec<(&'static str, String)> {
    let url = "resource: \"http://127.0.0.1:7777/base?k=v\"";
    let out = format!("topic: out/x, node_name: {}", B1.name);
    vec![
        ("more-endpoints", ENDPOINTS.to_owned()),
        ("rule-asked", rule("asked", ("asked", ""), ("to-cloud", ""))),
        ("rule-by-url", rule("by-url", ("by-url", ""), ("my-rest", url))),
        (
            "rest-service",
            rule(
                "rest-service",
                ("my-rest", "path: \"/items/{id}\""),
                ("any", "path: \"/shop/{id}\""),
            ),
        ),
        ("rest-bus", rule("rest-bus", ("my-rest", "path: /bus"), ("bus-to-any", "path: /of-bus"))),
        (
            "bus-service",
            rule("bus-service", ("my-eventbus", "topic: \"to/+\""), ("any", "path: /events")),
        ),
        ("bus-bus", rule("bus-bus", ("my-eventbus", "topic: in"), ("my-eventbus", &out))),
    ]
}

/// What the newest delivery is, once there is one more than `known`.
fn newest(app: &App, known: usize) -> Arrived {
    app.after(known, 1).pop().unwrap()
}

#[test]
fn every_pair_passes() {
    in_namespace("pairs::every_pair_passes", || {
        need(&["curl", "socat", "nc"]);
        let site = Site::open(&manifests());
        site.world.service("asked", "10.96.200.2", "http:80:8080 echo:7:7", &[]);
        site.world.service("answering", "10.96.200.3", "http:80:8080 echo:7:7", &[C2]);
        site.world.service("by-url", "10.96.200.4", "http:80:8080 echo:7:7", &[]);
        let answering = App::start(&site.world, C2.name, "answering", 8080);
        let echo = ["socat", "TCP-LISTEN:7,fork,reuseaddr", "EXEC:cat"];
        let _echo = Running::start(C2.name, &echo, &site.world.path("echo.log"));
        let far = Broker::start(&site.world, B1.name, "allow_anonymous true");
        let _b1 = nodes::agent(&site.world, B1);
        service_to_service(&site, &answering);
        service_to_rest(&site);
        to_services(&site);
        topics(&site, &far);
        counted(&site);
    });
}

/// A captured call of the edge is answered by another Service, in the cloud.
fn service_to_service(site: &Site, answering: &App) {
    let curl = "curl -sS -m 10 'http://10.96.200.2/x/y?z=1:2'";
    eventually("the Service of the Rule answers", PATIENCE, || {
        let ran = run(EDGE, curl);
        (ran.out == "answering answers GET /x/y?z=1:2").then_some(())
    });
    let known = answering.arrived().len();
    assert_eq!(run(EDGE, &format!("{curl} -d body")).out, "answering answers POST /x/y?z=1:2");
    let one = newest(answering, known);
    assert_eq!((one.body.as_slice(), one.header("host")), (&b"body"[..], vec!["10.96.200.2"]));
    let ran = run(EDGE, "printf hello | nc -N -w 5 10.96.200.2 7");
    assert_eq!(ran.out, "hello", "connections of bytes, too: {ran:?}");
    let line = &site.edge().lines("by the Rule", 0, 1, |line| line["rule"] == "default/asked")[0];
    assert_eq!((&line["service"], &line["via"]), (&"default/answering".into(), &"hub".into()));
}

/// A captured call of the edge is answered by a URL, which the cloud calls.
fn service_to_rest(site: &Site) {
    let known = site.target.arrived().len();
    let ran = run(EDGE, "curl -sS -m 10 -X PATCH -d body 'http://10.96.200.4/a/b%20c?d=e'");
    assert_eq!(ran.out, "rest-target answers PATCH /base/a/b%20c?k=v&d=e", "{ran:?}");
    let one = newest(&site.target, known);
    assert_eq!((one.body.as_slice(), one.header("host")), (&b"body"[..], vec!["127.0.0.1:7777"]));
    let ran = run(
        EDGE,
        "printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | nc -w 5 10.96.200.4 80",
    );
    assert!(ran.out.starts_with("HTTP/1.1 200 OK"), "HTTP by whatever client: {ran:?}");
    let ran = run(
        EDGE,
        "printf '\\x01\\x02' | nc -N -w 5 10.96.200.4 7; echo; nc -z -w 2 10.96.200.4 81",
    );
    assert_eq!(ran.out.trim(), "", "bytes are no message for a URL: {ran:?}");
    // Both ends name the delivery alike.
    let by_rule =
        |line: &serde_json::Value| line["rule"] == "default/by-url" && line["method"] == "PATCH";
    let here = &site.edge().lines("by the Rule", 0, 1, by_rule)[0];
    let there = &site.cloud.lines("by the Rule", 0, 1, by_rule)[0];
    assert_eq!((&here["message"], &there["from"]), (&there["message"], &EDGE.into()));
}

/// REST, a broker and a `servicebus` Endpoint lead to a Service.
fn to_services(site: &Site) {
    let got = site.ask(&format!("'{INGRESS}/{EDGE}/default/items/17/price?in=eur'"));
    assert_eq!(got, (200, "edge-app answers GET /shop/17/price?in=eur".into()));
    let got = site.ask(&format!("'{INGRESS}/_any/default/items/17'"));
    assert_eq!(got, (200, "edge-app answers GET /shop/17".into()), "whatever node");
    let got = site.ask(&format!("-d x '{INGRESS}/{EDGE}/default/bus/a'"));
    assert_eq!(got, (200, "edge-app answers POST /of-bus/a".into()));
    let known = site.app.arrived().len();
    site.broker.publish("-t default/to/there -q 1 -m event");
    let one = newest(&site.app, known);
    assert_eq!((one.uri.as_str(), one.body.as_slice()), ("/events", &b"event"[..]));
    assert_eq!(one.header("x-edgemesh-topic"), ["default/to/there"]);
    assert_eq!(one.header("host"), ["any.default"]);
}

/// From one node's broker to another's.
fn topics(site: &Site, far: &Broker) {
    site.broker.publish("-t default/in -q 1 -m across");
    let heard = far.wait_heard("out/x", 1);
    assert_eq!(heard, ["out/x 1 0 6 6163726f7373"]);
    assert!(site.broker.heard("out/x").is_empty(), "and not on its own");
}

/// The node counts what entered there, and the cloud sums it up.
fn counted(site: &Site) {
    let asked = |rules: &serde_json::Value| {
        let rule = named(rules.as_array()?, "by-url")?.clone();
        rule["success_messages"].as_u64()
    };
    let known = asked(&site.edge().get("/v1/rules")).unwrap();
    run(EDGE, "curl -sS -m 10 http://10.96.200.4/once");
    for node in [site.edge(), &site.cloud] {
        eventually(&format!("{} counts one more", node.place.name), PATIENCE, || {
            (asked(&node.try_get("/v1/rules")?)? == known + 1).then_some(())
        });
    }
}
