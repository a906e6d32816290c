//! `/v1/routes`: HTTPRoutes, and how far they are in force.

use serde::Deserialize;
use serde::Serialize;

/// One of `/v1/routes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The Services that it is for.
    pub parents: Vec<RouteParentView>,
    /// What it says, in order.
    pub rules: Vec<RouteRuleView>,
    /// How far it is in force.
    pub state: RouteState,
    /// What is wrong, one line each.
    pub conditions: Vec<String>,
}

/// How far a Route is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RouteState {
    /// Wholly.
    Accepted,
    /// Some of its requests get 500, or some of its parents are not there.
    Partly,
    /// Every rule of it answers 500.
    Broken,
    /// A match of it never counts: an older Route has the same.
    Conflicted,
    /// None of its parents is there.
    Inactive,
}

/// A Service that a Route is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteParentView {
    /// `namespace/name`
    pub service: String,
    /// Number or name of the port; empty = all.
    pub port: String,
    /// Whether a Service with that port is there.
    pub found: bool,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRuleView {
    /// Its name; may be empty.
    pub name: String,
    /// What requests must be like, one line each; one of them is enough.
    pub matches: Vec<String>,
    /// What takes them.
    pub backends: Vec<RouteBackendView>,
    /// Status and place, where the client is sent elsewhere.
    pub redirect: Option<String>,
    /// What is edited on the way: `request headers`, `response headers`, `host`, `path`.
    pub edits: Vec<String>,
    /// Milliseconds for a request; 0 = no bound, absent = the Policy's.
    pub request_timeout_ms: Option<u64>,
    /// Milliseconds for one attempt.
    pub backend_timeout_ms: Option<u64>,
}

/// A share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteBackendView {
    /// `namespace/name`; empty where nobody can take it.
    pub service: String,
    /// Its port; 0 where nobody can take it.
    pub port: u16,
    /// Of the sum of all.
    pub weight: u32,
}
