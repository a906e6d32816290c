//! Stops, crashes, changes and bursts: what a node lives through.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::agent::{Agent, PATIENCE};
use crate::backend::{Backend, reset};
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::run;
use crate::common::wait::{eventually, timed};
use crate::raw::{End, Raw};
use crate::world::{ONE, TWO, World, listen};

/// All that capture may touch: rules, chains that the kernel does not have by itself, routes,
/// devices.
fn traces() -> String {
    sh("for t in iptables ip6tables; do $t-save | grep '^-A\\|^:[^ ]* -' | sed 's/\\[.*\\]//' || :; done
        ip rule; ip route show table all | grep -v '^local\\|^broadcast\\|^anycast\\|^multicast'
        ip -6 route show table all | grep -v '^local\\|^anycast\\|^multicast'; ip -br link | cut -d' ' -f1")
}

fn serves(place: &str) -> bool {
    run(place, "curl -sS -m 5 http://one.default/").out == "one"
}

#[test]
fn stops_drain_and_leave_nothing() {
    in_namespace("life::stops_drain_and_leave_nothing", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.100"], &[":80:8080"], &[ONE]);
        world.service("slow", &["10.96.0.101"], &[":80:7009"], &[ONE]);
        sh("iptables -t nat -A OUTPUT -p tcp -d 203.0.113.1 -j REDIRECT --to-ports 9"); // somebody else's
        let before = traces();
        let (go, slow) = slow_server();
        let mut agent = Agent::start(&world);
        assert!(serves("") && serves("pod"));
        let mut download = Raw::connect("pod", "10.96.0.101:80");
        download.send(b"GET /download HTTP/1.1\r\nHost: slow.default\r\n\r\n");
        download.expect(b"HTTP/1.1 200 OK\r\n");
        agent.terminate();
        eventually("new connections are no longer captured", PATIENCE, || {
            (Raw::try_connect("", "10.96.0.100:80").is_err()).then_some(())
        });
        go.send(()).unwrap(); // only now the server sends the rest
        let (rest, _) = download.rest();
        assert_eq!(
            rest.len() - rest.find("\r\n\r\n").unwrap() - 4,
            10 << 20,
            "the download is whole"
        );
        let status = agent.wait();
        assert_eq!(status.code(), Some(0), "{}", agent.log());
        assert_eq!(traces(), before, "what the agent put in place is gone");
        slow.join().unwrap();
        agent.lines("the download", 1, |line| {
            line["service"] == "default/slow" && line["outcome"] == "ok"
        });
    });
}

/// Answers one request: the head at once, 10 MiB when told to.
fn slow_server() -> (std::sync::mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (go, wait) = std::sync::mpsc::channel();
    let listener = listen("", "10.4.0.1:7009");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).unwrap() > 0);
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nx", 10 << 20).unwrap();
        wait.recv().unwrap();
        stream.write_all(&vec![b'x'; (10 << 20) - 1]).unwrap();
    });
    (go, server)
}

#[test]
fn crashes_leave_no_black_hole() {
    in_namespace("life::crashes_leave_no_black_hole", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.100"], &[":80:8080"], &[ONE]);
        let clean = traces();
        let agent = Agent::start(&world);
        let with = traces();
        let first = agent.worker();
        kill(first, Signal::SIGKILL).unwrap();
        eventually("the guard starts another", PATIENCE, || {
            (serves("") && serves("pod") && agent.worker() != first).then_some(())
        });
        // Everything at once: what is left is adopted by the next start, not doubled.
        agent.kill_all();
        let mut agent = Agent::start(&world);
        assert!(serves("") && serves("pod") && serves("bare"));
        assert_eq!(traces(), with, "adopted");
        agent.terminate();
        assert_eq!(agent.wait().code(), Some(0), "{}", agent.log());
        assert_eq!(traces(), clean);
        // The guard alone: its child stops in order, since nobody would clean up after it.
        let agent = Agent::start(&world);
        assert!(serves("pod"));
        kill(agent.id(), Signal::SIGKILL).unwrap();
        eventually("nothing is left", PATIENCE, || (traces() == clean).then_some(()));
    });
}

/// How often a change is timed.
const ROUNDS: usize = 3;

#[test]
fn changes_are_live_and_survive() {
    in_namespace("life::changes_are_live_and_survive", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        let _two = Backend::start("", "two", TWO, 8080);
        world.service("one", &["10.96.0.100"], &[":80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        assert!(serves(""));
        // By the full name: the resolver asks for nothing else, which nobody could answer here.
        let ask = |name: &str| {
            run("pod", &format!("curl -sS -m 2 http://{name}.svc.cluster.local./")).out
        };
        let gone = || run("", "dig +short new.default.svc.cluster.local").out.is_empty();
        let put = |backend| world.service("new", &["10.96.0.102"], &[":80:8080"], &[backend]);
        type Step<'a> = (&'a str, &'a dyn Fn(), &'a dyn Fn() -> bool);
        let steps: [Step<'_>; 3] = [
            ("a new Service", &|| put(ONE), &|| ask("new.default") == "one"),
            ("a changed Service", &|| put(TWO), &|| ask("new.default") == "two"),
            ("a removed Service", &|| world.remove_manifest("new"), &gone),
        ];
        // Each within a second of the file, in the best of some rounds: what other programs take
        // of this machine differs from round to round, what the agent needs does not.
        let mut best = [Duration::MAX; 3];
        for _ in 0..ROUNDS {
            for ((what, change, done), best) in steps.iter().zip(&mut best) {
                change();
                let ((), took) = timed(|| eventually(what, PATIENCE, || done().then_some(())));
                *best = took.min(*best);
            }
        }
        assert!(best.iter().all(|took| *took < Duration::from_secs(1)), "{best:?}");
        // From the store alone.
        put(TWO);
        eventually("it is back", PATIENCE, || (ask("new.default") == "two").then_some(()));
        let before = agent.get("/v1/status")["revision"].as_u64();
        agent.kill_all();
        std::fs::rename(world.path("manifests"), world.path("away")).unwrap();
        let agent = Agent::start(&world);
        assert_eq!((ask("new.default"), ask("one.default")), ("two".into(), "one".into()));
        assert_eq!(agent.get("/v1/status")["revision"].as_u64(), before);
        // And it comes back to life with its folder.
        std::fs::rename(world.path("away"), world.path("manifests")).unwrap();
        world.service("newer", &["10.96.0.103"], &[":80:8080"], &[ONE]);
        eventually("the folder is followed again", PATIENCE, || {
            (ask("newer.default") == "one").then_some(())
        });
    });
}

/// Connections that are opened at once.
const BURST: usize = 2000;

#[test]
fn bursts_and_endings() {
    in_namespace("life::bursts_and_endings", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.100"], &[":80:8080"], &[ONE]);
        world.service("bytes", &["10.96.0.104"], &["tcp-x:7:7007"], &[ONE]);
        let listener = listen("", "10.4.0.1:7007");
        let agent = Agent::start(&world);
        let idle = agent.resident();
        let mut all: Vec<Raw> = (0..BURST).map(|_| Raw::connect("", "10.96.0.100:80")).collect();
        for raw in &mut all {
            raw.send(b"GET / HTTP/1.1\r\nHost: one.default\r\n\r\n");
        }
        for raw in &mut all {
            let answer = raw.answer("GET");
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        assert_eq!(agent.get("/v1/status")["flows"]["open"].as_u64(), Some(BURST as u64));
        drop(all);
        eventually("all are gone", PATIENCE, || {
            (agent.get("/v1/status")["flows"]["open"].as_u64()? == 0).then_some(())
        });
        let grown = agent.resident().saturating_sub(idle);
        assert!(grown < 100 * 1024, "{grown} KiB for {BURST} connections");
        assert!(serves("pod"));
        endings(&listener);
    });
}

/// Each side sees how the other ended: half-closes stay half, resets stay resets.
fn endings(listener: &std::net::TcpListener) {
    for place in ["", "pod"] {
        let open = || {
            let mut client = Raw::connect(place, "10.96.0.104:7");
            let (mut server, _) = listener.accept().unwrap();
            server.set_read_timeout(Some(PATIENCE)).unwrap();
            client.send(b"hi");
            let mut got = [0; 2];
            server.read_exact(&mut got).unwrap();
            server.write_all(b"ho").unwrap();
            client.expect(b"ho");
            (client, server)
        };
        // The client is done sending; the server goes on.
        let (mut client, mut server) = open();
        client.stream().shutdown(Shutdown::Write).unwrap();
        assert_eq!(server.read(&mut [0; 9]).unwrap(), 0);
        server.write_all(b"more").unwrap();
        client.expect(b"more");
        drop(server);
        assert_eq!(client.rest(), (String::new(), End::Closed));
        // The server is done sending; the client goes on.
        let (mut client, mut server) = open();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.reader.read(&mut [0; 9]).unwrap(), 0);
        client.send(b"more");
        let mut got = [0; 4];
        server.read_exact(&mut got).unwrap();
        drop(client);
        assert_eq!(server.read(&mut got).unwrap(), 0);
        // Either resets.
        let (mut client, server) = open();
        reset(&server);
        drop(server);
        assert_eq!(client.rest().1, End::Reset);
        let (client, mut server) = open();
        reset(client.stream());
        drop(client);
        assert_eq!(server.read(&mut got).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    }
}
