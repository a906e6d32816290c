//! Limits, allow lists, breakers and deadlines where the client and the Backend are on two nodes.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use serde_json::Value;

use crate::PATIENCE;
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::wait::eventually;
use crate::h2_from;
use crate::h2peer::{self, Asked, ask, grpc};
use crate::nodes::{Node, agent, cloud};
use crate::raw::{End, Raw};
use crate::world::{A1, A2, B1, B2, Place, World, listen};

/// A Service, its policy, and how many of ten calls of `a1` and then of `a2` are served: on the
/// client's side each node counts for itself, on the server's side the Backend's node for all. A
/// rate of one a second cannot add a call while ten are made.
const LIMITED: &[(&str, &str, [usize; 2])] = &[
    ("client", "rateLimit: { client: { qps: 1, burst: 4 } }", [4, 4]),
    ("server", "rateLimit: { server: { qps: 1, burst: 3 } }", [3, 0]),
    // A call that passed both sides took one token of each; a refused one may have taken the first.
    ("both", "rateLimit: { client: { qps: 1, burst: 5 }, server: { qps: 1, burst: 8 } }", [5, 3]),
    ("free", "rateLimit: {}", [10, 10]),
];

fn backend(at: Place) -> Arc<Backend> {
    Backend::start(at.name, at.name, [at.ip, "::1"], 8080)
}

fn refusals(node: &Node) -> u64 {
    node.get("/v1/status")["refusals"]["rateLimited"].as_u64().unwrap_or_default()
}

#[test]
fn invariant_9_tokens_are_taken_once_at_their_node() {
    in_namespace("limits::invariant_9_tokens_are_taken_once_at_their_node", || {
        let world = World::new();
        let far = backend(B1);
        for (number, (name, policy, _)) in LIMITED.iter().enumerate() {
            world.service(name, &format!("10.96.0.{number}"), "http:80:8080", &[B1]);
            world.policy(name, &format!("  {policy}"));
        }
        world.service("bytes", "10.96.0.10", "tcp-x:80:8080", &[B1]);
        world.policy("bytes", "  rateLimit: { server: { qps: 1, burst: 3 } }");
        world.service("calls", "10.96.0.11", "grpc:80:50051", &[B1]);
        world.policy("calls", "  rateLimit: { server: { qps: 1, burst: 2 } }");
        world.service("mine", "10.96.0.12", "http:80:8080", &[B1]);
        world.policy("mine", "  allow: [{ node: a1 }]");
        let _cloud = cloud(&world);
        let nodes = [agent(&world, A1), agent(&world, A2)];
        let b1 = agent(&world, B1);
        for (number, (name, policy, served)) in LIMITED.iter().enumerate() {
            for (node, served) in nodes.iter().zip(*served) {
                let before = (far.counts().1, refusals(node));
                let mut raw = Raw::connect(node.place.name, &format!("10.96.0.{number}:80"));
                let answers: Vec<_> = (0..10).map(|_| raw.get("/")).collect();
                let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
                let mut want = vec![200; served];
                want.resize(10, 429);
                assert_eq!(statuses, want, "{policy} from {}", node.place.name);
                assert_eq!(far.counts().1 - before.0, served as u64, "{policy}: at the backend");
                assert_eq!(refusals(node) - before.1, 10 - served as u64, "{policy}: told");
                for answer in answers.iter().filter(|answer| answer.status == 429) {
                    assert_eq!(answer.header("x-edgemesh-refusal"), Some("rateLimited"));
                    assert!(answer.header("retry-after").is_some(), "{answer:?}");
                }
            }
            // What was refused on the server's side was refused there.
            let there = b1.access().into_iter().filter(|line| {
                line["service"] == format!("default/{name}") && line["outcome"] == "rateLimited"
            });
            let want = match *name {
                "server" => 17,
                "both" => 2,
                _ => 0,
            };
            assert_eq!(there.count(), want, "{policy}: refused by b1");
        }
        connections();
        calls();
        for (node, status) in nodes.iter().zip([200, 403]) {
            let mut raw = Raw::connect(node.place.name, "10.96.0.12:80");
            assert_eq!(raw.get("/").status, status, "allow list, from {}", node.place.name);
        }
    });
}

/// Bytes have no way to say no but a reset.
fn connections() {
    let served = |_| {
        let (said, end) = Raw::say_all("a1", "10.96.0.10:80", b"GET / HTTP/1.0\r\n\r\n");
        assert!(said.starts_with("HTTP/1.1 200") || end == End::Reset, "{said} {end:?}");
        !said.is_empty()
    };
    let served: Vec<bool> = (0..6).map(served).collect();
    assert_eq!(served, [true, true, true, false, false, false]);
}

/// gRPC has words of its own.
fn calls() {
    let runtime = h2peer::runtime();
    h2peer::serve_on(&runtime, listen("b1", "10.92.1.11:50051"), answer);
    let ended = runtime.block_on(async {
        let sender = h2_from("a1", "10.96.0.11:80").await;
        let mut ended = Vec::new();
        for _ in 0..4 {
            let request = grpc("calls.default", "/t.T/Unary", &[]);
            ended.push(ask(&sender, request, vec![Bytes::from_static(&[0; 5])]).await);
        }
        ended
    });
    let statuses: Vec<_> = ended.iter().map(|ended| ended.grpc_status()).collect();
    assert_eq!(statuses, [Some("0"), Some("0"), Some("8"), Some("8")], "{ended:#?}");
    assert!(ended[2].headers.contains_key("grpc-retry-pushback-ms"), "{ended:#?}");
}

/// An empty answer that went well.
async fn answer(mut asked: Asked) {
    h2peer::read(asked.request.body_mut()).await.ok();
    let head = http::Response::builder().header("content-type", "application/grpc");
    let mut stream = asked.answer.send_response(head.body(()).unwrap(), false).unwrap();
    let well = http::HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        http::HeaderValue::from_static("0"),
    )]);
    stream.send_trailers(well).unwrap();
}

#[test]
fn a_deadline_holds_at_both_ends() {
    in_namespace("limits::a_deadline_holds_at_both_ends", || {
        let world = World::new();
        world.service("slow", "10.96.0.20", "grpc:80:50051", &[B1]);
        let (runtime, (told, heard)) = (h2peer::runtime(), std::sync::mpsc::channel());
        h2peer::serve_on(&runtime, listen("b1", "10.92.1.11:50051"), move |asked: Asked| {
            let timeout = asked.request.headers().get("grpc-timeout").cloned();
            told.send(timeout).unwrap();
            async move {
                let _asked = asked; // says nothing
                std::future::pending::<()>().await;
            }
        });
        let _cloud = cloud(&world);
        let (a1, b1) = (agent(&world, A1), agent(&world, B1));
        let ended = runtime.block_on(async {
            let sender = h2_from("a1", "10.96.0.20:80").await;
            let request = grpc("slow.default", "/t.T/Slow", &[("grpc-timeout", "300m")]);
            ask(&sender, request, vec![Bytes::from_static(&[0; 5])]).await
        });
        assert_eq!(ended.grpc_status(), Some("4"), "{ended:#?}");
        let timeout = heard.recv().unwrap().expect("the Backend is told");
        let left: u32 = timeout.to_str().unwrap().strip_suffix('m').unwrap().parse().unwrap();
        assert!((1..=300).contains(&left), "{timeout:?}");
        let line = &a1.lines("the call", 0, 1, |_| true)[0];
        assert_eq!(line["outcome"], "requestTimeout", "{line}");
        // The other end waits no longer, whether its own clock ends it or the word of the entry.
        let there = &b1.lines("its end", 0, 1, |there| there["message"] == line["message"])[0];
        assert!(there["ms"].as_f64().unwrap() < 1000.0, "{there}");
        assert!(["requestTimeout", "cancelled"].contains(&there["outcome"].as_str().unwrap()));
    });
}

/// Which Backend answered each of `calls` calls, `503` where none did.
fn who(raw: &mut Raw, calls: usize) -> Vec<String> {
    let call = |_| {
        let answer = raw.get("/");
        if answer.status == 200 { answer.body } else { answer.status.to_string() }
    };
    (0..calls).map(call).collect()
}

#[test]
fn another_node_is_tried() {
    in_namespace("limits::another_node_is_tried", || {
        let world = World::new();
        let (one, two) = (backend(B1), backend(B2));
        world.service("pair", "10.96.0.30", "http:80:8080", &[B1, B2]);
        world.policy(
            "pair",
            "  circuitBreaker: { consecutiveFailures: 3, ejectFor: 500ms, maxEjectFor: 1s, maxEjectedPercent: 50 }\n  \
             retries: { attempts: 0 }",
        );
        world.service("moved", "10.96.0.31", "http:80:8080", &[B2]);
        world.service("limited", "10.96.0.32", "http:80:8080", &[B1, B2]);
        world.policy("limited", "  rateLimit: { server: { qps: 1, burst: 2 } }");
        let _cloud = cloud(&world);
        let (a1, b1, _b2) = (agent(&world, A1), agent(&world, B1), agent(&world, B2));
        // A node whose limit is spent says so, and the other one serves.
        let mut raw = Raw::connect("a1", "10.96.0.32:80");
        let mut served = who(&mut raw, 6);
        assert_eq!(served.split_off(4), ["429", "429"], "{served:?}");
        served.sort();
        assert_eq!(served, ["b1", "b1", "b2", "b2"]);
        ill_backends_are_left_alone(&a1, &one, &two);
        a_node_that_knows_less(&world, &a1, &b1);
    });
}

/// As in one node; the breaker is the one of whoever calls.
fn ill_backends_are_left_alone(a1: &Node, one: &Backend, two: &Backend) {
    let mut raw = Raw::connect("a1", "10.96.0.30:80");
    let ejected = || {
        let all = a1.get("/v1/backends");
        let of_pair =
            |backend: &&Value| backend["service"] == "pair" && backend["state"] != "admits";
        all.as_array().unwrap().iter().filter(of_pair).count()
    };
    one.ill.store(true, SeqCst);
    let mut failed = 0;
    eventually("the ill Backend is ejected", PATIENCE, || {
        failed += usize::from(raw.get("/").status == 503);
        (ejected() > 0 && failed >= 3).then_some(())
    });
    assert!(failed <= 8, "{failed} calls failed before it was ejected");
    let bad = who(&mut raw, 40).iter().filter(|who| *who == "503").count();
    assert!(bad <= 6, "{bad} of 40 calls met an ejected Backend: probes only");
    one.ill.store(false, SeqCst);
    eventually("it is back", PATIENCE, || {
        assert!(matches!(raw.get("/").status, 200 | 503));
        (ejected() == 0).then_some(())
    });
    let before = (one.counts().1, two.counts().1);
    who(&mut raw, 20);
    assert_eq!((one.counts().1 - before.0, two.counts().1 - before.1), (10, 10));
}

/// A node that was cut off from the cloud knows no Backend of its own; the other one does.
fn a_node_that_knows_less(world: &World, a1: &Node, b1: &Node) {
    for way in ["-s 10.92.1.11 -d 10.90.0.2", "-d 10.92.1.11 -s 10.90.0.2"] {
        sh(&format!("ip netns exec rb iptables -I FORWARD {way} -j DROP"));
    }
    world.service("moved", "10.96.0.31", "http:80:8080", &[B1, B2]);
    eventually("a1 knows both", PATIENCE, || {
        let all = a1.get("/v1/backends");
        let moved = |backend: &&Value| backend["service"] == "moved";
        (all.as_array().unwrap().iter().filter(moved).count() == 2).then_some(())
    });
    let mut raw = Raw::connect("a1", "10.96.0.31:80");
    assert_eq!(who(&mut raw, 6), ["b2"; 6]);
    let refused = b1.lines("refused", 0, 1, |line| line["service"] == "default/moved");
    assert!(refused.iter().all(|line| line["outcome"] == "noLocalBackend"), "{refused:#?}");
    let again = |line: &Value| line["service"] == "default/moved" && line["attempts"] == 2;
    a1.lines("tried again", 0, 1, again);
}
