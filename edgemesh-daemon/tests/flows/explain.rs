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

#[test]
fn what_was_missed_is_named() {
    in_namespace("explain::what_was_missed_is_named", || {
        let world = World::new();
        world.service("web", &["10.96.0.112"], &[":80:8080"], &[ONE]);
        world.manifest("echo", ECHO);
        world.policy("web", SAYS);
        world.policy("nobody", SAYS);
        world.manifest("mirror", MIRROR);
        let agent = Agent::start(&world);
        let says = |what: &str| {
            let ran = run("", &format!("{EDGEMESH} {what}"));
            ran.out.split_whitespace().collect::<Vec<_>>().join(" ") + &ran.err
        };
        let udp = "port 7 is UDP; Backends: 10.4.0.1:7";
        for (asked, wants) in [
            ("explain echo.default:7", &[udp, "carried by the kernel's rules"][..]),
            ("explain 10.96.0.113:7", &[udp, "carried by the kernel's rules"]),
            (
                "explain 10.96.0.112:81",
                &["is Service default/web's, which has no port 81; it has 80"],
            ),
            (
                "explain web.default:81",
                &["Service default/web has no port 81; it has 80", "noPort"],
            ),
            (
                "explain web.default",
                &["no port was given; 80 is assumed", "Service default/web, port 80"],
            ),
            (
                "get policies web -o json",
                &["hash of header x-user", "client burst 9", "allow namespace shop"],
            ),
            ("get policies nobody -o json", &["there is no Service default/nobody"]),
            ("get routes", &["broken"]),
            ("get backends default/web", &["10.4.0.1:8080"]),
            ("get services default/echo", &["7/UDP 1/1"]),
            ("get services other/echo", &["no Service `echo` in namespace other"]),
            ("get services default/echo -n other", &["-n other contradicts default/"]),
        ] {
            let said = says(asked);
            for want in wants {
                assert!(said.contains(want), "{asked}: {want} is not in\n{said}");
            }
        }
        let remarks = agent.get("/v1/status")["remarks"].clone();
        let of_route = |remark: &&serde_json::Value| remark["object"] == "HTTPRoute default/mirror";
        let found: Vec<_> = remarks.as_array().unwrap().iter().filter(of_route).collect();
        assert_eq!(found.len(), 1, "once: {remarks}");
        assert_eq!(found[0]["severity"], "warning", "it is in force: {remarks}");
    });
}

const SAYS: &str = "  loadBalancer: { consistentHash: { header: x-user } }
  rateLimit: { client: { qps: 5, burst: 9 } }
  allow: [{ namespace: shop }]";

/// In force, and its only rule answers 500.
const MIRROR: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: mirror, namespace: default }
spec:
  parentRefs: [{ group: '', kind: Service, name: web, port: 80 }]
  rules: [{ matches: [{ path: { value: /mirror } }], filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: web, port: 80 } } }] }]
";

/// A Service of UDP alone.
const ECHO: &str = "apiVersion: v1
kind: Service
metadata: { name: echo, namespace: default }
spec: { clusterIP: 10.96.0.113, ports: [{ port: 7, protocol: UDP }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo-1, namespace: default, labels: { kubernetes.io/service-name: echo } }
addressType: IPv4
ports: [{ name: '', port: 7, protocol: UDP }]
endpoints: [{ addresses: [10.4.0.1] }]
";
