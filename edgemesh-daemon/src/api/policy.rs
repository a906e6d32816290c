//! What a Policy says, in the words of the admin API.

use serde::{Deserialize, Serialize};

/// What a Policy says, in short; absent: not said.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicySummary {
    /// How a Backend is chosen: `roundRobin`, `leastRequest`, …
    pub balance: String,
    /// `none`, `preferNode` or `onlyNode`.
    pub locality: String,
    /// Calls a second a client's agent lets out.
    pub client_qps: Option<f64>,
    /// Calls a second the Backend's agent lets in.
    pub server_qps: Option<f64>,
    /// Failures in a row after which a Backend is ejected.
    pub consecutive_failures: Option<u32>,
    /// Milliseconds for a connection to a Backend.
    pub connect_timeout_ms: Option<u64>,
    /// Milliseconds for an answer to begin.
    pub request_timeout_ms: Option<u64>,
    /// Attempts beyond the first.
    pub retries: Option<u32>,
    /// What else it says, such as keys, bursts and callers; a few words each.
    pub guards: Vec<String>,
}

impl Eq for PolicySummary {} // rates are finite: they were checked when the Policy was read
