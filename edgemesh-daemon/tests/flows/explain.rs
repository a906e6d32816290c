//! `edgemesh explain` says what then happens, and asking changes nothing.

use crate::agent::Agent;
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::raw::Raw;
use crate::world::{ONE, TWO, World};

const EDGEMESH: &str = env!("CARGO_BIN_EXE_edgemesh");

#[test]
fn explain_agrees_with_what_happens() {
    in_namespace("explain::explain_agrees_with_what_happens", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        let _two = Backend::start("", "two", TWO, 8080);
        world.service("hello", &["10.96.0.110"], &[":80:8080"], &[ONE, TWO]);
        world.policy("hello", "  rateLimit: { client: { qps: 1, burst: 6 } }");
        world.service("empty", &["10.96.0.111"], &[":80:8080"], &[]);
        let agent = Agent::start(&world);
        let says = |what: &str| run("", &format!("{EDGEMESH} explain {what}")).out;
        let mut raw = Raw::connect("", "10.96.0.110:80");
        for call in 0..5 {
            // A hundred questions between two calls: neither a token nor a turn is taken.
            for _ in 0..100 {
                agent.get("/v1/explain?url=http://hello.default/");
            }
            let said = says("http://hello.default/");
            let answer = raw.get("/");
            let (address, other) = match answer.body.as_str() {
                "one" => ("10.4.0.1:8080", "10.4.0.2:8080"),
                _ => ("10.4.0.2:8080", "10.4.0.1:8080"),
            };
            assert_eq!(answer.status, 200, "call {call}");
            let hop = agent.lines("served", call + 1, |line| line["outcome"] == "ok");
            assert_eq!(hop[call]["backend"], address);
            assert!(said.contains(address), "call {call}: {address} is not in\n{said}");
            assert!(!said.contains(other), "call {call}: {other} is in\n{said}");
        }
        // The sixth token, and then none.
        assert_eq!(raw.get("/").status, 200);
        let said = says("http://hello.default/");
        assert_eq!(raw.get("/").status, 429);
        assert!(said.contains("rateLimited") && said.contains("429"), "{said}");
        let said = says("http://empty.default/");
        assert!(said.contains("noBackend") && said.contains("503"), "{said}");
        let said = says("10.96.0.110:80");
        assert!(said.contains("default/hello"), "{said}");
        let said = says("http://nobody.default/");
        assert!(said.contains("noService") || said.contains("passThrough"), "{said}");
    });
}
