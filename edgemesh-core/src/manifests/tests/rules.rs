//! Rules and Endpoints: as KubeEdge writes them, as plain documents, and what is said of them.

use std::path::Path;

use edgemesh_proto::record::{Body, Endpoint, EndpointName, Kind, Record, Rule};
use edgemesh_proto::rule::{object_id, project_id};
use tempfile::TempDir;

use crate::manifests::tests::{body, records, shown, yaml};
use crate::manifests::{Observed, read};

/// Line, field and a part of the reason.
type Want = (u32, &'static str, &'static str);

fn endpoint(text: &str) -> Endpoint {
    let Body::Endpoint(endpoint) = body(text) else { panic!("no Endpoint: {text}") };
    endpoint
}

fn rule(text: &str) -> Rule {
    let Body::Rule(rule) = body(text) else { panic!("no Rule: {text}") };
    rule
}

/// What a folder with this one file says.
fn observed(text: &str) -> Observed {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("a.yaml"), text).unwrap();
    read(&[folder.path().to_owned()])
}

/// Keys, and Remarks.
fn told(text: &str) -> (Vec<String>, Vec<String>) {
    let observed = observed(text);
    let keys = observed.records.keys().map(ToString::to_string).collect();
    (keys, observed.remarks.iter().map(shown).collect())
}

fn refused(rows: &[(&str, Want)]) {
    for (text, (line, field, reason)) in rows {
        let parsed = yaml(text);
        assert_eq!(parsed.documents, [], "{text}");
        let [remark] = &parsed.remarks[..] else { panic!("{:?}\n{text}", parsed.remarks) };
        assert_eq!((remark.line, &*remark.field), (*line, *field), "{remark:?}\n{text}");
        assert!(remark.reason.contains(reason), "{remark:?}\n{text}");
    }
}

/// A RuleEndpoint whose spec begins at line 4.
fn rule_endpoint(spec: &str) -> String {
    format!(
        "apiVersion: rules.kubeedge.io/v1\nkind: RuleEndpoint\nmetadata: {{name: e}}\nspec:\n{spec}\n"
    )
}

const RULE: &str = "apiVersion: rules.kubeedge.io/v1\nkind: Rule\n";

/// Everything that KubeEdge's router was given is accepted, and nothing is to be said of it but of a
/// topic with wildcards on which it would publish nothing.
#[test]
fn objects_of_kubeedge() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/router");
    let observed = read(&[folder]);
    let count = |kind| observed.records.keys().filter(|key| key.kind == kind).count();
    assert_eq!((count(Kind::Endpoint), count(Kind::Rule), observed.records.len()), (4, 11, 15));
    let remarks: Vec<_> = observed.remarks.iter().map(shown).collect();
    let [topic] = &remarks[..] else { panic!("{remarks:#?}") };
    assert!(
        topic.starts_with("note 7 Rule default/rest-eventbus-wildcard [spec.target]"),
        "{topic}"
    );
    let Some(Record { body: Body::Rule(rule), .. }) = observed
        .records
        .values()
        .find(|record| record.kind() == Kind::Rule && &*record.name == "servicebus-rest")
    else {
        panic!("no such Rule")
    };
    assert_eq!(rule.source, EndpointName::new("default", "my-servicebus"));
    assert_eq!(rule.source_resource.get("target_url"), Some("http://127.0.0.1:7777/key"));
    assert_eq!((rule.in_use, rule.is_deleted), (true, false));
}

#[test]
fn ids_and_times_are_those_of_the_object() {
    let read = endpoint(
        "apiVersion: rules.kubeedge.io/v1\nkind: RuleEndpoint\nmetadata: {name: e, namespace: n, \
         creationTimestamp: '2026-03-01T12:00:00Z'}\nspec:\n  ruleEndpointType: servicebus\n  \
         properties: {service_port: 6666, node_name: edge-1, x: true, y: 1.50}\nstatus: {a: b}\n",
    );
    assert_eq!(read.id, object_id(Kind::Endpoint, "n", "e"));
    assert_eq!(read.project_id, Some(project_id("n")));
    assert_eq!((read.created_at, read.updated_at), (1_772_366_400_000, 1_772_366_400_000));
    assert_eq!((read.endpoint_type.as_str(), read.is_shared), ("servicebus", false));
    let pairs: Vec<_> = read.properties.iter().collect();
    let want = [("node_name", "edge-1"), ("service_port", "6666"), ("x", "true"), ("y", "1.5")];
    assert_eq!(pairs, want);
    let read = rule(&format!(
        "{RULE}metadata: {{name: r, namespace: n}}\nspec: {{source: e, target: m/f, \
         sourceResource: {{path: /a}}, targetResource: {{}}}}\nstatus: {{successMessages: 5}}\n"
    ));
    assert_eq!((read.id, read.project_id), (object_id(Kind::Rule, "n", "r"), project_id("n")));
    assert_eq!(read.source, EndpointName::new("n", "e"));
    assert_eq!(read.target, EndpointName::new("m", "f"));
    assert_eq!((read.created_at, read.in_use), (0, true));
}

/// Rules are paused and Endpoints shared by a key, and by an annotation where CRDs drop the key.
#[test]
fn pausing_and_sharing() {
    for (metadata, spec, want) in [
        ("", "", true),
        ("", ", inUse: false", false),
        ("", ", inUse: true", true),
        (", annotations: {edgemesh.io/in-use: 'false'}", "", false),
        (", annotations: {edgemesh.io/in-use: 'true'}", "", true),
        (", annotations: {edgemesh.io/in-use: 'false'}", ", inUse: true", true),
    ] {
        let text = format!(
            "{RULE}metadata: {{name: r{metadata}}}\nspec: {{source: a, target: b{spec}}}\n"
        );
        assert_eq!(rule(&text).in_use, want, "{text}");
    }
    for (metadata, spec, want) in [
        ("", ", isShared: true", true),
        (", annotations: {edgemesh.io/shared: 'true'}", "", true),
        (", annotations: {other: x}", "", false),
    ] {
        let text = format!(
            "apiVersion: rules.kubeedge.io/v1\nkind: RuleEndpoint\nmetadata: {{name: e{metadata}}}\n\
             spec: {{ruleEndpointType: rest{spec}}}\n"
        );
        assert_eq!(endpoint(&text).is_shared, want, "{text}");
    }
}

#[test]
fn objects_that_are_refused() {
    let rows = [
        (rule_endpoint("  ruleEndpointType: soap"), (5, "spec.ruleEndpointType", "known are rest")),
        (rule_endpoint("  ruleEndpointType: ''"), (5, "spec.ruleEndpointType", "0 bytes: 1 to 64")),
        (rule_endpoint("  properties: {}"), (4, "spec.ruleEndpointType", "is missing")),
        (
            rule_endpoint("  ruleEndpointType: servicebus\n  properties:\n    service_port: 70000"),
            (7, "spec.properties.service_port", "`70000` is no port"),
        ),
        (
            rule_endpoint("  ruleEndpointType: rest\n  properties: {burst: 5}"),
            (6, "spec.properties.burst", "means nothing without qps"),
        ),
        (
            rule_endpoint("  ruleEndpointType: rest\n  properties: {a: [1]}"),
            (6, "spec.properties.a", "must be text, not a list"),
        ),
        (
            rule_endpoint(&format!(
                "  ruleEndpointType: rest\n  properties: {{a: {}}}",
                "x".repeat(10_240)
            )),
            (6, "spec.properties", "at most 10240"),
        ),
        (
            rule_endpoint("  ruleEndpointType: rest\n  isshared: true"),
            (6, "spec.isshared", "did you mean `isShared`?"),
        ),
        (
            format!("{RULE}metadata: {{name: r}}\nspec:\n  source: a\n"),
            (4, "spec.target", "is missing; add `target`"),
        ),
        (
            format!("{RULE}metadata: {{name: r}}\nspec:\n  source: a/b/c\n  target: b\n"),
            (5, "spec.source", "names no Endpoint"),
        ),
        (
            format!("{RULE}metadata: {{name: r}}\nspec:\n  source: b\n  target: a/B_\n"),
            (6, "spec.target", "`B_` is no DNS name"),
        ),
        (
            format!(
                "{RULE}metadata: {{name: r}}\nspec:\n  source: a/{}\n  target: b\n",
                "x".repeat(254)
            ),
            (5, "spec.source", "use at most 253"),
        ),
        (
            format!(
                "{RULE}metadata: {{name: r}}\nspec:\n  source: a\n  target: b\n  targetResource: {{a: {}}}\n",
                "x".repeat(1024)
            ),
            (7, "spec.targetResource", "at most 1024"),
        ),
        (
            format!(
                "{RULE}metadata:\n  name: r\n  annotations:\n    edgemesh.io/in-use: 'no'\nspec: {{source: a, target: b}}\n"
            ),
            (6, "metadata.annotations[\"edgemesh.io/in-use\"]", "is not one of true, false"),
        ),
        (
            "apiVersion: rules.kubeedge.io/v2\nkind: Rule\n".into(),
            (1, "apiVersion", "write rules.kubeedge.io/v1"),
        ),
        // Who forgot the version of an object is told that, not that plain keys are missing.
        ("kind: Rule\nmetadata: {name: r}\n".into(), (1, "apiVersion", "is missing")),
    ];
    let rows: Vec<_> = rows.iter().map(|(text, want)| (&**text, *want)).collect();
    refused(&rows);
}

#[test]
fn plain_endpoints() {
    let read = endpoint("type: rest\nname: My Rest\n");
    assert_eq!(read.id, object_id(Kind::Endpoint, "default", "My Rest"));
    assert_eq!(read.project_id, Some(project_id("default")));
    assert_eq!((read.created_at, read.updated_at, read.is_shared), (0, 0, false));
    let json = r#"{"id": "e-1", "type": "servicebus", "name": "sb", "namespace": "shop",
        "project_id": "p-1", "is_shared": true, "properties": {"service_port": "6666"},
        "created_at": 1772366400000, "updated_at": "2026-03-01T12:00:01Z"}"#;
    let [Record { namespace, name, body: Body::Endpoint(read) }] = &records(json)[..] else {
        panic!("no Endpoint")
    };
    assert_eq!((&**namespace, &**name), ("shop", "sb"));
    assert_eq!((read.id.as_str(), read.is_shared), ("e-1", true));
    assert_eq!(read.project_id.as_ref().map(|id| id.as_str()), Some("p-1"));
    assert_eq!((read.created_at, read.updated_at), (1_772_366_400_000, 1_772_366_401_000));
}

#[test]
fn plain_documents_that_are_refused() {
    let long = format!("id: {}\ntype: rest\nname: e\n", "x".repeat(37));
    let long_name = format!("name: r\nsource: b\ntarget: a/{}\n", "x".repeat(254));
    refused(&[
        (&long, (1, "id", "has 37 bytes: 1 to 36")),
        (&long_name, (3, "target", "a name of 1 to 253 bytes")),
        ("type: rest\nname: a/b\n", (2, "name", "without slashes")),
        ("type: soap\nname: e\n", (1, "type", "known are rest")),
        (
            "type: servicebus\nname: e\nproperties:\n  service_port: 0\n",
            (4, "properties.service_port", "is no port"),
        ),
        ("type: rest\nname: e\ncreated_at: yesterday\n", (3, "created_at", "must be milliseconds")),
        ("type: rest\nname: e\nupdated_at: -1\n", (3, "updated_at", "must be milliseconds")),
        ("type: rest\nname: e\ncreated: 5\n", (3, "created", "unknown key `created`")),
        ("kind: Endpoint\nname: e\n", (1, "type", "is missing")),
        ("kind: Rule\nname: r\nsource: a\n", (1, "target", "is missing")),
        ("name: r\nsource: a\ntarget: b\nin_use: maybe\n", (4, "in_use", "true or false")),
        (
            "name: r\nsource: {type: soap, name: e}\ntarget: b\n",
            (2, "source.type", "known are rest"),
        ),
        ("name: r\nsource: a\ntarget: {name: b}\n", (3, "target.type", "is missing")),
        ("source: a\ntarget: b\n", (1, "name", "is missing")),
    ]);
}

/// Endpoints by id, by name, by namespace and name, and written out, also after the Rules.
#[test]
fn plain_rules_find_their_endpoints() {
    let text = "\
name: by-id
source: e-1
target: shop/out
source_resource: {path: /a}
target_resource: {resource: 'http://a/'}
success_messages: 5
fail_messages: 6
---
name: by-name
source: in
target: {type: rest, name: out, namespace: shop, is_shared: true}
source_resource: {path: /b}
target_resource: {resource: 'http://a/'}
in_use: false
---
name: whole
source: {id: e-1, type: rest, name: renamed, properties: {qps: 5}}
target: {type: rest, name: out, namespace: shop, is_shared: true}
source_resource: {path: /c}
target_resource: {resource: 'http://a/'}
---
{id: e-1, type: rest, name: in}
";
    let all = observed(text);
    let (keys, remarks) = told(text);
    let want =
        ["endpoint default/in", "endpoint shop/out", "rule default/by-id", "rule default/by-name"];
    assert_eq!(keys[..4], want);
    assert_eq!(keys[4..], ["rule default/whole"]);
    let [differs] = &remarks[..] else { panic!("{remarks:#?}") };
    assert!(differs.starts_with("note 16 Rule default/whole []"), "{differs}");
    assert!(differs.contains("also there as Endpoint default/in, which counts"), "{differs}");
    for record in all.records.values() {
        if let Body::Rule(rule) = &record.body {
            assert_eq!(rule.source, EndpointName::new("default", "in"), "{}", record.name);
            assert_eq!(rule.target, EndpointName::new("shop", "out"), "{}", record.name);
            assert_eq!(rule.in_use, &*record.name != "by-name");
        }
    }
}

/// What is said of Rules when all documents are read.
#[test]
fn rules_that_take_no_messages() {
    let rest = "type: rest\nname: rest\n---\n";
    let rule = |name: &str, path: &str, target: &str, more: &str| {
        format!(
            "name: {name}\nsource: rest\nsource_resource: {{path: {path}}}\ntarget: {target}\n\
             target_resource: {{resource: 'http://a/'{more}}}\ncreated_at: 5\n---\n"
        )
    };
    for (rules, want) in [
        (rule("a", "/a", "rest", ""), &[][..]),
        (
            rule("a", "/a", "gone", ""),
            &["note 7 Rule default/a [target] waits: there is no Endpoint default/gone yet"],
        ),
        (
            rule("a", "a b", "rest", ""),
            &["note 5 Rule default/a [source] takes no messages: path: "],
        ),
        (rule("a", "/a", "rest", ", x: y"), &["note 4 Rule default/a [] `x` means nothing"]),
        (
            rule("b", "/a", "rest", "") + &rule("a", "/a/", "rest", ""),
            &["note 5 Rule default/b [source] takes no messages: Rule default/a, which is older"],
        ),
    ] {
        let (_, remarks) = told(&format!("{rest}{rules}"));
        assert_eq!(remarks.len(), want.len(), "{remarks:#?}\n{rules}");
        for (got, want) in remarks.iter().zip(want) {
            assert!(got.starts_with(want), "{got}\n{rules}");
        }
    }
}

#[test]
fn identities_are_kept_by_the_first() {
    let (keys, remarks) = told(
        "{id: e, type: rest, name: a}\n---\n{id: e, type: rest, name: b}\n---\n{id: f, type: rest, name: a}\n",
    );
    assert_eq!(keys, ["endpoint default/a"]);
    assert!(remarks[0].contains("its id e is that of Endpoint default/a"), "{remarks:#?}");
    assert!(remarks[1].contains("is already there in"), "{remarks:#?}");
}
