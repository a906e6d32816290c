//! Renders the chart with the real helm.

use std::process::Command;

use serde_json::Value;

use crate::root;

/// The chart.
const CHART: &str = "deploy/helm/edgemesh";
/// The one value that has no default.
pub(crate) const SERVER: &str = "agent.cloud.servers={cloud.example:31000}";

/// What the chart makes.
#[derive(Debug)]
pub(crate) struct Chart {
    /// As text, which is what is applied.
    pub(crate) text: String,
    objects: Vec<Value>,
}

/// Renders the chart with [`SERVER`] and these `--set` values.
#[track_caller]
pub(crate) fn render(sets: &[&str]) -> Chart {
    let (good, text) = template(&[&[SERVER], sets].concat());
    assert!(good, "{sets:?}: {text}");
    Chart { objects: objects(&text), text }
}

/// What helm says to these `--set` values, which it must refuse.
#[track_caller]
pub(crate) fn refused(sets: &[&str]) -> String {
    let (good, text) = template(sets);
    assert!(!good, "{sets:?} is accepted:\n{text}");
    text
}

/// What is said after an installation with these values.
#[track_caller]
pub(crate) fn notes(sets: &[&str]) -> String {
    let sets = [&[SERVER], sets].concat();
    let (good, text) = helm(&["install", "edgemesh", "--dry-run=client"], &sets);
    assert!(good, "{sets:?}: {text}");
    text.split("\nNOTES:\n").nth(1).unwrap_or_else(|| panic!("no notes: {text}")).to_owned()
}

/// What helm's own check says.
pub(crate) fn lint(sets: &[&str]) -> (bool, String) {
    helm(&["lint", "--strict"], sets)
}

fn template(sets: &[&str]) -> (bool, String) {
    helm(&["template", "edgemesh"], sets)
}

/// Whether it went well; then what it printed, else what it complained of.
fn helm(args: &[&str], sets: &[&str]) -> (bool, String) {
    let helm = root("target/peers/helm");
    assert!(helm.exists(), "there is no helm; fix: make target/peers/helm");
    let mut command = Command::new(&helm);
    let said = command
        .args(args)
        .args([CHART, "--namespace", "edgemesh"])
        .args(sets.iter().flat_map(|set| ["--set", set]))
        .current_dir(root("."))
        // Nothing of whoever runs the tests: no cluster, no configuration.
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", helm.display()));
    let good = said.status.success();
    let text = if good { said.stdout } else { said.stderr };
    (good, String::from_utf8(text).unwrap())
}

/// The objects of a text of several documents.
#[track_caller]
pub(crate) fn objects(text: &str) -> Vec<Value> {
    let all: Vec<Value> =
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    all.into_iter().filter(|object| !object.is_null()).collect()
}

impl Chart {
    /// All objects of a kind.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    /// The object of this kind and name.
    #[track_caller]
    pub(crate) fn one(&self, kind: &str, name: &str) -> &Value {
        let found = self.all(kind).into_iter().find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name} in\n{}", self.text))
    }

    /// A file of a ConfigMap.
    #[track_caller]
    pub(crate) fn file(&self, map: &str, file: &str) -> String {
        self.one("ConfigMap", map)["data"][file].as_str().expect("a file of that name").to_owned()
    }

    /// The Pod of the agent.
    #[track_caller]
    pub(crate) fn agent(&self) -> &Value {
        &self.one("DaemonSet", "edgemesh-agent")["spec"]["template"]["spec"]
    }

    /// The Pod of the cloud.
    #[track_caller]
    pub(crate) fn cloud(&self) -> &Value {
        &self.one("Deployment", "edgemesh-cloud")["spec"]["template"]["spec"]
    }
}

/// The strings of a list.
pub(crate) fn words(list: &Value) -> Vec<&str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}
