//! Bad input from clients, backends and manifests: a clear answer, and nobody else suffers.

use std::sync::Arc;
use std::time::Duration;

use crate::agent::{Agent, PATIENCE};
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::common::wait::{eventually, throughout, timed};
use crate::raw::{End, Raw};
use crate::world::{ONE, World, listen};

const ONE_AT: &str = "10.96.0.80:80";

/// What is said to an HTTP backend's Service through the mesh, and how the answer begins.
const SAID: &[(&str, &[u8], &str)] = &[
    ("a request line without version", b"GET /\r\n\r\n", ""),
    (
        "two lengths",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "HTTP/1.1 400",
    ),
    ("a space before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "HTTP/1.1 400"),
    ("a NUL in a header", b"GET / HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n", "HTTP/1.1 400"),
    (
        "a length that is no number",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 400",
    ),
    (
        "a bad chunk",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 ",
    ),
    ("half a preface", b"PRI * HTTP/2.0\r\n\r\n", ""),
    ("a preface and nonsense", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnonsense that is no frame", ""),
];

#[test]
fn bad_clients_and_backends() {
    in_namespace("bad::bad_clients_and_backends", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        let _echo = echo();
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        world.service("echo", &["10.96.0.81"], &[":7:7007"], &[ONE]);
        world.service("fragile", &["10.96.0.85"], &[":80:8080"], &[ONE]);
        world.policy("fragile", "  circuitBreaker: { consecutiveFailures: 2, ejectFor: 1m }");
        world.service("headless", &["None"], &[":80:8080"], &[ONE]);
        world.service("empty", &["10.96.0.82"], &[":80:8080"], &[]);
        world.service("mute", &["10.96.0.83"], &[":80:7008"], &[ONE]);
        world.policy("mute", "  timeouts: { request: 300ms }");
        let _mute = listen("", "10.4.0.1:7008");
        let agent = Agent::start(&world);
        // One that is well all the while.
        let mut well = Raw::connect("pod", ONE_AT);
        for (what, said, want) in SAID {
            let mut raw = Raw::connect("", ONE_AT);
            raw.send(said);
            raw.stream().shutdown(std::net::Shutdown::Write).ok();
            let (answer, end) = raw.rest();
            assert!(answer.starts_with(want) && end != End::Open, "{what}: {answer:?} {end:?}");
            assert_eq!(well.get("/").body, "one", "after {what}");
        }
        smuggling(&one);
        broken_uploads(&agent);
        garbage_is_bytes();
        slow_and_silent_clients(&agent);
        no_backend(&agent);
        mute_backend(&agent);
        assert_eq!(well.get("/").body, "one");
        assert_eq!(run("", "curl -sS http://one.default/").out, "one");
    });
}

/// Transfer-Encoding beside Content-Length: exactly one framing may leave.
fn smuggling(one: &Arc<Backend>) {
    let before = one.counts().1;
    let mut raw = Raw::connect("", ONE_AT);
    raw.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    );
    raw.stream().shutdown(std::net::Shutdown::Write).ok();
    raw.rest();
    let seen = one.last_head().to_lowercase();
    let both = seen.contains("content-length") && seen.contains("transfer-encoding");
    assert!(one.counts().1 <= before + 1 && !both, "{seen}");
}

/// A client that breaks its request is to blame for it, not the backend: no breaker counts it.
fn broken_uploads(agent: &Agent) {
    let cases = [("z", "\r\nGET", "badRequest"), ("5", "\r\nhe", "cancelled")];
    for (size, rest, outcome) in cases {
        for _ in 0..8 {
            let mut raw = Raw::connect("", "10.96.0.85:80");
            let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
            raw.send(format!("{head}{size}{rest}\r\n").as_bytes());
            raw.stream().shutdown(std::net::Shutdown::Write).unwrap();
            raw.rest();
        }
        agent.lines(outcome, 8, |line| {
            line["service"] == "default/fragile" && line["outcome"] == outcome
        });
    }
    assert_eq!(Raw::connect("", "10.96.0.85:80").get("/").status, 200);
}

/// Echoes on 7007.
fn echo() -> std::thread::JoinHandle<()> {
    let listener = listen("", "10.4.0.1:7007");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                std::io::copy(&mut &stream, &mut &stream).ok();
                stream.shutdown(std::net::Shutdown::Write).ok();
            });
        }
    })
}

/// What is no protocol that the mesh knows is carried byte for byte.
fn garbage_is_bytes() {
    let all: Vec<u8> = (0..=255).collect();
    let cases: &[(&str, &[u8])] = &[
        ("every byte", &all),
        ("half a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half"),
        (
            "a ClientHello that lies about its length",
            b"\x16\x03\x01\xff\xff\x01\xff\xff\xff\x03\x03",
        ),
        ("one byte", b"G"),
        ("almost a method", b"GE"),
        ("a method and no end", b"\x80\x80\x80"),
    ];
    for (what, bytes) in cases {
        let mut raw = Raw::connect("pod", "10.96.0.81:7");
        raw.send(bytes);
        raw.stream().shutdown(std::net::Shutdown::Write).unwrap();
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut raw.reader, &mut back)
            .unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(back, *bytes, "{what}");
    }
}

fn slow_and_silent_clients(agent: &Agent) {
    // Silent ones cost nothing and are not told anything.
    let silent: Vec<Raw> = (0..50).map(|_| Raw::connect("", ONE_AT)).collect();
    // Byte by byte, with pauses longer than the wait for the client's first word.
    let mut slow = Raw::connect("", ONE_AT);
    for byte in b"GET / HTTP/1.1\r\nHost: one.default\r\n\r\n" {
        slow.send(&[*byte]);
        throughout(Duration::from_millis(15), || true);
    }
    assert_eq!(slow.answer("GET").body, "one");
    let mut slow = Raw::connect("", "10.96.0.81:7");
    for byte in [0x00, 0x16, b'G', b'\n'] {
        slow.send(&[byte]);
        slow.expect(&[byte]); // the server sees each as it comes
    }
    assert_eq!(run("", "curl -sS http://one.default/").out, "one");
    drop(silent);
    eventually("silent connections are gone", PATIENCE, || {
        (agent.get("/v1/status")["flows"]["open"].as_u64()? <= 3).then_some(())
    });
}

fn no_backend(agent: &Agent) {
    let answer = Raw::connect("pod", "10.96.0.82:80").get("/");
    assert_eq!((answer.status, answer.header("x-edgemesh-refusal")), (503, Some("noBackend")));
    assert!(answer.body.contains("default/empty"), "{}", answer.body);
    assert_eq!(Raw::say("", "10.96.0.82:80", b"\x00\x01\x02\x03").1, End::Reset);
    // A port that the Service does not have: somebody else's on a cluster IP, nobody's on an
    // address of the mesh's own.
    assert_eq!(Raw::say("", "10.96.0.82:81", b"\x00\x01\x02\x03").1, End::Reset);
    agent.lines("passed through", 1, |line| line["destination"] == "10.96.0.82:81");
    let own = run("", "getent ahostsv4 headless.default | cut -d' ' -f1 | head -1").out;
    assert_eq!(Raw::say("", &format!("{}:81", own.trim()), b"\x00\x01\x02\x03").1, End::Reset);
    agent.lines("noPort", 1, |line| line["outcome"] == "noPort");
}

fn mute_backend(agent: &Agent) {
    let (answer, took) = timed(|| Raw::connect("", "10.96.0.83:80").get("/"));
    assert_eq!((answer.status, answer.header("x-edgemesh-refusal")), (504, Some("requestTimeout")));
    assert!(took < Duration::from_secs(3), "{took:?}");
    agent.lines("mute", 1, |line| line["service"] == "default/mute");
}

/// Documents beside good ones, and words of the remark that must be in the log and in `status`.
const MANIFESTS: &[(&str, &str, &[&str])] = &[
    ("kind", "apiVersion: v1\nkind: Gadget\nmetadata: { name: g }\n", &["Gadget"]),
    ("syntax", "apiVersion: v1\nkind: [\n", &["syntax.yaml"]),
    (
        "port",
        "apiVersion: v1\nkind: Service\nmetadata: { name: p }\nspec: { clusterIP: 10.96.0.90, ports: [{ port: 70000 }] }\n",
        &["port.yaml", "spec.ports[0].port"],
    ),
    (
        "policy",
        "apiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\nmetadata: { name: x }\nspec: { targetRef: { kind: Service, name: one }, loadBalancer: { policy: leastRequests } }\n",
        &["policy.yaml", "leastRequest"],
    ),
    (
        "twice",
        "apiVersion: v1\nkind: Service\nmetadata: { name: twice }\nspec: { clusterIP: 10.96.0.80, ports: [{ port: 80 }] }\n",
        &["10.96.0.80", "default/one"],
    ),
];

#[test]
fn bad_manifests_harm_only_themselves() {
    in_namespace("bad::bad_manifests_harm_only_themselves", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        for (name, text, _) in MANIFESTS {
            world.manifest(name, text);
        }
        let good = crate::world::service("beside", &["10.96.0.84"], &[":80:8080"], &[ONE]);
        world.manifest("beside", &format!("kind: Nonsense\n---\n{good}---\nkind: [\n"));
        let agent = Agent::start(&world);
        for url in ["http://one.default/", "http://10.96.0.80/"] {
            assert_eq!(run("pod", &format!("curl -sS {url}")).out, "one", "{url}");
        }
        let status = run("", &format!("{} status", env!("CARGO_BIN_EXE_edgemesh")));
        let remarks = agent.get("/v1/status")["remarks"].to_string();
        for (name, _, words) in MANIFESTS {
            for word in *words {
                assert!(remarks.contains(word), "{name}: `{word}` is not in {remarks}");
                // What is not for the mesh at all is no news to the log.
                let logged = *name == "kind" || agent.log().contains(word);
                assert!(logged, "{name}: `{word}` is not in the log");
                let flat = status.out.split_whitespace().collect::<String>();
                assert!(flat.contains(word), "{name}: `{word}` is not in\n{}", status.out);
            }
        }
        // Corrected while it runs: the remark goes, the Service comes.
        world.service("port", &["10.96.0.90"], &[":80:8080"], &[ONE]);
        eventually("the corrected Service is served", PATIENCE, || {
            (run("", "curl -sS http://port.default/").out == "one").then_some(())
        });
        assert!(!agent.get("/v1/status")["remarks"].to_string().contains("port.yaml"));
    });
}
