//! What runs anyway gets a name: `expose`, registrations, documents with a check, and the socket
//! by which programs follow all of it.

use std::path::Path;

use serde_json::Value;

use crate::agent::{Agent, PATIENCE, config};
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{Running, run};
use crate::common::wait::eventually;
use crate::signup::{alone, answered, asks, edgemesh, registrations, said, serve, server};
use crate::world::{ONE, World, service};

#[test]
fn what_is_exposed_stays_and_is_checked() {
    in_namespace("exposing::what_is_exposed_stays_and_is_checked", || {
        let world = World::new();
        let agent = Agent::start_with(&world, &alone(&world));
        let server_one = server(&world, "one", 8001);
        answered("http://127.0.0.1:8001/", "one");
        let ran = edgemesh("expose hello --to localhost:8001 --check http:/healthz");
        assert!(ran.out.starts_with("hello.default leads to 127.0.0.1:8001"), "{ran:?}");
        answered("http://hello.default/", "one");
        assert!(edgemesh("expose --list").out.contains("healthy"));
        // It outlives the agent, however that ends.
        agent.kill_all();
        let agent = Agent::start_with(&world, &alone(&world));
        assert_eq!(asks("http://hello.default/"), "one", "at once, without a probe");
        // It falls ill, and gets well.
        world.write("sick", "");
        eventually("it is ill", PATIENCE, || {
            asks("http://hello.default/").is_empty().then_some(())
        });
        let table = edgemesh("get backends hello").out;
        assert!(table.contains("/healthz answered 503"), "{table}");
        std::fs::remove_file(world.path("sick")).unwrap();
        answered("http://hello.default/", "one");
        // The process is killed, and comes back.
        drop(server_one);
        eventually("it is seen", PATIENCE, || {
            let listed = registrations(&agent);
            (listed[0]["health"]["state"] == "unhealthy").then_some(())
        });
        let _server = server(&world, "again", 8001);
        answered("http://hello.default/", "again");
        // A second place, on another port of the Service; then all of it goes.
        let _other = server(&world, "other", 8002);
        assert_eq!(edgemesh("expose hello --to :8002 --port 9000").code, Some(0));
        answered("http://hello.default:9000/", "other");
        assert_eq!(edgemesh("expose hello --remove --to :8002").code, Some(0));
        assert_eq!(edgemesh("expose --remove hello").code, Some(0));
        assert!(registrations(&agent).is_empty());
        agent.kill_all();
        let agent = Agent::start_with(&world, &alone(&world));
        assert!(registrations(&agent).is_empty(), "what was removed stays removed");
        // A time to live, without anybody to renew.
        assert_eq!(edgemesh("expose hello --to :8001 --ttl 1s").code, Some(0));
        answered("http://hello.default/", "again");
        eventually("it is over", PATIENCE, || registrations(&agent).is_empty().then_some(()));
    });
}

/// An address of an interface that goes, and comes back, also over a restart without it.
#[test]
fn addresses_come_and_go() {
    in_namespace("exposing::addresses_come_and_go", || {
        let world = World::new();
        let [address, v6] = ["10.4.0.3", "fd04::3"];
        let _three = crate::backend::Backend::start("", "three", [address, v6], 8080);
        let agent = Agent::start_with(&world, &alone(&world));
        assert_eq!(edgemesh("expose hello --to 10.4.0.3:8080").code, Some(0));
        answered("http://hello.default/", "three");
        sh("ip addr del 10.4.0.3/32 dev lo");
        eventually("it is told", PATIENCE, || {
            edgemesh("expose --list").out.contains("not one of this").then_some(())
        });
        assert_eq!(agent.get("/v1/backends").as_array().unwrap().len(), 0);
        agent.kill_all();
        let agent = Agent::start_with(&world, &alone(&world));
        assert_eq!(registrations(&agent)[0]["ready"], false);
        sh("ip addr add 10.4.0.3/32 dev lo");
        answered("http://hello.default/", "three");
    });
}

#[test]
fn mistakes_are_told() {
    in_namespace("exposing::mistakes_are_told", || {
        let world = World::new();
        let _agent = Agent::start_with(&world, &alone(&world));
        for (line, code, want) in [
            ("expose hello", 2, "--to"),
            ("expose --to :80", 2, "NAME"),
            ("expose hello --to nowhere", 2, "HOST:PORT"),
            ("expose hello --to :80 --check ping", 2, "none of tcp"),
            ("expose hello --to :80 --ttl soon", 2, "such as 90s"),
            ("expose hello --to :80 --ttl 2d", 2, "1s to 24h"),
            ("expose Hello --to :80", 1, "service: `Hello` is no DNS label"),
            ("expose hello -n a.b --to :80", 1, "namespace: `a.b` is no DNS label"),
            ("expose hello --to 192.0.2.1:80", 1, "address: 192.0.2.1 is not an address of this"),
            ("expose hello --to 0.0.0.0:80", 1, "address: 0.0.0.0 is every address"),
            ("expose hello --to no.such.host.invalid:80", 1, "cannot resolve"),
            ("expose --remove hello", 1, "hello.default is not exposed here"),
            ("serve hello -- true", 2, "--port"),
            ("serve hello --port 80", 2, "CMD"),
            ("serve hello --port 80 -- /no/such/program", 127, "cannot start `/no/such/program`"),
            (
                "serve hello --port 80 --address 192.0.2.1 -- touch /run/ran",
                1,
                "address: 192.0.2.1",
            ),
        ] {
            let ran = edgemesh(line);
            assert_eq!(ran.code, Some(code), "{line}: {ran:?}");
            assert!(ran.err.contains(want), "{line}: {}", ran.err);
        }
        assert!(!Path::new("/run/ran").exists(), "it ran although it was refused");
        let put = |body: &str| {
            let at = "http://127.0.0.1:15000/v1/registrations/default/hello/a";
            run("", &format!("curl -s -m 5 -X PUT {at} -d '{body}'")).out
        };
        for (body, want) in [
            ("", "EOF"),
            ("{}", "missing field `port`"),
            (r#"{"port": 0}"#, "port: "),
            (r#"{"port": "x"}"#, "port: "),
            (r#"{"port": 1, "check": "ping"}"#, "check: `ping` is none of"),
            (r#"{"port": 1, "ttlSeconds": 99999}"#, "ttlSeconds: at most"),
            (r#"{"port": 1, "prot": 1}"#, "unknown field `prot`"),
            (r#"{"port": 1} x"#, "trailing"),
        ] {
            let error = put(body);
            assert!(error.contains("\"error\"") && error.contains(want), "{body}: {error}");
        }
        // A web page may not sign up anything.
        let from_page = run(
            "",
            "curl -s -m 5 -X PUT -H 'Origin: http://evil.example' -d '{\"port\": 1}' http://127.0.0.1:15000/v1/registrations/default/hello/a",
        );
        assert!(from_page.out.contains("its own loopback address only"), "{from_page:?}");
    });
}

#[test]
fn registrations_join_services_of_other_sources() {
    in_namespace("exposing::registrations_join_services_of_other_sources", || {
        let world = World::new();
        let _fixed = crate::backend::Backend::start("", "fixed", ONE, 8080);
        let elsewhere = service("hello", &["10.96.0.80"], &[":80:8080"], &[[ONE[0], ""]])
            .replace("nodeName: node-1", "nodeName: node-2");
        world.manifest("hello", &elsewhere);
        let mut agent = Agent::spawn(&world, &config(&world), &[]);
        agent.wait_ready();
        answered("http://hello.default/", "fixed");
        // The Service is theirs: its address and its port stay, the process joins.
        let one = serve(&world, "one", 8001, &[]);
        eventually("it joins", PATIENCE, || {
            (asks("http://hello.default/") == "one").then_some(()) // the nearer one
        });
        assert_eq!(agent.get("/v1/services")[0]["addresses"][0], "10.96.0.80");
        let backends = || agent.get("/v1/backends").as_array().unwrap().len();
        assert_eq!(backends(), 2, "one of node-2, one of this node");
        // What a Slice places on this node does not count while this node speaks for itself.
        world.manifest("hello", &elsewhere.replace("node-2", "node-1"));
        eventually("only the process is left", PATIENCE, || (backends() == 1).then_some(()));
        assert_eq!(asks("http://hello.default/"), "one");
        drop(one);
        // The source goes away altogether: the records stay, and signing up works on.
        std::fs::rename(world.path("manifests"), world.path("gone")).unwrap();
        eventually("the trouble is told", PATIENCE, || {
            agent.get("/v1/status").to_string().contains("cannot read the manifests").then_some(())
        });
        let _two = serve(&world, "two", 8002, &[]);
        eventually("it joins all the same", PATIENCE, || {
            (asks("http://hello.default/") == "two").then_some(())
        });
        // A port that the Service does not have is told, and nothing stays behind.
        let before = registrations(&agent).len();
        let ran = edgemesh("expose hello --to :8003 --port 81");
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.err.contains("the Service has no TCP port 81; it has 80"), "{ran:?}");
        assert_eq!(registrations(&agent).len(), before, "it is still registered");
    });
}

#[test]
fn documents_ask_for_checks() {
    in_namespace("exposing::documents_ask_for_checks", || {
        let world = World::new();
        std::fs::create_dir(world.path("services")).unwrap();
        let text = "apiVersion: v1\nkind: Service\n\
             metadata: { name: hello, annotations: { edgemesh.io/check: 'http:/healthz' } }\n\
             spec: { ports: [{ port: 80 }] }\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: { name: hello-1, labels: { kubernetes.io/service-name: hello } }\n\
             addressType: IPv4\nports: [{ port: 8001 }]\n\
             endpoints: [{ addresses: [127.0.0.1] }]\n";
        std::fs::write(world.path("services").join("hello.yaml"), text).unwrap();
        let agent = Agent::start_with(&world, &alone(&world));
        eventually("nobody is there", PATIENCE, || {
            let views = agent.get("/v1/backends");
            (views[0]["health"]["state"] == "unhealthy").then_some(())
        });
        let server = server(&world, "one", 8001);
        answered("http://hello.default/", "one");
        drop(server);
        eventually("it is gone again", PATIENCE, || {
            let views = agent.get("/v1/backends");
            (views[0]["health"]["reason"].as_str()?.contains("refused")).then_some(())
        });
        std::fs::write(world.path("services").join("hello.yaml"), text.replace("http:/", "ping:/"))
            .unwrap();
        eventually("a wrong check is told", PATIENCE, || {
            let status = agent.get("/v1/status").to_string();
            (status.contains("edgemesh.io/check") && status.contains("none of tcp")).then_some(())
        });
    });
}

/// The stream of `path` on the socket, as lines in a file.
fn follow(world: &World, path: &str, name: &str) -> (Running, std::path::PathBuf) {
    let log = world.path(name);
    let socket = world.path("data/mesh.sock").display().to_string();
    let url = format!("http://localhost{path}");
    (Running::start("", &["curl", "-sSN", "--unix-socket", &socket, &url], &log), log)
}

fn lines(log: &Path) -> Vec<Value> {
    said(log).lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn programs_follow_the_agent_by_its_socket() {
    in_namespace("exposing::programs_follow_the_agent_by_its_socket", || {
        let world = World::new();
        let agent = Agent::start_with(&world, &alone(&world));
        let socket = world.path("data/mesh.sock");
        let ask = |path: &str| {
            let at = socket.display();
            run("", &format!("curl -sS -m 5 --unix-socket {at} 'http://localhost{path}'")).out
        };
        let mode = run("", &format!("stat -c %a:%F {}", socket.display())).out;
        assert_eq!(mode.trim(), "660:socket");
        assert!(ask("/v1/status").contains("node-1"));
        assert!(ask("/v1/lookup?name=hello.default").contains("\"found\":false"));
        assert!(ask("/v1/lookup?name=hello").contains("SERVICE.NAMESPACE"));
        let (mut looking, looked) = follow(&world, "/v1/lookup?name=hello.default&follow=1", "l");
        let (_recording, recorded) = follow(&world, "/v1/records?follow=1", "r");
        eventually("the whole comes first", PATIENCE, || {
            let (l, r) = (lines(&looked), lines(&recorded));
            (l.first()?["found"] == false && r.first()?["node"] == "node-1").then_some(())
        });
        // What is signed up is seen, by name and as records.
        let _server = server(&world, "one", 8001);
        answered("http://127.0.0.1:8001/", "one");
        assert_eq!(edgemesh("expose hello --to :8001").code, Some(0));
        eventually("the news come", PATIENCE, || {
            let (l, r) = (lines(&looked), lines(&recorded));
            let backend = l.last()?["backends"].get(0)?["address"].as_str()?.to_owned();
            let named = r.iter().find_map(|line| line["addresses"].get(0))?["name"].clone();
            (backend == "127.0.0.1:8001" && named == "hello").then_some(())
        });
        assert!(ask("/v1/lookup?name=hello.default:80").contains("127.0.0.1:8001"));
        // It lives, and says so.
        eventually("a heartbeat", PATIENCE, || {
            lines(&recorded).iter().any(|line| line["heartbeat"].is_u64()).then_some(())
        });
        // Streams are for the socket alone.
        let over_tcp =
            "curl -s -m 5 'http://127.0.0.1:15000/v1/lookup?name=hello.default&follow=1'";
        assert!(run("", over_tcp).out.contains("mesh.sock only"));
        assert!(
            run("", "curl -s -m 5 http://127.0.0.1:15000/v1/records").out.contains("mesh.sock")
        );
        // Only so many at once.
        let many: Vec<_> =
            (0..62).map(|n| follow(&world, "/v1/records?follow=1", &format!("m{n}"))).collect();
        eventually("all of them follow", PATIENCE, || {
            many.iter().all(|(_, log)| !lines(log).is_empty()).then_some(())
        });
        assert!(ask("/v1/records?follow=1").contains("64 streams are open"));
        drop(many);
        // The agent is killed: the streams end. Its socket is left, and the next one takes its place.
        agent.kill_all();
        looking.child.wait().unwrap();
        assert!(socket.exists());
        let agent = Agent::start_with(&world, &alone(&world));
        assert!(ask("/v1/lookup?name=hello.default").contains("127.0.0.1:8001"));
        agent.terminate();
        assert_eq!(agent.ended().0, Some(0));
        assert!(!socket.exists(), "a socket that nobody listens at");
    });
}
