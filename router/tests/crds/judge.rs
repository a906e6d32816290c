//! What an API server has against an object: as much of its schemas as our definitions use.
//!
//! As there, a null under a known key counts as no key, and `status` of a written object is dropped.
//! Unknown keys are errors, as `kubectl` wants it; without that they are dropped.

use std::cell::RefCell;
use std::collections::HashMap;

use edgemesh_router::kubernetes::crds;
use regex::Regex;
use serde_json::{Map, Value};

use crate::cel;

/// The schema of a kind.
pub(crate) fn schema(kind: &str) -> Value {
    let crd = crds::all().into_iter().find(|crd| crd.spec.names.kind == kind).expect("a kind");
    let schema = crd.spec.versions[0].schema.as_ref().expect("a schema");
    serde_json::to_value(&schema.open_api_v3_schema).expect("JSON")
}

/// Everything that is wrong with an object, as `path: what`.
pub(crate) fn faults(schema: &Value, object: &Value) -> Vec<String> {
    let mut object = object.clone();
    if let Some(members) = object.as_object_mut() {
        let judged_elsewhere = ["apiVersion", "kind", "metadata", "status"];
        members.retain(|key, _| !judged_elsewhere.contains(&key.as_str()));
    }
    without_nulls(schema, &mut object);
    let mut faults = Vec::new();
    judge(schema, &object, "", &mut faults);
    faults
}

fn without_nulls(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(members) => {
            members
                .retain(|key, member| !member.is_null() || schema["properties"].get(key).is_none());
            members
                .iter_mut()
                .for_each(|(key, member)| without_nulls(&schema["properties"][key], member));
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| without_nulls(&schema["items"], item))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn judge(schema: &Value, value: &Value, path: &str, faults: &mut Vec<String>) {
    if !fits(schema, value) {
        faults.push(format!("{path}: {value} is no {}", schema["type"]));
        return;
    }
    if schema["type"].is_null() && schema["x-kubernetes-int-or-string"] != true {
        return; // anything may be in it
    }
    match value {
        Value::Object(members) => object(schema, members, path, faults),
        Value::Array(items) => {
            bounds(schema, ["minItems", "maxItems"], items.len() as f64, path, faults);
            for (index, item) in items.iter().enumerate() {
                judge(&schema["items"], item, &format!("{path}[{index}]"), faults);
            }
        }
        Value::String(text) => {
            bounds(schema, ["minLength", "maxLength"], text.chars().count() as f64, path, faults);
            if schema["pattern"].as_str().is_some_and(|pattern| !looks_so(pattern, text)) {
                faults.push(format!("{path}: `{text}` does not look so"));
            }
        }
        Value::Number(number) => {
            let number = number.as_f64().expect("a number");
            bounds(schema, ["minimum", "maximum"], number, path, faults);
        }
        Value::Null | Value::Bool(_) => {}
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        faults.push(format!("{path}: {value} is none of {}", schema["enum"]));
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        if cel::holds(rule["rule"].as_str().expect("a rule"), value) != Ok(true) {
            faults.push(format!("{path}: {}", rule["message"]));
        }
    }
}

/// Whether the text matches. Patterns are few, and compiled once a thread.
fn looks_so(pattern: &str, text: &str) -> bool {
    thread_local!(static KNOWN: RefCell<HashMap<String, Regex>> = RefCell::default());
    KNOWN.with_borrow_mut(|known| {
        if !known.contains_key(pattern) {
            known.insert(pattern.to_owned(), Regex::new(pattern).expect("a pattern"));
        }
        known[pattern].is_match(text)
    })
}

fn fits(schema: &Value, value: &Value) -> bool {
    let is_whole = value.is_i64() || value.is_u64();
    if schema["x-kubernetes-int-or-string"] == true {
        return is_whole || value.is_string();
    }
    match schema["type"].as_str() {
        None => schema["x-kubernetes-preserve-unknown-fields"] == true,
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => is_whole,
        Some(other) => panic!("no value of ours is a {other}"),
    }
}

fn object(schema: &Value, members: &Map<String, Value>, path: &str, faults: &mut Vec<String>) {
    bounds(schema, ["minProperties", "maxProperties"], members.len() as f64, path, faults);
    for key in schema["required"].as_array().into_iter().flatten() {
        let key = key.as_str().expect("a key");
        if !members.contains_key(key) {
            faults.push(format!("{path}.{key}: is missing"));
        }
    }
    for (key, member) in members {
        match schema["properties"].get(key) {
            Some(schema) => judge(schema, member, &format!("{path}.{key}"), faults),
            None if schema["x-kubernetes-preserve-unknown-fields"] == true => {}
            None => faults.push(format!("{path}.{key}: nobody knows this key")),
        }
    }
}

fn bounds(schema: &Value, [least, most]: [&str; 2], is: f64, path: &str, faults: &mut Vec<String>) {
    if schema[least].as_f64().is_some_and(|least| is < least) {
        faults.push(format!("{path}: {is} is below {}", schema[least]));
    }
    if schema[most].as_f64().is_some_and(|most| is > most) {
        faults.push(format!("{path}: {is} is above {}", schema[most]));
    }
}
