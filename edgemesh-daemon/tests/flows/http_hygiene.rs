//! What RFC 9110 and 9112 want of a proxy: limits, dates, headers between neighbours, lengths of
//! answers without a body, interim answers.

use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpStream};

use crate::agent::Agent;
use crate::backend::{header, read_head};
use crate::common::namespace::in_namespace;
use crate::raw::{End, Raw};
use crate::world::{ONE, World, listen};

const AT: &str = "10.96.0.30:80";

/// What the backend says, by path.
const SAYS: &[(&str, &str)] = &[
    (
        "/headers",
        "HTTP/1.1 200 OK\r\nDate: Sat, 01 Jan 2000 00:00:00 GMT\r\nVia: 1.0 other\r\n\
         Connection: x-private, keep-alive, content-type, set-cookie\r\nX-Private: 1\r\n\
         Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nContent-Type: text/x\r\n\
         Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 2\r\n\r\nok",
    ),
    ("/plain", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ("/304", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 999\r\n\r\n"),
    ("/204", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("/205", "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
    ("/chunked-head", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    (
        "/hints",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ),
];

fn converse(mut stream: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader) {
        let path = head.split(' ').nth(1)?;
        let said = SAYS.iter().find(|(known, _)| *known == path).map_or_else(
            || format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()),
            |(_, said)| (*said).to_owned(),
        );
        stream.write_all(said.as_bytes()).ok()?;
    }
    Some(())
}

#[test]
fn a_proxy_keeps_the_rules() {
    in_namespace("http_hygiene::a_proxy_keeps_the_rules", || {
        let world = World::new();
        let listener = listen("", "10.4.0.1:8080");
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || converse(&stream));
            }
        });
        world.service("one", &["10.96.0.30"], &["http:80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        dates_and_neighbours();
        answers_without_a_body();
        limits(&agent);
        half_a_head_is_a_flow(&agent);
    });
}

fn dates_and_neighbours() {
    let mut raw = Raw::connect("", AT);
    let answer = raw.get("/headers");
    for (name, want) in [
        ("date", Some("Sat, 01 Jan 2000 00:00:00 GMT")),
        ("via", Some("1.0 other")),
        ("content-type", Some("text/x")),
        ("set-cookie", Some("a=1")),
        ("x-private", None),
        ("keep-alive", None),
        ("proxy-authenticate", None),
        ("connection", None),
    ] {
        assert_eq!(answer.header(name), want, "{name}: {}", answer.head);
    }
    let cookies = answer.head.to_ascii_lowercase().matches("set-cookie").count();
    assert_eq!(cookies, 2, "{}", answer.head);
    // RFC 9110 §6.6.1: who has a clock dates what comes without a date.
    let answer = raw.get("/plain");
    assert!(answer.header("date").is_some(), "{}", answer.head);
    assert_eq!(answer.header("via"), None, "{}", answer.head);
    raw.send(
        b"GET /seen HTTP/1.1\r\nHost: a\r\nVia: 1.0 other\r\nProxy-Authorization: Basic eDp5\r\n\
          Connection: x-private, cookie, authorization, x-request-id, close, , \r\nX-Private: 1\r\n\
          Cookie: a=1\r\nAuthorization: Basic eDp5\r\nX-Request-Id: mine\r\n\r\n",
    );
    let seen = raw.answer("GET").body;
    for (name, want) in [
        ("via", Some("1.0 other")),
        ("cookie", Some("a=1")),
        ("authorization", Some("Basic eDp5")),
        ("x-request-id", Some("mine")),
        ("x-private", None),
        ("proxy-authorization", None),
        ("connection", None),
    ] {
        assert_eq!(header(&seen, name), want, "{name}: {seen}");
    }
}

/// Method, path, status and length of the answer. All on one connection, which stays in step.
fn answers_without_a_body() {
    let mut raw = Raw::connect("", AT);
    for (method, path, status, length) in [
        ("GET", "/304", 304, Some("999")), // of what it stands for (RFC 9110 §8.6)
        ("GET", "/204", 204, None),
        ("GET", "/205", 205, Some("0")),
        ("HEAD", "/chunked-head", 200, None),
        ("GET", "/hints", 200, Some("2")),
        ("GET", "/plain", 200, Some("2")),
    ] {
        raw.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let answer = raw.answer(method);
        let found = (answer.status, answer.header("content-length"));
        assert_eq!(found, (status, length), "{path}: {}", answer.head);
    }
}

/// What is said, the status, and how the access log calls it.
fn limits(agent: &Agent) {
    let many = |count: usize| "X: y\r\n".repeat(count);
    let get = |target: usize, more: &str| {
        format!("GET /{} HTTP/1.1\r\nHost: a\r\n{more}\r\n", "x".repeat(target))
    };
    let chunked = |trailers: &str| {
        format!(
            "POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{trailers}\r\n"
        )
    };
    let rows: &[(&str, String, u16, &str)] = &[
        ("127 headers", get(1, &many(126)), 200, "ok"),
        ("130 headers", get(1, &many(129)), 431, "headTooLarge"),
        ("a header of 50 KiB", get(1, &format!("X: {}\r\n", "y".repeat(50 << 10))), 200, "ok"),
        (
            "a header of 70 KiB",
            get(1, &format!("X: {}\r\n", "y".repeat(70 << 10))),
            431,
            "headTooLarge",
        ),
        ("a target of 30 KiB", get(30 << 10, ""), 200, "ok"),
        ("a target of 40 KiB", get(40 << 10, ""), 414, "targetTooLong"),
        ("a target of 70 KiB", get(70 << 10, ""), 414, "targetTooLong"),
        ("trailers", chunked(&many(10)), 200, "ok"),
    ];
    for (what, said, status, outcome) in rows {
        let before = agent.access().len();
        let mut raw = Raw::connect("", AT);
        raw.send(said.as_bytes());
        assert_eq!(raw.answer("GET").status, *status, "{what}");
        drop(raw);
        // Lines of requests before this one may come late.
        crate::common::wait::eventually(what, crate::agent::PATIENCE, || {
            let lines = agent.access();
            let mut fresh = lines.iter().skip(before);
            fresh.find(|line| line["outcome"] == *outcome && line["status"] == *status).map(drop)
        });
    }
}

/// Alone, and where it shares its reading with a whole one.
fn half_a_head_is_a_flow(agent: &Agent) {
    let lines = |agent: &Agent| {
        agent.access().into_iter().filter(|line| line["outcome"] == "cancelled").count()
    };
    for said in ["GET /half", "GET /plain HTTP/1.1\r\nHost: a\r\n\r\nGET /half"] {
        let before = lines(agent);
        let mut raw = Raw::connect("", AT);
        raw.send(said.as_bytes());
        if said.contains("plain") {
            assert_eq!(raw.answer("GET").status, 200);
        }
        raw.stream().shutdown(Shutdown::Write).unwrap();
        assert_ne!(raw.rest().1, End::Open);
        crate::common::wait::eventually(said, crate::agent::PATIENCE, || {
            (lines(agent) == before + 1).then_some(())
        });
    }
}
