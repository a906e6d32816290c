//! `deploy/kubernetes/edgemesh.yaml`, for those without helm, is what the chart makes.

use crate::helm::{SERVER, objects, render};
use crate::root;

/// The plain manifests.
const FILE: &str = "deploy/kubernetes/edgemesh.yaml";

/// What the chart leaves to `--create-namespace`; Pods on the node's network have to be let in.
const NAMESPACE: &str = "apiVersion: v1
kind: Namespace
metadata:
  name: edgemesh
  labels:
    pod-security.kubernetes.io/enforce: privileged
";

fn want() -> String {
    format!(
        "# EdgeMesh in a cluster: an agent on every node, and the cloud. Generated from the chart by\n\
         # `make golden`, as: helm template edgemesh deploy/helm/edgemesh -n edgemesh --set '{SERVER}'\n\
         # Edit `servers` of agent.yaml before you apply it: the HOST:PORT at which nodes reach the hub.\n\
         # What else there is to do: docs/kubernetes.md\n\
         {NAMESPACE}{}",
        render(&[]).text
    )
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the daemon's")]
fn the_plain_manifests_are_the_charts() {
    let (want, path) = (want(), root(FILE));
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        // At once: other tests read it meanwhile.
        let new = path.with_extension("new");
        std::fs::write(&new, &want).and_then(|()| std::fs::rename(&new, &path)).unwrap();
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        have == want,
        "{FILE} is not what the chart makes; fix: make golden, then read the diff"
    );
    // Who applies it needs no folder of an order: what others need stands first.
    let kinds: Vec<_> =
        objects(&have).iter().map(|o| o["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds[0], "Namespace");
    let at = |kind: &str| kinds.iter().position(|have| have == kind).unwrap();
    assert!(
        at("ServiceAccount") < at("ClusterRole") && at("ConfigMap") < at("DaemonSet"),
        "{kinds:?}"
    );
    assert_eq!(have.matches("cloud.example:31000").count(), 2, "one in the header, one to edit");
}
