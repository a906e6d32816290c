//! The definitions of our kinds against the reader of manifests: what a folder takes, an API server takes.

mod cases;
mod cel;
mod documents;
mod judge;
mod keys;
mod kubeedge;
mod laws;
mod structure;

use std::path::{Path, PathBuf};

use edgemesh_core::manifests::parse;
use serde_json::Value;

/// The kinds, with their API versions.
const KINDS: [(&str, &str); 3] = [
    ("TrafficPolicy", "edgemesh.io/v1alpha1"),
    ("Rule", "rules.kubeedge.io/v1"),
    ("RuleEndpoint", "rules.kubeedge.io/v1"),
];

/// The root of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An object of that kind.
fn object(kind: &str, spec: Value) -> Value {
    let version = KINDS.iter().find(|(of, _)| *of == kind).expect("a kind of ours").1;
    serde_json::json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": { "name": "hello", "namespace": "default" },
        "spec": spec,
    })
}

/// Whether it is of one of our kinds.
fn is_ours(object: &Value) -> bool {
    let says = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    KINDS.contains(&(says("kind"), says("apiVersion")))
}

/// What the reader of manifests has against it; nothing where it makes a record of it.
fn rejected(object: &Value) -> Option<String> {
    let parsed = parse(Path::new("a.json"), &object.to_string());
    match &parsed.documents[..] {
        [_] => None,
        _ => Some(format!("{:?}", parsed.remarks)),
    }
}
