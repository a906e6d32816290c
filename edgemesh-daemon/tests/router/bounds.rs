//! What Rules must not get around, and what a caller must not make them do.

use std::time::Duration;

use serde_json::Value;

use crate::PATIENCE;
use crate::common::namespace::in_namespace;
use crate::common::run::{need, run};
use crate::common::wait::{eventually, timed};
use crate::site::{EDGE, INGRESS, Site, named, rule};
use crate::world::A1;

/// One request round a ring of Rules; more calls than that would be no bound.
const ROUNDS: usize = 8;

fn endpoint(name: &str, kind: &str, properties: &str) -> String {
    format!(
        "apiVersion: rules.kubeedge.io/v1\nkind: RuleEndpoint\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{ruleEndpointType: {kind}, properties: {{{properties}}}}}\n"
    )
}

fn at(path: &str) -> String {
    format!("'{INGRESS}/{EDGE}/default/{path}'")
}

/// Three Services, the second without anybody who answers, and the Rules of the tests below.
fn site() -> Site {
    let endpoints = [
        endpoint("alive", "service", ""),
        endpoint("dead", "service", ""),
        endpoint("two-ports", "service", ""),
        endpoint("paused", "service", ""),
        endpoint("admin", "servicebus", "service_port: \"15000\""),
        endpoint("cloud-admin", "rest", ""),
    ];
    let paused = format!("{}  inUse: false\n", rule("paused", ("paused", ""), ("alive", "")));
    let ring = format!("resource: \"{INGRESS}/{EDGE}/default/ring\", timeout: 20s");
    let cloud_admin = ("cloud-admin", "resource: \"http://127.0.0.1:15010/\"");
    let site = Site::open(&[
        ("endpoints-2", endpoints.join("---\n")),
        ("rule-dead", rule("to-dead", ("alive", "path: /v1"), ("dead", "path: /v2"))),
        ("topic", rule("topic", ("my-rest", "path: /t"), ("my-eventbus", "topic: t"))),
        ("app", rule("app", ("my-rest", "path: /a"), ("my-servicebus", "path: /target"))),
        ("admin", rule("admin", ("my-rest", "path: /admin"), ("admin", "path: /"))),
        ("cloud-admin", rule("cloud-admin", ("my-rest", "path: /cloud-admin"), cloud_admin)),
        ("ports", rule("ports", ("my-rest", "path: /ports"), ("two-ports", ""))),
        ("rule-paused", paused),
        ("ring", rule("ring", ("my-rest", "path: /ring"), ("my-rest", &ring))),
    ]);
    site.world.service("alive", "10.96.200.10", "http:80:6666", &[A1]);
    site.world.service("dead", "10.96.200.11", "http:80:6999", &[A1]);
    site.world.service("two-ports", "10.96.200.13", "one:81:6666 two:82:6666", &[A1]);
    site.world.service("paused", "10.96.200.14", "echo:7:6666", &[A1]);
    for node in [&site.cloud, site.edge()] {
        eventually("Services and Rules are known", PATIENCE, || {
            let services = node.try_get("/v1/services")?.to_string();
            let rules = node.try_get("/v1/rules")?.to_string();
            let has = |text: &str, names: &[&str]| names.iter().all(|name| text.contains(name));
            let known = has(&services, &["alive", "dead", "two-ports", "paused"])
                && has(&rules, &["to-dead", "topic", "cloud-admin", "ports", "paused", "ring"]);
            known.then_some(())
        });
    }
    site
}

#[test]
fn rules_keep_to_their_bounds() {
    in_namespace("bounds::rules_keep_to_their_bounds", || {
        need(&["curl", "nc"]);
        let site = site();
        a_retry_goes_nowhere_else(&site);
        the_mesh_itself_is_not_reached(&site);
        headers_of_brokers_are_not_forged(&site);
        who_expects_to_be_asked_does_not_wait(&site);
        a_port_is_named_where_there_are_several(&site);
        bytes_that_a_paused_rule_takes_are_counted(&site);
        a_ring_ends(&site);
    });
}

fn a_retry_goes_nowhere_else(site: &Site) {
    let known = site.app.arrived().len();
    let ran = run(EDGE, "curl -sS -m 10 -w ' %{http_code}' http://10.96.200.10/v1/x");
    assert!(ran.out.ends_with(" 503"), "{ran:?}");
    assert_eq!(site.app.arrived().len(), known, "the Service that was called is not the target");
}

fn the_mesh_itself_is_not_reached(site: &Site) {
    for path in ["admin/v1/status", "cloud-admin/v1/status"] {
        let (status, body) = site.ask(&at(path));
        assert!((500..600).contains(&status), "{path}: {status} {body}");
        assert!(!body.contains("revision"), "{path}: {body}");
        let said: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(said["error"], "loop", "{path}: {body}");
    }
}

fn headers_of_brokers_are_not_forged(site: &Site) {
    let forged = "-H 'x-edgemesh-topic: forged' -H 'x-edgemesh-retained: true'";
    assert_eq!(site.ask(&format!("{forged} {}", at("a/forged"))).0, 200);
    let arrived = site.app.arrived();
    let arrived = arrived.last().unwrap();
    assert_eq!(arrived.uri, "/target/forged");
    for name in ["x-edgemesh-topic", "x-edgemesh-retained"] {
        assert!(arrived.header(name).is_empty(), "{name}");
    }
}

fn who_expects_to_be_asked_does_not_wait(site: &Site) {
    let ask = || site.ask(&format!("-H 'Expect: 100-continue' -d hello {}", at("t")));
    let ((status, body), took) = timed(ask);
    assert_eq!(status, 200, "{body}");
    assert!(took < Duration::from_millis(900), "{took:?}: somebody waited a second for a 100");
}

fn a_port_is_named_where_there_are_several(site: &Site) {
    let (status, body) = site.ask(&at("ports"));
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("Service default/two-ports has several ports"), "{body}");
}

fn bytes_that_a_paused_rule_takes_are_counted(site: &Site) {
    let ran = run(EDGE, "printf '\\x01\\x02hello' | nc -N -w 3 10.96.200.14 7");
    assert_eq!(ran.out, "", "{ran:?}");
    eventually("the refused connection is counted on its Rule", PATIENCE, || {
        let rules = site.edge().try_get("/v1/rules")?;
        let paused = named(rules.as_array()?, "paused")?.clone();
        (paused["fail_messages"] == 1 && paused["errors"].as_array()?.len() == 1).then_some(())
    });
}

fn a_ring_ends(site: &Site) {
    let (status, body) = site.ask(&at("ring"));
    assert!(status >= 400, "{status} {body}");
    assert!(body.contains("loop"), "{body}");
    let rules = site.cloud.get("/v1/rules");
    let ring = named(rules.as_array().unwrap(), "ring").unwrap();
    let counted: Vec<_> =
        ["success_messages", "fail_messages"].map(|key| ring[key].as_u64().unwrap()).into();
    let calls = counted.iter().sum::<u64>();
    assert_eq!(calls, ROUNDS as u64 + 1, "{ring}");
}
