//! Snapshots that change fifty times a second under load: live state holds, and no request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use crate::agent::{Agent, PATIENCE};
use crate::backend::Backend;
use crate::common::namespace::in_namespace;
use crate::common::wait::{eventually, timed};
use crate::raw::Raw;
use crate::world::{ONE, TWO, World};

/// How long the load lasts.
const LOAD: Duration = Duration::from_secs(6);
const SWAPS_A_SECOND: u32 = 50;
const CLIENTS: usize = 4;

#[test]
fn fifty_swaps_a_second_harm_nobody() {
    in_namespace("swaps::fifty_swaps_a_second_harm_nobody", || {
        let world = World::new();
        let one = Backend::start("", "one", ONE, 8080);
        let two = Backend::start("", "two", TWO, 8080);
        let both = [ONE, TWO];
        world.service("load", &["10.96.0.53"], &[":80:8080"], &both);
        world.policy(
            "load",
            "  circuitBreaker: { consecutiveFailures: 3, ejectFor: 2m, maxEjectFor: 5m }\n  \
             retries: { attempts: 2, on: [connect, 503], budgetPercent: 100 }",
        );
        world.service("limited", &["10.96.0.54"], &[":80:8080"], &[ONE]);
        world.policy("limited", "  rateLimit: { client: { qps: 1, burst: 3, by: ip } }");
        let agent = Agent::start(&world);
        // One Backend is ejected, and one limit is spent.
        two.ill.store(true, SeqCst);
        let mut raw = Raw::connect("", "10.96.0.53:80");
        let state = || {
            let all = agent.get("/v1/backends");
            let of_two =
                |b: &&serde_json::Value| b["service"] == "load" && b["address"] == "10.4.0.2:8080";
            all.as_array().unwrap().iter().find(of_two).expect("it is known")["state"].clone()
        };
        eventually("the ill one is ejected", PATIENCE, || {
            assert_eq!(raw.get("/").status, 200, "the retry goes elsewhere");
            (state() == "rejects").then_some(())
        });
        two.ill.store(false, SeqCst);
        let mut limited = Raw::connect("", "10.96.0.54:80");
        let (calls_before, revision) = (two.counts().1, revision(&agent));

        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (stop, served) = (stop.clone(), served.clone());
                std::thread::spawn(move || {
                    let mut raw = Raw::connect("", "10.96.0.53:80");
                    while !stop.load(SeqCst) {
                        let answer = raw.get("/");
                        assert_eq!((answer.status, &*answer.body), (200, "one"));
                        served.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        let (mut granted, mut admin) = (0, Raw::connect("", "127.0.0.1:15000"));
        let (rounds, took) = timed(|| {
            let rounds = LOAD.as_secs() as u32 * SWAPS_A_SECOND;
            for round in 0..rounds {
                swap(&world, &mut admin, round);
                granted += usize::from(round % 5 == 0 && limited.get("/").status == 200);
                pause(Duration::from_secs(1) / SWAPS_A_SECOND);
            }
            rounds
        });
        stop.store(true, SeqCst);
        for client in clients {
            client.join().expect("no request failed");
        }
        let swaps = self::revision(&agent) - revision;
        let served = served.load(SeqCst);
        eprintln!("{rounds} changes in {took:?}: {swaps} revisions, {served} calls served");
        assert!(swaps >= u64::from(rounds) / 2, "only {swaps} Snapshots of {rounds} changes");
        assert!(served > 500, "{served} calls are no load");
        assert_eq!(state(), "rejects", "the ejection holds");
        assert_eq!(two.counts().1, calls_before, "and nobody was sent there");
        let most = 3 + took.as_secs() as usize + 1;
        assert!(granted >= 3 && granted <= most, "{granted} granted, {most} at most");
        assert!(one.counts().1 > served, "all went to the other one");
        let bad = agent
            .access()
            .into_iter()
            .filter(|line| line["service"] == "default/load" && line["outcome"] != "ok");
        assert_eq!(bad.count(), 0);
    });
}

fn revision(agent: &Agent) -> u64 {
    let page = agent.metrics();
    let line = page.lines().find(|line| line.starts_with("edgemesh_snapshot_revision "));
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).expect("a revision") as u64
}

/// Changes the Service under load: a third Backend that nobody may choose comes and goes, since
/// it is not ready. Files that change so often are read together, as many as come at once; what
/// is signed up on this machine changes the records each time.
fn swap(world: &World, admin: &mut Raw, round: u32) {
    let third = ["10.4.0.3", "fd04::3"];
    let with = [ONE, TWO, third];
    let backends = if round.is_multiple_of(2) { &with[..] } else { &with[..2] };
    let text = crate::world::service("load", &["10.96.0.53"], &[":80:8080"], backends);
    let text = text.replace(
        "addresses: [\"10.4.0.3\"], conditions: { ready: true }",
        "addresses: [\"10.4.0.3\"], conditions: { ready: false }",
    );
    world.manifest("load", &text);
    let body = format!("{{\"address\":\"127.0.0.1\",\"port\":{}}}", 9000 + round % 2);
    let head = "PUT /v1/registrations/default/own/one HTTP/1.1\r\nHost: 127.0.0.1:15000";
    admin.send(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let answer = admin.answer("PUT");
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// Spaces the changes out: the load is what is tested, not the clock.
fn pause(pause: Duration) {
    crate::common::wait::throughout(pause, || true);
}
