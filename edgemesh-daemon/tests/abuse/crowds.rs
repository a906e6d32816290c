//! More connections than there is room for, slow ones, and very many short ones.

use std::time::Duration;

use nix::unistd::Pid;

use crate::agent::{Agent, PATIENCE, config, http};
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::wait::{eventually, throughout, timed};
use crate::raw::{End, Raw};
use crate::times;
use crate::world::{ONE, TWO, World};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: one.default\r\n\r\n";
/// Both ends of a kept call's latency in a debug build on a busy machine.
const WELL_WITHIN: Duration = Duration::from_secs(1);

/// Processor time so far.
fn cpu(pid: Pid) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

/// Open files.
fn files(pid: Pid) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn open(agent: &Agent) -> Option<u64> {
    agent.get("/v1/status")["flows"]["open"].as_u64()
}

/// How each of `all` fared: served, shed with a reset, or neither.
fn fates(all: &mut [Raw]) -> (usize, usize, Vec<String>) {
    let (mut served, mut shed, mut odd) = (0, 0, Vec::new());
    for raw in all.iter_mut() {
        raw.send(GET);
    }
    for raw in all {
        raw.stream().set_read_timeout(Some(Duration::from_secs(3))).unwrap();
        let mut head = [0; 12];
        match std::io::Read::read_exact(&mut raw.reader, &mut head) {
            Ok(()) if head == *b"HTTP/1.1 200" => served += 1,
            Ok(()) => odd.push(String::from_utf8_lossy(&head).into_owned()),
            Err(_) if raw.rest().1 == End::Open => odd.push("hangs".into()),
            Err(_) => shed += 1,
        }
    }
    (served, shed, odd)
}

#[test]
fn few_files_shed_and_recover() {
    in_namespace("crowds::few_files_shed_and_recover", || {
        let world = World::new();
        for (ip, name) in [(ONE, "one"), (TWO, "two")] {
            for port in 8080..8084 {
                Backend::start("", name, ip, port);
            }
        }
        for (number, port) in (8080..8084).enumerate() {
            let ip = format!("10.96.0.{}", 80 + number);
            world.service(
                &format!("s{number}"),
                &[&ip],
                &[&format!("http:80:{port}")],
                &[ONE, TWO],
            );
        }
        let mut agent = Agent::spawn(&world, &config(&world), &["prlimit", "--nofile=256:256"]);
        agent.wait_ready();
        for round in 0..3 {
            let connect = || Raw::try_connect("", "10.96.0.80:80").ok();
            let mut all: Vec<Raw> = (0..500).filter_map(|_| connect()).collect();
            let (served, shed, odd) = fates(&mut all);
            eprintln!("round {round}: served {served}, shed {shed}, {odd:?}");
            assert!(odd.is_empty() && served >= 60, "served {served}, shed {shed}, {odd:?}");
            let before = cpu(agent.worker());
            throughout(Duration::from_millis(500), || true);
            let spent = cpu(agent.worker()) - before;
            assert!(spent < Duration::from_millis(150), "{spent:?} while nothing happens");
            drop(all);
            eventually("all are gone", PATIENCE, || (open(&agent)? == 0).then_some(()));
        }
        // As many as fit to one Service after the other: what is kept for the last one must not
        // stand in the way of the next.
        for number in [0, 1, 2, 3, 0] {
            let at = format!("10.96.0.{}:80", 80 + number);
            let mut all: Vec<Raw> = (0..60).map(|_| Raw::connect("", &at)).collect();
            let (served, shed, odd) = fates(&mut all);
            let files = files(agent.worker());
            // A few may meet the ends of those before them.
            assert!(served >= 55, "{at}: served {served}, shed {shed}, {odd:?}, {files} files");
            drop(all);
            eventually("all are gone", PATIENCE, || (open(&agent)? == 0).then_some(()));
        }
        let log = agent.log();
        let complaints = log.matches("cannot accept").count();
        assert!(complaints < 20, "{complaints} complaints");
    });
}

#[test]
fn slow_and_idle_crowds_leave_room() {
    in_namespace("crowds::slow_and_idle_crowds_leave_room", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        let mut well = Raw::connect("pod", "10.96.0.80:80");
        assert_eq!(well.get("/").body, "one");
        let before = agent.resident();
        let connect = || Raw::connect("", "10.96.0.80:80");
        let idle: Vec<Raw> = (0..150 * times()).map(|_| connect()).collect();
        let mut slow: Vec<Raw> = (0..30 * times()).map(|_| connect()).collect();
        let (mut worst, mut all) = (Duration::ZERO, Vec::new());
        for byte in GET {
            for raw in &mut slow {
                raw.send(&[*byte]);
            }
            for _ in 0..10 {
                for at in ["kept", "new"] {
                    let (body, took) = timed(|| match at {
                        "kept" => well.get("/").body,
                        _ => connect().get("/").body,
                    });
                    assert_eq!(body, "one");
                    worst = worst.max(took);
                    all.push(took);
                }
            }
            if times() > 1 {
                throughout(Duration::from_secs(1), || true);
            }
        }
        for raw in &mut slow {
            assert_eq!(raw.answer("GET").body, "one");
        }
        all.sort();
        let grown = agent.resident().saturating_sub(before);
        let each = grown / (idle.len() + slow.len()) as u64;
        eprintln!(
            "p50 {:?} p99 {:?} worst {worst:?}; {grown} KiB, {each} each",
            all[all.len() / 2],
            all[all.len() * 99 / 100]
        );
        assert!(all[all.len() * 99 / 100] < WELL_WITHIN && worst < PATIENCE, "{worst:?}");
        assert!(grown < 16 * 1024 + 30 * (idle.len() + slow.len()) as u64, "{grown} KiB");
    });
}

/// A crowd that says nothing, or begins a request and never ends it, takes all the room there is:
/// whoever comes to be served gets the room of the oldest of them.
#[test]
fn the_idle_make_room_for_the_rest() {
    in_namespace("crowds::the_idle_make_room_for_the_rest", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &["http:80:8080"], &[ONE]);
        world.service("bytes", &["10.96.0.81"], &["tcp-x:80:8080"], &[ONE]);
        let mut agent = Agent::spawn(&world, &config(&world), &["prlimit", "--nofile=512:512"]);
        agent.wait_ready();
        let connect = |at| Raw::try_connect("", at).ok();
        let mut tunnel = Raw::connect("pod", "10.96.0.81:80");
        assert_eq!(tunnel.get("/").body, "one");
        let begin = |mut raw: Raw| {
            raw.send(&GET[..20]);
            raw
        };
        let slow: Vec<Raw> = (0..200).filter_map(|_| connect("10.96.0.80:80")).map(begin).collect();
        let idle: Vec<Raw> = (0..200).filter_map(|_| connect("10.96.0.80:80")).collect();
        // The crowd is all in: a call that comes among its connections may go with them.
        throughout(Duration::from_millis(500), || true);
        let mut all = Vec::new();
        for call in 0..50 {
            let (body, took) = timed(|| Raw::connect("pod", "10.96.0.80:80").get("/").body);
            assert_eq!(body, "one", "call {call}");
            all.push(took);
        }
        all.sort();
        eprintln!("p50 {:?} worst {:?}", all[all.len() / 2], all[all.len() - 1]);
        // Without room none would come through. One in ten may meet what else runs here.
        assert!(all[all.len() * 9 / 10] < WELL_WITHIN, "{all:?}");
        assert!(all[all.len() - 1] < PATIENCE, "{all:?}");
        // Nobody at work is sent away for them.
        assert_eq!(tunnel.get("/").body, "one");
        assert!(agent.metric("edgemesh_connections_shed_total", "") >= 200.0);
        drop((slow, idle));
    });
}

#[test]
fn pages_are_bounded() {
    in_namespace("crowds::pages_are_bounded", || {
        let world = World::new();
        let agent = Agent::start(&world);
        let before = files(agent.worker());
        let mut held = Vec::new();
        for (place, at) in [("pod", "10.1.0.1:15020"), ("", "127.0.0.1:15000")] {
            for _ in 0..300 {
                let Ok(mut raw) = Raw::try_connect(place, at) else { continue };
                raw.send(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-");
                held.push(raw);
            }
        }
        throughout(Duration::from_millis(300), || true);
        let more = files(agent.worker()) - before;
        assert!(more <= 128, "{more} files for connections that never ask");
        drop(held);
        eventually("it answers again", PATIENCE, || {
            (http("127.0.0.1:15020", "/readyz")?.0 == 200).then_some(())
        });
        eventually("nothing stays open", PATIENCE, || {
            (files(agent.worker()) <= before + 4).then_some(())
        });
    });
}

#[test]
fn short_connections_leave_nothing() {
    in_namespace("crowds::short_connections_leave_nothing", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        world.service("bytes", &["10.96.0.81"], &["tcp-x:80:8080"], &[ONE]);
        let agent = Agent::start(&world);
        let round = |count: usize| {
            for number in 0..count {
                let at = ["10.96.0.80:80", "10.96.0.81:80"][number % 2];
                match number % 10 {
                    0 => drop(Raw::connect("", at)),
                    _ => assert_eq!(Raw::connect("", at).get("/").body, "one"),
                }
            }
            eventually("all are gone", PATIENCE, || (open(&agent)? == 0).then_some(()));
            (files(agent.worker()), agent.resident())
        };
        let first = round(300);
        let last = round(1000 * times());
        eprintln!("{first:?} -> {last:?}");
        assert!(last.0 <= first.0 + 8, "files: {first:?} -> {last:?}");
        assert!(last.1 <= first.1 + 8 * 1024, "KiB: {first:?} -> {last:?}");
    });
}
