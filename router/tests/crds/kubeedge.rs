//! Beside KubeEdge: its names, its fields, and its objects as its API server gave them out.

use std::fs;
use std::path::Path;

use edgemesh_router::kubernetes::crds::{self, Condition, Reason, RuleStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::judge::{faults, schema};
use crate::rejected;

fn recorded(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/router");
    serde_json::from_slice(&fs::read(folder.join(name)).expect(name)).expect("JSON")
}

/// Name, version and parts of the definition are KubeEdge's; ours has a status that is kept.
#[test]
fn the_definition_takes_the_place_of_kubeedges() {
    let theirs = recorded("rule-crd-schema-summary.json");
    let ours = crds::all().into_iter().find(|crd| crd.spec.names.kind == "Rule").expect("a Rule");
    assert_eq!(ours.metadata.name.as_deref(), theirs["name"].as_str());
    let version = &ours.spec.versions[0];
    assert_eq!(theirs["storedVersions"], json!([version.name]));
    assert_eq!(theirs["versions"][0]["name"], *version.name);
    let schema = schema("Rule");
    let parts: Vec<_> = schema["properties"].as_object().expect("properties").keys().collect();
    assert_eq!(theirs["versions"][0]["schema_top_level_properties"], json!(parts));
    assert_eq!(theirs["versions"][0]["subresources"], Value::Null);
    assert!(version.subresources.as_ref().is_some_and(|parts| parts.status.is_some()));
}

/// Names by which people and programs ask for them, and the fields of its types with their types.
#[test]
fn names_and_fields_are_kubeedges() {
    let all = crds::all();
    let names = all.iter().map(|crd| {
        let names = &crd.spec.names;
        let short = names.short_names.as_deref().unwrap_or_default().join(",");
        (&*names.kind, &*names.plural, short, &*crd.spec.group, &*crd.spec.scope)
    });
    let want = [
        ("TrafficPolicy", "trafficpolicies", "tp".to_owned(), "edgemesh.io", "Namespaced"),
        ("Rule", "rules", String::new(), "rules.kubeedge.io", "Namespaced"),
        ("RuleEndpoint", "ruleendpoints", "re".to_owned(), "rules.kubeedge.io", "Namespaced"),
    ];
    assert_eq!(names.collect::<Vec<_>>(), want);
    for (kind, field, of) in [
        ("Rule", "/properties/spec/properties/source", "string"),
        ("Rule", "/properties/spec/properties/sourceResource", "object"),
        ("Rule", "/properties/spec/properties/target", "string"),
        ("Rule", "/properties/spec/properties/targetResource", "object"),
        ("Rule", "/properties/status/properties/successMessages", "integer"),
        ("Rule", "/properties/status/properties/failMessages", "integer"),
        ("Rule", "/properties/status/properties/errors", "array"),
        ("Rule", "/properties/status/properties/errors/items", "string"),
        ("RuleEndpoint", "/properties/spec/properties/ruleEndpointType", "string"),
        ("RuleEndpoint", "/properties/spec/properties/properties", "object"),
    ] {
        let schema = schema(kind);
        assert_eq!(schema.pointer(field).map(|field| &field["type"]), Some(&of.into()), "{field}");
    }
}

/// What was stored under KubeEdge's definition stays valid under ours.
#[test]
fn stored_objects_stay_valid() {
    let stored = recorded("rules-after-all-cases.json");
    let rules = stored["items"].as_array().expect("items");
    let schema = schema("Rule");
    for rule in rules {
        assert_eq!(faults(&schema, rule), [""; 0], "{}", rule["metadata"]["name"]);
        assert_eq!(rejected(rule), None);
        let typed: crds::Rule = serde_json::from_value(rule.clone()).expect("a Rule");
        assert_eq!(serde_json::to_value(typed.spec).expect("JSON"), rule["spec"]);
    }
    assert_eq!(rules.len(), 11);
}

/// A status as KubeEdge writes it, where its Go has no list, is one of ours; ours is one by its schema,
/// and says KubeEdge's three fields always, as KubeEdge does.
#[test]
fn a_status_is_read_and_written() {
    let theirs = json!({ "successMessages": 3, "failMessages": 1, "errors": null });
    let mut status: RuleStatus = serde_json::from_value(theirs).expect("a status");
    let want = json!({ "successMessages": 3, "failMessages": 1, "errors": [], "conditions": [] });
    assert_eq!(serde_json::to_value(&status).expect("JSON"), want);
    let moment = "2026-03-01T12:00:00Z".parse().expect("a time");
    status.observed_generation = Some(2);
    status.conditions =
        Reason::ALL.map(|reason| Condition::new(reason, "why", Some(2), Time(moment))).into();
    let written = serde_json::to_value(&status).expect("JSON");
    let schema = schema("Rule")["properties"]["status"].take();
    assert_eq!(faults(&schema, &written), [""; 0]);
    assert_eq!(serde_json::from_value::<RuleStatus>(written).expect("a status"), status);
}
