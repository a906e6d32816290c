//! HTTP through the mesh as both ends see it: connections, bodies, upgrades, headers, the proxy.

use std::net::Shutdown;

use crate::agent::Agent;
use crate::backend::{Backend, header};
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::raw::{End, Raw};
use crate::world::{ONE, TWO, World};

const AT: &str = "10.96.0.30:80";

#[test]
fn http_is_http() {
    in_namespace("http::http_is_http", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        let two = Backend::start("", "two", TWO, 8080);
        world.service("one", &["10.96.0.30"], &[":80:8080"], &[ONE]);
        world.service("pair", &["10.96.0.31"], &[":80:8080"], &[ONE, TWO]);
        let agent = Agent::start(&world);
        connections_are_kept(&one);
        requests_are_balanced(&one, &two);
        bodies_and_trailers_are_whole();
        the_backend_decides_about_continue();
        connections_can_become_something_else(&one);
        versions_and_bodiless_answers();
        callers_are_introduced(&one);
        explicit_proxy(&agent);
    });
}

/// Each lane keeps connections of its own, so a client's second one may need a second one to the backend.
fn connections_are_kept(one: &Backend) {
    let lanes = std::thread::available_parallelism().unwrap().get() as u64;
    let before = one.counts();
    let urls = "http://one.default/ ".repeat(20);
    let ran = run("", &format!("curl -sS {urls}"));
    assert_eq!(ran.out, "one".repeat(20), "{}", ran.err);
    let again = run("", "curl -sS http://one.default/");
    assert_eq!(again.out, "one");
    let after = one.counts();
    let (connections, requests) = (after.0 - before.0, after.1 - before.1);
    assert_eq!(requests, 21);
    assert!(connections <= lanes.min(2), "{connections} connections for two of a client's");
}

fn requests_are_balanced(one: &Backend, two: &Backend) {
    let before = (one.counts().1, two.counts().1);
    let mut raw = Raw::connect("pod", "10.96.0.31:80");
    for _ in 0..20 {
        assert_eq!(raw.get("/").status, 200);
    }
    assert_eq!((one.counts().1 - before.0, two.counts().1 - before.1), (10, 10));
}

fn bodies_and_trailers_are_whole() {
    let mut raw = Raw::connect("", AT);
    raw.send(
        b"POST /echo HTTP/1.1\r\nHost: one.default\r\nTransfer-Encoding: chunked\r\n\
          Connection: TE\r\nTE: trailers\r\nTrailer: x-sent\r\n\r\n",
    );
    let mut sent = String::new();
    for piece in ["hello ", "from ", &"x".repeat(100_000)] {
        raw.send(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
        sent += piece;
    }
    raw.send(b"0\r\nx-sent: yes\r\n\r\n");
    let answer = raw.answer("POST");
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"), "{}", answer.head);
    assert!(answer.body == sent, "{} bytes of {}", answer.body.len(), sent.len());
    assert!(
        answer.trailers.contains(&format!("x-length: {}", sent.len())),
        "{:?}",
        answer.trailers
    );
    assert!(
        answer.trailers.contains("x-sent: yes"),
        "the request's trailer: {:?}",
        answer.trailers
    );
    assert_eq!(raw.get("/").body, "one", "the connection is still good");
}

fn the_backend_decides_about_continue() {
    let head = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: one.default\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut raw = Raw::connect("", AT);
    raw.send(head("/echo").as_bytes());
    assert_eq!(raw.answer("POST").status, 100);
    raw.send(b"hello");
    assert_eq!(raw.answer("POST").body, "hello");
    // One that does not want the body says so at once; the body is never sent.
    let mut raw = Raw::connect("", AT);
    raw.send(head("/refuse").as_bytes());
    assert_eq!(raw.answer("POST").status, 417);
}

fn connections_can_become_something_else(one: &Backend) {
    for place in ["", "pod"] {
        let mut raw = Raw::connect(place, AT);
        raw.send(
            b"GET /upgrade HTTP/1.1\r\nHost: one.default\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        );
        let answer = raw.answer("GET");
        assert_eq!(answer.status, 101);
        assert_eq!(answer.header("upgrade"), Some("websocket"));
        assert_eq!(header(&one.last_head(), "sec-websocket-version"), Some("13"));
        // RFC 6455 §5.7: a masked text frame, "Hello"; this backend echoes bytes.
        let frame = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        for _ in 0..3 {
            raw.send(frame);
            let mut got = [0; 11];
            std::io::Read::read_exact(&mut raw.reader, &mut got).unwrap();
            assert_eq!(&got, frame);
        }
        raw.stream().shutdown(Shutdown::Write).unwrap();
        assert_eq!(raw.rest(), (String::new(), End::Closed));
    }
}

fn versions_and_bodiless_answers() {
    let mut raw = Raw::connect("", AT);
    raw.send(b"HEAD / HTTP/1.1\r\nHost: one.default\r\n\r\n");
    let answer = raw.answer("HEAD");
    assert_eq!((answer.status, answer.header("content-length")), (200, Some("4321")));
    let answer = raw.get("/status/204");
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    assert_eq!(raw.get("/status/404").status, 404);
    // HTTP/1.0 ends by the close, and knows no chunks.
    let (said, end) = Raw::say("", AT, b"GET / HTTP/1.0\r\n\r\n");
    assert!(said.starts_with("HTTP/1.0 200") && said.ends_with("\r\n\r\none"), "{said}");
    assert_eq!(end, End::Closed);
    let (said, end) = Raw::say("", AT, b"POST /echo HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello");
    assert!(said.ends_with("\r\n\r\nhello") && !said.contains("chunked"), "{said}");
    assert_eq!(end, End::Closed);
}

fn callers_are_introduced(one: &Backend) {
    for (place, address) in [("", "10.96.0.30"), ("pod", "10.1.0.2"), ("bare", "10.2.0.2")] {
        let answer = Raw::connect(place, AT).get("/head");
        let seen = answer.body;
        assert_eq!(header(&seen, "x-request-id").map(str::len), Some(32), "{seen}");
        assert_eq!(header(&seen, "traceparent").map(str::len), Some(55), "{seen}");
        let from = header(&seen, "x-forwarded-for").unwrap_or_default();
        match place {
            "" => assert!(!from.is_empty(), "{seen} {address}"), // whichever the kernel chose
            _ => assert_eq!(from, address, "{seen}"),
        }
        assert_eq!(header(&seen, "host"), Some("one.default"), "{seen}");
    }
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    run(
        "",
        &format!("curl -sS -H 'x-request-id: mine' -H 'traceparent: {trace}' http://one.default/"),
    );
    let seen = one.last_head();
    assert_eq!(header(&seen, "x-request-id"), Some("mine"), "{seen}");
    assert_eq!(header(&seen, "traceparent"), Some(trace), "{seen}");
}

/// Where it runs, curl's arguments, what is printed (the status, where the mesh refuses).
const PROXIED: &[(&str, &str, &str)] = &[
    ("", "-x http://127.0.0.1:15001 http://one.default/", "one"),
    ("", "-x http://127.0.0.1:15001 http://one.default.svc.cluster.local:80/", "one"),
    ("", "-x http://[::1]:15001 http://one.default/", "one"),
    ("", "-p -x http://127.0.0.1:15001 http://one.default:80/", "one"),
    ("", "-o /dev/null -w %{http_code} -x http://127.0.0.1:15001 http://example.com/", "404"),
    ("", "-o /dev/null -w %{http_code} -x http://127.0.0.1:15001 http://one.default:81/", "404"),
    ("", "-o /dev/null -w %{http_connect} -p -x http://127.0.0.1:15001 http://example.com/", "404"),
    (
        "",
        "-o /dev/null -w %{http_connect} -p -x http://127.0.0.1:15001 http://127.0.0.1:22/",
        "404",
    ),
    // Only this machine may ask by name: the listener that pods can reach refuses.
    (
        "pod",
        "-o /dev/null -w %{http_code} -x http://169.254.96.16:15001 http://one.default/",
        "000",
    ),
];

fn explicit_proxy(agent: &Agent) {
    for (place, arguments, want) in PROXIED {
        let ran = run(place, &format!("curl -sS {arguments}"));
        assert_eq!(ran.out, *want, "from `{place}` curl {arguments}: {}", ran.err);
    }
    agent.lines("refused as a loop", 1, |line| line["outcome"] == "loop");
    // What is not even HTTP has no place at the listener.
    assert_eq!(Raw::say("", "127.0.0.1:15001", b"\x00\x01\x02\x03\r\n\r\n").1, End::Reset);
}
