//! The Grafana dashboard shows what a running agent counts, all of it, and nothing that does not exist.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::common::folder::Folder;
use crate::common::namespace::in_namespace;
use crate::common::run::{Running, need, run};
use crate::common::wait::eventually;
use crate::helm::render;
use crate::root;

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// What Prometheus adds to each series.
const ADDED: &[&str] = &["instance", "le"];

/// A Rule and its Endpoints, so that its series are there, too.
const RULE: &str = "apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: { name: rest, namespace: default }
spec: { ruleEndpointType: rest, properties: {} }
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: { name: app, namespace: default }
spec: { ruleEndpointType: servicebus, properties: { service_port: \"6666\" } }
---
apiVersion: rules.kubeedge.io/v1
kind: Rule
metadata: { name: to-app, namespace: default }
spec: { source: rest, sourceResource: { path: /a }, target: app, targetResource: { path: /b } }
";

/// Metrics as they are asked for, with their labels.
type Metrics = BTreeMap<String, BTreeSet<String>>;

/// What the page of an agent shows; what has no sample yet has its labels from the documentation.
fn counted(page: &str) -> Metrics {
    let mut all = Metrics::new();
    let families =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"));
    all.extend(families.map(|name| (name.to_owned(), documented(name))));
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let labels = line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
        let labels =
            labels.split(',').filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        all.entry(name.to_owned()).or_default().extend(labels);
    }
    all
}

/// The labels of a metric in docs/admin-api.md, where it stands as `_name{label,label}`.
fn documented(name: &str) -> BTreeSet<String> {
    let docs = std::fs::read_to_string(root("docs/admin-api.md")).unwrap();
    let short = name.strip_prefix("edgemesh").unwrap();
    let labels = docs
        .split_once(&format!("`{short}{{"))
        .map_or("", |(_, rest)| rest.split('}').next().unwrap());
    labels.split(',').filter(|label| !label.is_empty()).map(Into::into).collect()
}

/// An agent that captures nothing, until its page has been read.
fn page() -> String {
    let folder = Folder::new();
    folder.manifest("rule", RULE);
    let config = folder.write(
        "agent.yaml",
        &format!(
            "node: edge-1\ndataDir: {0}/data\nsource: {{ manifests: {0}/manifests }}\nproxy: {{ intercept: none }}\n",
            folder.folder().display()
        ),
    );
    let line = [env!("CARGO_BIN_EXE_edgemesh"), "agent", "--config", &config.display().to_string()];
    let _agent = Running::start("", &line, &folder.path("agent.log"));
    eventually("the page of an agent with a Rule", PATIENCE, || {
        let page = run("", "curl -sS http://127.0.0.1:15020/metrics").out;
        page.contains("rule=\"to-app\"").then_some(page)
    })
}

/// The expressions of the dashboard, each with its legend; those of variables have none.
fn asked(dashboard: &Value) -> Vec<(&str, &str)> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let panels = targets
        .map(|target| (target["expr"].as_str().unwrap(), target["legendFormat"].as_str().unwrap()));
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let variables = variables.filter_map(|variable| Some((variable["definition"].as_str()?, "")));
    panels.chain(variables).collect()
}

/// The metrics that an expression names.
fn named(expression: &str) -> Vec<&str> {
    let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("edgemesh_")).collect()
}

/// The labels that an expression groups by, and those that its legend shows.
fn labels<'e>(expression: &'e str, legend: &'e str) -> Vec<&'e str> {
    let groups = expression
        .split("by (")
        .skip(1)
        .flat_map(|rest| rest.split(')').next().unwrap().split(", "));
    let shown = legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap());
    groups.chain(shown).collect()
}

#[test]
fn the_dashboard_shows_what_is_counted() {
    in_namespace("dashboard::the_dashboard_shows_what_is_counted", || {
        need(&["curl"]);
        let counted = counted(&page());
        let text = std::fs::read_to_string(root("deploy/grafana/edgemesh.json")).unwrap();
        let dashboard: Value = serde_json::from_str(&text).unwrap();
        let mut shown = String::new();
        for (expression, legend) in asked(&dashboard) {
            let metrics = named(expression);
            assert!(!metrics.is_empty(), "{expression}");
            let mut known: BTreeSet<&str> = ADDED.iter().copied().collect();
            for metric in &metrics {
                let labels = counted.get(*metric);
                let labels =
                    labels.unwrap_or_else(|| panic!("no agent counts {metric}: {expression}"));
                known.extend(labels.iter().map(String::as_str));
            }
            for label in labels(expression, legend) {
                assert!(known.contains(label), "no label {label}: {expression}, {legend}");
            }
            shown += expression;
        }
        for metric in counted.keys() {
            assert!(shown.contains(metric.as_str()), "{metric} is on no panel");
        }
    });
}

#[test]
fn panels_do_not_overlap() {
    let text = std::fs::read_to_string(root("deploy/grafana/edgemesh.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut taken = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        assert!(x + w <= 24, "{}", panel["title"]);
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{} lies on another", panel["title"]);
        }
    }
}

#[test]
fn the_chart_carries_the_dashboard_and_a_monitor() {
    let none = render(&[]);
    assert!(none.all("PodMonitor").is_empty() && !none.text.contains("edgemesh.json"));
    let chart =
        render(&["monitoring.podMonitor.enabled=true", "monitoring.dashboard.enabled=true"]);
    let text = std::fs::read_to_string(root("deploy/grafana/edgemesh.json")).unwrap();
    assert_eq!(chart.file("edgemesh-dashboard", "edgemesh.json").trim(), text.trim());
    let labels = &chart.one("ConfigMap", "edgemesh-dashboard")["metadata"]["labels"];
    assert_eq!(labels["grafana_dashboard"], "1");
    let monitor = &chart.one("PodMonitor", "edgemesh-agent")["spec"];
    let endpoint = &monitor["podMetricsEndpoints"][0];
    assert_eq!((&endpoint["path"], &endpoint["port"]), (&"/metrics".into(), &"metrics".into()));
    // What the dashboard calls a node is one.
    let relabelled = &endpoint["relabelings"][0];
    assert_eq!(relabelled["sourceLabels"][0], "__meta_kubernetes_pod_node_name");
    assert_eq!(relabelled["targetLabel"], "instance");
    let pods = &chart.one("DaemonSet", "edgemesh-agent")["spec"]["template"]["metadata"]["labels"];
    for (key, value) in monitor["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(pods[key], *value);
    }
}
