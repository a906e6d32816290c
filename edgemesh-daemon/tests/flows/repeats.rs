//! What may be sent twice, and what leaves framed and named as it must: cases of a review.

use crate::agent::Agent;
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::raw::Raw;
use crate::world::{ONE, TWO, World};

const EAGER: &str = "  retries: { attempts: 3, on: [connect, reset, 503] }";

/// (curl's arguments, how often the two backends see it)
const REPEATS: &[(&str, u64)] = &[
    ("http://eager.default/reset", 2),
    ("-X POST http://eager.default/reset", 1),
    ("-X POST -d body http://eager.default/reset", 1),
    ("-X DELETE http://eager.default/status/503", 2),
    ("-X POST http://eager.default/status/503", 1),
    ("-X POST http://meek.default/reset", 1),
    ("http://meek.default/status/503", 1),
];

#[test]
fn invariant_11_only_harmless_calls_are_repeated() {
    in_namespace("repeats::invariant_11_only_harmless_calls_are_repeated", || {
        let world = World::new();
        let (one, two) =
            (Backend::start("", "one", ONE, 8080), Backend::start("", "two", TWO, 8080));
        world.service("eager", &["10.96.0.30"], &[":80:8080"], &[ONE, TWO]);
        world.service("meek", &["10.96.0.31"], &[":80:8080"], &[ONE, TWO]);
        world.policy("eager", EAGER);
        world.policy("meek", "  retries: { attempts: 3, on: [connect] }");
        let _agent = Agent::start(&world);
        for (arguments, want) in REPEATS {
            let before = one.counts().1 + two.counts().1;
            run("", &format!("curl -sS -o /dev/null {arguments}"));
            assert_eq!(one.counts().1 + two.counts().1 - before, *want, "{arguments}");
        }
    });
}

#[test]
fn one_framing_one_host() {
    in_namespace("repeats::one_framing_one_host", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.30"], &[":80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        let at = "10.96.0.30:80";

        let mut raw = Raw::connect("", at);
        raw.send(b"GET /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(raw.answer("GET").body, "hello", "a GET may have a body");
        let both = raw.get("/both");
        assert_eq!((both.body.as_str(), both.header("content-length")), ("hello world", None));

        let seen = one.counts().1;
        raw.send(b"GET /head HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
        assert_eq!(raw.answer("GET").status, 400, "two Hosts");
        assert_eq!(one.counts().1, seen, "and nothing of it reached the backend");

        let mut old = Raw::connect("", at);
        old.send(b"GET /head HTTP/1.0\r\n\r\n");
        assert!(old.answer("GET").body.to_lowercase().contains("host: 10.96.0.30:80"));

        let lines = "X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 2.2.2.2\r\n";
        let mut raw = Raw::connect("", at);
        raw.send(format!("GET /head HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes());
        assert!(raw.answer("GET").body.contains("1.1.1.1, 2.2.2.2, "), "no caller is lost");

        run("", "curl -sS -x http://127.0.0.1:15001 http://user:secret@one.default/secretless");
        assert!(!one.last_head().contains("user:secret@"), "{}", one.last_head());
        let lines = agent.lines("secretless", 1, |line| line["path"] == "/secretless");
        assert!(!format!("{lines:?}").contains("secret@"), "{lines:?}");
    });
}
