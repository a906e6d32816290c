//! What another node refuses, as the client reads it; and what a peer may not ask for.

use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::link::{Answering, Called, Limits, Operation, Reply, Rest, Serve, pipe};
use edgemesh_core::peers::Ways as _;
use edgemesh_core::refusal::Refusal;
use edgemesh_proto::message::{
    Body, Caller, Connect, HeaderField, Message, Refused, Request as Asked, Target, fresh_id,
};
use edgemesh_proto::record::{NodeName, ServiceName};
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service as _;

use crate::backend::{Backend, Raw, nobody};
use crate::http::one;
use crate::log;
use crate::world::{Site, World, soon};

/// The head of the answer to a GET at the proxy of a node.
async fn get(site: &Site, service: &str, more: &str) -> String {
    let mut client = TcpStream::connect(site.proxy).await.unwrap();
    let request = format!(
        "GET http://{service}.default/ HTTP/1.1\r\nHost: {service}.default\r\nConnection: close\r\n{more}\r\n"
    );
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", client.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn refusals_of_the_other_node_reach_the_client() {
    let backend = Backend::start(false).await;
    let gone = nobody().await;
    let rows = [
        // Service, what only the other node knows, status, label, what else the head says
        (
            "limited",
            "policy default/limited for=limited server=1/1",
            429,
            "rateLimited",
            "retry-after: 1",
        ),
        (
            "elsewhere",
            "slice default/elsewhere-1 for=elsewhere ports=http:80 10.1.0.1@edge-3",
            503,
            "noLocalBackend",
            "",
        ),
        ("unknown", "service default/unknown 10.96.0.1 http:81", 404, "noPort", ""),
        ("closed", "policy default/closed for=closed allow=namespace:shop", 403, "notAllowed", ""),
        ("full", "policy default/full for=full maxRequests=1", 503, "overloaded", ""),
        ("down", "", 503, "connectFailed", ""),
    ];
    for (name, there, status, label, more) in rows {
        let port = if name == "down" { gone } else { backend.port() };
        let mut world = World::new(&["edge-1", "edge-2"], &one(name, port)).await;
        world.put_at("edge-2", there);
        let site = world.at("edge-1");
        let first = match name {
            "limited" => Some(get(site, name, "").await),
            "full" => {
                let request =
                    Request::get(format!("http://{name}.default/wait")).body(String::new());
                let mut http = site.mesh.http();
                let waiting = backend.seen.waiting.subscribe();
                tokio::spawn(async move { http.call(request.unwrap()).await.map(drop) });
                soon("it is there", waiting.clone().wait_for(|n| *n > 0)).await.unwrap();
                None
            }
            _ => None,
        };
        assert!(first.is_none_or(|answer| answer.starts_with("HTTP/1.1 200")));
        let answer = get(site, name, "").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer}");
        assert!(answer.contains(&format!("x-edgemesh-refusal: {label}\r\n")), "{name}: {answer}");
        assert!(answer.contains(more), "{name}: {answer}");
        // The line of a call whose Service has no such port names none.
        let both = if name == "unknown" { 1 } else { 2 };
        let lines = if name == "limited" { 4 } else { both };
        let told = log::of(name, lines).await;
        let refused = told.iter().filter(|line| line["outcome"] == label).count();
        assert_eq!(refused, both, "{name}: {told:?}");
        let grpc = get(site, name, "Content-Type: application/grpc\r\n").await;
        if name == "limited" {
            assert!(
                grpc.contains("grpc-status: 8\r\n") && grpc.contains("grpc-retry-pushback-ms: "),
                "{grpc}"
            );
        }
    }
}

/// A hub that knows nobody.
#[derive(Debug)]
struct Nowhere;

impl Serve for Nowhere {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        let text = "it is not linked".to_owned();
        let refused = Refused { label: "noPath".into(), text, retry_after_ms: 0 };
        let opening = called.opening.answered(fresh_id(), 0, "cloud", refused.into());
        Box::pin(async move { Answering { opening, rest: Rest::Nothing } })
    }
}

/// Whoever keeps the ways hears of it, so that the next call does not go the same one.
#[tokio::test]
async fn a_way_that_leads_nowhere_is_told_to_its_keeper() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("vanished", backend.port())).await;
    let site = world.at("edge-1");
    site.wires.join("edge-2", Arc::new(Nowhere));
    let answer = get(site, "vanished", "").await;
    assert!(answer.contains("x-edgemesh-refusal: noPath"), "{answer}");
    let error = site.mesh.connect("vanished.default:80").await.unwrap_err();
    assert_eq!(error.refusal, Refusal::NoPath);
    let told = ("edge-2".to_owned(), "it is not linked".to_owned());
    assert_eq!(*site.wires.nowhere.lock(), [told.clone(), told]);
}

#[tokio::test]
async fn without_a_way_that_is_said() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("lonely", backend.port())).await;
    let site = world.at("edge-1");
    site.wires.up("edge-2", false);
    let answer = get(site, "lonely", "").await;
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("x-edgemesh-refusal: noPath"),
        "{answer}"
    );
    let error = site.mesh.connect("lonely.default:80").await.unwrap_err();
    assert_eq!(error.refusal, Refusal::NoPath);
    site.wires.up("edge-2", true);
    assert!(get(site, "lonely", "").await.starts_with("HTTP/1.1 200"));
}

/// There is a way, but no room on it.
#[tokio::test]
async fn a_link_that_is_full_is_no_missing_way() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("crowded", backend.port())).await;
    let site = world.at("edge-1");
    let (link, _) = site.wires.find(&NodeName("edge-2".into())).await.unwrap();
    let mut held = Vec::new();
    while link.exchanges() < Limits::REQUESTS.exchanges as usize {
        let said = Body::Connect(Connect { target: target(&Caller::default()), race: false });
        let opening = Message::of_link(fresh_id(), 0, ["edge-1", "edge-2"], said);
        let (writer, rest) = pipe();
        let reply = soon("an answer", link.open(Operation::Stream, &opening, rest)).await.unwrap();
        held.push((writer, reply.body));
    }
    let answer = get(site, "crowded", "").await;
    assert!(answer.contains("x-edgemesh-refusal: overloaded"), "{answer}");
    drop(held);
    let free = async {
        while link.exchanges() > 0 {
            tokio::task::yield_now().await;
        }
    };
    soon("room", free).await;
    assert!(get(site, "crowded", "").await.starts_with("HTTP/1.1 200"));
}

/// The node of the caller is known by its Link, and what it says of its callers counts.
#[tokio::test]
async fn who_calls_is_what_the_node_vouches_for() {
    let backend = Backend::start(false).await;
    let mut world = World::new(&["edge-1", "edge-2"], &one("shop", backend.port())).await;
    world.put_at("edge-2", "policy default/shop for=shop allow=node:edge-1");
    assert!(get(world.at("edge-1"), "shop", "").await.starts_with("HTTP/1.1 200"));
    world.put_at(
        "edge-2",
        "policy default/shop for=shop allow=namespace:shop,service:till,namespace:lab+service:db",
    );
    let caller = |namespace: Option<&str>, services: &[&str]| Caller {
        address: Some([10, 9, 9, 9].into()),
        namespace: namespace.map(Into::into),
        workload: None,
        services: services.iter().map(|name| (*name).into()).collect(),
    };
    for (caller, want) in [
        (caller(Some("shop"), &[]), "answer"),
        (caller(Some("default"), &["till"]), "answer"),
        (caller(Some("other"), &["lab/db"]), "answer"),
        (caller(Some("other"), &["till"]), "notAllowed"),
        (caller(None, &[]), "notAllowed"),
    ] {
        let said = asks(&caller, |_| {});
        assert_eq!(ask(world.at("edge-1"), Operation::Request, said).await, want, "{caller:?}");
    }
}

/// A GET of `http://shop.default/`, bent by `bend`.
fn asks(caller: &Caller, bend: impl FnOnce(&mut Asked)) -> Body {
    let mut asked = Asked {
        target: target(caller),
        method: "GET".into(),
        scheme: String::new(),
        authority: String::new(),
        path: "/".into(),
        headers: vec![HeaderField { name: "host".into(), value: "shop.default".into() }],
        http2: false,
        upgrade: false,
    };
    bend(&mut asked);
    Body::Request(asked)
}

fn target(caller: &Caller) -> Target {
    Target {
        service: ServiceName::new("default", "shop"),
        port: NonZeroU16::new(80).unwrap(),
        hostname: None,
        backend: None,
        caller: caller.clone(),
    }
}

/// What `edge-2` answers: the label of its Refusal, or the operation of its Message.
async fn ask(site: &Site, operation: Operation, said: Body) -> String {
    let (link, _) = site.wires.find(&NodeName("edge-2".into())).await.unwrap();
    let opening = Message::of_link(fresh_id(), 0, ["edge-1", "edge-2"], said);
    let reply = soon("an answer", link.open(operation, &opening, Rest::Nothing)).await.unwrap();
    assert_eq!(reply.opening.header.parent_id, opening.header.id);
    assert_eq!(reply.opening.route.destination, "edge-1");
    match *reply.opening.body.unwrap() {
        Body::Refused(refused) => refused.label,
        other => other.operation().to_owned(),
    }
}

#[tokio::test]
async fn what_a_peer_may_not_ask_for() {
    let backend = Backend::start(false).await;
    let third = format!(
        "{}\nslice default/shop-2 for=shop ports=http:1 10.1.0.3@edge-3 10.1.0.4",
        one("shop", backend.port())
    );
    let world = World::new(&["edge-1", "edge-2"], &third).await;
    let site = world.at("edge-1");
    let nobody = Caller::default();
    let field = |name: &'static str, value: &'static str| HeaderField {
        name: name.into(),
        value: value.into(),
    };
    let rows = [
        (asks(&nobody, |_| {}), "answer"),
        // Whatever it wishes for, it gets a Backend of that node.
        (asks(&nobody, |a| a.target.backend = Some(([10, 1, 0, 3], 1).into())), "answer"),
        (asks(&nobody, |a| a.target.backend = Some(([10, 1, 0, 4], 1).into())), "answer"),
        (asks(&nobody, |a| a.target.service = ServiceName::new("default", "other")), "noService"),
        (asks(&nobody, |a| a.target.port = NonZeroU16::new(81).unwrap()), "noPort"),
        (asks(&nobody, |a| a.target.hostname = Some("h1".into())), "noService"),
        (asks(&nobody, |a| a.method = "G T".into()), "badRequest"),
        (asks(&nobody, |a| a.path = "/ /".into()), "badRequest"),
        (asks(&nobody, |a| a.headers.push(field("host", "b"))), "badRequest"),
        (asks(&nobody, |a| a.headers.clear()), "badRequest"),
        (asks(&nobody, |a| a.headers.push(field("x", "a\r\nb: c"))), "badRequest"),
        (
            asks(&nobody, |a| a.headers.push(field("transfer-encoding", "gzip, chunked"))),
            "badRequest",
        ),
        (asks(&nobody, |a| a.path = format!("/{}", "x".repeat(40_000))), "targetTooLong"),
    ];
    for (said, want) in rows {
        let shown = format!("{said:?}");
        assert_eq!(ask(site, Operation::Request, said).await, want, "{shown:.300}");
    }
    let connect = |target| Body::Connect(Connect { target, race: false });
    assert_eq!(ask(site, Operation::Stream, connect(target(&nobody))).await, "accepted");
    let other = Target { service: ServiceName::new("default", "other"), ..target(&nobody) };
    assert_eq!(ask(site, Operation::Stream, connect(other)).await, "noService");
    assert_eq!(ask(site, Operation::Control, connect(target(&nobody))).await, "unknownOperation");
}

/// A server that waits for its client.
async fn waits(mut stream: TcpStream) {
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.ok();
    stream.write_all(&said).await.ok();
}

/// One that speaks first, as MySQL does.
async fn greets(mut stream: TcpStream) {
    stream.write_all(b"220 ready\r\n").await.ok();
    waits(stream).await;
}

/// One of HTTP/2 says this before it is asked.
async fn settles(mut stream: TcpStream) {
    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.ok();
    waits(stream).await;
}

/// A dial that races a silent client takes nothing of what only one call may have, unless it became
/// a connection.
#[tokio::test]
async fn a_race_that_is_lost_takes_no_token_and_no_place() {
    let race = |race| Body::Connect(Connect { target: target(&Caller::default()), race });
    for limit in ["server=1/1", "max=1"] {
        for (server, wins) in [
            (Raw::start(waits).await, false),
            (Raw::start(settles).await, false),
            (Raw::start(greets).await, true),
        ] {
            let mut world = World::new(&["edge-1", "edge-2"], &one("shop", server.port)).await;
            world.put_at("edge-2", &format!("policy default/shop for=shop {limit}"));
            let site = world.at("edge-1");
            let (link, _) = site.wires.find(&NodeName("edge-2".into())).await.unwrap();
            let open = async |body| {
                let opening = Message::of_link(fresh_id(), 0, ["edge-1", "edge-2"], body);
                let (writer, rest) = pipe();
                let asked = link.open(Operation::Stream, &opening, rest);
                // One that waits for its client gives no answer for as long.
                let patience = Duration::from_millis(200);
                timeout(patience, asked).await.ok().map(|reply| (reply.unwrap(), writer))
            };
            let mut open_ones = Vec::new();
            for _ in 0..3 {
                open_ones.extend(open(race(true)).await);
            }
            let accepted =
                |reply: &Reply| matches!(reply.opening.body.as_deref(), Some(Body::Accepted(_)));
            let won = open_ones.iter().filter(|(reply, _)| accepted(reply)).count();
            let label = format!("{limit} {:?}", server.port);
            match wins {
                true => assert_eq!((open_ones.len(), won), (3, 1), "{label}"),
                false => assert_eq!(won, open_ones.len(), "{label}"),
            }
            let (call, _writer) = open(race(false)).await.unwrap();
            assert_eq!(accepted(&call), !wins, "{label}");
        }
    }
}
