//! What is asked of an API server: one line a kind. RBAC is checked against this table.

/// A kind of object, and what is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// Older ones, for servers that do not have it.
    pub older: &'static [&'static str],
    /// Plural, as in URLs.
    pub resource: &'static str,
    /// Kind, as in manifests.
    pub kind: &'static str,
    /// Who asks for it.
    pub by: By,
    /// Whether a server without it is nothing to speak of: its definition may not be installed.
    pub optional: bool,
}

impl Asked {
    /// Group and version, as in manifests.
    pub fn api_version(&self) -> String {
        let slash = if self.group.is_empty() { "" } else { "/" };
        format!("{}{slash}{}", self.group, self.version)
    }

    /// Whether a cloud says in each object's status what became of it.
    pub fn is_written(&self) -> bool {
        let is_of = |written: &str| written.strip_suffix("/status") == Some(self.resource);
        WRITTEN.iter().any(|(group, written)| *group == self.group && is_of(written))
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Every cloud, and every agent that has no cloud.
    All,
    /// Only where EndpointSlices cannot be trusted: at KubeEdge's MetaServer, which asks for no rights.
    WithoutSlices,
}

/// Verbs of everything that is read.
pub const READ: &[&str] = &["get", "list", "watch"];

/// Kinds whose `status` the cloud writes, by server-side apply (verb `patch` of the subresource).
pub const WRITTEN: &[(&str, &str)] = &[
    ("rules.kubeedge.io", "rules/status"),
    ("rules.kubeedge.io", "ruleendpoints/status"),
    ("edgemesh.io", "trafficpolicies/status"),
];

/// Everything that is read.
pub const ASKED: &[Asked] = &[
    core("services", "Service"),
    core("nodes", "Node"),
    core("pods", "Pod"),
    Asked { by: By::WithoutSlices, ..core("endpoints", "Endpoints") },
    Asked { optional: false, ..of("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice") },
    Asked { older: &["v1beta1"], ..of("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR") },
    of("rules.kubeedge.io", "v1", "rules", "Rule"),
    of("rules.kubeedge.io", "v1", "ruleendpoints", "RuleEndpoint"),
    of("edgemesh.io", "v1alpha1", "trafficpolicies", "TrafficPolicy"),
    Asked {
        older: &["v1beta1"],
        ..of("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")
    },
    // KubeEdge's EdgeMesh brings a definition that has only the older ones.
    Asked {
        older: &["v1beta1", "v1alpha3"],
        ..of("networking.istio.io", "v1", "destinationrules", "DestinationRule")
    },
];

const fn core(resource: &'static str, kind: &'static str) -> Asked {
    Asked { group: "", version: "v1", older: &[], resource, kind, by: By::All, optional: false }
}

const fn of(
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    kind: &'static str,
) -> Asked {
    Asked { group, version, older: &[], resource, kind, by: By::All, optional: true }
}
