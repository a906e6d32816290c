//! What Rules make of messages for their targets, and what another node may say that they made.

use edgemesh_core::snapshot::rules::Rule;
use std::sync::Arc;

use crate::rule_records::{Map, Seat, endpoint, rule, snapshot};

type Side<'a> = (&'a str, Map<'a>);

/// The Rule from `source` to `target`.
fn made_of(source: Side<'_>, target: Side<'_>) -> Arc<Rule> {
    let all = vec![
        endpoint("web", "rest", &[]),
        endpoint("bus", "eventbus", &[]),
        endpoint("app", "servicebus", &[("service_port", "6666")]),
        endpoint("shop", "service", &[("service", "shop:80")]),
        endpoint("cart", "service", &[("service", "cart:80")]),
        rule("r", source, target),
    ];
    snapshot(Seat::Edge, all).rules.all().next().unwrap().clone()
}

const WEB: Side<'_> = ("web", &[("path", "/a")]);
const NAMED: Side<'_> = ("web", &[("path", "/d/{id}")]);
const BUS: Side<'_> = ("bus", &[("topic", "up")]);
const APPS: Side<'_> = ("app", &[("target_url", "http://x/y")]);
const SHOP: Side<'_> = ("shop", &[]);

/// Source, target, path and query of a request, and what becomes of them; `-` = it is not taken.
const ROWS: &[(Side<'_>, Side<'_>, &str, Option<&str>, &str)] = &[
    (WEB, ("app", &[("path", "/t")]), "/a/b", Some("x"), "/t/b?x"),
    (WEB, ("app", &[("path", "/t/")]), "/a", None, "/t/"),
    (WEB, ("app", &[("path", "/t")]), "/b", None, "-"),
    (WEB, ("app", &[("path", "/t")]), "/a/../../b", None, "-"),
    (WEB, ("app", &[("path", "/t")]), "/a/%2E./b", None, "-"),
    (WEB, ("app", &[("path", "/t")]), "/a/b/.", None, "-"),
    (WEB, ("app", &[("path", "/t")]), "/a/b.c/...", None, "/t/b.c/..."),
    (NAMED, ("app", &[("path", "/{id}/state")]), "/d/7/x", None, "/7/state/x"),
    (NAMED, ("app", &[("path", "/{id}/state")]), "/d/../x", None, "-"),
    (NAMED, ("app", &[("path", "/{id}/state")]), "/d/%2e%2e/x", None, "-"),
    (NAMED, ("bus", &[("topic", "{id}/state")]), "/d/7", None, "7/state"),
    (WEB, ("web", &[("resource", "http://c/t?k=v")]), "/a/b", Some("x"), "/t/b?k=v&x"),
    (WEB, ("shop", &[]), "/a/b", None, "/b"),
    (WEB, ("shop", &[]), "/a/../b", None, "-"),
    (SHOP, ("cart", &[]), "/a/../b", Some("x"), "/a/../b?x"),
    (SHOP, ("cart", &[("path", "/t")]), "/a/../b", None, "-"),
    (SHOP, ("app", &[("path", "/t")]), "/../b", None, "-"),
    (BUS, ("app", &[("path", "/t")]), "/b", Some("x"), "/t"),
    (APPS, ("web", &[("resource", "http://c/t?k=v")]), "/", None, "/t?k=v"),
];

#[test]
fn what_becomes_of_a_message() {
    for (source, target, path, query, want) in ROWS {
        let made = made_of(*source, *target).onto_target(path, *query);
        assert_eq!(made.as_deref().unwrap_or("-"), *want, "{source:?} {target:?} {path}");
    }
}

/// Source, target, what another node says that it made, and whether that can be.
const SAID: &[(Side<'_>, Side<'_>, &str, bool)] = &[
    (BUS, ("app", &[("path", "/target")]), "/target", true),
    (BUS, ("app", &[("path", "/target")]), "/targetsecret", false),
    (BUS, ("app", &[("path", "/target")]), "/target/b", false),
    (BUS, ("app", &[("path", "/target")]), "/target/../admin", false),
    (BUS, ("app", &[("path", "/target")]), "/target?x=1", false),
    (BUS, ("web", &[("resource", "http://c/t?k=v")]), "/t?k=v", true),
    (BUS, ("web", &[("resource", "http://c/t?k=v")]), "/t", false),
    (BUS, ("web", &[("resource", "http://c/t?k=v")]), "/t?k=v&x", false),
    (BUS, ("web", &[("resource", "http://c/t?")]), "/t", true),
    (APPS, ("app", &[]), "/", true),
    (APPS, ("app", &[]), "/x", false),
    (APPS, ("bus", &[("topic", "t/u")]), "t/u", true),
    (APPS, ("bus", &[("topic", "t/u")]), "t/u/v", false),
    (APPS, ("bus", &[("topic", "t/u")]), "t/u?x", false),
    (WEB, ("app", &[("path", "/t")]), "/t/b?x", true),
    (WEB, ("app", &[("path", "/t")]), "/tb", false),
    (WEB, ("app", &[("path", "/t")]), "/t/%2e%2E/b", false),
    (WEB, ("app", &[("path", "/")]), "/b", true),
    (WEB, ("app", &[("path", "/")]), "/../b", false),
    (WEB, ("web", &[("resource", "http://c/t?k=v")]), "/t?k=v&x", true),
    (WEB, ("web", &[("resource", "http://c/t?k=v")]), "/t?k=w", false),
    (WEB, ("web", &[("resource", "http://c/t?k=v")]), "/t?k=vx", false),
    (WEB, ("bus", &[("topic", "t?u/v")]), "t?u/v/w?x/../y", true),
    (WEB, ("bus", &[("topic", "t?u/v")]), "t?u/../v", false),
    (NAMED, ("app", &[("path", "/{id}/state")]), "/7/state", true),
    (NAMED, ("app", &[("path", "/{id}/state")]), "/7/state/x", true),
    (NAMED, ("app", &[("path", "/{id}/state")]), "/7/secret", false),
    (NAMED, ("app", &[("path", "/{id}/state")]), "/../state", false),
    (NAMED, ("app", &[("path", "/{id}/state")]), "/../../whatever", false),
    (NAMED, ("app", &[("path", "/{id}/state")]), "//state", false),
    (NAMED, ("app", &[("path", "/{id}/x/{id}")]), "/7/x/7", true),
    (NAMED, ("app", &[("path", "/{id}/x/{id}")]), "/7/x/8", false),
    (NAMED, ("bus", &[("topic", "{id}/state")]), "7/state", true),
    (NAMED, ("bus", &[("topic", "{id}/state")]), "7/secret", false),
    (SHOP, ("cart", &[]), "/", false),
];

/// Whether `rule` could make `made`, which for a topic is all of it.
fn could(rule: &Rule, made: &str, is_topic: bool) -> bool {
    match made.split_once('?').filter(|_| !is_topic) {
        Some((path, query)) => rule.could_make(path, Some(query)),
        None => rule.could_make(made, None),
    }
}

#[test]
fn what_another_node_may_have_made() {
    for (source, target, said, want) in SAID {
        let got = could(&made_of(*source, *target), said, target.0 == "bus");
        assert_eq!(got, *want, "{source:?} {target:?} {said}");
    }
}

#[test]
fn what_a_rule_makes_it_could_make() {
    let sources = [WEB, NAMED, BUS, APPS, SHOP, ("web", &[("path", "/")])];
    let targets: [Side<'_>; 14] = [
        ("app", &[]),
        ("app", &[("path", "/t")]),
        ("app", &[("path", "/t/u//")]),
        ("app", &[("path", "/{id}/x/{id}")]),
        ("app", &[("path", "/../t")]),
        ("bus", &[("topic", "t")]),
        ("bus", &[("topic", "/t/")]),
        ("bus", &[("topic", "{id}/state")]),
        ("bus", &[("topic", "what?/{id}")]),
        ("bus", &[("topic", "what?")]),
        ("web", &[("resource", "http://c")]),
        ("web", &[("resource", "http://c/t/?")]),
        ("web", &[("resource", "http://c/t/?k=v")]),
        ("web", &[("resource", "http://c/{id}?k=v&k")]),
    ];
    let paths = ["/", "/a", "/a/", "/a//", "/a/b/c/", "/d/7", "/d/7/", "/d/%20", "//"];
    let mut made = 0;
    for (source, target) in sources.iter().flat_map(|s| targets.iter().map(move |t| (*s, *t))) {
        let rule = made_of(source, target);
        for (path, query) in
            paths.iter().flat_map(|p| [(p, None), (p, Some("x=/../?")), (p, Some(""))])
        {
            let Ok(got) = rule.onto_target(path, query) else { continue };
            if rule.target.is_some() {
                made += 1;
                assert!(
                    could(&rule, &got, target.0 == "bus"),
                    "{source:?} {target:?} {path} {got}"
                );
            }
        }
    }
    assert!(made > 1000, "{made}");
}

/// Rules from topic to topic, as `source target`, and what stands in the way of each.
const TOPICS: &[(Map<'_>, &[&str])] = &[
    (
        &[("x", "default/x")],
        &["its target is a topic that it takes: a message would go round for ever"],
    ),
    (&[("x", "x")], &[""]),
    (&[("#", "default/x/y")], &["its target is a topic that it takes"]),
    (
        &[("x", "default/y"), ("y", "default/x"), ("z", "default/x")],
        &["messages would go round: default/r0 → default/r1 → default/r0", "default/r1 → ", ""],
    ),
    (&[("x", "default/y"), ("y", "default/z")], &["", ""]),
];

#[test]
fn messages_do_not_go_round() {
    for (topics, want) in TOPICS {
        let mut all = vec![endpoint("bus", "eventbus", &[])];
        for (at, (from, to)) in topics.iter().enumerate() {
            let (source, target) = ([("topic", *from)], [("topic", *to)]);
            all.push(rule(&format!("r{at}"), ("bus", &source), ("bus", &target)));
        }
        let snapshot = snapshot(Seat::Edge, all);
        let got: Vec<_> = snapshot.rules.all().map(|rule| rule.standing.to_string()).collect();
        for (got, want) in got.iter().zip(*want) {
            let as_wanted = if want.is_empty() { got == "active" } else { got.contains(want) };
            assert!(as_wanted, "{topics:?}: {got}");
        }
    }
}
