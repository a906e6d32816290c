//! Bodies of any length at flat memory, in both directions, over both versions.
//!
//! `EDGEMESH_TEST_GIB=10 cargo test -p edgemesh-daemon --test flows http_bulk` moves 10 GiB each way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use http::Response;

use crate::agent::Agent;
use crate::backend::{header, read_head};
use crate::common::namespace::{in_namespace, sh};
use crate::h2peer::{Asked, runtime, serve};
use crate::servers;
use crate::world::{ONE, World, listen};

const GIB: u64 = 1 << 30;
/// What the agent may grow by, in KiB: buffers of the connections, and a debug build's heap.
const GROWTH: u64 = 8 * 1024;

/// How much is asked for; the usual run takes half a gibibyte once, and an eighth for the rest.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the daemon's")]
fn sizes() -> (u64, u64) {
    let asked = std::env::var("EDGEMESH_TEST_GIB").ok().and_then(|gib| gib.parse::<u64>().ok());
    asked.map_or((GIB / 2, GIB / 8), |gib| (gib.min(10) * GIB, gib.min(10) * GIB))
}

#[test]
fn large_bodies_need_no_memory() {
    in_namespace("http_bulk::large_bodies_need_no_memory", || {
        let world = World::new();
        let _nginx = servers::nginx(&world, "", "nginx", ONE);
        let runtime = runtime();
        serve(&runtime, "10.4.0.1:8092", sink2);
        let listener = listen("", "10.4.0.1:8090");
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || sink1(&stream));
            }
        });
        let ports = ["a:80:8080", "b:82:8082", "http-c:83:8080", "http2-d:84:8082", "e:443:8443"];
        let sinks = ["f:90:8090", "g:92:8092", "http-h:93:8090", "http2-i:94:8092"];
        world.service("web", &["10.96.0.32"], &[&ports[..], &sinks].concat(), &[ONE]);
        // Every body may be sent again, as far as it is kept.
        world.policy("web", "  retries: { on: [connect, reset, 503], nonIdempotent: true }");
        let agent = Agent::start(&world);
        let (full, part) = sizes();
        let file = world.path("zero").display().to_string();
        sh(&format!("truncate -s {part} {file}"));
        let h2 = "--http2-prior-knowledge";
        let known = format!("-H Expect: -T {file}");
        let unknown = format!("-H Expect: -X POST -T - <{file}");
        let big = |size: u64| format!("-r 0-{}", size - 1);
        // From where, and curl's arguments.
        let down = [
            ("", full, format!("{} http://web.default/big", big(full))),
            ("pod", part, format!("{} {h2} http://web.default:82/big", big(part))),
            ("", part, format!("{} {h2} http://web.default:83/big", big(part))),
            ("", part, format!("{} http://web.default:84/big", big(part))),
            ("pod", part, format!("{} -k https://web.default/big", big(part))),
        ];
        let up = [
            ("", part, format!("http://web.default:90/ {known}")),
            ("pod", part, format!("{h2} http://web.default:92/ {known}")),
            ("", part, format!("{h2} http://web.default:93/ {known}")),
            ("", part, format!("http://web.default:94/ {known}")),
            ("", part, format!("http://web.default:90/ {unknown}")),
        ];
        let warm = "curl -sS http://web.default/ --next -sS --http2-prior-knowledge \
                    http://web.default:82/ --next -sSk https://web.default/";
        assert_eq!(sh(warm), "nginx\n".repeat(3));
        let before = agent.resident();
        let mut grown = 0;
        let moved = [("size_download", &down), ("size_upload", &up)];
        for (what, (place, size, arguments)) in
            moved.into_iter().flat_map(|(what, rows)| rows.iter().map(move |row| (what, row)))
        {
            let within =
                if place.is_empty() { String::new() } else { format!("ip netns exec {place} ") };
            let said = sh(&format!(
                "{within}curl -sS -o /dev/null -w '%{{{what}}} %{{http_code}}' {arguments}"
            ));
            let (moved, status) = said.split_once(' ').unwrap();
            // In chunks, their sizes are counted too.
            let whole = (*size..size + size / 1000).contains(&moved.parse().unwrap());
            assert!(whole && status.starts_with("20"), "{arguments}: {said}");
            grown = grown.max(agent.resident().saturating_sub(before));
            assert!(grown < GROWTH, "{grown} KiB more after {arguments}");
        }
        println!("{grown} KiB more at most");
    });
}

/// Reads bodies over HTTP/1 and throws them away.
fn sink1(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    while let Some(head) = read_head(&mut reader) {
        let discard = |reader: &mut BufReader<&TcpStream>, length: u64| {
            std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()
        };
        match header(&head, "content-length") {
            Some(length) => drop(discard(&mut reader, length.parse().ok()?)?),
            None => loop {
                let mut line = String::new();
                reader.read_line(&mut line).ok()?;
                let size = u64::from_str_radix(line.trim(), 16).ok()?;
                discard(&mut reader, size + 2)?;
                if size == 0 {
                    break;
                }
            },
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok()?;
    }
    Some(())
}

/// As [`sink1`], over HTTP/2.
async fn sink2(mut asked: Asked) {
    let body = asked.request.body_mut();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    let mut stream = asked.answer.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::new(), true).ok();
}
