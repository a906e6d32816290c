//! The explicit proxy asked for what is not its own, and Services that lead back to it.

use std::time::Duration;

use crate::agent::Agent;
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::wait::timed;
use crate::raw::{End, Raw};
use crate::world::{ONE, World};

/// What the proxy is asked, and its answer.
const ASKED: &[(&str, &str, u16)] = &[
    ("CONNECT 127.0.0.1:22", "127.0.0.1:22", 404),
    ("CONNECT 10.4.0.1:8080", "10.4.0.1:8080", 404),
    ("CONNECT [::1]:22", "[::1]:22", 404),
    ("CONNECT one.default:22", "one.default:22", 404),
    ("CONNECT loop.default:80", "loop.default:80", 508),
    ("CONNECT loop6.default:80", "loop6.default:80", 508),
    ("GET http://127.0.0.1:22/", "127.0.0.1:22", 404),
    ("GET http://10.4.0.1:8080/", "10.4.0.1:8080", 404),
    ("GET http://127.0.0.1:15001/", "127.0.0.1:15001", 404),
    ("GET http://127.0.0.1:15000/v1/status", "127.0.0.1:15000", 404),
    ("GET http://example.com/", "example.com", 404),
    ("GET http://one.default:22/", "one.default:22", 404),
    ("GET http://loop.default/", "loop.default", 508),
    ("GET http://loop6.default/", "loop6.default", 508),
    ("GET http://mapped.default/", "mapped.default", 503), // no such address in a Slice of IPv6
    ("GET /", "loop.default", 508),
    ("GET /", "127.0.0.1:15001", 404),
    ("GET http://one.default/", "one.default", 200),
];

#[test]
fn nothing_leads_back() {
    in_namespace("loops::nothing_leads_back", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        world.service("loop", &["10.96.0.81"], &[":80:15001"], &[["127.0.0.1", "::1"]]);
        world.service(
            "loop6",
            &["10.96.0.82"],
            &[":80:15001"],
            &[["169.254.96.16", "fd00:6d65::16"]],
        );
        world.service("mapped", &["10.96.0.83"], &[":80:15001"], &[["", "::ffff:127.0.0.1"]]);
        world.service("bytes", &["10.96.0.84"], &["tcp-x:80:15001"], &[["127.0.0.1", ""]]);
        world.service("chain", &["10.96.0.85"], &[":80:80"], &[["10.96.0.85", ""]]);
        world.policy("chain", "  timeouts: { connect: 300ms }");
        let agent = Agent::start(&world);
        let mut bad = Vec::new();
        for (line, host, want) in ASKED {
            let mut raw = Raw::connect("", "127.0.0.1:15001");
            raw.send(format!("{line} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
            let (answer, took) = timed(|| raw.answer("GET"));
            if answer.status != *want || took > Duration::from_secs(2) {
                bad.push(format!("{line} ({host}): {} {:?} {took:?}", answer.status, answer.body));
            }
        }
        for number in [81, 82] {
            for place in ["", "pod"] {
                let answer = Raw::connect(place, &format!("10.96.0.{number}:80")).get("/");
                if answer.status != 508 {
                    bad.push(format!("{number} from `{place}`: {} {}", answer.status, answer.body));
                }
            }
        }
        assert!(bad.is_empty(), "{}", bad.join("\n"));
        for place in ["", "pod"] {
            let (said, end) = Raw::say(place, "10.96.0.84:80", b"\0\x01");
            assert!(said.is_empty() && end != End::Open, "from `{place}`: {said:?} {end:?}");
            let answer = Raw::connect(place, "10.96.0.85:80").get("/");
            assert!(matches!(answer.status, 502..=504), "{} {}", answer.status, answer.body);
        }
        let (said, end) = Raw::say("pod", "169.254.96.16:15001", b"GET / HTTP/1.1\r\n\r\n");
        assert!(said.is_empty() && end != End::Open, "{said:?} {end:?}");
        // Had anything gone round, there would be far more.
        let total = agent.get("/v1/status")["flows"]["total"].as_u64().unwrap();
        assert!(total < 60, "{total} connections");
    });
}
