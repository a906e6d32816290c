//! The life of a Rule: paused, limited, overruled, changed, deleted, counted, explained.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::PATIENCE;
use crate::common::namespace::in_namespace;
use crate::common::run::{need, run};
use crate::common::wait::eventually;
use crate::nodes::{EDGEMESH, agent_again};
use crate::site::{EDGE, INGRESS, Site, named, rule};
use crate::world::{A1, CLOUD};

fn to_app(name: &str, source: &str) -> String {
    rule(name, ("my-rest", source), ("my-servicebus", "path: /target"))
}

fn at(path: &str) -> String {
    format!("{INGRESS}/{EDGE}/default/{path}")
}

#[test]
fn rules_are_paused_limited_and_overruled() {
    in_namespace("life::rules_are_paused_limited_and_overruled", || {
        need(&["curl"]);
        let limited = "path: /limited, qps: \"2\"";
        let manifests =
            [("a", to_app("first", "path: /a")), ("limited", to_app("limited", limited))];
        let site = Site::open(&manifests);
        paused(&site);
        limited_in_calls(&site);
        overruled(&site);
        deleted(&site);
    });
}

fn paused(site: &Site) {
    let paused = format!("{}  inUse: false\n", to_app("first", "path: /a"));
    let state = |state: &'static str| {
        move |rules: &[Value]| named(rules, "first").is_some_and(|rule| rule["state"] == state)
    };
    site.change("a", Some(&paused), state("paused"));
    let known = site.app.arrived().len();
    let (status, body) = site.ask(&at("a"));
    assert_eq!(status, 503, "{body}");
    let said: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&said["error"], &said["hop"]), (&"rule-paused".into(), &"cloud".into()), "{said}");
    assert_eq!(site.app.arrived().len(), known, "nothing was sent");
    site.change("a", Some(&to_app("first", "path: /a")), state("active"));
    assert_eq!(site.ask(&at("a")).0, 200);
}

fn limited_in_calls(site: &Site) {
    let known = site.app.arrived().len();
    let line = format!("-w '%{{http_code}} ' -o /dev/null {}", at("limited"));
    let ran = run(CLOUD.name, &format!("for i in 1 2 3 4 5 6; do curl -sS {line}; done"));
    assert!(ran.out.starts_with("200 200 429 "), "{ran:?}");
    let through = ran.out.matches("200").count();
    assert_eq!(site.app.arrived().len(), known + through, "what is refused is not sent");
    let head = site.curl(&format!("-i {} {}", at("limited"), at("limited"))).out.to_lowercase();
    assert!(head.contains("http/1.1 429") && head.contains("retry-after: 1"), "{head}");
    assert!(head.contains("a rate limit is spent: of rule default/limited"), "{head}");
}

fn overruled(site: &Site) {
    let elder = to_app("elder", "path: a/").replace(
        "{name: elder, namespace: default}",
        "{name: elder, namespace: default, creationTimestamp: \"2020-01-01T00:00:00Z\"}",
    );
    let elder = elder.replace("path: /target", "path: /elder");
    site.change("elder", Some(&elder), |rules| {
        let state = |name| named(rules, name).map(|rule| rule["state"].clone());
        state("first") == Some("overruled".into()) && state("elder") == Some("active".into())
    });
    assert_eq!(site.ask(&at("a")).1, "edge-app answers GET /elder");
    let table = site.cloud.sh(&format!("{EDGEMESH} get rules --admin http://127.0.0.1:15010"));
    assert!(table.out.contains("overruled"), "the second is reported: {table:?}");
    site.change("elder", None, |rules| named(rules, "elder").is_none());
}

fn deleted(site: &Site) {
    assert_eq!(site.ask(&at("a")).1, "edge-app answers GET /target");
    site.change("a", None, |rules| named(rules, "first").is_none());
    assert_eq!(site.ask(&at("a")).0, 404, "the next request finds no Rule");
    let missing = "a Rule that waits for its Endpoint";
    site.change("a", Some(&to_app("first", "path: /a")), |rules| named(rules, "first").is_some());
    eventually(missing, PATIENCE, || (site.ask(&at("a")).0 == 200).then_some(()));
}

/// `success_messages` and `fail_messages` of a Rule.
fn counts(rules: &Value, name: &str) -> Option<(u64, u64)> {
    let rule = named(rules.as_array()?, name)?;
    Some((rule["success_messages"].as_u64()?, rule["fail_messages"].as_u64()?))
}

#[test]
fn what_rules_count_is_kept_and_summed_up() {
    in_namespace("life::what_rules_count_is_kept_and_summed_up", || {
        need(&["curl"]);
        let source = format!("topic: up, node_name: {EDGE}");
        let url = "resource: \"http://127.0.0.1:7777/up\"";
        let mut site = Site::open(&[
            ("a", to_app("first", "path: /a")),
            ("up", rule("up", ("my-eventbus", &source), ("my-rest", url))),
        ]);
        for _ in 0..3 {
            assert_eq!(site.ask(&at("a")).0, 200);
        }
        (0..2).for_each(|i| site.broker.publish(&format!("-t default/up -q 1 -m {i}")));
        let both = |site: &Site, up: (u64, u64)| {
            let cloud = site.cloud.try_get("/v1/rules")?;
            let edge = site.edge.as_ref()?.try_get("/v1/rules")?;
            let all = (counts(&cloud, "first")?, counts(&cloud, "up")?, counts(&edge, "up")?);
            (all == ((3, 0), up, up)).then_some(())
        };
        eventually("all is counted, where it entered and in the cloud", PATIENCE, || {
            both(&site, (2, 0))
        });
        // Once a second it is stored.
        let stored = site.world.path(&format!("{EDGE}/meta.db"));
        eventually("counts are stored", PATIENCE, || {
            let query = "SELECT success_messages FROM rule WHERE name = 'up'";
            let database = rusqlite::Connection::open(&stored).ok()?;
            let count: i64 = database.query_row(query, [], |row| row.get(0)).ok()?;
            (count == 2).then_some(())
        });
        site.edge.take().unwrap().kill();
        site.edge = Some(agent_again(&site.world, A1));
        site.edge().wait_linked();
        site.broker.publish("-t default/up -q 1 -m again");
        eventually("counts survive a kill, and are not summed twice", PATIENCE, || {
            both(&site, (3, 0))
        });
        site.target.stop();
        site.broker.publish("-t default/up -q 1 -m lost");
        eventually("a failure is counted", PATIENCE, || both(&site, (3, 1)));
        explained(&site);
    });
}

/// What people see of a Rule whose target is down.
fn explained(site: &Site) {
    let rules = site.edge().get("/v1/rules");
    let rule = named(rules.as_array().unwrap(), "up").unwrap();
    assert_eq!(rule["state"], "degraded");
    assert!(rule["reason"].as_str().unwrap().contains("127.0.0.1:7777"), "{rule}");
    assert!(rule["since"].as_i64() > Some(0) && rule["last_success"].as_i64() > Some(0), "{rule}");
    assert!(rule["latency_ms"].as_f64() > Some(0.0), "{rule}");
    assert_eq!(rule["errors"].as_array().unwrap().len(), 1, "{rule}");
    assert_eq!(
        (&rule["source"]["type"], &rule["target"]["type"]),
        (&"eventbus".into(), &"rest".into())
    );
    let told = site.cloud.get("/v1/rules");
    let told = named(told.as_array().unwrap(), "up").unwrap();
    assert_eq!((&told["state"], &told["since"]), (&rule["state"], &rule["since"]), "{told}");
    assert!(told["reason"].as_str().unwrap().starts_with(&format!("on node {EDGE}: ")), "{told}");
    let both = format!("export COLUMNS=80; {EDGEMESH} get rules; {EDGEMESH} get endpoints");
    let ran = site.edge().sh(&both);
    assert!(ran.out.contains("degraded"), "{ran:?}");
    assert!(ran.out.trim_end().ends_with("Pod addresses: edgemesh get backends"), "{ran:?}");
    assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
    let ran = site.edge().sh(&format!("{EDGEMESH} explain rule up"));
    for part in ["topic default/up on node a1", "http://127.0.0.1:7777/up", "is active", "hub"] {
        assert!(ran.out.contains(part), "{part}: {ran:?}");
    }
    let file = site.world.write("payload", &"x".repeat(100));
    let line = format!(
        "{EDGEMESH} explain rule first --node {EDGE} --path /a/b?c --payload {}",
        file.display()
    );
    let ran = site.cloud.sh(&format!("{line} --admin http://127.0.0.1:15010"));
    for part in ["127.0.0.1:6666/target/b?c", "100 bytes of at most 12582912"] {
        assert!(ran.out.contains(part), "{part}: {ran:?}");
    }
    let ran =
        site.cloud.sh(&format!("{EDGEMESH} explain rule nope --admin http://127.0.0.1:15010"));
    assert!(ran.code == Some(1) && ran.err.contains("there is no Rule default/nope"), "{ran:?}");
}

#[test]
fn a_message_is_delivered_once_or_told() {
    in_namespace("life::a_message_is_delivered_once_or_told", || {
        need(&["curl"]);
        let mut site = Site::open(&[("a", to_app("first", "path: /a"))]);
        // The agent dies while the application has the request.
        let asking = std::thread::spawn(|| {
            run(CLOUD.name, &format!("curl -sS -m 25 -w '\\n%{{http_code}}' -d x {}", at("a/slow")))
        });
        site.app.after(0, 1);
        site.edge().signal(Signal::SIGKILL);
        let ran = asking.join().unwrap();
        let (body, status) = ran.out.rsplit_once('\n').unwrap();
        assert_eq!(status, "502", "{ran:?}");
        let said: Value = serde_json::from_str(body).unwrap();
        assert_eq!(said["rule"], "default/first", "{said}");
        assert!(said["hop"].as_str().unwrap().contains("a1"), "{said}");
        drop(site.edge.take());
        site.edge = Some(agent_again(&site.world, A1));
        site.edge().wait_linked();
        assert_eq!(site.ask(&at("a")).0, 200);
        let slow = site.app.arrived().into_iter().filter(|one| one.uri.contains("slow"));
        assert_eq!(slow.count(), 1, "what may have been done is not done again");
        // Refused before anything was sent: another Link, or the next request, may.
        let answers: Vec<_> = (0..20).map(|_| site.ask(&format!("-d x {}", at("a"))).0).collect();
        assert_eq!(answers, [200; 20]);
        assert_eq!(site.app.after(2, 20).len(), 20);
    });
}
