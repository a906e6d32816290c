//! The access log: exactly one line a flow, with the one outcome that is true.

use crate::agent::Agent;
use crate::backend::{Backend, reset};
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::raw::Raw;
use crate::world::{ONE, World, listen};

/// What is asked for by curl (the path is the row's own), and the fields of its line: outcome,
/// status, service, attempts.
const REQUESTS: &[(&str, &str, &str, &str, u64)] = &[
    ("http://one.default/ok", "ok", "200", "default/one", 1),
    ("--http2-prior-knowledge http://empty.default/h2", "noBackend", "503", "default/empty", 0),
    ("http://one.default/status/404", "ok", "404", "default/one", 1),
    ("http://one.default/status/500", "failed", "500", "default/one", 1),
    ("http://one.default/reset", "backendReset", "502", "default/one", 1),
    ("-m 0.3 http://one.default/wait", "cancelled", "null", "default/one", 1),
    ("-m 0.3 http://one.default/half", "cancelled", "200", "default/one", 1),
    ("http://empty.default/empty", "noBackend", "503", "default/empty", 0),
    ("http://slow.default/wait?slow", "requestTimeout", "504", "default/slow", 1),
    ("http://dead.default/dead", "connectFailed", "503", "default/dead", 1),
];

#[test]
fn one_line_a_flow() {
    in_namespace("log::one_line_a_flow", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.40"], &[":80:8080"], &[ONE]);
        world.service("slow", &["10.96.0.41"], &[":80:8080"], &[ONE]);
        world.policy("slow", "  timeouts: { request: 300ms }\n  retries: { attempts: 0 }");
        world.service("empty", &["10.96.0.42"], &[":80:8080"], &[]);
        world.service("dead", &["10.96.0.43"], &[":80:8080"], &[["10.4.0.3", ""]]);
        world.policy("dead", "  retries: { attempts: 0 }");
        world.service("bytes", &["10.96.0.44"], &[":7:7007"], &[ONE]);
        let agent = Agent::start(&world);
        for (at, (arguments, outcome, status, service, attempts)) in REQUESTS.iter().enumerate() {
            run("", &format!("curl -sS -o /dev/null {arguments}"));
            let lines = agent.lines(arguments, 1, |line| {
                line["service"] == *service && same_path(line["path"].as_str(), arguments)
            });
            let line = &lines[0];
            assert_eq!(line["outcome"], *outcome, "{arguments}: {line}");
            assert_eq!(line["status"].to_string(), *status, "{arguments}: {line}");
            assert_eq!(line["attempts"], *attempts, "{arguments}: {line}");
            assert!(line["ms"].is_f64() && line["client"].is_string(), "{line}");
            assert_eq!(agent.access().len(), at + 1, "{arguments} wrote more than one line");
        }
        connections_of_bytes(&agent);
    });
}

fn same_path(path: Option<&str>, arguments: &str) -> bool {
    let wanted = arguments.split(".default").nth(1).and_then(|rest| rest.split('?').next());
    path.is_some() && path == wanted
}

/// Bytes both ways and how each side ended are in the line of a connection.
fn connections_of_bytes(agent: &Agent) {
    let before = agent.access().len();
    let listener = listen("", "10.4.0.1:7007");
    let server = std::thread::spawn(move || {
        for ends_badly in [false, false, true] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut got = [0; 4];
            std::io::Read::read_exact(&mut stream, &mut got).unwrap();
            std::io::Write::write_all(&mut stream, b"answer").unwrap();
            if ends_badly {
                // Only when the answer has been read, or the reset would overtake it.
                std::io::Read::read_exact(&mut stream, &mut got).unwrap();
                reset(&stream);
            } else {
                std::io::copy(&mut stream, &mut std::io::sink()).ok();
            }
        }
    });
    for (how, outcome) in [("close", "ok"), ("reset", "cancelled"), ("server", "failed")] {
        let mut raw = Raw::connect("", "10.96.0.44:7");
        raw.send(b"\x00\x01\x02\x03");
        raw.expect(b"answer");
        match how {
            "close" => {}
            "reset" => reset(raw.stream()),
            _ => {
                raw.send(b"quit");
                raw.rest();
            }
        }
        drop(raw);
        let lines = agent
            .lines(how, 1, |line| line["service"] == "default/bytes" && line["outcome"] == outcome);
        assert_eq!(
            (&lines[0]["protocol"], &lines[0]["down"]),
            (&"opaque".into(), &6.into()),
            "{lines:?}"
        );
    }
    server.join().unwrap();
    assert_eq!(agent.access().len(), before + 3);
}
