//! The chart's values: every one explained, every bad one refused in words that help.

use std::path::Path;

use serde_json::Value;

use crate::helm::{SERVER, lint, refused, render};
use crate::root;

fn read(name: &str) -> String {
    let path = root("deploy/helm/edgemesh").join(name);
    std::fs::read_to_string(Path::new(&path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn helm_finds_no_fault() {
    let (good, said) = lint(&[SERVER]);
    assert!(good && !said.contains("[WARNING]"), "{said}");
}

#[test]
fn chart_and_program_have_one_version() {
    let chart: Value = serde_saphyr::from_str(&read("Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!((&chart["version"], &chart["appVersion"]), (&version.into(), &version.into()));
    let chart = render(&[]);
    assert_eq!(chart.agent()["containers"][0]["image"], format!("edgemesh:{version}"));
    let chart = render(&["image.repository=r.example/e", "image.tag=x"]);
    assert_eq!(chart.cloud()["containers"][0]["image"], "r.example/e:x");
}

/// Puts the path of each value of a schema into `found`.
fn paths(schema: &Value, at: &[String], found: &mut Vec<Vec<String>>) {
    for (name, below) in schema["properties"].as_object().into_iter().flatten() {
        let path = [at, std::slice::from_ref(name)].concat();
        found.push(path.clone());
        paths(below, &path, found);
    }
}

/// The line before the one on which a value stands in `values.yaml`.
#[track_caller]
fn line_before<'t>(text: &'t str, path: &[String]) -> &'t str {
    let mut lines = text.lines();
    let mut before = "";
    for (depth, name) in path.iter().enumerate() {
        let start = format!("{}{name}:", "  ".repeat(depth));
        loop {
            let line = lines.next().unwrap_or_else(|| panic!("{path:?} is not in values.yaml"));
            if line.starts_with(&start) {
                break;
            }
            before = line;
        }
    }
    before
}

#[test]
fn every_value_is_there_and_explained() {
    let text = read("values.yaml");
    for path in all_values() {
        let before = line_before(&text, &path);
        assert!(before.trim_start().starts_with('#'), "{path:?} has no comment: {before}");
    }
}

/// Every value of the schema, as a path.
fn all_values() -> Vec<Vec<String>> {
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let mut all = Vec::new();
    paths(&schema, &[], &mut all);
    all.retain(|path| path[0] != "global"); // helm's own
    assert!(all.len() > 80, "{}", all.len());
    all
}

#[test]
fn documents_name_values_that_exist() {
    let all: Vec<String> = all_values().iter().map(|path| path.join(".")).collect();
    let docs = std::fs::read_to_string(root("docs/kubernetes.md")).unwrap();
    let code = docs.split('`').skip(1).step_by(2);
    let named: Vec<&str> = code
        .map(|word| word.split(':').next().unwrap())
        .filter(|word| {
            ["agent.", "cloud.", "image.", "monitoring."].iter().any(|top| word.starts_with(top))
        })
        .filter(|word| {
            word.chars().all(|c| c.is_ascii_alphanumeric() || c == '.') && !word.ends_with(".yaml")
        })
        .collect();
    assert!(named.len() > 20, "{named:?}");
    for name in named {
        // KubeEdge's and ours have words in common; `cloud.example` is nobody's value.
        assert!(name == "cloud.example" || all.iter().any(|value| value == name), "{name}");
    }
    for text in [docs.as_str(), &std::fs::read_to_string(root("README.md")).unwrap()] {
        let sets: Vec<&str> = text
            .split("--set ")
            .skip(1)
            .map(|rest| rest.split([' ', '\n']).next().unwrap().trim_matches('\''))
            .collect();
        assert!(!sets.is_empty());
        for set in sets {
            render(&[&set.replace("HOST", "h")]);
        }
    }
}

/// Values that are wrong, and the words that tell it.
const WRONG: &[(&[&str], &[&str])] = &[
    (&[], &["agent.cloud.servers is empty", "--set 'agent.cloud.servers={192.0.2.10:31000}'"]),
    (&["agent.cloud.servers={cloud.example}"], &["`cloud.example` is no HOST:PORT", "such as"]),
    (&["agent.cloud.servers={https://a:1}"], &["`https://a:1` is no HOST:PORT"]),
    (
        &[SERVER, "agent.config.metrics.listen=[::]:15099"],
        &["agent.config.metrics.listen", "another port than agent.metricsPort, 15020"],
    ),
    (&[SERVER, "agent.config.dataDir=/data"], &["agent.config.dataDir", "remove it"]),
    (
        &[SERVER, "agent.dns.listen={localhost:53}"],
        &["agent.dns.listen", "`localhost:53` is no IP:PORT"],
    ),
    (&[SERVER, "agnet.source=cloud"], &["additional properties 'agnet' not allowed"]),
    (&[SERVER, "agent.sorce=cloud"], &["/agent", "'sorce' not allowed"]),
    (&[SERVER, "agent.source=etcd"], &["/agent/source", "'cloud', 'kubernetes', 'metaserver'"]),
    (&[SERVER, "cloud.source=etcd"], &["/cloud/source", "'kubernetes', 'none'"]),
    (
        &[SERVER, "cloud.persistence.type=nfs"],
        &["/cloud/persistence/type", "'pvc', 'hostPath', 'emptyDir'"],
    ),
    (&[SERVER, "agent.metricsPort=0"], &["/agent/metricsPort", "want 1"]),
    (&[SERVER, "agent.metricsPort=http"], &["/agent/metricsPort", "want integer"]),
    (&[SERVER, "agent.accessLog=1/0"], &["/agent/accessLog", "all|errors|off|1/"]),
    (
        &[SERVER, "agent.terminationGracePeriodSeconds=5"],
        &["/agent/terminationGracePeriodSeconds", "want 35"],
    ),
    (&[SERVER, "agent.dataDir=data"], &["/agent/dataDir"]),
    (
        &[SERVER, "cloud.persistence.type=hostPath"],
        &["cloud.nodeSelector is empty", "hostname=NODE"],
    ),
    (
        &[SERVER, "cloud.router.enabled=true"],
        &["lets callers in by nothing", "cloud.router.tokenSecret", "cloud.router.auth: none"],
    ),
    (
        &[
            SERVER,
            "cloud.router.enabled=true",
            "cloud.router.tokenSecret=t",
            "cloud.router.auth=none",
        ],
        &["lets callers in by tokenSecret and auth"],
    ),
    (
        &[SERVER, "cloud.router.enabled=true", "cloud.router.tokenSecret=t"],
        &["cloud.router.tokenSecret needs cloud.router.tlsSecret"],
    ),
    (&[SERVER, "cloud.router.port=443"], &["/cloud/router/port", "want 1"]),
];

#[test]
fn what_is_wrong_is_told() {
    for (sets, wanted) in WRONG {
        let said = refused(sets);
        for want in *wanted {
            assert!(said.contains(want), "{sets:?}: no `{want}` in: {said}");
        }
    }
}
