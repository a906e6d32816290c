//! What the reading commands ask an agent, and what they show of its answer.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::thread::JoinHandle;

use crate::{edgemesh, stderr, stdout};

/// Answers one request with `answer`, then hands out what was asked.
fn agent(answer: String) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut asked = Vec::new();
        let mut piece = [0; 1024];
        while !asked.ends_with(b"\r\n\r\n") {
            let n = stream.read(&mut piece).expect("a request");
            assert!(n > 0, "the client left in the middle of its request");
            asked.extend_from_slice(&piece[..n]);
        }
        stream.write_all(answer.as_bytes()).expect("a client that reads");
        String::from_utf8(asked).expect("text")
    });
    (url, served)
}

fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

const NODES: &str = r#"[{"name":"edge-1","zone":"","addresses":["192.0.2.1"],"here":true,"backends":1},
  {"name":"edge-2","zone":"","addresses":[],"here":false,"backends":0}]"#;

/// Arguments, the agent's answer, the request line, exit code, and words on stdout or stderr.
type Asked = (&'static [&'static str], String, &'static str, i32, &'static str);

#[test]
fn reading_commands_ask_and_show() {
    let hop =
        r#"{"destination":"d","verdict":"passThrough","steps":[],"backend":null,"refusal":null}"#;
    let cases: Vec<Asked> = vec![
        (&["get", "nodes"], http("200 OK", NODES), "GET /v1/nodes HTTP/1.1", 0, "edge-2"),
        (
            &["get", "nodes", "edge-1", "-o", "json"],
            http("200 OK", NODES),
            "GET /v1/nodes ",
            0,
            "\"192.0.2.1\"",
        ),
        (
            &["get", "nodes", "edge-3"],
            http("200 OK", NODES),
            "GET /v1/nodes ",
            1,
            "edgemesh: no node `edge-3`",
        ),
        (
            &["get", "services", "x", "-n", "shop"],
            http("200 OK", "[]"),
            "GET /v1/services ",
            1,
            "no Service `x` in namespace shop",
        ),
        (&["get", "backends", "-o", "yaml"], http("200 OK", "[]"), "GET /v1/backends ", 0, "[]"),
        (
            &["get", "endpoints"],
            http("200 OK", "[]"),
            "GET /v1/endpoints ",
            0,
            "Pod addresses: edgemesh get backends",
        ),
        (
            &["get", "rules", "x", "-n", "shop"],
            http("200 OK", "[]"),
            "GET /v1/rules ",
            1,
            "no Rule `x` in namespace shop",
        ),
        (&["get", "policies"], http("200 OK", "[]"), "GET /v1/policies ", 0, "POLICY"),
        (
            &["explain", "http://h.d/a?b=c&d", "--header", "x-user: Z\u{fc}", "--from", "::1"],
            http("200 OK", hop),
            "GET /v1/explain?url=http%3A%2F%2Fh.d%2Fa%3Fb%3Dc%26d&header=x-user%3AZ%C3%BC&from=%3A%3A1 HTTP/1.1",
            0,
            "passes through",
        ),
        (
            &["explain", "redis.shop:6379"],
            http("400 Bad Request", r#"{"error":"no port"}"#),
            "GET /v1/explain?url=redis.shop%3A6379 ",
            1,
            "edgemesh: no port",
        ),
        (
            &["status"],
            http("500 Oops", "<html>"),
            "GET /v1/status ",
            1,
            "500 Internal Server Error, and not as an agent does: <html>",
        ),
        (&["status"], http("200 OK", "{}"), "GET /v1/status ", 1, "missing field"),
        (
            &["status"],
            "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".into(),
            "GET /v1/status ",
            1,
            "cannot talk to http://127.0.0.1:",
        ),
        (
            &["status"],
            "SSH-2.0-x\r\n".into(),
            "GET /v1/status ",
            1,
            "cannot talk to http://127.0.0.1:",
        ),
    ];
    for (args, answer, line, code, words) in cases {
        let (url, served) = agent(answer);
        let output = edgemesh(&[args, &["--admin", &url]].concat());
        let asked = served.join().expect("the agent");
        assert!(asked.starts_with(line), "{args:?} asked {asked}");
        let said = stdout(&output) + &stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?} said: {said}");
    }
}
