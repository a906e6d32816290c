//! HTTPRoutes between real clients and servers: split, edits, redirects, rewrites, time-outs.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::agent::{Agent, PATIENCE};
use crate::backend::{Backend, header};
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::common::wait::{eventually, timed};
use crate::raw::Raw;
use crate::servers::{self, PEER};
use crate::world::{ONE, POD, TWO, World, listen};

const EDGEMESH: &str = env!("CARGO_BIN_EXE_edgemesh");

/// Routes of Service `web`, whose own backend is a third one.
const ROUTES: &str = r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: web, namespace: default }
spec:
  parentRefs: [{ group: "", kind: Service, name: web }]
  rules:
  - name: split
    matches: [{ path: { value: /split } }]
    backendRefs: [{ name: web-1, port: 80, weight: 90 }, { name: web-2, port: 80, weight: 10 }]
  - matches: [{ path: { value: /edit } }]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: { set: [{ name: x-set, value: new }], add: [{ name: x-add, value: more }], remove: [x-remove] }
    - type: ResponseHeaderModifier
      responseHeaderModifier: { set: [{ name: x-route, value: web }] }
    - type: URLRewrite
      urlRewrite: { hostname: inner.example, path: { type: ReplacePrefixMatch, replacePrefixMatch: / } }
    backendRefs: [{ name: web-1, port: 80 }]
  - matches: [{ path: { value: /old } }]
    filters: [{ type: RequestRedirect, requestRedirect: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /split }, statusCode: 301 } }]
  - matches: [{ path: { type: Exact, value: /wait } }]
    timeouts: { request: 300ms }
    backendRefs: [{ name: web-1, port: 80 }]
  - matches: [{ path: { type: Exact, value: /half } }]
    timeouts: { request: 10s, backendRequest: 300ms }
    backendRefs: [{ name: web-1, port: 80 }]
  - matches: [{ path: { value: /gone } }]
    backendRefs: [{ name: nobody, port: 80 }]
  - matches: [{ headers: [{ name: x-canary, type: RegularExpression, value: "yes|1" }] }]
    backendRefs: [{ name: web-2, port: 80 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: h2, namespace: default }
spec:
  parentRefs: [{ group: "", kind: Service, name: inner }]
  rules:
  - filters:
    - { type: URLRewrite, urlRewrite: { hostname: inner.example, path: { type: ReplaceFullPath, replaceFullPath: / } } }
    - { type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: x-route, value: h2 }] } }
    backendRefs: [{ name: inner, port: 82 }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: greeter, namespace: default }
spec:
  parentRefs: [{ group: "", kind: Service, name: greeter }]
  rules:
  - matches: [{ path: { type: Exact, value: /t.T/Unary } }]
    filters: [{ type: ResponseHeaderModifier, responseHeaderModifier: { set: [{ name: x-route, value: greeter }] } }]
    backendRefs: [{ name: greeter, port: 50051, weight: 1 }, { name: greeter-2, port: 50051, weight: 1 }]
  - matches: [{ path: { type: Exact, value: /t.T/Big } }]
    timeouts: { request: 300ms }
    backendRefs: [{ name: silent, port: 50051 }]
"#;

#[test]
fn requests_go_where_their_routes_say() {
    in_namespace("routes::requests_go_where_their_routes_say", || {
        let world = World::new();
        let _grpc = servers::grpc(&world, "", "grpc-1", ONE);
        let _grpc_two = servers::grpc(&world, "", "grpc-2", TWO);
        let _nginx = servers::nginx(&world, "pod", "nginx", POD);
        let one = Backend::start("", "one", ONE, 8090);
        let two = Backend::start("", "two", TWO, 8090);
        let _silent = listen("", "10.4.0.3:50051");
        world.service("web", &["10.96.0.120"], &[":80:8099"], &[ONE]);
        world.service("web-1", &["10.96.0.121"], &[":80:8090"], &[ONE]);
        world.service("web-2", &["10.96.0.122"], &[":80:8090"], &[TWO]);
        world.service("inner", &["10.96.0.123"], &[":82:8082"], &[POD]);
        world.service("greeter", &["10.96.0.124"], &[":50051:50051"], &[ONE]);
        world.service("greeter-2", &["10.96.0.125"], &[":50051:50051"], &[TWO]);
        world.service("silent", &["10.96.0.126"], &["grpc:50051:50051"], &[["10.4.0.3", ""]]);
        world.manifest("routes", ROUTES);
        let agent = Agent::start(&world);
        split(&one, &two);
        edits(&one);
        redirects(&agent);
        timeouts(&agent);
        refusals(&agent);
        http2();
        grpc();
        told(&agent);
        explained(&one);
        changed(&world);
    });
}

/// 90 to 10 is exactly 900 to 100 of a thousand, over however many connections.
fn split(one: &Backend, two: &Backend) {
    let before = (one.counts().1, two.counts().1);
    let mut bodies = BTreeMap::<String, u32>::new();
    for connection in 0..10 {
        let mut raw = Raw::connect("", "10.96.0.120:80");
        for _ in 0..100 {
            let answer = raw.get("/split/any");
            assert_eq!(answer.status, 200, "connection {connection}");
            *bodies.entry(answer.body).or_default() += 1;
        }
    }
    assert_eq!(bodies, [("one".to_owned(), 900), ("two".to_owned(), 100)].into());
    assert_eq!((one.counts().1 - before.0, two.counts().1 - before.1), (900, 100));
    let ran = run("pod", "curl -sS -H 'x-canary: 1' http://web.default/any");
    assert_eq!(ran.out, "two", "{ran:?}");
}

/// What the backend gets and what the client gets, from host and pod.
fn edits(one: &Backend) {
    for place in ["", "pod"] {
        let line = "curl -sSi -H 'x-set: old' -H 'x-add: old' -H 'x-remove: 1' -H 'x-keep: 1' \
                    http://web.default/edit/head?q=1";
        let ran = run(place, line);
        assert!(ran.out.starts_with("HTTP/1.1 200"), "{ran:?}");
        assert!(ran.out.contains("x-route: web"), "{ran:?}");
        let head = one.last_head();
        assert!(head.starts_with("GET /head?q=1 HTTP/1.1"), "{head}");
        assert_eq!(header(&head, "host"), Some("inner.example"), "{head}");
        assert_eq!(header(&head, "x-set"), Some("new"), "{head}");
        assert_eq!(head.matches("x-add: ").count(), 2, "{head}");
        assert_eq!((header(&head, "x-remove"), header(&head, "x-keep")), (None, Some("1")));
    }
    // A body goes along, and what the answer says of its framing stays true.
    let ran = run("", "curl -sSi --data-binary hello http://web.default/edit/echo");
    assert!(ran.out.ends_with("hello") && ran.out.contains("x-route: web"), "{ran:?}");
    // The absolute form of a client that knows its proxy is rewritten as well.
    let ran = run("", "curl -sS -x http://127.0.0.1:15001 http://web.default/edit/head");
    assert!(ran.out.starts_with("GET /head HTTP/1.1"), "{ran:?}");
    assert_eq!(header(&ran.out, "host"), Some("inner.example"), "{ran:?}");
}

fn redirects(agent: &Agent) {
    let ran = run("", "curl -sSi http://web.default/old/x?q=1");
    assert!(ran.out.starts_with("HTTP/1.1 301"), "{ran:?}");
    assert!(ran.out.contains("location: http://web.default/split/x?q=1\r\n"), "{ran:?}");
    let ran = run(
        "",
        "curl -sSL -o /dev/null -w '%{http_code} %{url_effective}' http://web.default/old/x",
    );
    assert_eq!(ran.out, "200 http://web.default/split/x", "{ran:?}");
    agent.lines("redirected", 2, |line| line["status"] == 301 && line["outcome"] == "ok");
}

fn timeouts(agent: &Agent) {
    let (ran, took) = timed(|| run("", "curl -sSi http://web.default/wait"));
    assert!(ran.out.starts_with("HTTP/1.1 504"), "{ran:?}");
    assert!(ran.out.contains("x-edgemesh-refusal: requestTimeout"), "{ran:?}");
    assert!((300..5000).contains(&took.as_millis()), "{took:?}");
    agent.lines("timed out", 1, |l| l["outcome"] == "requestTimeout" && l["path"] == "/wait");
    // Half of an answer is cut when the attempt's time is over: never taken for a whole one.
    let (ran, took) = timed(|| run("", "curl -sS http://web.default/half"));
    assert!(ran.out == "half." && ran.err.contains("curl: (18)"), "{ran:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

fn refusals(agent: &Agent) {
    for (path, status, label) in [("/none", 404, "noRoute"), ("/gone", 500, "routeFault")] {
        let ran = run("", &format!("curl -sSi http://web.default{path}"));
        assert!(ran.out.starts_with(&format!("HTTP/1.1 {status}")), "{ran:?}");
        assert!(ran.out.contains(&format!("x-edgemesh-refusal: {label}")), "{ran:?}");
        agent.lines(label, 1, |l| l["outcome"] == label && l["service"] == "default/web");
        assert_eq!(agent.get("/v1/status")["refusals"][label], 1);
    }
}

/// nginx knows `/` only: anything else is there because it was rewritten.
fn http2() {
    let ran = run("", "curl -sSi --http2-prior-knowledge http://inner.default:82/any/path?x");
    assert!(ran.out.starts_with("HTTP/2 200") && ran.out.contains("x-route: h2"), "{ran:?}");
    assert!(ran.out.ends_with("nginx\n"), "{ran:?}");
}

fn grpc() {
    let once = |method: &str| -> serde_json::Value {
        let line = format!("/usr/bin/python3 {PEER} once greeter.default:50051 {method}");
        let ran = run("", &line);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    };
    let said = [once("Unary"), once("Unary")];
    let mut names: Vec<_> = said.iter().map(|said| said["message"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["grpc-1:1", "grpc-2:1"], "each took one");
    let said = once("Big");
    assert_eq!(said["code"], "DEADLINE_EXCEEDED", "{said}");
    let said = once("Up");
    assert_eq!(said["code"], "UNIMPLEMENTED", "{said}");
    assert_eq!(said["trailers"]["x-edgemesh-refusal"], "noRoute", "{said}");
}

/// What people are told about Routes.
fn told(agent: &Agent) {
    let routes = agent.get("/v1/routes");
    let web = routes.as_array().unwrap().iter().find(|route| route["name"] == "web").unwrap();
    assert_eq!((&web["state"], &web["rules"][0]["name"]), (&"partly".into(), &"split".into()));
    let condition = web["conditions"][0].as_str().unwrap();
    assert!(condition.starts_with("rules[5].backendRefs[0]: no Service default/nobody"), "{web}");
    let ran = run("", &format!("{EDGEMESH} get routes greeter -n default"));
    assert!(ran.out.contains("default/greeter-2:50051") && ran.out.contains("accepted"), "{ran:?}");
    assert_eq!(run("", &format!("{EDGEMESH} get routes nothing")).code, Some(1));
    let ran = run("", &format!("{EDGEMESH} status"));
    assert!(ran.out.contains("HTTPRoute default/web"), "{ran:?}");
}

/// `explain` names rule and match, and what then happens.
fn explained(one: &Backend) {
    let says = |what: &str| run("", &format!("{EDGEMESH} explain {what}")).out;
    let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (asked, wants) in [
        (
            "http://web.default/split/x",
            &["HTTPRoute default/web, rules[0] (split): prefix /split", "default/web-1:80 90"][..],
        ),
        ("http://web.default/any --header x-canary:yes", &["rules[6]", "10.4.0.2:8090"]),
        ("http://web.default/any", &["noRoute", "404"]),
        ("http://web.default/gone", &["there is no Service default/nobody", "routeFault"]),
        ("http://web.default/old/x?q", &["http://web.default/split/x?q", "redirected: 301"]),
        ("http://greeter.default:50051/t.T/Unary --method POST", &["default/greeter-2:50051 1"]),
    ] {
        let said = squeeze(&says(asked));
        for want in wants {
            assert!(said.contains(want), "{asked}: {want} is not in\n{said}");
        }
    }
    // Questions take no turn.
    for _ in 0..20 {
        says("http://web.default/split/x");
    }
    let before = one.counts().1;
    let mut raw = Raw::connect("", "10.96.0.120:80");
    (0..10).for_each(|_| assert_eq!(raw.get("/split").status, 200));
    assert_eq!(one.counts().1 - before, 9);
}

/// A Route is changed and taken away under way.
fn changed(world: &World) {
    let all = ROUTES.replace("value: /split }", "value: /parted }");
    world.manifest("routes", &all);
    let mut raw = Raw::connect("", "10.96.0.120:80");
    eventually("the change counts", PATIENCE, || (raw.get("/parted").status == 200).then_some(()));
    assert_eq!(raw.get("/split").status, 404);
    world.remove_manifest("routes");
    // Without Routes the Service's own backend takes it, and nobody listens there.
    eventually("no Route counts", PATIENCE, || (raw.get("/split").status == 503).then_some(()));
}
