//! Uplinks that fail in each way there is, while the site goes on as if nothing had happened.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::PATIENCE;
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::wait::{eventually, throughout, timed};
use crate::load::Load;
use crate::nodes::{Node, agent, cloud};
use crate::raw::Raw;
use crate::world::{A1, A2, B1, B2, Cable, World};

/// How long each fault lasts, in seconds: longer than a Link takes to be known for dead.
/// `FAULT_SECONDS=60` is what the project promises.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the daemon's")]
fn lasts() -> Duration {
    let seconds = std::env::var("FAULT_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(12))
}

/// How long the other site may be away after a fault is over.
const HEALED_WITHIN: Duration = Duration::from_secs(10);

/// A fault, what makes it, and what ends it.
type Fault = (&'static str, fn(), fn());

/// Faults of the uplink of site A.
const FAULTS: &[Fault] = &[
    ("packets vanish", || Cable::SiteA.drop_packets(), || Cable::SiteA.pass_packets()),
    ("the cable is out", || Cable::SiteA.pull(), || Cable::SiteA.plug()),
    (
        "the cable is out, and no node has a default route",
        || {
            Cable::SiteA.pull();
            sh("for n in a1 a2; do ip -n $n route del default; done");
        },
        || {
            Cable::SiteA.plug();
            sh("for n in a1 a2; do ip -n $n route add default via 192.168.1.1; done");
        },
    ),
    ("connections are reset", || reset("-I"), || reset("-D")),
    (
        "nothing comes in",
        || drop(sh("iptables -I FORWARD -o wan-ra -j DROP")),
        || drop(sh("iptables -D FORWARD -o wan-ra -j DROP")),
    ),
];

/// Resets all that passes the router of site A, with `-I`; no more, with `-D`.
pub(crate) fn reset(verb: &str) {
    for side in ["-i", "-o"] {
        let reject = "-p tcp -j REJECT --reject-with tcp-reset";
        sh(&format!("iptables {verb} FORWARD {side} wan-ra {reject}"));
    }
}

/// Backends on both nodes of site A and one on the other site.
fn services(world: &World) {
    for (at, ip) in [(A1, "10.96.0.1"), (A2, "10.96.0.2"), (B1, "10.96.0.3")] {
        Backend::start(at.name, at.name, [at.ip, "::1"], 8080);
        world.service(&format!("at-{}", at.name), ip, "web:80:8080", &[at]);
    }
}

/// Waits until a call to the other site succeeds, and says how long that took.
#[track_caller]
fn reaches_the_other_site(a1: &Node, what: &str) {
    let before = a1.access().len();
    let ((), took) = timed(|| {
        eventually(&format!("a call to the other site: {what}"), HEALED_WITHIN, || {
            let mut raw = Raw::try_connect("a1", "10.96.0.3:80").ok()?;
            (raw.get("/").status == 200).then_some(())
        });
    });
    let back = |line: &Value| line["service"] == "default/at-b1" && line["status"] == 200;
    let via = a1.lines("a call to the other site", before, 1, back)[0]["via"].clone();
    assert!(via == "direct" || via == "hub", "{via}");
    println!("{what}: the other site is back {took:?} after it was healed, {via}");
}

/// Waits until calls within the site take a direct Link, which needs nobody else.
#[track_caller]
fn site_is_linked(a1: &Node, a2: &Node) {
    for (from, to, ip) in [(a1, "a2", "10.96.0.2"), (a2, "a1", "10.96.0.1")] {
        eventually(&format!("a direct Link to {to}"), PATIENCE, || {
            let before = from.access().len();
            assert_eq!(from.sh(&format!("curl -sS -m 5 http://{ip}/")).out, to);
            (from.lines("the call", before, 1, |_| true)[0]["via"] == "direct").then_some(())
        });
    }
}

#[test]
fn a_site_notices_no_fault_of_its_uplink() {
    in_namespace("faults::a_site_notices_no_fault_of_its_uplink", || {
        let world = World::new();
        services(&world);
        let _cloud = cloud(&world);
        let (a1, a2, _b1) = (agent(&world, A1), agent(&world, A2), agent(&world, B1));
        site_is_linked(&a1, &a2);
        for (what, begins, ends) in FAULTS {
            let load = Load::start(&[
                ("a1", "10.96.0.2:80"),
                ("a2", "10.96.0.1:80"),
                ("a1", "10.96.0.1:80"),
            ]);
            begins();
            throughout(lasts(), || true);
            // Names lead there, also with the name server away.
            let by_name = a1.sh("curl -sS -m 5 http://at-a2.default/");
            assert_eq!(by_name.out, "a2", "{what}: {by_name:?}");
            ends();
            reaches_the_other_site(&a1, what);
            let (calls, failed) = load.stop();
            println!("{what}: {} of {calls} calls failed", failed.len());
            assert!(failed.is_empty(), "{what}: {} of {calls}: {failed:#?}", failed.len());
            assert!(calls as u64 > lasts().as_secs() * 20, "{what}: only {calls} calls");
            a1.wait_linked();
            a2.wait_linked();
        }
    });
}

/// A peer that is there and says nothing: whoever calls it is told, and the others are served.
#[test]
fn a_peer_that_falls_silent() {
    in_namespace("faults::a_peer_that_falls_silent", || {
        let world = World::new();
        services(&world);
        let cloud = cloud(&world);
        let (a1, a2, b1) = (agent(&world, A1), agent(&world, A2), agent(&world, B1));
        site_is_linked(&a1, &a2);
        reaches_the_other_site(&a1, "at first");
        let load = Load::start(&[("a1", "10.96.0.2:80"), ("a2", "10.96.0.1:80")]);
        b1.signal(Signal::SIGSTOP);
        let mut raw = Raw::connect("a1", "10.96.0.3:80");
        raw.stream().set_read_timeout(Some(PATIENCE)).unwrap();
        let (status, took) = timed(|| raw.get("/").status);
        println!("a peer that is stopped: {status} after {took:?}");
        assert!(matches!(status, 502..=504), "{status}");
        let state = || cloud.get("/v1/nodes").as_array().unwrap().clone();
        eventually("the cloud knows that it is gone", PATIENCE, || {
            let nodes = state();
            let b1 = nodes.iter().find(|node| node["name"] == "b1")?;
            (b1["linked"] != true).then_some(())
        });
        b1.signal(Signal::SIGCONT);
        reaches_the_other_site(&a1, "a peer that was stopped");
        let (calls, failed) = load.stop();
        assert!(failed.is_empty(), "{} of {calls}: {failed:#?}", failed.len());
    });
}

/// Longest that a stop may take where nothing is under way.
const STOPS_WITHIN: Duration = Duration::from_secs(5);

/// An agent that is stopped lets what it serves end, and sends the rest elsewhere; then it is gone
/// at once, whatever Links it has.
#[test]
fn a_stop_harms_nobody() {
    in_namespace("faults::a_stop_harms_nobody", || {
        let world = World::new();
        services(&world);
        Backend::start("b2", "b2", [B2.ip, "::1"], 8080);
        world.service("pair", "10.96.0.9", "web:80:8080", &[B1, B2]);
        let cloud = cloud(&world);
        let (a1, b1, b2) = (agent(&world, A1), agent(&world, B1), agent(&world, B2));
        reaches_the_other_site(&a1, "at first");
        // Links of all kinds: b1 calls a1, which dials back.
        assert_eq!(b1.sh("curl -sS -m 5 http://at-a1.default/").out, "a1");
        let load = Load::start(&[("a1", "10.96.0.9:80")]);
        throughout(Duration::from_secs(1), || true);
        let ((), took) = timed(|| b1.stop());
        assert!(took < STOPS_WITHIN, "the agent took {took:?}");
        throughout(Duration::from_secs(1), || true);
        let b1 = agent(&world, B1);
        throughout(Duration::from_secs(1), || true);
        let (calls, failed) = load.stop();
        assert!(failed.is_empty(), "{} of {calls}: {failed:#?}", failed.len());
        let ((), took) = timed(|| cloud.stop());
        assert!(took < STOPS_WITHIN, "the cloud took {took:?}");
        for node in [a1, b1, b2] {
            let name = node.place.name;
            let ((), took) = timed(|| node.stop());
            assert!(took < STOPS_WITHIN, "{name} took {took:?}");
        }
    });
}
