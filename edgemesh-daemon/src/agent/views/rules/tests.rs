//! What is told of Endpoints and Rules: names, states and counts.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::io::now;
use edgemesh_core::manifests;
use edgemesh_core::snapshot::{Builder, Change};
use edgemesh_proto::record::{NodeName, RuleName};
use serde_json::{Value, json};

use super::*;

const TEXT: &str = "\
{type: rest, name: in}
---
{type: servicebus, name: app, namespace: shop, is_shared: true, properties: {service_port: 6666}}
---
{name: r, source: in, source_resource: {path: /a}, target: shop/app, target_resource: {path: /b, x: y}}
---
{name: s, source: in, source_resource: {path: /s}, target: gone}
---
{name: t, source: in, source_resource: {path: /t}, target: shop/app, in_use: false}
---
{name: u, source: in, source_resource: {path: u u}, target: shop/app}
---
{name: v, source: in, source_resource: {path: /a}, target: shop/app}
---
{name: w, source: in, source_resource: {path: /w}, target: shop/app, is_deleted: true}
";

fn builder() -> Builder {
    Builder::new(NodeName("edge-1".into()), None)
}

fn read(builder: &mut Builder, text: &str) -> Arc<Snapshot> {
    let parsed = manifests::parse(Path::new("a.yaml"), text);
    let put = parsed.documents.into_iter().flat_map(|document| document.records).collect();
    builder.apply(Change { put, ..Change::default() }, now())
}

fn snapshot() -> Arc<Snapshot> {
    read(&mut builder(), TEXT)
}

fn rule(snapshot: &Snapshot, name: &str) -> Arc<Rule> {
    snapshot.rules.get(&RuleName::new("default", name)).unwrap().clone()
}

#[test]
fn states_say_why() {
    let snapshot = snapshot();
    let states = |snapshot: &Snapshot| -> Vec<String> {
        let shown = |rule: RuleView| {
            let why = rule.reason.unwrap_or_default();
            format!("{} {}: {:.30}", rule.name, rule.state.word(), why)
        };
        rules(snapshot).into_iter().map(shown).collect()
    };
    let mut want = [
        "r active: ",
        "s waiting: target: there is no Endpoint d",
        "t paused: in_use is false",
        "u faulty: source: path:",
        "v overruled: Rule default/r takes the same:",
        "w deleted: is_deleted is true",
    ];
    let check = |snapshot: &Snapshot, want: &[&str]| {
        for (got, want) in states(snapshot).iter().zip(want) {
            assert!(got.starts_with(want), "{got}: {want}");
        }
    };
    check(&snapshot, &want);
    rule(&snapshot, "r").live.failed("no answer", 5);
    want[0] = "r degraded: no answer";
    check(&snapshot, &want);
    let told: Vec<_> = idle_rules(&snapshot, &[]).into_iter().map(|r| r.object).collect();
    assert_eq!(told, ["Rule default/s", "Rule default/u", "Rule default/v"]);
    let said = idle_rules(&snapshot, &[]);
    assert_eq!(idle_rules(&snapshot, &said), []);
}

#[test]
fn the_names_are_those_of_the_rule_table() {
    let snapshot = snapshot();
    let live = &rule(&snapshot, "r").live;
    live.failed("no answer", 5);
    live.failed("no answer", 6);
    live.delivered(Duration::from_millis(2), 7);
    let all = serde_json::to_value(rules(&snapshot)).unwrap();
    let shown = &all[0];
    let row: edgemesh_proto::rule::Rule = serde_json::from_value(shown.clone()).unwrap();
    assert_eq!((row.success_messages, row.fail_messages), (1, 2));
    assert_eq!(row.target.properties.get("service_port"), Some("6666"));
    let ours = json!({
        "namespace": "default",
        "state": "active",
        "reason": null,
        "since": null,
        "last_success": 7,
        "latency_ms": 2.0,
        "errors": [{"at": 5, "detail": "no answer"}, {"at": 6, "detail": "no answer"}],
        "notes": ["`x` means nothing to a Rule with servicebus"],
    });
    for (name, value) in ours.as_object().unwrap() {
        assert_eq!(&shown[name], value, "{name}");
    }
    assert_eq!((&all[1]["target"], &all[1]["source"]["name"]), (&Value::Null, &json!("in")));
    // What is told can be read again as a plain document.
    let again = manifests::parse(Path::new("a.json"), &shown.to_string());
    assert_eq!((again.remarks, again.documents.len()), (vec![], 1));
    let told = serde_json::to_value(endpoints(&snapshot)).unwrap();
    assert_eq!(told[1]["used_by"].as_array().unwrap().len(), 5);
    assert_eq!((&told[1]["is_shared"], &told[1]["namespace"]), (&json!(true), &json!("shop")));
    let again = manifests::parse(Path::new("a.json"), &told[1].to_string());
    assert_eq!((again.remarks, again.documents.len()), (vec![], 1));
    let _: edgemesh_proto::rule::Endpoint = serde_json::from_value(told[0].clone()).unwrap();
}

/// What was refused while a Rule was paused says nothing of how it fares afterwards.
#[test]
fn trouble_ends_with_what_caused_it() {
    let mut builder = builder();
    let state = |snapshot: &Snapshot| standing(&rule(snapshot, "r")).0;
    let paused = read(&mut builder, &TEXT.replace("path: /b, x: y}}", "path: /b}, in_use: false}"));
    assert_eq!(state(&paused), RuleState::Paused);
    rule(&paused, "r").live.failed("rule-paused", 5);
    let active = read(&mut builder, TEXT);
    assert_eq!((state(&active), rule(&active, "r").live.counts()), (RuleState::Active, (0, 1)));
    // What others say changes nothing of it.
    rule(&active, "r").live.failed("no answer", 6);
    let same = read(&mut builder, "{type: rest, name: other}");
    assert_eq!(state(&same), RuleState::Degraded);
    let moved = read(
        &mut builder,
        "{type: servicebus, name: app, namespace: shop, is_shared: true, properties: {service_port: 7}}",
    );
    assert_eq!(state(&moved), RuleState::Active);
}
