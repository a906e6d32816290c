//! `edgemesh serve`: a process has a name for as long as it lives, whoever is killed meanwhile.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::agent::{Agent, PATIENCE};
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{Ran, Running, run};
use crate::common::wait::eventually;
use crate::world::World;

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
pub(crate) fn alone(world: &World) -> String {
    let (data, services) = (world.path("data"), world.path("services"));
    format!("node: node-1\ndataDir: {}\nservices: {}\n", data.display(), services.display())
}

pub(crate) fn server(world: &World, name: &str, port: u16) -> Running {
    let (folder, port) = (world.folder().display().to_string(), port.to_string());
    let program = ["python3", "-c", SAYS, name, &port, &folder];
    Running::start("", &program, &world.path(&format!("{name}.log")))
}

/// `edgemesh serve NAME` with these options, around [`SAYS`]. A kill leaves nothing behind.
pub(crate) fn serve(world: &World, says: &str, port: u16, options: &[&str]) -> Running {
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

pub(crate) fn edgemesh(line: &str) -> Ran {
    run("", &format!("{EDGEMESH} {line}"))
}

/// Who answers at `url`; empty when nobody does.
pub(crate) fn asks(url: &str) -> String {
    run("", &format!("curl -sSf -m 3 {url}")).out
}

#[track_caller]
pub(crate) fn answered(url: &str, by: &str) {
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

pub(crate) fn registrations(agent: &Agent) -> Vec<Value> {
    agent.get("/v1/registrations").as_array().unwrap().clone()
}

pub(crate) fn said(log: &Path) -> String {
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
        // A third comes, and leaves under load: nobody notices.
        let mut third = serve(&world, "third", 8003, &[]);
        eventually("all three answer", PATIENCE, || {
            (all_who_answer("http://hello.default/") == "one,third,two").then_some(())
        });
        let load = std::thread::spawn(|| {
            let calls =
                "curl -sS -m 9 -o /dev/null -w '%{http_code}\\n' 'http://hello.default/?[1-600]'";
            run("", &format!("{calls} & {calls}; wait"))
        });
        eventually("it takes part", PATIENCE, || {
            let views = agent.get("/v1/backends");
            let views = views.as_array().unwrap();
            let third = views.iter().find(|v| v["address"] == "127.0.0.1:8003")?;
            (third["requests"].as_u64()? > 20).then_some(())
        });
        kill(id(&third), Signal::SIGTERM).unwrap();
        assert_eq!(third.child.wait().unwrap().code(), Some(128 + 15));
        let ran = load.join().unwrap();
        assert_eq!(ran.out.matches("200").count(), 1200, "{}", ran.err);
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
        // What cannot be started leaves nothing behind; exit codes are those of shells.
        for (command, code) in [("/no/such", 127), ("/etc/passwd", 126)] {
            let ran = edgemesh(&format!("serve hello --port 8004 -- {command}"));
            assert_eq!(ran.code, Some(code), "{}", ran.err);
            assert!(ran.err.contains(&format!("cannot start `{command}`")), "{}", ran.err);
            assert_eq!(registrations(&agent).len(), 0, "after {command}");
        }
    });
}

/// Names wait for capture, and the answer to a sign-up waits for names.
#[test]
fn who_is_told_may_call() {
    in_namespace("signup::who_is_told_may_call", || {
        let world = World::new();
        let agent = Agent::start_with(&world, &alone(&world));
        let _server = server(&world, "one", 8001);
        answered("http://127.0.0.1:8001/", "one");
        // Capture has something else to do, which takes it a second or two.
        sh("for p in ip ip6; do for b in '' -nft -legacy; do
                name=${p}tables$b-restore; real=$(command -v $name) || continue
                printf '#!/bin/sh\ntouch /run/busy\nsleep 0.7\nexec %s \"$@\"\n' $real > /run/first/$name
                chmod +x /run/first/$name
            done; done");
        world.write("agent.yaml", &format!("{}proxy: {{ excludePorts: [9] }}\n", alone(&world)));
        kill(agent.worker(), Signal::SIGHUP).unwrap();
        eventually("capture is busy", PATIENCE, || Path::new("/run/busy").exists().then_some(()));
        let ran = edgemesh("expose hello --to :8001");
        assert_eq!(ran.out, "hello.default leads to 127.0.0.1:8001\n", "{}", ran.err);
        assert_eq!(asks("http://hello.default/"), "one", "{}", agent.log());
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

/// Both agents take connections for a while, and each of them might forget.
#[test]
fn what_is_signed_up_during_a_hand_over_is_kept() {
    in_namespace("signup::what_is_signed_up_during_a_hand_over_is_kept", || {
        let world = World::new();
        let agent = Agent::start_with(&world, &alone(&world));
        let old = agent.worker();
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        let mut taken = Vec::new();
        let mut number = 0;
        eventually("another one serves", PATIENCE, || {
            number += 1;
            let at = format!("http://127.0.0.1:15000/v1/registrations/default/hello/a{number}");
            let put =
                format!("curl -sS -m 9 -w '%{{http_code}}' -X PUT {at} -d '{{\"port\": 8001}}'");
            let said = run("", &put).out;
            if said.ends_with("200") {
                taken.push(format!("a{number}"));
            }
            (agent.worker() != old && agent.children().len() == 1).then_some(())
        });
        let kept = registrations(&agent);
        let kept = |id: &String| kept.iter().any(|one| one["id"] == **id);
        assert!(taken.iter().all(kept), "{taken:?} were taken\n{}", agent.log());
        assert!(!taken.is_empty());
    });
}

/// By a hand-over, one that fails and one that succeeds: names lead on, and the socket answers.
#[test]
fn a_hand_over_keeps_what_is_signed_up() {
    in_namespace("signup::a_hand_over_keeps_what_is_signed_up", || {
        let world = World::new();
        let agent = Agent::start_with(&world, &alone(&world));
        let _one = serve(&world, "one", 8001, &["--ttl", "3s"]);
        answered("http://hello.default/", "one");
        let revision = || {
            let socket = world.path("data/mesh.sock");
            let line = format!("curl -sS -m 5 --unix-socket {} http://l", socket.display());
            let status = run("", &line.replace("http://l", "http://localhost/v1/status")).out;
            serde_json::from_str::<Value>(&status).ok()?["revision"].as_u64()
        };
        let old = agent.worker();
        let _taken = crate::world::listen("", "127.0.0.1:15999");
        world.write("agent.yaml", &format!("{}proxy: {{ port: 15999 }}\n", alone(&world)));
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        eventually("it fails", PATIENCE, || {
            agent.log().contains("the old one goes on").then_some(())
        });
        assert!(revision().is_some(), "the socket is still the old one's");
        assert_eq!(asks("http://hello.default/"), "one");
        // What is signed up afterwards counts.
        let two = serve(&world, "two", 8002, &["--ttl", "3s"]);
        eventually("both answer", PATIENCE, || {
            (all_who_answer("http://hello.default/") == "one,two").then_some(())
        });
        world.write("agent.yaml", &alone(&world));
        kill(agent.id(), Signal::SIGUSR2).unwrap();
        eventually("another one serves", PATIENCE, || {
            assert_ne!(asks("http://hello.default/"), "");
            (agent.worker() != old && revision().is_some()).then_some(())
        });
        drop(two);
        eventually("times to live are counted", PATIENCE, || {
            (registrations(&agent).len() == 1).then_some(())
        });
        assert_eq!(all_who_answer("http://hello.default/"), "one");
    });
}
