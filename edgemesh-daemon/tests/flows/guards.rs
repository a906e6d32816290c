//! What guards callers and Backends: allow lists, limits by caller, caps, rest, checks, budgets.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::agent::{Agent, PATIENCE};
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::common::wait::{eventually, timed};
use crate::raw::{End, Raw};
use crate::servers::{self, PEER};
use crate::world::{ONE, TWO, World};

/// The two pods as Kubernetes writes them, and the node with its address on the pods' side.
const CALLERS: &str = "\
apiVersion: v1
kind: Node
metadata: { name: node-1 }
status: { addresses: [{ type: InternalIP, address: 10.1.0.1 }, { type: InternalIP, address: 10.4.0.1 }] }
---
apiVersion: v1
kind: Pod
metadata: { name: pod, namespace: shop }
spec: { nodeName: node-1, containers: [{ name: main }] }
status: { podIPs: [{ ip: 10.1.0.2 }, { ip: \"fd01::2\" }] }
---
apiVersion: v1
kind: Pod
metadata: { name: bare, namespace: lab }
spec: { nodeName: node-1, containers: [{ name: main }] }
status: { podIPs: [{ ip: 10.2.0.2 }] }
";

fn status(place: &str, at: &str) -> u16 {
    Raw::connect(place, at).get("/").status
}

#[test]
fn only_the_allowed_come_in() {
    in_namespace("guards::only_the_allowed_come_in", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        let _grpc = servers::grpc(&world, "", "grpc-1", ONE);
        world.manifest("callers", CALLERS);
        for (number, name, allow) in [
            (40, "shop", "allow: [{ namespace: shop }]"),
            (41, "node", "allow: [{ node: node-1 }]"),
            (42, "nobody", "allow: []"),
            (43, "other", "allow: [{ node: node-2 }, { namespace: default }]"),
        ] {
            world.service(name, &[&format!("10.96.0.{number}")], &[":80:8080"], &[ONE]);
            world.policy(name, &format!("  {allow}"));
        }
        world.service("bytes", &["10.96.0.44"], &["tcp-x:80:8080"], &[ONE]);
        world.policy("bytes", "  allow: [{ namespace: shop }]");
        world.service("greeter", &["10.96.0.45"], &[":50051:50051"], &[ONE]);
        world.policy("greeter", "  allow: [{ namespace: shop }]");
        let agent = Agent::start(&world);
        // From the pod of namespace shop, from that of lab, and from the node itself.
        for (name, number, want) in [
            ("shop", 40, [200, 403, 403]),
            ("node", 41, [200, 200, 200]),
            ("nobody", 42, [403, 403, 403]),
            ("other", 43, [403, 403, 403]),
        ] {
            let at = format!("10.96.0.{number}:80");
            assert_eq!(["pod", "bare", ""].map(|place| status(place, &at)), want, "{name}");
        }
        let before = one.counts().1;
        let said = run("bare", "curl -sSi http://10.96.0.40/").out;
        for want in ["403", "x-edgemesh-refusal: notAllowed", "default/shop", "allow list"] {
            assert!(said.contains(want), "{want} is not in {said}");
        }
        // Bytes have no way to say no but a reset; also where the client is silent at first.
        let get = b"GET / HTTP/1.0\r\n\r\n";
        let (said, end) = Raw::say_all("pod", "10.96.0.44:80", get);
        assert!(said.starts_with("HTTP/1.1 200"), "{said} {end:?}");
        assert_eq!(Raw::say("bare", "10.96.0.44:80", b"").1, End::Reset);
        assert_eq!(Raw::say("bare", "10.96.0.40:80", b"").1, End::Reset, "a silent client");
        assert_eq!(one.counts().1 - before, 1);
        let ran = run("bare", &format!("/usr/bin/python3 {PEER} once 10.96.0.45:50051"));
        assert!(ran.out.contains("PERMISSION_DENIED"), "{ran:?}");
        let lines = agent.access();
        let refused: Vec<_> = lines.iter().filter(|l| l["outcome"] == "notAllowed").collect();
        assert!(refused.len() >= 10 && refused.iter().all(|l| l["culprit"] == "client"));
        assert!(agent.metric("edgemesh_refusals_total", "notAllowed") >= 10.0);
        let policies = agent.get("/v1/policies").to_string();
        assert!(policies.contains("allow nobody") && policies.contains("allow 2 entries: "));
    });
}

#[test]
fn each_caller_has_its_own_limit() {
    in_namespace("guards::each_caller_has_its_own_limit", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.manifest("callers", CALLERS);
        world.service("ip", &["10.96.0.46"], &[":80:8080"], &[ONE]);
        world.policy("ip", "  rateLimit: { client: { qps: 1, burst: 3, by: ip } }");
        world.service("ns", &["10.96.0.47"], &[":80:8080"], &[ONE]);
        world.policy("ns", "  rateLimit: { server: { qps: 1, burst: 2, by: namespace } }");
        let _agent = Agent::start(&world);
        for (at, burst) in [("10.96.0.46:80", 3), ("10.96.0.47:80", 2)] {
            for place in ["pod", "bare", ""] {
                let mut raw = Raw::connect(place, at);
                let answers: Vec<_> = (0..burst + 2).map(|_| raw.get("/")).collect();
                let served = answers.iter().take_while(|answer| answer.status == 200).count();
                assert_eq!(served, burst, "{at} from `{place}`");
                assert_eq!(answers[burst].status, 429);
                assert_eq!(answers[burst].header("retry-after"), Some("1"));
            }
        }
    });
}

#[test]
fn caps_and_silence_end_connections() {
    in_namespace("guards::caps_and_silence_end_connections", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("bytes", &["10.96.0.48"], &["tcp-x:80:8080"], &[ONE]);
        world.policy("bytes", "  connections: { max: 2 }\n  timeouts: { idle: 2s }");
        world.service("http", &["10.96.0.49"], &[":80:8080"], &[ONE]);
        world.policy("http", "  connections: { maxRequests: 1 }");
        let agent = Agent::start(&world);
        let open = || Raw::connect("pod", "10.96.0.48:80");
        let (mut first, mut second) = (open(), open());
        assert_eq!([first.get("/").status, second.get("/").status], [200, 200]);
        assert_eq!(Raw::say("pod", "10.96.0.48:80", b"").1, End::Reset, "a third one");
        drop(second);
        let mut third = eventually("a place is free", PATIENCE, || {
            // Refused, it may be reset before it knows that it stood.
            let mut raw = Raw::try_connect("pod", "10.96.0.48:80").ok()?;
            raw.send(b"GET / HTTP/1.1\r\nHost: one.default\r\n\r\n");
            crate::backend::read_head(&mut raw.reader).map(|_| raw)
        });
        // One that talks stays; one that is silent is closed, within its time and a quarter.
        let (end, took) = timed(|| {
            for _ in 0..8 {
                assert_eq!(first.get("/").status, 200);
                third.stream().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                if let (_, End::Closed | End::Reset) = third.rest() {
                    return true;
                }
            }
            false
        });
        assert!(end && took > Duration::from_millis(1500), "closed: {end}, after {took:?}");
        agent.lines("idle", 1, |line| line["outcome"] == "idleTimeout");
        let mut waiting = Raw::connect("pod", "10.96.0.49:80");
        waiting.send(b"GET /wait HTTP/1.1\r\nHost: one.default\r\n\r\n");
        eventually("it is under way", PATIENCE, || {
            let all = agent.get("/v1/backends");
            let of_http = all.as_array()?.iter().find(|b| b["service"] == "http")?.clone();
            (of_http["inFlight"] == 1).then_some(())
        });
        let answer = Raw::connect("bare", "10.96.0.49:80").get("/");
        assert_eq!((answer.status, answer.header("x-edgemesh-refusal")), (503, Some("overloaded")));
        drop(waiting);
        eventually("a place is free", PATIENCE, || {
            (Raw::connect("pod", "10.96.0.49:80").get("/").status == 200).then_some(())
        });
    });
}

#[test]
fn backends_get_the_rest_they_ask_for() {
    in_namespace("guards::backends_get_the_rest_they_ask_for", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        let two = Backend::start("", "two", TWO, 8080);
        world.service("pair", &["10.96.0.50"], &[":80:8080"], &[ONE, TWO]);
        world.policy(
            "pair",
            "  circuitBreaker: { ejectFor: 1s, maxEjectedPercent: 100 }\n  \
             retries: { attempts: 1, on: [503] }",
        );
        let _agent = Agent::start(&world);
        let mut raw = Raw::connect("", "10.96.0.50:80");
        // Only `two` says 503, and asks for two seconds; the retry goes to `one`.
        for _ in 0..2 {
            assert_eq!(raw.get("/status/503?rest=2&rest-of=two").status, 200);
        }
        let asked = two.counts().1;
        assert_eq!(asked, 1);
        let (quiet, took) = timed(|| (0..100).all(|_| raw.get("/").body == "one"));
        assert!(quiet || took > Duration::from_millis(1500), "left alone, in {took:?}");
        eventually("it is probed", PATIENCE, || {
            assert_eq!(raw.get("/").status, 200);
            (two.counts().1 > asked).then_some(())
        });
        // A 429 too, and nobody is left without a Backend: the last one is always asked.
        let statuses: Vec<_> = (0..6).map(|_| raw.get("/status/429?rest=30").status).collect();
        assert_eq!(statuses, [429; 6]);
        assert_eq!(raw.get("/").status, 200);
    });
}

#[test]
fn ill_backends_are_not_asked() {
    in_namespace("guards::ill_backends_are_not_asked", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        let two = Backend::start("", "two", TWO, 8080);
        world.service("pair", &["10.96.0.51"], &[":80:8080"], &[ONE, TWO]);
        world.policy(
            "pair",
            "  healthCheck: { http: /healthz, interval: 100ms, unhealthy: 2, healthy: 2 }\n  \
             retries: { attempts: 0 }",
        );
        let agent = Agent::start(&world);
        let ill = |want: usize| {
            eventually("the checks see it", PATIENCE, || {
                let all = agent.get("/v1/backends");
                let pair = all.as_array()?.iter().filter(|b| b["service"] == "pair");
                let v4 =
                    pair.filter(|b| b["address"].as_str().is_some_and(|a| a.starts_with("10.")));
                (v4.filter(|b| b["health"]["state"] == "unhealthy").count() == want).then_some(())
            });
        };
        let mut raw = Raw::connect("", "10.96.0.51:80");
        two.ill.store(true, SeqCst);
        ill(1);
        assert!((0..20).all(|_| raw.get("/").body == "one"), "without a failed call");
        assert!(agent.metric("edgemesh_backends_ill", "") >= 1.0);
        // All are ill: none of the checks is believed.
        one.ill.store(true, SeqCst);
        ill(2);
        let before = (one.counts().1, two.counts().1);
        assert!((0..20).all(|_| raw.get("/").status == 503), "their own word");
        let after = (one.counts().1, two.counts().1);
        assert!(after.0 - before.0 >= 10 && after.1 - before.1 >= 10, "{before:?} {after:?}");
        two.ill.store(false, SeqCst);
        ill(1);
        assert!((0..20).all(|_| raw.get("/").body == "two"));
        // Without the check nobody is ill.
        world.remove_manifest("pair-policy");
        ill(0);
    });
}

/// Retries are at most a fifth of the calls, and the ten that a fresh budget holds.
#[test]
fn retries_stay_within_their_budget() {
    in_namespace("guards::retries_stay_within_their_budget", || {
        let world = World::new();
        let (one, two) =
            (Backend::start("", "one", ONE, 8080), Backend::start("", "two", TWO, 8080));
        world.service("pair", &["10.96.0.52"], &[":80:8080"], &[ONE, TWO]);
        world.policy("pair", "  retries: { attempts: 3, on: [503, reset], budgetPercent: 20 }");
        let agent = Agent::start(&world);
        one.ill.store(true, SeqCst);
        two.ill.store(true, SeqCst);
        let mut raw = Raw::connect("", "10.96.0.52:80");
        let calls = 500;
        for _ in 0..calls {
            assert_eq!(raw.get("/").status, 503);
        }
        let attempts = one.counts().1 + two.counts().1;
        let retries = agent.metric("edgemesh_retries_total", "");
        assert_eq!(attempts, calls + retries as u64);
        let bound = calls / 5 + 10;
        assert!(retries as u64 <= bound && retries as u64 > bound / 2, "{retries} of {bound}");
    });
}
