//! `TrafficPolicy` of `edgemesh.io/v1alpha1`: how calls of one Service are balanced, bounded and repeated.

mod bounds;
mod health;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kubernetes::crds::{Status, words};

pub use crate::kubernetes::crds::traffic_policy::bounds::{
    Connections, LimitBy, RateLimit, RateLimits, Retries, Timeouts,
};
pub use crate::kubernetes::crds::traffic_policy::health::{CircuitBreaker, HealthCheck};

/// How calls of one Service are treated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "edgemesh.io",
    version = "v1alpha1",
    kind = "TrafficPolicy",
    plural = "trafficpolicies",
    shortname = "tp",
    namespaced,
    status = "Status",
    category = "edgemesh",
    derive = "PartialEq",
    doc = "A TrafficPolicy says how calls of one Service are balanced, bounded and repeated, and who may call. What it does not say has no effect, or the default that is named.",
    printcolumn = r#"{"name": "Service", "type": "string", "jsonPath": ".spec.targetRef.name", "description": "Service that it is about"}"#,
    printcolumn = r#"{"name": "Balancing", "type": "string", "jsonPath": ".spec.loadBalancer.policy", "description": "who takes the next call"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason", "description": "Accepted, NoService, Invalid or Conflicted"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].message", "priority": 1, "description": "why it is not accepted"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct TrafficPolicySpec {
    /// The Service, of the same namespace.
    pub target_ref: TargetRef,
    /// Which backend takes the next call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Most calls a second: requests of HTTP and gRPC, connections of everything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimits>,
    /// When a backend is left alone, and for how long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// Longest times. Each is one or more of whole h, m, s and ms, such as 1m30s, up to 24h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// When a call is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    /// Who may call; everyone where it is not said, nobody where it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub allow: Option<Vec<AllowedCaller>>,
    /// Most connections and requests at once through one agent; what is too many is refused with 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<Connections>,
    /// How each backend is asked whether it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<HealthCheck>,
}

/// What a TrafficPolicy is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct TargetRef {
    /// Empty: a Service is in the core group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::empty")]
    pub group: Option<String>,
    /// A Service; there is nothing else yet.
    pub kind: TargetKind,
    /// Name of the Service.
    #[schemars(schema_with = "words::label")]
    pub name: String,
}

/// Kinds that a TrafficPolicy may be about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TargetKind {
    /// A Service of Kubernetes.
    Service,
}

/// Which backend takes the next call: HTTP and gRPC by request, everything else by connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!has(self.policy) || (self.policy == 'consistentHash') == has(self.consistentHash)")
        .message("policy: consistentHash and the key consistentHash belong together, and to no other policy")
)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// roundRobin, each in turn (the default); random; leastRequest, of two drawn by chance the less busy;
    /// peakEwma, of two drawn by chance the quicker; consistentHash, calls with one key to one backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Balancing")]
    pub policy: Option<Balancing>,
    /// preferNode, this node, then its zone, then anywhere (the default); none, all alike; onlyNode, this
    /// node or nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Locality")]
    pub locality: Option<Locality>,
    /// The key of a call, by one of header, cookie, query and sourceIp.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<HashKey>,
}

/// Which backend takes the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Balancing {
    /// Each in turn.
    RoundRobin,
    /// One by chance.
    Random,
    /// Of two drawn by chance, the less busy.
    LeastRequest,
    /// Of two drawn by chance, the quicker.
    PeakEwma,
    /// Calls with one key to one backend.
    ConsistentHash,
}

/// Which backends come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Locality {
    /// All alike.
    None,
    /// This node, then its zone, then anywhere.
    PreferNode,
    /// This node or nobody.
    OnlyNode,
}

/// The key of a call; a call without it goes by chance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("(has(self.header) ? 1 : 0) + (has(self.cookie) ? 1 : 0) + (has(self.query) ? 1 : 0) + (has(self.sourceIp) ? 1 : 0) == 1")
        .message("needs exactly one of header, cookie, query, sourceIp"),
    validation = Rule::new("!has(self.sourceIp) || self.sourceIp")
        .message("sourceIp is not chosen by false; remove it, and name another key")
)]
#[serde(rename_all = "camelCase")]
pub struct HashKey {
    /// A header field of the request, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::token")]
    pub header: Option<String>,
    /// A cookie, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::token")]
    pub cookie: Option<String>,
    /// A parameter of the URL's query, by its name as it is written there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::query")]
    pub query: Option<String>,
    /// True: the caller's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ip: Option<bool>,
}

/// Callers of which everything that is said here is true.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[schemars(extend("minProperties" = 1))]
pub struct AllowedCaller {
    /// Namespace of the caller's Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::label")]
    pub namespace: Option<String>,
    /// Service that the caller is a backend of, in this entry's namespace, else in the policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::label")]
    pub service: Option<String>,
    /// Node that the caller runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::subdomain")]
    pub node: Option<String>,
}
