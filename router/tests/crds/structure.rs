//! What Kubernetes asks of a schema before it takes a definition, and what we ask of ours.

use edgemesh_router::kubernetes::crds;
use regex::Regex;
use serde_json::Value;

/// Every keyword that we use. All are allowed at any depth of a structural schema; `$ref`, `not`, `anyOf`,
/// `nullable`, `default` and the like are not among them.
const KEYWORDS: &[&str] = &[
    "description",
    "enum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maximum",
    "minLength",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];
/// Formats about which no API server warns.
const FORMATS: &[&str] = &["int32", "int64", "date-time"];

#[test]
fn schemas_are_structural() {
    for crd in crds::all() {
        let kind = &crd.spec.names.kind;
        let [version] = &crd.spec.versions[..] else { panic!("{kind} has one version") };
        assert!(version.served && version.storage);
        let schema = version.schema.as_ref().expect("a schema");
        let schema = serde_json::to_value(&schema.open_api_v3_schema).expect("JSON");
        assert_eq!(schema["type"], "object");
        assert!(schema["properties"].get("metadata").is_none(), "it is known to the server");
        node(&schema, kind);
    }
}

fn node(schema: &Value, path: &str) {
    let members = schema.as_object().expect("a schema is a map");
    for key in members.keys() {
        assert!(KEYWORDS.contains(&key.as_str()), "{path}: {key}");
    }
    let is_free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"]
        .iter()
        .any(|free| schema[free] == true);
    match schema["type"].as_str() {
        Some("object") => assert!(members.contains_key("properties"), "{path}"),
        Some("array") => {
            assert!(members.contains_key("x-kubernetes-list-type"), "{path}: how it is merged");
            node(&schema["items"], &format!("{path}[]"));
        }
        Some("string" | "boolean" | "integer") => {}
        Some(other) => panic!("{path}: {other}"),
        None => assert!(is_free, "{path} has no type"),
    }
    if let Some(format) = schema["format"].as_str() {
        assert!(FORMATS.contains(&format), "{path}: {format}");
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        Regex::new(pattern).expect(path);
    }
    rules(schema, path);
    let properties = schema["properties"].as_object();
    for (key, property) in properties.into_iter().flatten() {
        let path = format!("{path}.{key}");
        let said = property["description"].as_str().unwrap_or_default();
        assert!(said.len() > 8 && !said.contains(['[', '\n']), "{path}: `{said}` is no sentence");
        for word in property["enum"].as_array().into_iter().flatten() {
            assert!(
                said.contains(word.as_str().expect("a word")),
                "{path}: {word} is not explained"
            );
        }
        node(property, &path);
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        assert!(schema["properties"].get(key.as_str().expect("a key")).is_some(), "{path}: {key}");
    }
}

/// Rules read keys that are there, say what is wrong, and compute with texts that have a bound.
fn rules(schema: &Value, path: &str) {
    let member = Regex::new(r"self((?:\.[A-Za-z_]+)+)").expect("a pattern");
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        assert!(rule["message"].as_str().is_some_and(|said| said.len() > 8), "{path}");
        let text = rule["rule"].as_str().expect("a rule");
        for found in member.captures_iter(text) {
            let mut at = schema;
            for key in found[1].split('.').skip(1) {
                at = &at["properties"][key];
                // The server does not let rules see what has no type.
                let is_seen = at["type"].is_string() || at["x-kubernetes-int-or-string"] == true;
                assert!(is_seen, "{path}: `{key}` of `{text}`");
            }
        }
        if text.contains("duration(self)") {
            assert!(schema["maxLength"].is_u64(), "{path}: its cost has no bound");
        }
    }
}

/// The text says what the types say, also to who reads YAML 1.1, where `on` is an answer.
#[test]
fn files_are_the_definitions() {
    for ((name, text), crd) in crds::files().iter().zip(crds::all()) {
        let read: Value = serde_saphyr::from_str(text).expect("YAML");
        let (read, made) = (read.to_string(), serde_json::to_value(&crd).expect("JSON"));
        let read: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_json::from_str(&read).expect("a definition");
        assert_eq!(serde_json::to_value(read).expect("JSON"), made, "{name}");
        let bare = text.lines().map(str::trim).find(|line| {
            let key = line.trim_start_matches("- ").split(':').next().unwrap_or_default();
            ["on", "off", "yes", "no", "y", "n", "true", "false"].contains(&key)
        });
        assert_eq!(bare, None, "{name}");
        assert!(text.len() < 100_000, "kubectl keeps what it applied in an annotation");
    }
}
