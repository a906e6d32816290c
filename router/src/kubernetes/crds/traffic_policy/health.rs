//! What tells that a backend is not well: the calls themselves, or questions of the mesh.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::kubernetes::crds::words;

/// When a backend is left alone (ejected), and for how long. After that one call is let through; if it
/// fails too, the time doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("(has(self.ejectFor) ? duration(self.ejectFor) : duration('10s')) <= (has(self.maxEjectFor) ? duration(self.maxEjectFor) : duration('5m'))")
        .message("ejectFor (10s where it is not said) is longer than maxEjectFor (5m where it is not said)"),
    validation = Rule::new("has(self.successRatePercent) || (!has(self.window) && !has(self.minRequests))")
        .message("window and minRequests mean nothing without successRatePercent")
)]
#[serde(rename_all = "camelCase")]
pub struct CircuitBreaker {
    /// Failures in a row after which a backend is ejected, 1 to 10000; 5 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub consecutive_failures: Option<i32>,
    /// Share of calls that must go well, in percent, 1 to 100; below it a backend is ejected. Not looked at
    /// where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub success_rate_percent: Option<i32>,
    /// Over which time that share is taken, 1s to 1h; 30s where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::window")]
    pub window: Option<String>,
    /// Of how many calls at least, 1 to 1000000; 20 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub min_requests: Option<i32>,
    /// How long the first ejection is, 1ms to 24h; 10s where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::time")]
    pub eject_for: Option<String>,
    /// How long any ejection is at most, 1ms to 24h; 5m where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::time")]
    pub max_eject_for: Option<String>,
    /// Share of backends that may be ejected at once, in percent, 0 to 100; 50 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejected_percent: Option<i32>,
}

/// How each backend is asked by each agent whether it is well; one that is not gets no new calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("(has(self.http) ? 1 : 0) + (has(self.tcp) ? 1 : 0) + (has(self.grpc) ? 1 : 0) == 1")
        .message("needs exactly one of http, tcp, grpc"),
    validation = Rule::new("!has(self.tcp) || self.tcp").message("tcp must be true")
)]
pub struct HealthCheck {
    /// The path of a request that is answered by a status from 200 to 399, such as /healthz.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::path")]
    pub http: Option<String>,
    /// True: a connection can be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// The gRPC health service says SERVING of this service; empty for the server as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::grpc")]
    pub grpc: Option<String>,
    /// Time between two questions, 100ms to 24h; 5s where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::pause")]
    pub interval: Option<String>,
    /// Longest time for an answer, 100ms to 24h; 1s where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::pause")]
    pub timeout: Option<String>,
    /// Good answers in a row after which a backend is well again, 1 to 100; 1 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub healthy: Option<i32>,
    /// Bad answers in a row after which a backend is not well, 1 to 100; 3 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy: Option<i32>,
}
