//! What an API server would say to the manifests: every field of every object is one that its kind has.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{
    ConfigMap, Namespace, PersistentVolumeClaim, Pod, Service, ServiceAccount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::helm::{objects, render};
use crate::root;

type Read = fn(&Value) -> Value;

/// Reads an object as its kind. What the kind does not know is gone after that.
fn read<K: Serialize + DeserializeOwned>(object: &Value) -> Value {
    let typed: K =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{error}: {object}"));
    serde_json::to_value(typed).unwrap()
}

/// The kinds that the manifests have.
const KINDS: &[(&str, &str, Read)] = &[
    ("v1", "Namespace", read::<Namespace>),
    ("v1", "ServiceAccount", read::<ServiceAccount>),
    ("v1", "ConfigMap", read::<ConfigMap>),
    ("v1", "Service", read::<Service>),
    ("v1", "PersistentVolumeClaim", read::<PersistentVolumeClaim>),
    ("v1", "Pod", read::<Pod>),
    ("apps/v1", "DaemonSet", read::<DaemonSet>),
    ("apps/v1", "Deployment", read::<Deployment>),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", read::<ClusterRole>),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", read::<ClusterRoleBinding>),
];

/// Everything that can be switched on.
const ALL: &[&str] = &[
    "agent.source=kubernetes",
    "agent.nodeSelector.a=b",
    "agent.podAnnotations.a=b",
    "agent.podLabels.a=b",
    "image.pullSecrets={regcred}",
    "cloud.ca.existingSecret=ca",
    "cloud.hub.service.annotations.a=b",
    "cloud.persistence.type=hostPath",
    "cloud.nodeSelector.a=b",
    "cloud.podAnnotations.a=b",
    "cloud.podLabels.a=b",
    "cloud.router.enabled=true",
    "cloud.router.tlsSecret=tls",
    "cloud.router.clientCaSecret=ca",
    "cloud.router.service.annotations.a=b",
    "monitoring.dashboard.enabled=true",
];

#[test]
fn every_field_is_one_that_its_kind_has() {
    let read = |path: &str| std::fs::read_to_string(root(path)).unwrap();
    let texts = [
        read("deploy/kubernetes/edgemesh.yaml"),
        read("deploy/sidecar.yaml"),
        render(ALL).text,
        render(&["cloud.persistence.storageClass=fast", "cloud.persistence.size=10Gi"]).text,
        render(&["cloud.persistence.type=emptyDir", "cloud.hub.service.type=LoadBalancer"]).text,
    ];
    let mut seen = std::collections::BTreeSet::new();
    for object in texts.iter().flat_map(|text| objects(text)) {
        let (version, kind) =
            (object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        let row = KINDS.iter().find(|row| (row.0, row.1) == (version, kind));
        let (_, kind, read) = row.unwrap_or_else(|| panic!("no row for {version} {kind}"));
        assert_eq!(read(&object), object);
        seen.insert(*kind);
    }
    assert_eq!(seen.len(), KINDS.len(), "{seen:?}");
}
