//! Plain requests of HTTP/1.1, which no rule edits: bodies that come after their heads, answers that come
//! before them or break, and what follows on the same connections.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::agent::Agent;
use crate::backend::{header, read_body, read_head};
use crate::common::namespace::in_namespace;
use crate::common::wait::{eventually, throughout};
use crate::http_replay::scripted;
use crate::raw::{End, Raw};
use crate::world::{ONE, World};

const AT: &str = "10.96.0.30:80";
/// Longer than sockets and buffers on the way hold.
const MUCH: usize = 32 << 20;
/// Head and pieces of a body are not read together.
const APART: Duration = Duration::from_millis(50);

#[test]
fn plain_requests_are_passed_on() {
    in_namespace("http_plain::plain_requests_are_passed_on", || {
        let world = World::new();
        scripted("10.4.0.1:8080", behaves);
        world.service("odd", &["10.96.0.30"], &["http:80:8080"], &[[ONE[0], ""]]);
        let agent = Agent::start(&world);
        bodies_may_come_later();
        an_answer_need_not_wait_for_its_request();
        an_early_answer_arrives_before_its_connection_ends();
        several_requests_may_come_at_once();
        a_broken_answer_is_not_taken_for_a_whole_one(&agent);
        what_ends_with_its_connection_is_whole();
    });
}

/// What a backend does is in the path.
fn behaves(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let head = read_head(&mut reader)?;
        let length = header(&head, "content-length").unwrap_or("0").to_owned();
        let answer = match head.split(' ').nth(1)? {
            "/echo" => {
                let (body, _) = read_body(&head, &mut reader)?;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                [head.into_bytes(), body].concat()
            }
            "/back" => {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(head.as_bytes()).ok()?;
                let mut body = reader.by_ref().take(length.parse().ok()?);
                std::io::copy(&mut body, &mut stream).ok()?;
                continue;
            }
            "/early" => {
                stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno").ok()?;
                return std::io::copy(&mut reader, &mut std::io::sink()).ok().map(drop);
            }
            "/bad" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n"
                .to_vec(),
            "/old" => return stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nall of it").ok(),
            _ => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        };
        stream.write_all(&answer).ok()?;
    }
}

fn post(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")
}

fn bodies_may_come_later() {
    let mut raw = Raw::connect("", AT);
    for pieces in [&["hello ", "world"][..], &["", "hello world"], &["hello world"]] {
        raw.send(post("/echo", 11).as_bytes());
        for piece in pieces {
            throughout(APART, || true);
            raw.send(piece.as_bytes());
        }
        assert_eq!(raw.answer("POST").body, "hello world", "{pieces:?}");
    }
}

fn an_answer_need_not_wait_for_its_request() {
    let mut raw = Raw::connect("", AT);
    raw.send(post("/back", MUCH).as_bytes());
    assert!(read_head(&mut raw.reader).unwrap().starts_with("HTTP/1.1 200"));
    let mut sending = raw.stream().try_clone().unwrap();
    let sent = std::thread::spawn(move || sending.write_all(&vec![b'x'; MUCH]).unwrap());
    let mut back = vec![0; MUCH];
    raw.reader.read_exact(&mut back).unwrap();
    sent.join().unwrap();
    assert!(back.iter().all(|byte| *byte == b'x'));
    raw.send(post("/echo", 2).as_bytes());
    raw.send(b"ok");
    assert_eq!(raw.answer("POST").body, "ok", "the connection stays in step");
}

fn an_early_answer_arrives_before_its_connection_ends() {
    let mut raw = Raw::connect("", AT);
    raw.send(post("/early", MUCH).as_bytes());
    raw.send(&vec![b'x'; 1 << 20]);
    assert_eq!(raw.answer("POST").status, 413);
    assert_ne!(raw.rest().1, End::Open, "what would follow is body");
}

fn several_requests_may_come_at_once() {
    let mut raw = Raw::connect("", AT);
    let all: String = ["one", "two", "three"].map(|body| post("/echo", body.len()) + body).concat();
    raw.send(format!("{all}GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\nGET /half").as_bytes());
    for body in ["one", "two", "three"] {
        assert_eq!(raw.answer("POST").body, body);
    }
    assert_eq!(raw.answer("GET").status, 404);
    raw.send(b"-a-path HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let answer = raw.answer("GET");
    assert_eq!((answer.status, answer.header("connection")), (404, Some("close")));
    assert_eq!(raw.rest(), (String::new(), End::Closed));
}

fn a_broken_answer_is_not_taken_for_a_whole_one(agent: &Agent) {
    let (said, end) = Raw::say("", AT, b"GET /bad HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200") && !said.contains("\r\n0\r\n"), "{said}");
    assert_ne!(end, End::Open);
    eventually("the broken answer", crate::agent::PATIENCE, || {
        let lines = agent.access();
        lines.iter().any(|l| l["path"] == "/bad" && l["outcome"] == "failed").then_some(())
    });
}

fn what_ends_with_its_connection_is_whole() {
    let mut raw = Raw::connect("", AT);
    for _ in 0..2 {
        let answer = raw.get("/old");
        assert_eq!((answer.status, answer.body.as_str()), (200, "all of it"), "{}", answer.head);
    }
}
