//! What is tried again on another node, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use tokio::task::JoinSet;
use tower_service::Service as _;

use crate::backend::{Backend, nobody};
use crate::http::text;
use crate::log;
use crate::world::{World, soon};

const NODES: [&str; 3] = ["edge-1", "edge-2", "edge-3"];

/// One Service with a Backend on `edge-2` and one on `edge-3`, called in this order.
fn two(name: &str, ports: [u16; 2], policy: &str) -> String {
    let [second, third] = ports;
    format!(
        "service default/{name} 10.96.0.1 http:80
         policy default/{name} for={name} {policy}
         slice default/{name}-2 for={name} ports=http:{second} 127.0.0.2@edge-2
         slice default/{name}-3 for={name} ports=http:{third} 127.0.0.3@edge-3"
    )
}

/// A call of `method` and its body: who answered is told by the Backends.
async fn call(
    world: &World,
    method: Method,
    url: &str,
    body: &[u8],
) -> Result<(u16, String), &'static str> {
    let body = Full::new(bytes::Bytes::copy_from_slice(body));
    let request = Request::builder().method(method).uri(url).body(body).unwrap();
    match soon("an answer", world.at("edge-1").mesh.http().call(request)).await {
        Ok(response) => Ok((response.status().as_u16(), text(response).await)),
        Err(refused) => Err(refused.refusal.row().label),
    }
}

async fn on(address: [u8; 4]) -> Backend {
    Backend::start_at(address.into(), false).await
}

#[tokio::test]
async fn what_was_refused_before_it_was_sent_is_tried_elsewhere_whatever_it_is() {
    let third = on([127, 0, 0, 3]).await;
    let body = vec![b'x'; 20_000];
    let rows = [
        // Service, what only edge-2 knows, what it refuses for
        ("dead", "", "connectFailed"),
        ("stale", "slice default/stale-2 for=stale ports=http:1 10.1.0.1", "noLocalBackend"),
        ("strange", "service default/strange 10.96.0.1 http:81", "noPort"),
        ("spent", "policy default/spent for=spent server=1/1", "rateLimited"),
        ("severed", "", "noPath"),
    ];
    for (name, there, label) in rows {
        let second = on([127, 0, 0, 2]).await;
        let port = if name == "dead" { nobody().await } else { second.port() };
        let mut world = World::new(&NODES, &two(name, [port, third.port()], "retries=1")).await;
        world.put_at("edge-2", there);
        if name == "severed" {
            world.at("edge-1").wires.up("edge-2", false);
        }
        let (url, before) = (format!("http://{name}.default/echo"), third.requests());
        let mut seen = 0;
        for _ in 0..4 {
            let answer = call(&world, Method::POST, &url, &body).await;
            let (status, text) = answer.unwrap_or_else(|label| panic!("{name}: {label}"));
            assert_eq!((status, text.len()), (200, body.len()), "{name}");
            seen += 1;
        }
        assert_eq!(
            second.requests() + third.requests() - before,
            seen,
            "{name}: each was called once"
        );
        let retried: usize = if name == "spent" { 1 } else { 2 };
        // No way, no line there; no such port, no Service in it.
        let told_there = if ["noPath", "noPort"].contains(&label) { 0 } else { retried };
        let told = log::of(name, 8 + told_there).await;
        let entries: Vec<_> = told.iter().filter(|line| !line.contains_key("from")).collect();
        let twice = entries.iter().filter(|line| line["attempts"] == "2").count();
        assert_eq!((entries.len(), twice), (4, retried), "{name}: {told:?}");
        let refused = told.iter().filter(|line| line["outcome"] == label).count();
        assert_eq!(refused, told_there, "{name}: {told:?}");
    }
}

#[tokio::test]
async fn when_nobody_is_left_the_reason_is_told() {
    let (second, third) = (on([127, 0, 0, 2]).await, on([127, 0, 0, 3]).await);
    let mut world =
        World::new(&NODES, &two("gone", [second.port(), third.port()], "retries=5")).await;
    for node in ["edge-2", "edge-3"] {
        world.put_at(node, "policy default/gone for=gone server=1/1");
    }
    let url = "http://gone.default/echo";
    for _ in 0..2 {
        assert_eq!(call(&world, Method::POST, url, b"x").await.unwrap().0, 200);
    }
    assert_eq!(call(&world, Method::POST, url, b"x").await, Err("rateLimited"));
    // With no retries in the Policy the first word counts.
    let none = two("none", [nobody().await, third.port()], "retries=0");
    let world = World::new(&NODES, &none).await;
    assert_eq!(call(&world, Method::GET, "http://none.default/", b"").await, Err("connectFailed"));
    assert_eq!(call(&world, Method::GET, "http://none.default/", b"").await.unwrap().0, 200);
}

/// What another node says that its Backend is to be left alone for is heeded where calls begin.
#[tokio::test]
async fn a_backend_that_its_own_agent_leaves_alone_is_left_alone_here() {
    let (second, third) = (on([127, 0, 0, 2]).await, on([127, 0, 0, 3]).await);
    let policy = "retries=1 breaker=1,60s,60s,100";
    let world = World::new(&NODES, &two("tired", [second.port(), third.port()], policy)).await;
    // A client on edge-2 finds it broken.
    let http = &mut world.at("edge-2").mesh.http();
    let request = Request::post("http://tired.default/503").header("host", "x");
    let local = soon("an answer", http.call(request.body(String::new()).unwrap())).await.unwrap();
    assert_eq!(local.status(), 503);
    local.into_body().collect().await.unwrap();
    let before = second.requests();
    for _ in 0..6 {
        assert_eq!(
            call(&world, Method::POST, "http://tired.default/echo", b"x").await.unwrap().0,
            200
        );
    }
    assert_eq!((second.requests() - before, third.requests()), (0, 6));
    let told = log::of("tired", 1 + 12).await;
    let asked = told.iter().filter(|line| line["outcome"] == "unhealthy").count();
    assert_eq!(asked, 1, "once is enough: {told:?}");
}

#[tokio::test]
async fn what_may_have_been_done_is_tried_elsewhere_only_if_that_does_no_harm() {
    for (method, policy, moved) in [
        (Method::GET, "retries=2 onReset", true),
        (Method::GET, "retries=2", false),
        (Method::POST, "retries=2 onReset", false),
    ] {
        for cut in [false, true] {
            let (second, third) = (on([127, 0, 0, 2]).await, on([127, 0, 0, 3]).await);
            let name = format!("harm-{}-{}-{cut}", method.as_str().to_lowercase(), policy.len());
            let world =
                World::new(&NODES, &two(&name, [second.port(), third.port()], policy)).await;
            third.seen.gate.send_replace(true);
            let url = format!("http://{name}.default{}", if cut { "/wait" } else { "/reset" });
            let mut waiting = second.seen.waiting.subscribe();
            let cutting = async {
                if cut {
                    soon("it is there", waiting.wait_for(|n| *n == 1)).await.unwrap();
                    world.at("edge-1").wires.cut("edge-2");
                }
            };
            let calling = async {
                match cut {
                    true => call(&world, method.clone(), &url, b"").await,
                    // A Backend that resets would do so on any node.
                    false => {
                        call(&world, method.clone(), &url.replace("/reset", "/reset?"), b"").await
                    }
                }
            };
            let (answer, ()) = tokio::join!(calling, cutting);
            match (cut, moved) {
                (true, true) => assert_eq!(answer, Ok((200, "at last".into())), "{name}"),
                (true, false) | (false, _) => assert_eq!(answer, Err("backendReset"), "{name}"),
            }
            assert_eq!(second.requests(), 1, "{name}");
            assert_eq!(third.requests(), usize::from(moved), "{name}");
        }
    }
}

/// A node that stops cuts what does not end, and that may have been done.
#[tokio::test]
async fn what_a_node_cuts_that_stops_may_have_been_done() {
    for (method, moved) in [(Method::GET, true), (Method::POST, false)] {
        let (second, third) = (on([127, 0, 0, 2]).await, on([127, 0, 0, 3]).await);
        let name = format!("short-{}", method.as_str().to_lowercase());
        let lines = two(&name, [second.port(), third.port()], "retries=2 onReset");
        let mut world = World::new(&NODES, &lines).await;
        third.seen.gate.send_replace(true);
        let mut http = world.at("edge-1").mesh.http();
        let request = Request::builder().method(method).uri(format!("http://{name}.default/wait"));
        let calling = http.call(request.body(String::new()).unwrap());
        let mut waiting = second.seen.waiting.subscribe();
        let cutting = async {
            soon("it is there", waiting.wait_for(|n| *n == 1)).await.unwrap();
            world.cut_short("edge-2").await;
        };
        let (answer, ()) = tokio::join!(soon("an answer", calling), cutting);
        let label = answer.err().map(|refused| refused.refusal.row().label);
        assert_eq!(label, (!moved).then_some("backendReset"), "{name}");
        assert_eq!((second.requests(), third.requests()), (1, usize::from(moved)), "{name}");
    }
}

#[tokio::test]
async fn a_503_of_another_node_is_tried_elsewhere_if_the_policy_says_so() {
    let (second, third) = (on([127, 0, 0, 2]).await, on([127, 0, 0, 3]).await);
    let world =
        World::new(&NODES, &two("busy", [second.port(), third.port()], "retries=1 on503")).await;
    assert_eq!(call(&world, Method::GET, "http://busy.default/503", b"").await.unwrap().0, 503);
    assert_eq!((second.requests(), third.requests()), (1, 1));
}

/// While Links break in the middle of everything, no POST arrives twice, and none is lost that was
/// answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn post_is_counted_once_while_links_break() {
    const CALLERS: usize = 12;
    const CALLS: usize = 60;
    let (second, third) = (on([127, 0, 0, 2]).await, on([127, 0, 0, 3]).await);
    let world = Arc::new(
        World::new(&NODES, &two("once", [second.port(), third.port()], "retries=3 onReset")).await,
    );
    let (next, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let cutting = {
        let (world, done) = (world.clone(), done.clone());
        let seen = [second.seen.clone(), third.seen.clone()];
        tokio::spawn(async move {
            let mut cuts = 0;
            while !done.load(SeqCst) {
                // In step with the calls: not a storm in which nothing gets through.
                let so_far = || seen.iter().map(|s| s.heads.lock().len()).sum::<usize>();
                let until = so_far() + 9;
                while so_far() < until && !done.load(SeqCst) {
                    tokio::task::yield_now().await;
                }
                world.at("edge-1").wires.cut(["edge-2", "edge-3"][cuts % 2]);
                cuts += 1;
            }
            cuts
        })
    };
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (world, next) = (world.clone(), next.clone());
        callers.spawn(async move {
            let mut answered = Vec::new();
            for _ in 0..CALLS {
                let number = next.fetch_add(1, SeqCst).to_string();
                let request = Request::post("http://once.default/echo").header("x-number", &number);
                let request = request.body(Full::new(bytes::Bytes::from_static(b"some words")));
                let mut http = world.at("edge-1").mesh.http();
                let Ok(response) = soon("an answer", http.call(request.unwrap())).await else {
                    continue;
                };
                if let Ok(body) = response.into_body().collect().await {
                    assert_eq!(body.to_bytes(), "some words");
                    answered.push(number);
                }
            }
            answered
        });
    }
    let answered: Vec<String> = callers.join_all().await.concat();
    done.store(true, SeqCst);
    let cuts = cutting.await.unwrap();
    let mut arrived: Vec<String> = second.seen.numbers.lock().clone();
    arrived.extend(third.seen.numbers.lock().iter().cloned());
    let count = arrived.len();
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), count, "some arrived twice");
    assert!(answered.iter().all(|number| arrived.binary_search(number).is_ok()));
    assert!(cuts > 10, "only {cuts} cuts");
    assert!(answered.len() > CALLERS * CALLS / 4, "only {} were answered", answered.len());
}
