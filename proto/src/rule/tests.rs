//! Rows to JSON and back, sizes and ids of the rule table.

use serde_json::{Value, json};

use crate::record::Kind;
use crate::rule::{Endpoint, Rule, object_id, project_id, short_name};

fn endpoint(id: &str) -> Value {
    json!({
        "id": id, "type": "rest", "name": "web", "project_id": null, "is_shared": true,
        "properties": {"b": "2", "a": "1"}, "created_at": 1_700_000_000_000_i64, "updated_at": 5,
    })
}

fn rule() -> Value {
    json!({
        "id": "r", "name": "to-web", "project_id": "p", "domain_id": "", "source": endpoint("s"),
        "source_resource": {"path": "/a"}, "target": endpoint("t"),
        "target_resource": {"resource": "http://a"}, "in_use": true, "is_deleted": false,
        "created_at": 1, "updated_at": 2, "success_messages": u64::MAX, "fail_messages": 0,
    })
}

#[test]
fn rows_keep_their_json() {
    let row: Rule = serde_json::from_value(rule()).unwrap();
    assert_eq!(row.source.properties.to_json(), r#"{"a":"1","b":"2"}"#);
    assert_eq!(serde_json::to_value(&row).unwrap(), rule());
    let row: Endpoint = serde_json::from_value(endpoint("e")).unwrap();
    assert_eq!(serde_json::to_value(&row).unwrap(), endpoint("e"));
    let text = serde_json::to_string(&row).unwrap();
    let order = r#"{"id":"e","type":"rest","name":"web","project_id":null,"is_shared":true,"#;
    assert!(text.starts_with(order), "{text}");
}

#[test]
fn absent_members_have_the_defaults_of_the_columns() {
    let (mut short, mut full) = (rule(), rule());
    let absent = ["domain_id", "in_use", "is_deleted", "success_messages", "fail_messages"];
    for name in absent {
        short.as_object_mut().unwrap().remove(name);
    }
    full["success_messages"] = json!(0);
    let row: Rule = serde_json::from_value(short).unwrap();
    assert_eq!(serde_json::to_value(row).unwrap(), full);
}

/// Path of the member, its value, and how the error begins; none = it fits.
#[test]
fn sizes_and_shapes_are_checked() {
    let long = |n: usize| json!("x".repeat(n));
    // `{"k":"…"}` is eight bytes around the value.
    let map = |n: usize| json!({"k": "x".repeat(n - 8)});
    let rows = [
        ("/id", long(36), None),
        ("/id", long(37), Some("id: 37 bytes: 1 to 36")),
        ("/id", long(0), Some("id: 0 bytes: 1 to 36")),
        ("/id", json!(null), Some("id: is missing")),
        ("/name", long(64), None),
        ("/name", long(65), Some("name: 65 bytes: 1 to 64")),
        ("/project_id", long(37), Some("project_id: 37 bytes")),
        ("/domain_id", long(37), Some("domain_id: 37 bytes: 0 to 36")),
        ("/source_resource", map(1024), None),
        ("/source_resource", map(1025), Some("source_resource: 1025 bytes as JSON: at most 1024")),
        ("/target_resource", map(1025), Some("target_resource: 1025 bytes")),
        ("/source", json!(7), Some("source: not a JSON object")),
        ("/source/type", long(65), Some("source.type: 65 bytes: 1 to 64")),
        ("/source/properties", map(10240), None),
        ("/target/properties", map(10241), Some("target.properties: 10241 bytes as JSON")),
        ("/target/properties", json!({"a": 1}), Some("target.properties: invalid type")),
        ("/success_messages", json!(-1), Some("success_messages: invalid value")),
        ("/created_at", json!("today"), Some("created_at: invalid type")),
    ];
    for (path, value, want) in rows {
        let mut row = rule();
        *row.pointer_mut(path).unwrap() = value;
        let got = Rule::try_from(row).err().map(|error| error.to_string());
        match (&got, want) {
            (None, None) => {}
            (Some(got), Some(want)) if got.starts_with(want) => {}
            _ => panic!("{path}: got {got:?}, want {want:?}"),
        }
    }
}

#[test]
fn endpoints_of_other_projects_must_be_shared() {
    let rows = [
        (true, json!("q"), None),
        (false, json!("p"), None),
        (false, json!("q"), Some("target")),
        (false, json!(null), Some("target")),
    ];
    for (shared, project, want) in rows {
        let mut row = rule();
        row["target"]["is_shared"] = json!(shared);
        row["target"]["project_id"] = project;
        let got = Rule::try_from(row).unwrap().check_sharing().err();
        assert_eq!(got.as_ref().map(|error| &*error.field), want);
    }
}

#[test]
fn ids_of_objects_are_fixed() {
    let id = object_id(Kind::Rule, "default", "r");
    assert_eq!(id.as_str(), IDS[0]);
    assert_eq!(project_id("default").as_str(), IDS[1]);
    assert_ne!(id, object_id(Kind::Endpoint, "default", "r"));
}

/// Made with Python's `uuid.uuid5(uuid.uuid5(uuid.NAMESPACE_DNS, "edgemesh.io"), …)`.
const IDS: [&str; 2] =
    ["24affd41-5b2e-55a0-8723-2c66f6fea6bc", "16ddc96b-1c06-5685-97b6-53c2ed9b12c9"];

#[test]
fn long_names_are_shortened_with_a_hash() {
    let same = "n".repeat(64);
    assert_eq!(short_name(&same).unwrap().as_str(), same);
    let (one, two) = (short_name(&"n".repeat(65)).unwrap(), short_name(&"n".repeat(66)).unwrap());
    assert_eq!(one.as_str().len(), 64);
    assert!(one.as_str().starts_with(&format!("{}-", "n".repeat(55))));
    assert_ne!(one, two);
    assert_eq!(short_name(&"é".repeat(40)).unwrap().as_str().len(), 54 + 1 + 8);
    assert_eq!(short_name("").unwrap_err().field, "name");
}
