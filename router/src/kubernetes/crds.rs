//! What an API server must know to hold the mesh's own kinds: their definitions, made from the types below.
//!
//! The files in `deploy/helm/edgemesh/crds` are [`files`], written by `make golden`. The types of a
//! `spec` say what [`edgemesh_core::manifests`] reads, no more and no less strict than can be said in a
//! schema; they are not how the mesh reads objects, which goes by the text itself, so that it can name
//! what is wrong. The types of a `status` are what the cloud writes.
//!
//! ```
//! use edgemesh_router::kubernetes::crds;
//!
//! let names: Vec<_> = crds::all().into_iter().filter_map(|crd| crd.metadata.name).collect();
//! assert_eq!(names[1], "rules.rules.kubeedge.io");
//! ```

#![expect(unreachable_pub, reason = "kube's derive repeats each type inside of a function")]

mod condition;
mod endpoint;
mod render;
mod rule;
mod traffic_policy;
mod words;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use crate::kubernetes::crds::condition::{Condition, ConditionType, Reason, Status, Truth};
pub use crate::kubernetes::crds::endpoint::{
    EndpointType, Properties, RuleEndpoint, RuleEndpointSpec,
};
pub use crate::kubernetes::crds::rule::{
    Rule, RuleSpec, RuleStatus, SourceResource, TargetResource,
};
pub use crate::kubernetes::crds::traffic_policy::{
    AllowedCaller, Balancing, CircuitBreaker, Connections, HashKey, HealthCheck, LimitBy,
    LoadBalancer, Locality, RateLimit, RateLimits, Retries, TargetKind, TargetRef, Timeouts,
    TrafficPolicy, TrafficPolicySpec,
};

/// Every definition, in the order in which they are listed everywhere.
pub fn all() -> Vec<CustomResourceDefinition> {
    let all = [TrafficPolicy::crd(), Rule::crd(), RuleEndpoint::crd()];
    all.into_iter().map(render::tidied).collect()
}

/// Name and text of each file that is made of them; the same on every machine.
pub fn files() -> Vec<(String, String)> {
    let named = |crd: &CustomResourceDefinition| format!("{}.yaml", crd.spec.names.plural);
    all().iter().map(|crd| (named(crd), render::yaml(crd))).collect()
}
