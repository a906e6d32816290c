//! The four ways, each by what clients speak, each straight and through the hub.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use serde_json::Value;

use crate::PATIENCE;
use crate::backend::{Backend, read_head};
use crate::common::namespace::in_namespace;
use crate::common::run::{Running, need, run};
use crate::common::wait::eventually;
use crate::nodes::{EDGEMESH, Node, agent, agent_again, agent_with, cloud};
use crate::raw::Raw;
use crate::servers::{self, PEER};
use crate::world::{A1, B1, C1, C2, Place, World, listen};

/// Who calls a Backend on which node, and which way that takes where nodes may dial each other. On
/// `c2` no agent runs: the cloud's own process calls what is there.
const WAYS: &[(Place, Place, &str)] = &[
    (A1, B1, "direct"),
    (B1, A1, "direct"),
    (A1, C2, "hub"),
    (C1, B1, "direct"),
    (C1, A1, "direct"),
];

/// Ports of each Service. No name says what is spoken there.
pub(crate) const PORTS: &str =
    "web:80:9376 bytes:7:7007 greets:2701:2701 secure:443:8443 calls:50051:50051";

type Client = fn(&Trip<'_>);

/// What is spoken, and the client, which checks what it gets.
const CLIENTS: &[(&str, Client)] = &[
    ("http1", http),
    ("http1", bodies),
    ("http1", chunked),
    ("http1", upgrade),
    ("http2", grpc),
    ("opaque", half_close),
    ("opaque", greeted),
    ("tls", tls),
];

/// A Service whose only Backend is at `place`, by its name.
pub(crate) fn address(place: Place) -> String {
    let number = crate::world::PLACES.iter().position(|known| *known == place).unwrap();
    format!("10.96.1.{number}")
}

/// Everything that answers at one place.
pub(crate) fn backends(world: &World, at: Place) -> Vec<Running> {
    let ips = [at.ip, "::1"];
    Backend::start(at.name, at.name, ips, 9376);
    answer(at, 7007, |mut stream| {
        let mut said = Vec::new();
        stream.read_to_end(&mut said)?; // not a word before the client is done
        write!(stream, "{} bytes", said.len())
    });
    answer(at, 2701, |mut stream| {
        writeln!(stream, "Welcome")?;
        std::io::copy(&mut stream.try_clone()?, &mut stream)?;
        stream.shutdown(Shutdown::Write)
    });
    vec![servers::nginx(world, at.name, at.name, ips), servers::grpc(world, at.name, at.name, ips)]
}

fn answer(at: Place, port: u16, how: fn(std::net::TcpStream) -> std::io::Result<()>) {
    let listener = listen(at.name, &format!("{}:{port}", at.ip));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || how(stream));
        }
    });
}

/// One client on its way.
struct Trip<'a> {
    world: &'a World,
    from: Place,
    to: Place,
}

impl Trip<'_> {
    fn at(&self, port: u16) -> String {
        format!("{}:{port}", address(self.to))
    }

    fn connect(&self, port: u16) -> Raw {
        Raw::connect(self.from.name, &self.at(port))
    }
}

/// Several requests on one connection; statuses and fields are the Backend's.
fn http(trip: &Trip<'_>) {
    let mut raw = trip.connect(80);
    let answer = raw.get("/");
    assert_eq!((answer.status, answer.body.as_str()), (200, trip.to.name));
    for status in [201, 204, 404, 503] {
        assert_eq!(raw.get(&format!("/status/{status}")).status, status);
    }
    assert_eq!(raw.get("/status/429?rest=7").header("retry-after"), Some("7"));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let head = format!(
        "GET /head HTTP/1.1\r\nHost: far.default\r\nX-Sent: a\r\nTraceparent: {trace}\r\n\r\n"
    );
    raw.send(head.as_bytes());
    let answer = raw.answer("GET");
    let said = |name: &str| crate::backend::header(&answer.body, name);
    assert_eq!((said("host"), said("x-sent")), (Some("far.default"), Some("a")));
    let passed = said("traceparent").unwrap_or_default();
    assert_eq!(passed[..35], trace[..35], "the trace is the client's");
    raw.send(b"HEAD / HTTP/1.1\r\nHost: far.default\r\n\r\n");
    assert_eq!(raw.answer("HEAD").header("content-length"), Some("4321"));
}

/// Bodies that come with their heads or after them, requests that do not wait for answers, and answers
/// that say two lengths or less than their own.
fn bodies(trip: &Trip<'_>) {
    let post = |length: usize| {
        format!("POST /echo HTTP/1.1\r\nHost: far.default\r\nContent-Length: {length}\r\n\r\n")
    };
    let mut raw = trip.connect(80);
    for (length, together) in [(5, 5), (9_000, 9_000), (90_000, 3_000), (7, 0)] {
        let body = "x".repeat(length);
        raw.send((post(length) + &body[..together]).as_bytes());
        raw.send(&body.as_bytes()[together..]);
        let answer = raw.answer("POST");
        assert!(answer.status == 200 && answer.body == body, "{length}, {together}: {answer:?}");
    }
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: far.default\r\n\r\n");
    raw.send([get("/"), post(2) + "ok", get("/both"), get("/status/404")].concat().as_bytes());
    for (method, body) in [("GET", trip.to.name), ("POST", "ok"), ("GET", "hello world")] {
        assert_eq!(raw.answer(method).body, body);
    }
    assert_eq!(raw.answer("GET").status, 404);
    raw.send(get("/reset").as_bytes());
    assert_eq!(raw.answer("GET").status, 502);
    raw.send(get("/half").as_bytes());
    let head = read_head(&mut raw.reader).unwrap();
    assert!(head.contains("content-length: 10\r\n"), "{head}");
    let mut half = [0; 5];
    raw.reader.read_exact(&mut half).unwrap();
    assert_eq!(&half, b"half.");
}

/// A body of unknown length each way, with trailers.
fn chunked(trip: &Trip<'_>) {
    let mut raw = trip.connect(80);
    raw.send(
        b"POST /echo HTTP/1.1\r\nHost: far.default\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n\
          Trailer: x-sent\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\nx-sent: after\r\n\r\n",
    );
    let answer = raw.answer("POST");
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello world"));
    for trailer in ["x-length: 11", "x-sent: after"] {
        assert!(answer.trailers.contains(trailer), "{answer:?}");
    }
    // Nothing but trailers.
    raw.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Length: 0\r\n\r\n");
    assert!(raw.answer("POST").trailers.contains("x-length: 0"));
    let body = "x".repeat(300_000);
    let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    raw.send(head.as_bytes());
    raw.send(body.as_bytes());
    assert_eq!(raw.answer("POST").body.len(), body.len());
}

/// What a WebSocket begins with.
fn upgrade(trip: &Trip<'_>) {
    let mut raw = trip.connect(80);
    let head =
        "GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    raw.send(head.as_bytes());
    let answer = read_head(&mut raw.reader).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert_eq!(crate::backend::header(&answer, "upgrade"), Some("websocket"));
    for frame in [&b"\x81\x02hi"[..], b"\x81\x03you"] {
        raw.send(frame);
        raw.expect(frame);
    }
    raw.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(raw.rest(), (String::new(), crate::raw::End::Closed));
}

/// An answer, what is left of a deadline, a status with trailers, and a deadline that is missed.
fn grpc(trip: &Trip<'_>) {
    let ran = run(trip.from.name, &format!("/usr/bin/python3 {PEER} ends {}", trip.at(50051)));
    let said: Value = serde_json::from_str(&ran.out).unwrap_or_else(|e| panic!("{e}: {ran:?}"));
    assert_eq!(said["unary"], format!("{}:x", trip.to.name));
    let left = said["left"].as_f64().unwrap();
    assert!(left > 3.0 && left < 5.1, "gRPC rounds up: {said}");
    assert_eq!(said["Bad"], serde_json::json!(["UNAVAILABLE", "asked to fail", "on purpose"]));
    assert_eq!(said["Slow"][0], "DEADLINE_EXCEEDED", "{said}");
}

/// The server speaks when the client is done; binary, so that nothing else fits.
fn half_close(trip: &Trip<'_>) {
    let mut raw = trip.connect(7);
    let said = [0x00, 0xfe].repeat(100_000);
    raw.send(&said);
    raw.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(raw.rest(), (format!("{} bytes", said.len()), crate::raw::End::Closed));
}

/// The server speaks before it is asked.
fn greeted(trip: &Trip<'_>) {
    let mut raw = trip.connect(2701);
    raw.expect(b"Welcome\n");
    raw.send(b"hello\n");
    raw.expect(b"hello\n");
    raw.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(raw.rest().1, crate::raw::End::Closed);
}

/// TLS stays between the client and the Backend, whose certificate it sees.
fn tls(trip: &Trip<'_>) {
    let ca = trip.world.path("cert.pem");
    let ran = run(
        trip.from.name,
        &format!(
            "curl -sS --cacert {} --connect-to web.default:443:{} https://web.default/",
            ca.display(),
            trip.at(443)
        ),
    );
    assert_eq!(ran.out, format!("{}\n", trip.to.name), "{ran:?}");
}

/// Every client on every way.
fn every_way(path: &str) {
    need(&["nginx", "curl"]);
    let world = World::new();
    let mut running = Vec::new();
    for place in [A1, B1, C2] {
        world.service(&format!("at-{}", place.name), &address(place), PORTS, &[place]);
        running.extend(backends(&world, place));
    }
    let cloud = cloud(&world);
    let start = |place| agent_with(&world, place, &format!("peer: {{ path: {path} }}"));
    let nodes = [start(A1), start(B1), start(C1)];
    let of = |place: Place| nodes.iter().find(|node| node.place == place).unwrap_or(&cloud);
    for (from, to, straight) in WAYS {
        let via = if path == "hub" { "hub" } else { straight };
        let trip = Trip { world: &world, from: *from, to: *to };
        goes(of(*from), *to, via);
        for (protocol, client) in CLIENTS {
            let before = of(*from).access().len();
            println!("{} to {}: {protocol}", from.name, to.name);
            client(&trip);
            both_ends_tell(of(*from), of(*to), before, protocol, via);
        }
    }
    for node in &nodes {
        let log = node.log();
        assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");
    }
}

/// Waits until calls go that way: a direct Link is made behind the back of the first call.
#[track_caller]
pub(crate) fn goes(from: &Node, to: Place, via: &str) {
    eventually(&format!("{} reaches {}: {via}", from.place.name, to.name), PATIENCE, || {
        let before = from.access().len();
        let ran = from.sh(&format!("curl -sS -m 5 http://{}/", address(to)));
        assert_eq!(ran.out, to.name, "{ran:?}");
        let line = &from.lines("the call", before, 1, |_| true)[0];
        (line["via"] == via).then_some(())
    });
}

/// Each line of the entry has one at the other end, of the same Message.
#[track_caller]
pub(crate) fn both_ends_tell(entry: &Node, far: &Node, before: usize, protocol: &str, via: &str) {
    let lines = entry.lines("a client", before, 1, |line| line["protocol"] == protocol);
    for line in lines {
        assert_eq!((&line["via"], line.get("from")), (&via.into(), None), "{line}");
        let id = line["message"].as_str().unwrap_or_else(|| panic!("no Message: {line}"));
        let there = far.lines("the Message", 0, 1, |line| line["message"] == id);
        assert_eq!(there.len(), 1, "{there:#?}");
        let there = &there[0];
        assert_eq!(there["from"], entry.place.name, "{there}");
        for same in ["service", "backend", "status", "path", "outcome", "up", "down"] {
            // Who is late is told by whoever notices first.
            if line["path"] != "/t.T/Slow" {
                assert_eq!(line.get(same), there.get(same), "{same}: {line}\n{there}");
            }
        }
        assert!(shows(entry, id) && shows(far, id), "{id} {line}");
    }
}

/// Whether the debug log shows the opening Message of that id, as beehive writes Messages.
fn shows(node: &Node, id: &str) -> bool {
    let log = node.log();
    let mut lines = log.lines().filter(|line| line.contains(id));
    lines.any(|line| {
        let json = line.split_once("json=").map_or("", |(_, json)| json);
        let Ok(message) = serde_json::from_str::<Value>(json) else { return false };
        message["header"]["msg_id"] == id && message["route"]["group"] == "link"
    })
}

#[test]
fn straight() {
    in_namespace("ways::straight", || every_way("auto"));
}

#[test]
fn through_the_hub() {
    in_namespace("ways::through_the_hub", || every_way("hub"));
}

#[test]
fn nodes_join_and_are_in_step() {
    in_namespace("ways::nodes_join_and_are_in_step", || {
        let world = World::new();
        world.service("hello", "10.96.0.1", "http:80:8080", &[B1]);
        let cloud = cloud(&world);
        let (a1, b1) = (agent(&world, A1), agent(&world, B1));
        for node in [&a1, &b1] {
            let services = node.get("/v1/services");
            assert_eq!(services[0]["name"], "hello", "{services:#}");
        }
        let nodes = cloud.get("/v1/nodes");
        let b2 = nodes.as_array().unwrap().iter().find(|node| node["name"] == "b2").unwrap();
        assert_eq!((b2["zone"].as_str(), b2["agent"].as_bool()), (Some("site-b"), Some(false)));
        let certificate = &a1.get("/v1/status")["links"]["cloud"]["certificate"];
        assert_eq!(certificate["node"], "a1");
    });
}

/// Who asks is told which way calls take, why, and how long it is.
#[test]
fn ways_are_told() {
    in_namespace("ways::ways_are_told", || {
        let world = World::new();
        world.service("at-a1", &address(A1), PORTS, &[A1]);
        world.service("at-b1", &address(B1), PORTS, &[B1]);
        for place in [A1, B1] {
            Backend::start(place.name, place.name, [place.ip, "::1"], 9376);
        }
        let _cloud = cloud(&world);
        let (a1, b1) = (agent(&world, A1), agent_with(&world, B1, "peer: { path: hub }"));
        goes(&a1, B1, "direct");
        goes(&b1, A1, "hub");
        for (node, to, path, words) in
            [(&a1, "b1", "direct", "by a direct Link"), (&b1, "a1", "hub", "peer.path is hub")]
        {
            eventually(&format!("{} tells its way to {to}", node.place.name), PATIENCE, || {
                let links = node.get("/v1/status")["links"].clone();
                let peers = links["peers"].as_array()?;
                let peer = peers.iter().find(|peer| peer["node"] == to)?;
                let measured = path == "hub" || peer["rttMs"].as_f64()? < 1000.0;
                assert_eq!(peer["path"], path, "{peer}");
                measured.then_some(())
            });
            let explained = node.sh(&format!("{EDGEMESH} explain http://at-{to}.default/"));
            assert!(explained.out.contains(words), "{explained:?}");
            let status = node.sh(&format!("{EDGEMESH} status"));
            let line = status.out.lines().find(|line| line.trim_start().starts_with(to));
            assert!(line.is_some_and(|line| line.contains(path)), "{status:?}");
        }
    });
}

/// A dead node is no longer one that the hub leads to, until it is back.
#[test]
fn the_hub_leads_to_nobody_who_is_gone() {
    in_namespace("ways::the_hub_leads_to_nobody_who_is_gone", || {
        let world = World::new();
        world.service("at-b1", &address(B1), PORTS, &[B1]);
        Backend::start("b1", "b1", [B1.ip, "::1"], 9376);
        let _cloud = cloud(&world);
        let (a1, b1) = (agent_with(&world, A1, "peer: { path: hub }"), agent(&world, B1));
        let calls = || a1.sh(&format!("curl -sS -m 5 http://{}/", address(B1))).out;
        goes(&a1, B1, "hub");
        b1.kill();
        eventually("a1 knows that b1 is gone", PATIENCE, || {
            calls();
            let links = a1.get("/v1/status")["links"].clone();
            (links["peers"][0]["path"] == "none").then_some(())
        });
        let explained = a1.sh(&format!("{EDGEMESH} explain http://at-b1.default/"));
        assert!(explained.out.contains("not linked to the hub"), "{explained:?}");
        let _b1 = agent_again(&world, B1);
        eventually("b1 is reached again", PATIENCE, || (calls() == "b1").then_some(()));
    });
}
