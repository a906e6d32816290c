//! What bounds calls: rates, connections, times, further attempts.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kubernetes::crds::words;

/// Where calls are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct RateLimits {
    /// On the caller's side, once a call; what is over it is refused, by 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<RateLimit>,
    /// On the backend's side, once an attempt; what is over it is refused, by 429.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<RateLimit>,
}

/// Most calls a second, counted by each agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct RateLimit {
    /// Calls a second, 1 to 1000000.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub qps: i32,
    /// Calls at once, 1 to 1000000; as many as qps where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<i32>,
    /// Who has a limit of its own: service, all callers share one (the default); workload, each owner of
    /// Pods; namespace, each namespace; ip, each IPv4 address and each IPv6 /64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LimitBy")]
    pub by: Option<LimitBy>,
}

/// Who has a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LimitBy {
    /// All callers share one.
    Service,
    /// Each owner of Pods.
    Workload,
    /// Each namespace.
    Namespace,
    /// Each IPv4 address and each IPv6 /64.
    Ip,
}

/// Most at once, counted by each agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// Connections of bytes that are open, 1 to 1000000; no cap where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max: Option<i32>,
    /// HTTP requests that are under way, 1 to 1000000; no cap where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<i32>,
}

/// Longest times.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Timeouts {
    /// For the connection to a backend, 1ms to 24h; 1s where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::time")]
    pub connect: Option<String>,
    /// From the arrival of a request to the end of its answer, over all attempts, 1ms to 24h; where it is
    /// not said, the head of an answer is awaited for 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::time")]
    pub request: Option<String>,
    /// Without a word from either side of a connection of bytes, 1s to 24h; then it is closed. None is
    /// closed where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::silence")]
    pub idle: Option<String>,
}

/// When a call is tried again, at another backend if there is one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retries {
    /// Most further attempts, 0 to 10; 2 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10))]
    pub attempts: Option<i32>,
    /// After what: connect, no connection came about; reset, it broke before an answer; 503, that was the
    /// answer. Only after connect where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::occasions")]
    pub on: Option<Vec<Value>>,
    /// The same as on: what kubectl and Helm send where on is not in quotes, since their YAML takes it for
    /// an answer.
    #[serde(default, rename = "true", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::occasions")]
    pub on_as_answer: Option<Vec<Value>>,
    /// Most further attempts for each hundred calls, in percent, 0 to 100; 20 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub budget_percent: Option<i32>,
    /// Whether methods that may do something twice, such as POST and so gRPC, are tried again after reset
    /// and 503; false where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub non_idempotent: Option<bool>,
}
