//! `cases.txt`: objects one by one, and what schema and reader say of them.

use serde_json::{Value, json};

use crate::judge::{faults, schema};
use crate::{object, rejected};

const CASES: &str = include_str!("cases.txt");

#[test]
fn schema_and_reader_judge_alike() {
    let mut kind = "";
    let mut against = Value::Null;
    for line in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (who, spec) = line.split_once(' ').expect("a word and a spec");
        let spec = spec.trim();
        if who == "kind" {
            (kind, against) = (spec, schema(spec));
            continue;
        }
        let spec = spec.replace("AAAAAAAAAA…1024", &"A".repeat(1024));
        let object = object(kind, whole(kind, serde_saphyr::from_str(&spec).expect(line)));
        let (faults, rejected) = (faults(&against, &object), rejected(&object));
        let is = match (faults.is_empty(), rejected.is_none()) {
            (true, true) => "both",
            (false, false) => "neither",
            (true, false) => "schema",
            (false, true) => "reader",
        };
        assert_eq!(is, who, "{kind} {spec}\n schema: {faults:?}\n reader: {rejected:?}");
    }
}

/// With what every object of the kind needs.
fn whole(kind: &str, mut spec: Value) -> Value {
    let usual = match kind {
        "TrafficPolicy" => json!({ "targetRef": { "kind": "Service", "name": "hello" } }),
        "Rule" => json!({ "source": "in", "target": "out" }),
        _ => json!({}),
    };
    for (key, value) in usual.as_object().expect("a map") {
        spec.as_object_mut().expect("a map").entry(key).or_insert_with(|| value.clone());
    }
    spec
}

/// At the bound of the list, and over it.
#[test]
fn sixty_four_callers_may_be_allowed() {
    let schema = schema("TrafficPolicy");
    for (callers, good) in [(64, true), (65, false)] {
        let allow = vec![json!({ "node": "edge" }); callers];
        let object = object("TrafficPolicy", whole("TrafficPolicy", json!({ "allow": allow })));
        assert_eq!(faults(&schema, &object).is_empty(), good, "{callers}");
        assert_eq!(rejected(&object).is_none(), good, "{callers}");
    }
}
