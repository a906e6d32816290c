//! What runs on this machine gets a name: `serve`, `expose`, `services:`, and what kills do to each.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::agent::{Agent, PATIENCE, config};
use crate::common::namespace::in_namespace;
use crate::common::run::{Ran, Running, run};
use crate::common::wait::eventually;
use crate::world::{ONE, World, service};

pub(crate) const EDGEMESH: &str = env!("CARGO_BIN_EXE_edgemesh");

/// A server that says its name to every GET, and takes `/healthz` for well while `sick` is not
/// there; arguments: name, port, folder.
const SAYS: &str = "
import http.server, os, sys
name, port, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        sick = self.path == '/healthz' and os.path.exists(folder + '/sick')
        self.send_response(503 if sick else 200)
        self.send_header('content-length', str(len(name)))
        self.end_headers()
        self.wfile.write(name.encode())
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('127.0.0.1', port), Handler).serve_forever()
";

/// An agent with no source but this node itself.
fn alone(world: &World) -> String {
    let (data, services) = (world.path("data"), world.path("services"));
    format!("node: node-1\ndataDir: {}\nservices: {}\n", data.display(), services.display())
}

fn server(world: &World, name: &str, port: u16) -> Running {
    let (folder, port) = (world.folder().display().to_string(), port.to_string());
    let program = ["python3", "-c", SAYS, name, &port, &folder];
    Running::start("", &program, &world.path(&format!("{name}.log")))
}

/// `edgemesh serve NAME` with these options, around [`SAYS`]. A kill leaves nothing behind.
fn serve(world: &World, says: &str, port: u16, options: &[&str]) -> Running {
    serve_by(world, says, port, options, &["setpriv", "--pdeathsig", "KILL"])
}

/// The same by `wrapper`; without one, a kill leaves its child behind.
fn serve_by(world: &World, says: &str, port: u16, options: &[&str], wrapper: &[&str]) -> Running {
    let (folder, text) = (world.folder().display().to_string(), port.to_string());
    let mut line = vec![EDGEMESH, "serve", "hello", "--port", &text];
    line.extend(options);
    line.push("--");
    line.extend(wrapper);
    line.extend(["python3", "-c", SAYS, says, &text, &folder]);
    Running::start("", &line, &world.path(&format!("{says}.log")))
}

fn edgemesh(line: &str) -> Ran {
    run("", &format!("{EDGEMESH} {line}"))
}

/// Who answers at `url`; empty when nobody does.
fn asks(url: &str) -> String {
    run("", &format!("curl -sSf -m 3 {url}")).out
}

#[track_caller]
fn answered(url: &str, by: &str) {
    eventually(&format!("{url} is answered by {by}"), PATIENCE, || (asks(url) == by).then_some(()));
}

/// Everybody who answers within some calls, sorted.
fn all_who_answer(url: &str) -> String {
    let mut all: Vec<_> = (0..8).map(|_| asks(url)).collect();
    all.sort();
    all.dedup();
    all.join(",")
}

fn id(running: &Running) -> Pid {
    Pid::from_raw(running.child.id().try_into().unwrap())
}

fn child_of(parent: Pid) -> Pid {
    eventually("serve has a child", PATIENCE, || {
        let all = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        Some(Pid::from_raw(all.split_whitespace().next()?.parse().ok()?))
    })
}

fn registrations(agent: &Agent) -> Vec<Value> {
    agent.get("/v1/registrations").as_array().unwrap().clone()
}

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

#[test]
fn serve_gives_a_process_a_name_until_it_ends() {
    in_namespace("signup::serve_gives_a_process_a_name_until_it_ends", || {
        let world = World::new();
        let mut one = serve(&world, "one", 8001, &[]);
        // There is no agent yet: it says so, and the command runs already.
        eventually("serve waits", PATIENCE, || {
            said(&world.path("one.log")).contains("waiting for one, 60 s at most").then_some(())
        });
        answered("http://127.0.0.1:8001/", "one");
        let agent = Agent::start_with(&world, &alone(&world));
        answered("http://hello.default/", "one");
        answered("http://hello.default:8001/", "one");
        answered("http://hello.default.svc.cluster.local/", "one");
        // Two of one name are balanced, per request.
        let mut two = serve(&world, "two", 8002, &[]);
        eventually("both answer", PATIENCE, || {
            (all_who_answer("http://hello.default/") == "one,two").then_some(())
        });
        // kill -9 of the command: serve ends as it ended, and signs it off at once.
        kill(child_of(id(&one)), Signal::SIGKILL).unwrap();
        assert_eq!(one.child.wait().unwrap().code(), Some(128 + 9));
        assert_eq!(registrations(&agent).len(), 1);
        assert_eq!(all_who_answer("http://hello.default/"), "two");
        // SIGTERM is passed on; nobody is left behind.
        let child = child_of(id(&two));
        kill(id(&two), Signal::SIGTERM).unwrap();
        assert_eq!(two.child.wait().unwrap().code(), Some(128 + 15));
        assert!(kill(child, None).is_err(), "the command is still there");
        assert_eq!(registrations(&agent).len(), 0);
        assert_eq!(asks("http://hello.default/"), "");
        // The exit code is the command's; $PORT is set.
        let ran = edgemesh("serve hello --port 8003 -- sh -c 'exit $((PORT - 8000))'");
        assert_eq!(ran.code, Some(3), "{}", ran.err);
    });
}

#[test]
fn kills_of_serve_and_of_the_agent() {
    in_namespace("signup::kills_of_serve_and_of_the_agent", || {
        let world = World::new();
        let agent = Agent::start_with(&world, &alone(&world));
        let one = serve_by(&world, "one", 8001, &["--ttl", "2s", "--check", "http:/healthz"], &[]);
        answered("http://hello.default/", "one");
        // The agent is killed and started again: serve signs up again by itself.
        agent.kill_all();
        eventually("serve notices", PATIENCE, || {
            said(&world.path("one.log")).contains("signing up again when it is back").then_some(())
        });
        let agent = Agent::start_with(&world, &alone(&world));
        answered("http://hello.default/", "one");
        // kill -9 of serve: its child goes on, nobody renews, the time to live removes it.
        let child = child_of(id(&one));
        kill(id(&one), Signal::SIGKILL).unwrap();
        assert_eq!(asks("http://127.0.0.1:8001/"), "one");
        eventually("it is forgotten", PATIENCE, || registrations(&agent).is_empty().then_some(()));
        assert_eq!(asks("http://hello.default/"), "");
        assert!(agent.log().contains("was not renewed in time"));
        // And again, with the agent killed in the same moment: the next start forgets it too.
        kill(child, Signal::SIGKILL).unwrap();
        let two = serve_by(&world, "two", 8002, &["--ttl", "2s"], &[]);
        answered("http://hello.default/", "two");
        let child = child_of(id(&two));
        kill(id(&two), Signal::SIGKILL).unwrap();
        agent.kill_all();
        let agent = Agent::start_with(&world, &alone(&world));
        eventually("it is forgotten", PATIENCE, || registrations(&agent).is_empty().then_some(()));
        kill(child, Signal::SIGKILL).unwrap();
        // Nobody there: it gives up in time, stops the command and says why.
        drop(agent);
        let ran = edgemesh("serve hello --port 8004 --wait 1s -- sleep 60");
        assert_eq!(ran.code, Some(1));
        assert!(ran.err.contains("no agent answers at http://127.0.0.1:15000"), "{}", ran.err);
    });
}

#[test]
fn what_is_exposed_stays_and_is_checked() {
    in_namespace("signup::what_is_exposed_stays_and_is_checked", || {
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

#[test]
fn mistakes_are_told() {
    in_namespace("signup::mistakes_are_told", || {
        let world = World::new();
        let _agent = Agent::start_with(&world, &alone(&world));
        for (line, code, want) in [
            ("expose hello", 2, "--to"),
            ("expose --to :80", 2, "NAME"),
            ("expose hello --to nowhere", 2, "HOST:PORT"),
            ("expose hello --to :80 --check ping", 2, "none of tcp"),
            ("expose hello --to :80 --ttl 2d", 2, "such as 90s"),
            ("expose Hello --to :80", 1, "service: `Hello` is no DNS label"),
            ("expose hello -n a.b --to :80", 1, "namespace: `a.b` is no DNS label"),
            ("expose hello --to 192.0.2.1:80", 1, "address: 192.0.2.1 is not an address of this"),
            ("expose hello --to 0.0.0.0:80", 1, "address: 0.0.0.0 is every address"),
            ("expose hello --to no.such.host.invalid:80", 1, "cannot resolve"),
            ("expose --remove hello", 1, "hello.default is not exposed here"),
            ("serve hello -- true", 2, "--port"),
            ("serve hello --port 80", 2, "CMD"),
            ("serve hello --port 80 -- /no/such/program", 1, "cannot start `/no/such/program`"),
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
    in_namespace("signup::registrations_join_services_of_other_sources", || {
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
        // A port that the Service does not have is told.
        let said = edgemesh("expose hello --to :8003 --port 81").out;
        assert!(said.contains("the Service has no TCP port 81; it has 80"), "{said}");
    });
}

#[test]
fn documents_ask_for_checks() {
    in_namespace("signup::documents_ask_for_checks", || {
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
    in_namespace("signup::programs_follow_the_agent_by_its_socket", || {
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
