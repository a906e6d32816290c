//! Bodies that are sent again: what arrives the second time is what the client sent, up to 64 KiB,
//! and only where Policy and method allow it.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Response;

use crate::agent::Agent;
use crate::backend::{header, read_body, read_head, reset};
use crate::common::namespace::in_namespace;
use crate::h2peer::{Asked, ask, connect, grpc, read, runtime, serve};
use crate::raw::Raw;
use crate::world::{ONE, TWO, World, listen};

/// What a backend does with its first request; later ones it answers with the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whim {
    /// Breaks the connection when it has the whole request.
    BreaksAfter,
    /// Breaks it in the middle of the body.
    BreaksMidway,
    /// Is ill, and says so before it reads the body.
    IllAtOnce,
    /// Is ill, and says so behind the body.
    IllAfter,
}
use Whim::{BreaksAfter, BreaksMidway, IllAfter, IllAtOnce};

/// Two backends of one whim, between them; what they saw.
#[derive(Debug, Default)]
struct Pair {
    asked: AtomicUsize,
    bodies: Mutex<Vec<Vec<u8>>>,
}

impl Pair {
    fn first(&self) -> bool {
        self.asked.fetch_add(1, SeqCst) == 0
    }

    fn answer(&self, whim: Whim, mut stream: &TcpStream) -> Option<()> {
        const ILL: &[u8] = b"HTTP/1.1 503 Ill\r\nContent-Length: 4\r\n\r\nill\n";
        let mut reader = BufReader::with_capacity(1024, stream);
        while let Some(head) = read_head(&mut reader) {
            let first = self.first();
            if first && whim == BreaksMidway {
                let length: usize =
                    header(&head, "content-length").map_or(20, |l| l.parse().unwrap());
                reader.read_exact(&mut vec![0; length / 2]).ok()?;
                reset(stream);
                return None;
            }
            if first && whim == IllAtOnce {
                stream.write_all(ILL).ok()?;
            }
            let (body, _) = read_body(&head, &mut reader)?;
            match (first, whim) {
                (true, BreaksAfter) => {
                    reset(stream);
                    return None;
                }
                (true, IllAfter) => stream.write_all(ILL).ok()?,
                (true, IllAtOnce) => {}
                (_, _) => {
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                    self.bodies.lock().unwrap().push(body.clone());
                    stream.write_all(head.as_bytes()).ok()?;
                    stream.write_all(&body).ok()?;
                }
            }
        }
        Some(())
    }
}

const RETRIES: &str = "retries: { attempts: 2, on: [connect, reset, 503] }";
const OPTED_IN: &str = "retries: { attempts: 2, on: [connect, reset, 503], nonIdempotent: true }";
const MEEK: &str = "retries: { attempts: 2, on: [connect] }";
const KIB: usize = 1024;

/// What the first backend does, the Policy, the method, how long the body is, how often the
/// backends are asked, and what the client reads.
const CASES: &[(Whim, &str, &str, usize, usize, u16)] = &[
    (BreaksAfter, RETRIES, "PUT", 10, 2, 200),
    (BreaksAfter, RETRIES, "PUT", 64 * KIB, 2, 200),
    (BreaksAfter, RETRIES, "PUT", 64 * KIB + 1, 1, 502),
    (BreaksAfter, RETRIES, "POST", 10, 1, 502),
    (BreaksAfter, OPTED_IN, "POST", 10, 2, 200),
    (BreaksAfter, OPTED_IN, "POST", 60 * KIB, 2, 200),
    (BreaksAfter, MEEK, "PUT", 10, 1, 502),
    (BreaksMidway, RETRIES, "PUT", 60 * KIB, 2, 200),
    (BreaksMidway, OPTED_IN, "POST", 10, 2, 200),
    (IllAtOnce, OPTED_IN, "POST", 60 * KIB, 2, 200),
    (IllAfter, RETRIES, "PUT", 30 * KIB, 2, 200),
    (IllAfter, RETRIES, "POST", 10, 1, 503),
    (IllAfter, RETRIES, "PUT", 100 * KIB, 1, 503),
];

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|i| b"0123456789abcdefghijklmnopqrstuvwxyz_"[i % 37]).collect()
}

#[test]
fn bodies_are_sent_again_whole() {
    in_namespace("http_replay::bodies_are_sent_again_whole", || {
        let world = World::new();
        // Each case once with a length, and once in chunks.
        let pairs: Vec<Arc<Pair>> = (0..2 * CASES.len()).map(|_| Arc::default()).collect();
        for (number, pair) in pairs.iter().enumerate() {
            let (whim, policy, ..) = CASES[number / 2];
            let port = 8100 + number;
            for ip in [ONE[0], TWO[0]] {
                let pair = pair.clone();
                scripted(&format!("{ip}:{port}"), move |stream| pair.answer(whim, stream));
            }
            let name = format!("s{number}");
            let ips = [[ONE[0], ""], [TWO[0], ""]];
            world.service(&name, &[&format!("10.96.1.{number}")], &[&format!(":80:{port}")], &ips);
            world.policy(&name, &format!("  {policy}"));
        }
        let _agent = Agent::start(&world);
        let mut bad = Vec::new();
        for (number, pair) in pairs.iter().enumerate() {
            let (whim, policy, method, length, asked, status) = CASES[number / 2];
            let body = body(length);
            let mut raw = Raw::connect("", &format!("10.96.1.{number}:80"));
            let framing = match number % 2 {
                0 => format!("Content-Length: {length}"),
                _ => "Transfer-Encoding: chunked".to_owned(),
            };
            raw.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
            if number % 2 == 0 {
                raw.send(&body);
            } else {
                for piece in body.chunks(5000) {
                    raw.send(format!("{:x}\r\n", piece.len()).as_bytes());
                    raw.send(&[piece, b"\r\n"].concat());
                }
                raw.send(b"0\r\n\r\n");
            }
            let answer = raw.answer(method);
            let seen = (pair.asked.load(SeqCst), answer.status);
            let whole = status != 200 || answer.body.as_bytes() == body;
            let arrived = status != 200 || *pair.bodies.lock().unwrap() == [body];
            if seen != (asked, status) || !whole || !arrived {
                bad.push(format!(
                    "{whim:?} {policy} {method} {length} {framing}: asked, status {seen:?}, \
                     whole {whole}, arrived {arrived}"
                ));
            }
        }
        assert!(bad.is_empty(), "\n{}", bad.join("\n"));
    });
}

/// What a gRPC backend does with its first call, the Policy, and the gRPC status that the client
/// reads.
const GRPC: &[(&str, &str, &str)] = &[
    ("refuses", RETRIES, "0"), // nothing was processed, so that nothing is repeated
    ("resets", RETRIES, "14"),
    ("resets", OPTED_IN, "0"),
    ("unavailable", RETRIES, "14"),
    ("unavailable", OPTED_IN, "0"),
];

async fn answer_grpc(whim: &str, first: bool, mut asked: Asked) {
    let body = read(asked.request.body_mut()).await.unwrap_or_default();
    let head = || Response::builder().header("content-type", "application/grpc");
    match (first, whim) {
        (true, "refuses") => asked.answer.send_reset(h2::Reason::REFUSED_STREAM),
        (true, "resets") => asked.answer.send_reset(h2::Reason::INTERNAL_ERROR),
        (true, _) => {
            let said = head().header("grpc-status", "14").body(()).unwrap();
            asked.answer.send_response(said, true).ok();
        }
        (false, _) => {
            let mut stream = asked.answer.send_response(head().body(()).unwrap(), false).unwrap();
            stream.send_data(body.into(), false).ok();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).ok();
        }
    }
}

#[test]
fn grpc_is_sent_again_where_opted_in() {
    in_namespace("http_replay::grpc_is_sent_again_where_opted_in", || {
        let (world, runtime) = (World::new(), runtime());
        for (number, (whim, policy, _)) in GRPC.iter().enumerate() {
            let asked = Arc::<AtomicUsize>::default();
            for ip in [ONE[0], TWO[0]] {
                let asked = asked.clone();
                serve(&runtime, &format!("{ip}:{}", 8100 + number), move |it| {
                    answer_grpc(whim, asked.fetch_add(1, SeqCst) == 0, it)
                });
            }
            let (name, ip) = (format!("s{number}"), format!("10.96.1.{number}"));
            let ips = [[ONE[0], ""], [TWO[0], ""]];
            world.service(&name, &[&ip], &[&format!("grpc:80:{}", 8100 + number)], &ips);
            world.policy(&name, &format!("  {policy}"));
        }
        let _agent = Agent::start(&world);
        runtime.block_on(async {
            for (number, (whim, policy, want)) in GRPC.iter().enumerate() {
                let at = format!("10.96.1.{number}:80");
                let sender = connect(&at).await;
                let pieces = vec![Bytes::from(body(20_000)), Bytes::from(body(30_000))];
                let sent = pieces.concat();
                let answer = ask(&sender, grpc(&at, "/t.T/M", &[]), pieces).await;
                assert_eq!(answer.grpc_status(), Some(*want), "{whim} {policy}: {answer:?}");
                assert!(*want != "0" || answer.body == sent, "{whim} {policy}");
            }
        });
    });
}

/// Answers all but the third request of all, on whose kept connection it resets.
fn breaks_the_third(pair: &Pair, mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader) {
        read_body(&head, &mut reader)?;
        if pair.asked.fetch_add(1, SeqCst) == 2 {
            reset(stream);
            return None;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").ok()?;
    }
    Some(())
}

/// The Policy, the method, how often the backends are asked on the whole, and the last status.
const ON_KEPT: &[(&str, &str, usize, u16)] = &[
    (RETRIES, "GET", 4, 200),
    (RETRIES, "POST", 3, 502),
    (OPTED_IN, "POST", 4, 200),
    (MEEK, "GET", 3, 502),
];

#[test]
fn resets_of_kept_connections_are_retried_as_others() {
    in_namespace("http_replay::resets_of_kept_connections_are_retried_as_others", || {
        let world = World::new();
        let pairs: Vec<Arc<Pair>> = ON_KEPT.iter().map(|_| Arc::default()).collect();
        for (number, pair) in pairs.iter().enumerate() {
            let at = |ip| format!("{ip}:{}", 8100 + number);
            for ip in [ONE[0], TWO[0]] {
                let pair = pair.clone();
                scripted(&at(ip), move |stream| breaks_the_third(&pair, stream));
            }
            let (name, ip) = (format!("s{number}"), format!("10.96.1.{number}"));
            let ips = [[ONE[0], ""], [TWO[0], ""]];
            world.service(&name, &[&ip], &[&format!("http:80:{}", 8100 + number)], &ips);
            let policy = ON_KEPT[number].0;
            world.policy(&name, &format!("  {policy}\n  loadBalancer: {{ policy: roundRobin }}"));
        }
        let _agent = Agent::start(&world);
        for (number, (policy, method, asked, status)) in ON_KEPT.iter().enumerate() {
            let mut raw = Raw::connect("", &format!("10.96.1.{number}:80"));
            let last = (0..3).map(|_| {
                raw.send(
                    format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
                        .as_bytes(),
                );
                raw.answer(method).status
            });
            let last = last.last().unwrap();
            let seen = (pairs[number].asked.load(SeqCst), last);
            assert_eq!(seen, (*asked, *status), "{policy} {method}");
        }
    });
}

/// Answers at once, and says each piece of the body back as it comes.
fn echoes(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::with_capacity(64, stream);
    read_head(&mut reader)?;
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).ok()?;
    std::io::copy(&mut reader, &mut stream).ok().map(drop)
}

/// One chunk of a body.
fn chunk(reader: &mut impl std::io::BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("it comes back in time");
    let mut piece = vec![0; usize::from_str_radix(line.trim(), 16).expect(&line) + 2];
    reader.read_exact(&mut piece).unwrap();
    String::from_utf8(piece).unwrap().trim_end().to_owned()
}

#[test]
fn nothing_waits_for_what_is_kept() {
    in_namespace("http_replay::nothing_waits_for_what_is_kept", || {
        let world = World::new();
        scripted("10.4.0.1:8080", echoes);
        world.service("echo", &["10.96.0.30"], &["http:80:8080"], &[[ONE[0], ""]]);
        world.policy("echo", &format!("  {OPTED_IN}"));
        let _agent = Agent::start(&world);
        let mut raw = Raw::connect("", "10.96.0.30:80");
        raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        for round in 0..100 {
            // Each piece leaves only after the one before came back; past 64 KiB too.
            let piece = format!("{round:03}").repeat(400).split_at(1000).0.to_owned();
            raw.send(format!("3e8\r\n{piece}\r\n").as_bytes());
            if round == 0 {
                assert!(read_head(&mut raw.reader).unwrap().starts_with("HTTP/1.1 200"));
            }
            let mut back = String::new();
            while back.len() < piece.len() {
                back += &chunk(&mut raw.reader);
            }
            assert_eq!(back, piece, "round {round}");
        }
    });
}

/// Serves each connection to `at` with `serve`, on a thread.
pub(crate) fn scripted(
    at: &str,
    serve: impl Fn(&TcpStream) -> Option<()> + Clone + Send + 'static,
) {
    let listener = listen("", at);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(&stream));
        }
    });
}
