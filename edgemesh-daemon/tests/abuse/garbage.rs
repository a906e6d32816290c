//! Bytes that no honest client sends, at every port: no panic, no memory, nobody else suffers.

use std::io::Write;
use std::net::UdpSocket;
use std::time::Duration;

use crate::agent::{Agent, PATIENCE, http};
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::wait::{eventually, timed};
use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, HEADERS, LAST, PING, PREFACE, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, frame, get,
};
use crate::raw::Raw;
use crate::world::{ONE, World};

/// From where, and where to.
const PORTS: &[(&str, &str, &str)] = &[
    ("an HTTP Service", "pod", "10.96.0.80:80"),
    ("a Service of bytes", "pod", "10.96.0.81:80"),
    ("the proxy from a pod", "pod", "169.254.96.16:15001"),
    ("the proxy from here", "", "127.0.0.1:15001"),
    ("DNS", "", "127.0.0.1:15053"),
    ("admin", "", "127.0.0.1:15000"),
    ("metrics", "pod", "10.1.0.1:15020"),
];

/// Memory that an attack may leave behind, in KiB; a debug build's own heap is part of it.
const GROWTH: u64 = 48 * 1024;
/// A well-behaved client waits at most this long meanwhile.
const WELL_WITHIN: Duration = Duration::from_secs(2);

/// Bytes that look random and are the same each time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn h2(rest: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let rest: Vec<Vec<u8>> = rest.into_iter().collect();
    [PREFACE.to_vec(), rest.concat()].concat()
}

fn odd(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|n| 2 * n + 1)
}

/// What is said.
fn attacks() -> Vec<(&'static str, Vec<u8>)> {
    let head = "GET / HTTP/1.1\r\nHost: a\r\n";
    let open = |stream| frame(HEADERS, LAST | END_HEADERS, stream, &get("a"));
    let reset = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let times = |count: usize, frame: Vec<u8>| h2(std::iter::repeat_n(frame, count));
    let mut bomb = get("a");
    bomb.extend([&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e], &[b'y'; 4000][..]].concat());
    bomb.extend(vec![0xbe; 12_000]); // each octet is that header again: 48 MiB
    vec![
        ("noise", noise(256 * 1024)),
        ("nothing", Vec::new()),
        ("a header of 1 MiB", format!("{head}X: {}\r\n\r\n", "x".repeat(1 << 20)).into()),
        ("10,000 headers", format!("{head}{}\r\n", "X: y\r\n".repeat(10_000)).into()),
        ("an endless request line", format!("GET /{}", "x".repeat(1 << 20)).into()),
        ("an endless length", b"9".repeat(1 << 18)),
        (
            "chunks of one octet",
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}",
                "1\r\nx\r\n".repeat(50_000)
            )
            .into(),
        ),
        (
            "an endless chunk extension",
            format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;{}",
                "x".repeat(1 << 20)
            )
            .into(),
        ),
        ("1,000 pipelined requests", format!("{head}\r\n").repeat(1000).into()),
        ("a preface, then noise", h2([noise(64 * 1024)])),
        ("opened and reset", h2(odd(10_000).map(|s| [open(s), reset(s)].concat()))),
        ("opened only", h2(odd(10_000).map(open))),
        (
            "endless CONTINUATION",
            h2(std::iter::once(frame(HEADERS, LAST, 1, &get("a"))).chain(std::iter::repeat_n(
                frame(CONTINUATION, 0, 1, &[b"\0\x01x\x7f\x81\x07", &[b'y'; 1024][..]].concat()),
                2000,
            ))),
        ),
        (
            "empty CONTINUATION",
            h2(std::iter::once(frame(HEADERS, LAST, 1, &get("a")))
                .chain(std::iter::repeat_n(frame(CONTINUATION, 0, 1, &[]), 50_000))),
        ),
        ("a compressed bomb", h2([frame(HEADERS, LAST | END_HEADERS, 1, &bomb)])),
        ("SETTINGS", times(20_000, frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]))),
        ("PING", times(20_000, frame(PING, 0, 0, &[7; 8]))),
        (
            "a window beyond 31 bits",
            times(5, frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])),
        ),
        (
            "empty DATA",
            h2(std::iter::once(frame(HEADERS, END_HEADERS, 1, &get("a")))
                .chain(std::iter::repeat_n(frame(DATA, 0, 1, &[]), 50_000))),
        ),
        ("an even stream", h2([open(2), open(4)])),
        (
            "a frame of 16 MiB",
            h2([[&[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1], &noise(1 << 20)[..]].concat()]),
        ),
        ("TLS records", [&[0x16, 3, 1, 0x40, 0], &noise(0x4000)[..]].concat().repeat(64)),
        ("empty TLS records", [0x16, 3, 1, 0, 0].repeat(50_000)),
        ("half a ClientHello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half".to_vec()),
        ("DNS frames of zero", vec![0; 64 * 1024]),
        ("DNS queries without end", [&[0, 30], &noise(30)[..]].concat().repeat(2000)),
    ]
}

#[test]
fn garbage_harms_nobody() {
    in_namespace("garbage::garbage_harms_nobody", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &["http:80:8080"], &[ONE]);
        world.service("two", &["10.96.0.81"], &["tcp-x:80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        let worker = agent.worker();
        let mut well = Raw::connect("pod", "10.96.0.80:80");
        assert_eq!(well.get("/").body, "one");
        let before = agent.resident();
        for (what, bytes) in attacks() {
            for (port, place, at) in PORTS {
                // Refused so quickly that not even the handshake was seen to end: fine.
                let Ok(mut raw) = Raw::try_connect(place, at) else { continue };
                raw.stream().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
                raw.stream().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
                raw.reader.get_mut().write_all(&bytes).ok(); // it may be cut off
                raw.rest();
                let (answer, took) = timed(|| well.get("/").body);
                assert!(answer == "one" && took < WELL_WITHIN, "{what} at {port}: {took:?}");
            }
            let grown = agent.resident().saturating_sub(before);
            eprintln!("{what}: {grown} KiB");
        }
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for length in (0..1500).step_by(3) {
            udp.send_to(&noise(length), "127.0.0.1:15053").unwrap();
        }
        drop(well);
        eventually("nothing stays open", PATIENCE, || {
            (agent.get("/v1/status")["flows"]["open"].as_u64()? == 0).then_some(())
        });
        assert_eq!(http("127.0.0.1:15020", "/readyz").unwrap().0, 200);
        assert_eq!(agent.worker(), worker, "{}", agent.log());
        assert!(!agent.log().contains("panicked"), "{}", agent.log());
        let grown = agent.resident().saturating_sub(before);
        assert!(grown < GROWTH, "{grown} KiB");
        assert_eq!(agent.get("/v1/status")["ejected"], 0, "the backend is not to blame");
        assert_eq!(Raw::connect("", "10.96.0.80:80").get("/").body, "one");
    });
}
