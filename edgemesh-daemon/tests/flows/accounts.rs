//! Every flow has one account, however it ends: left, broken, silent, or without a server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use crate::agent::{Agent, PATIENCE};
use crate::backend::{Backend, reset};
use crate::common::namespace::{in_namespace, sh};
use crate::common::wait::{eventually, throughout, timed};
use crate::raw::{End, Raw};
use crate::world::{ONE, World, listen};

/// A tunnel through the explicit proxy to `name`, or the status that refuses it.
fn connect(name: &str) -> (Raw, u16) {
    let mut raw = Raw::connect("", "127.0.0.1:15001");
    raw.send(format!("CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n").as_bytes());
    let head = crate::backend::read_head(&mut raw.reader).expect("an answer");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    (raw, status)
}

fn open(agent: &Agent) -> u64 {
    agent.get("/v1/status")["flows"]["open"].as_u64().unwrap()
}

#[test]
fn a_drain_does_not_wait_for_the_silent() {
    in_namespace("accounts::a_drain_does_not_wait_for_the_silent", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.110"], &[":80:8080"], &[ONE]);
        world.service("http", &["10.96.0.112"], &["http-x:80:8080"], &[ONE]);
        let mut agent = Agent::start(&world);
        let silent = ["10.96.0.110:80", "10.96.0.112:80", "127.0.0.1:15001"];
        let mut silent: Vec<Raw> = silent.iter().map(|at| Raw::connect("", at)).collect();
        let mut idle = Raw::connect("", "10.96.0.110:80");
        assert_eq!(idle.get("/").status, 200);
        eventually("all are served", PATIENCE, || (open(&agent) == 4).then_some(()));
        agent.terminate();
        let (status, took) = timed(|| agent.wait());
        assert_eq!(status.code(), Some(0), "{}", agent.log());
        assert!(took < Duration::from_secs(10), "the drain took {took:?}");
        for raw in &mut silent {
            assert_ne!(raw.rest().1, End::Open);
        }
        agent.lines("the silent", 3, |line| line["outcome"] == "draining");
        agent.lines("all", 4, |_| true);
    });
}

#[test]
fn whoever_leaves_or_breaks_is_named() {
    in_namespace("accounts::whoever_leaves_or_breaks_is_named", || {
        let world = World::new();
        world.service("bytes", &["10.96.0.111"], &["tcp-x:7:7007"], &[ONE]);
        // One of two is dead; the other one answers.
        world.service("pair", &["10.96.0.113"], &["tcp-x:7:7007"], &[["10.4.0.3", ""], ONE]);
        world.service("far", &["10.96.0.114"], &["tcp-x:7:7007"], &[["10.1.0.77", ""]]);
        world.policy("far", "  timeouts: { connect: 1m }");
        // Nobody has this address of the link, so that what is sent there is lost.
        sh("ip neigh add 10.1.0.77 lladdr 02:00:00:00:09:09 dev pod0");
        let listener = listen("", "10.4.0.1:7007");
        let agent = Agent::start(&world);
        broken_tunnels(&agent, &listener);
        for _ in 0..4 {
            assert_eq!(connect("pair.default:7").1, 200, "another backend is tried");
            listener.accept().unwrap();
        }
        // A client that leaves while its backend is dialled.
        let mut raw = Raw::connect("", "127.0.0.1:15001");
        raw.send(b"CONNECT far.default:7 HTTP/1.1\r\nHost: far\r\n\r\n");
        eventually("it is dialled", PATIENCE, || {
            let all = agent.get("/v1/backends");
            let dialled =
                |b: &serde_json::Value| b["service"] == "far" && b["inFlight"].as_u64() == Some(1);
            all.as_array()?.iter().any(dialled).then_some(())
        });
        drop(raw);
        let line = &agent.lines("left", 1, |line| line["service"] == "default/far")[0];
        assert_eq!(line["outcome"], "cancelled", "{line}");
        assert_eq!(line["backend"], "10.1.0.77:7007", "{line}");
        // Silent ones and half a head: the explicit proxy, then a request that never becomes one.
        let before = agent.access().len();
        drop(Raw::connect("", "127.0.0.1:15001"));
        agent.lines("silent", before + 1, |_| true);
        let mut raw = Raw::connect("", "127.0.0.1:15001");
        raw.send(b"GET / HTTP/1.1\r\nHost: ");
        throughout(Duration::from_millis(50), || true);
        raw.stream().shutdown(Shutdown::Write).unwrap();
        raw.rest();
        let lines = agent.lines("half a head", before + 2, |_| true);
        assert_eq!(lines[before + 1]["outcome"], "cancelled", "{lines:#?}");
    });
}

/// Who breaks a tunnel, when, and its outcome.
const BREAKS: &[(&str, bool, &str)] = &[
    ("backend", true, "failed"),
    ("backend", false, "failed"),
    ("client", true, "cancelled"),
    ("nobody", true, "ok"),
];

fn broken_tunnels(agent: &Agent, listener: &TcpListener) {
    for (row, (who, after_words, outcome)) in BREAKS.iter().enumerate() {
        let (mut raw, status) = connect("bytes.default:7");
        assert_eq!(status, 200);
        let (mut far, _): (TcpStream, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(PATIENCE)).unwrap();
        raw.send(b"ping");
        far.read_exact(&mut [0; 4]).unwrap();
        if *after_words {
            far.write_all(b"answer").unwrap();
            raw.expect(b"answer");
        }
        match *who {
            "backend" => {
                reset(&far);
                drop(far);
                assert_eq!(raw.rest().1, End::Reset, "row {row}");
            }
            "client" => {
                reset(raw.stream());
                drop(raw);
                assert!(far.read(&mut [0; 1]).is_err(), "row {row}: the reset arrives");
            }
            _ => {
                drop(raw);
                assert_eq!(far.read(&mut [0; 1]).unwrap(), 0, "row {row}");
                drop(far);
            }
        }
        let lines = agent.lines(who, row + 1, |line| line["method"] == "CONNECT");
        let (line, down) = (&lines[row], if *after_words { 6 } else { 0 });
        assert_eq!(
            (&line["outcome"], &line["up"], &line["down"]),
            (&(*outcome).into(), &4.into(), &down.into()),
            "{line}"
        );
    }
}

#[test]
fn nobody_waits_for_a_dead_server() {
    in_namespace("accounts::nobody_waits_for_a_dead_server", || {
        let world = World::new();
        let dead = ["10.4.0.3", ""];
        world.service("half", &["10.96.0.115"], &[":25:7025"], &[dead, ONE]);
        world.service("dead", &["10.96.0.116"], &[":25:7025"], &[dead]);
        world.service("empty", &["10.96.0.117"], &[":25:7025"], &[]);
        let listener = listen("", "10.4.0.1:7025");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                stream.write_all(b"220 hello\r\n").ok();
            }
        });
        let agent = Agent::start(&world);
        // Until it is known that the server speaks first, and then.
        for _ in 0..8 {
            Raw::connect("", "10.96.0.115:25").expect(b"220 hello\r\n");
        }
        let retries = || agent.metric("edgemesh_retries_total", "");
        let before = retries();
        assert!(before > 0.0, "half of the first tries met the dead one");
        for (at, name, outcome) in
            [("10.96.0.116:25", "dead", "connectFailed"), ("10.96.0.117:25", "empty", "noBackend")]
        {
            let (end, took) = timed(|| Raw::connect("", at).rest().1);
            assert_eq!(end, End::Reset, "{name}");
            assert!(took < Duration::from_secs(5), "{name} took {took:?}");
            agent.lines(name, 1, |line| {
                line["service"] == format!("default/{name}") && line["outcome"] == outcome
            });
            assert_eq!(agent.metric("edgemesh_refusals_total", outcome), 1.0, "{name}");
        }
        assert_eq!(retries(), before, "nobody was left to try");
    });
}
