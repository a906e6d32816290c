//! Limits, breakers and retries as clients and backends see them.

use std::sync::atomic::Ordering::SeqCst;

use crate::agent::{Agent, PATIENCE};
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::common::wait::eventually;
use crate::raw::{End, Raw};
use crate::servers::{self, PEER};
use crate::world::{ONE, TWO, World};

/// A Service, its policy, and how many of ten calls are served. A rate of one a second cannot
/// add a call while ten are made.
const LIMITED: &[(&str, &str, usize)] = &[
    ("client", "rateLimit: { client: { qps: 1, burst: 4 } }", 4),
    ("server", "rateLimit: { server: { qps: 1, burst: 3 } }", 3),
    // An in-node call takes one token of each side: the smaller burst decides, none is halved.
    ("both", "rateLimit: { client: { qps: 1, burst: 5 }, server: { qps: 1, burst: 5 } }", 5),
    ("free", "rateLimit: {}", 10),
];

#[test]
fn limits_hold() {
    in_namespace("limits::limits_hold", || {
        let world = World::new();
        let _grpc = servers::grpc(&world, "", "grpc-1", ONE);
        let one = Backend::start("", "one", ONE, 8080);
        for (number, (name, policy, _)) in LIMITED.iter().enumerate() {
            world.service(name, &[&format!("10.96.0.{}", 50 + number)], &[":80:8080"], &[ONE]);
            world.policy(name, &format!("  {policy}"));
        }
        world.service(
            "retried",
            &["10.96.0.60"],
            &[":80:8080"],
            &[["10.4.0.3", ""], ["10.4.0.1", ""]],
        );
        world.policy(
            "retried",
            "  rateLimit: { client: { qps: 1, burst: 6 } }\n  retries: { attempts: 1, on: [connect] }\n  \
             circuitBreaker: { consecutiveFailures: 1000 }",
        );
        world.service("greeter", &["10.96.0.61"], &[":50051:50051"], &[ONE]);
        world.policy("greeter", "  rateLimit: { client: { qps: 1, burst: 2 } }");
        world.service("bytes", &["10.96.0.62"], &["tcp-x:80:8080"], &[ONE]);
        world.policy("bytes", "  rateLimit: { client: { qps: 1, burst: 3 } }");
        let agent = Agent::start(&world);
        http(&agent, &one);
        retries_take_no_further_token(&agent);
        grpc();
        connections_of_bytes(&agent);
        let lines = agent.access();
        let refused = lines.iter().filter(|line| line["outcome"] == "rateLimited").count();
        assert_eq!(agent.get("/v1/status")["refusals"]["rateLimited"], refused);
    });
}

fn http(agent: &Agent, one: &Backend) {
    for (name, policy, served) in LIMITED {
        let before = one.counts().1;
        let urls = format!("http://{name}.default/ ").repeat(10);
        let ran = run("pod", &format!("curl -sS -o /dev/null -w '%{{http_code}} ' {urls}"));
        // -o is for the first URL only; the bodies of the rest are between the codes
        let codes = |code: &str| ran.out.matches(&format!("{code} ")).count();
        assert_eq!((codes("200"), codes("429")), (*served, 10 - served), "{policy}: {ran:?}");
        assert_eq!(one.counts().1 - before, *served as u64, "{policy}: at the backend");
        agent.lines(policy, 10 - served, |line| {
            line["service"] == format!("default/{name}") && line["outcome"] == "rateLimited"
        });
    }
    let ran = run("", "curl -sSi http://client.default/");
    if ran.out.starts_with("HTTP/1.1 200") {
        return; // a token came back just now
    }
    for want in ["429", "retry-after: 1", "x-edgemesh-refusal: rateLimited", "default/client"] {
        assert!(ran.out.contains(want), "{want} is not in {}", ran.out);
    }
}

/// One of two backends is dead: half of the calls are tried twice, and none takes a second token.
fn retries_take_no_further_token(agent: &Agent) {
    let mut raw = Raw::connect("", "10.96.0.60:80");
    let statuses: Vec<u16> = (0..10).map(|_| raw.get("/").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 200, 429, 429, 429, 429]);
    let lines = agent
        .lines("served", 6, |line| line["service"] == "default/retried" && line["outcome"] == "ok");
    let tried: u64 = lines.iter().map(|line| line["attempts"].as_u64().unwrap()).sum();
    assert_eq!(tried, 9, "three of six calls met the dead backend first: {lines:#?}");
}

fn grpc() {
    let said = || -> serde_json::Value {
        let ran = run("", &format!("/usr/bin/python3 {PEER} once greeter.default:50051"));
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    };
    // Starting a client takes longer than a token needs to come back: in one process, then.
    let ran = run(
        "",
        &format!(
            "for i in 1 2 3 4 5; do /usr/bin/python3 {PEER} once greeter.default:50051 & done; wait"
        ),
    );
    let all: Vec<serde_json::Value> =
        ran.out.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let refused: Vec<_> = all.iter().filter(|said| said["code"] == "RESOURCE_EXHAUSTED").collect();
    assert!(!refused.is_empty() && refused.len() < 5, "{ran:?} {}", said());
    for said in refused {
        assert!(said["message"].as_str().unwrap().contains("rate limit"), "{said}");
        assert!(said["trailers"]["grpc-retry-pushback-ms"].is_string(), "{said}");
    }
}

/// Bytes have no way to say no but a reset; the limit counts connections.
fn connections_of_bytes(agent: &Agent) {
    let ends: Vec<bool> = (0..7)
        .map(|_| {
            let (said, end) = Raw::say_all("", "10.96.0.62:80", b"GET / HTTP/1.0\r\n\r\n");
            assert!(said.starts_with("HTTP/1.1 200") || end == End::Reset, "{said} {end:?}");
            !said.is_empty()
        })
        .collect();
    assert_eq!(ends, [true, true, true, false, false, false, false]);
    agent.lines("bytes", 4, |line| {
        line["service"] == "default/bytes" && line["outcome"] == "rateLimited"
    });
}

#[test]
fn ill_backends_are_ejected_and_probed_back() {
    in_namespace("limits::ill_backends_are_ejected_and_probed_back", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        let two = Backend::start("", "two", TWO, 8080);
        world.service("pair", &["10.96.0.31"], &[":80:8080"], &[ONE, TWO]);
        world.policy(
            "pair",
            "  circuitBreaker: { consecutiveFailures: 3, ejectFor: 500ms, maxEjectFor: 1s, maxEjectedPercent: 50 }\n  \
             retries: { attempts: 0 }",
        );
        let agent = Agent::start(&world);
        let mut raw = Raw::connect("", "10.96.0.31:80");
        two.ill.store(true, SeqCst);
        let ejected = || {
            let all = agent.get("/v1/backends");
            let all = all.as_array().unwrap().clone();
            all.into_iter().filter(|backend| backend["state"] != "admits").count()
        };
        let mut failed = 0;
        eventually("the ill backend is ejected", PATIENCE, || {
            failed += usize::from(raw.get("/").status == 503);
            (ejected() > 0 && failed >= 3).then_some(())
        });
        assert!(failed <= 3 * 2 + 2, "{failed} calls failed before it was ejected");
        let (mut bad, calls) = (0, 40);
        for _ in 0..calls {
            bad += usize::from(raw.get("/").status == 503);
        }
        assert!(bad <= 6, "{bad} of {calls} calls met an ejected backend: probes only");
        // While it is ill, probes go out one at a time and fail; healed, one brings it back.
        let probed = two.counts().1;
        eventually("a probe", PATIENCE, || {
            raw.get("/");
            (two.counts().1 > probed).then_some(())
        });
        two.ill.store(false, SeqCst);
        eventually("it is back", PATIENCE, || {
            assert!(matches!(raw.get("/").status, 200 | 503));
            (ejected() == 0).then_some(())
        });
        let before = (one.counts().1, two.counts().1);
        for _ in 0..20 {
            assert_eq!(raw.get("/").status, 200);
        }
        assert_eq!((one.counts().1 - before.0, two.counts().1 - before.1), (10, 10));
    });
}

#[test]
fn a_dead_backend_fails_nobody() {
    in_namespace("limits::a_dead_backend_fails_nobody", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        let _two = Backend::start("", "two", TWO, 8080);
        // Nobody listens at the third; the fourth is no machine at all.
        let backends = [ONE, TWO, ["10.4.0.3", ""]];
        world.service("web", &["10.96.0.70"], &[":80:8080"], &backends);
        world.service("tcp", &["10.96.0.71"], &["tcp-x:80:8080"], &backends);
        let agent = Agent::start(&world);
        let mut raw = Raw::connect("", "10.96.0.70:80");
        for call in 0..200 {
            assert_eq!(raw.get("/").status, 200, "call {call}");
        }
        for call in 0..50 {
            assert_eq!(
                Raw::connect("pod", "10.96.0.71:80").get("/").status,
                200,
                "connection {call}"
            );
        }
        assert!(agent.metric("edgemesh_retries_total", "") > 0.0);
        // A backend that resets what it accepted: a GET may go elsewhere where the Policy says so.
        world.policy("web", "  retries: { attempts: 2, on: [connect, reset], budgetPercent: 100 }");
        eventually("the policy is in force", PATIENCE, || {
            (!agent.get("/v1/policies").as_array()?.is_empty()).then_some(())
        });
        one.gone.store(true, SeqCst);
        let mut raw = Raw::connect("", "10.96.0.70:80");
        for call in 0..20 {
            assert_eq!(raw.get("/").status, 200, "call {call}");
        }
    });
}
