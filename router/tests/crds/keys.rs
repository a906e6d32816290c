//! The keys of the schemas are those that the reader of manifests knows, and those that Rules read.

use std::collections::BTreeSet;
use std::path::Path;

use edgemesh_core::manifests::parse;
use edgemesh_core::snapshot::rules::compile;
use edgemesh_proto::record::{Body, Endpoint, Rule, RuleName};
use serde_json::{Value, json};

use crate::judge::schema;
use crate::object;

/// A key that nobody knows, nor one that is near it.
const STRANGE: &str = "zzzzzzzzzzzz";

/// At every map of a spec whose keys the reader knows, it knows those of the schema and no others.
#[test]
fn the_reader_knows_the_same_keys() {
    let mut maps = 0;
    for kind in ["TrafficPolicy", "Rule", "RuleEndpoint"] {
        let schema = schema(kind);
        let mut paths = Vec::new();
        closed(&schema["properties"]["spec"], "/spec", &mut paths);
        for path in paths {
            let in_schema = keys(at(&schema, &path));
            assert_eq!(known(kind, &schema, &path), in_schema, "{kind} {path}");
            maps += 1;
        }
    }
    assert_eq!(maps, 15);
}

/// The maps of a schema in which only certain keys may be.
fn closed(schema: &Value, path: &str, into: &mut Vec<String>) {
    if schema["items"]["type"] == "object" {
        return closed(&schema["items"], &format!("{path}/0"), into);
    }
    if schema["type"] == "object" && schema.get("x-kubernetes-preserve-unknown-fields").is_none() {
        into.push(path.to_owned());
        for (key, property) in schema["properties"].as_object().expect("properties") {
            closed(property, &format!("{path}/{key}"), into);
        }
    }
}

/// The schema of what is at a path.
fn at<'s>(schema: &'s Value, path: &str) -> &'s Value {
    path.split('/').skip(1).fold(schema, |at, key| match key {
        "0" => &at["items"],
        key => &at["properties"][key],
    })
}

fn keys(schema: &Value) -> BTreeSet<String> {
    schema["properties"].as_object().expect("properties").keys().cloned().collect()
}

/// What the reader says it knows where it meets a strange key.
fn known(kind: &str, schema: &Value, path: &str) -> BTreeSet<String> {
    let mut object = object(kind, least(&schema["properties"]["spec"]));
    let (mut place, mut of) = (&mut object, schema);
    for key in path.split('/').skip(1) {
        if key == "0" {
            of = &of["items"];
            *place = json!([least(of)]);
            place = &mut place[0];
            continue;
        }
        of = &of["properties"][key];
        if place[key].is_null() {
            place[key] = least(of);
        }
        place = &mut place[key];
    }
    place[STRANGE] = json!(1);
    let parsed = parse(Path::new("a.json"), &object.to_string());
    let [remark] = &parsed.remarks[..] else { panic!("{path}: {:?}", parsed.remarks) };
    let (_, list) = remark.reason.split_once("known here: ").expect(&remark.reason);
    list.split(", ").map(str::to_owned).collect()
}

/// A value with nothing but what must be there.
fn least(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten();
            let pair = |key: &Value| {
                let key = key.as_str().expect("a key");
                (key.to_owned(), least(&schema["properties"][key]))
            };
            Value::Object(required.map(pair).collect())
        }
        Some("array") => json!([]),
        Some("integer") => json!(1),
        _ => schema["enum"].get(0).cloned().unwrap_or_else(|| json!("a")),
    }
}

/// Every key that a schema explains is read by a Rule, or an Endpoint, of some type.
#[test]
fn what_is_explained_is_read() {
    let all = ["rest", "eventbus", "servicebus", "service"];
    let unread = |map: &str, key: &str| -> bool {
        let mut notes = all.iter().map(|kind| notes(kind, map, key));
        notes.all(|notes| notes.iter().any(|note| note.starts_with(&format!("`{key}` "))))
    };
    let endpoint = schema("RuleEndpoint");
    let rule = schema("Rule");
    for (schema, map) in [
        (at(&rule, "/spec/sourceResource"), "sourceResource"),
        (at(&rule, "/spec/targetResource"), "targetResource"),
        (at(&endpoint, "/spec/properties"), "properties"),
    ] {
        for key in keys(schema) {
            assert!(!unread(map, &key), "{map}.{key}");
        }
        assert!(unread(map, STRANGE), "{map}");
    }
}

/// What is noted of a Rule whose source and target are of that type, and that says `key`.
fn notes(kind: &str, map: &str, key: &str) -> Vec<Box<str>> {
    let usual = |of: &str| match (of, map == of) {
        ("sourceResource", _) => json!({ "path": "/a", "topic": "a/b", "target_url": "http://a" }),
        ("targetResource", _) => json!({ "resource": "http://a", "topic": "c", "path": "/" }),
        _ => json!({ "service_port": "80" }),
    };
    let said = |of: &str| {
        let mut said = usual(of);
        if map == of {
            said.as_object_mut().expect("a map").insert(key.to_owned(), json!("1"));
        }
        said
    };
    let endpoint: Endpoint = match record(
        "RuleEndpoint",
        json!({
            "ruleEndpointType": kind, "properties": said("properties"),
        }),
    ) {
        Some(Body::Endpoint(endpoint)) => endpoint,
        // `service` beside a port, or a count that is none: read, and so no key without a meaning.
        _ => return Vec::new(),
    };
    let rule: Rule = match record(
        "Rule",
        json!({
            "source": "e", "target": "e",
            "sourceResource": said("sourceResource"), "targetResource": said("targetResource"),
        }),
    ) {
        Some(Body::Rule(rule)) => rule,
        other => panic!("{other:?}"),
    };
    compile(&RuleName::new("default", "r"), &rule, |_| Some(&endpoint)).notes
}

fn record(kind: &str, spec: Value) -> Option<Body> {
    let parsed = parse(Path::new("a.json"), &object(kind, spec).to_string());
    Some(parsed.documents.into_iter().next()?.records.into_iter().next()?.body)
}
