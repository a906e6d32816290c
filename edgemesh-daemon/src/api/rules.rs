//! `/v1/endpoints` and `/v1/rules`: the rows of the rule table, with the names that are fixed for them, and how
//! Rules are.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

/// An Endpoint, alone or as a side of a Rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointObject {
    /// Its id.
    pub id: String,
    /// `rest`, `eventbus`, `servicebus` or `service`.
    #[serde(rename = "type")]
    pub endpoint_type: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who owns it.
    pub project_id: Option<String>,
    /// Whether Rules of other projects may use it.
    pub is_shared: bool,
    /// Type-dependent settings.
    pub properties: BTreeMap<String, String>,
    /// Milliseconds since 1970; 0 = unknown.
    pub created_at: i64,
    /// Milliseconds since 1970; 0 = unknown.
    pub updated_at: i64,
}

/// One of `/v1/endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// The row.
    #[serde(flatten)]
    pub endpoint: EndpointObject,
    /// What is wrong with it; null: nothing.
    pub reason: Option<String>,
    /// Rules that name it, as `namespace/name`.
    pub used_by: Vec<String>,
}

/// One of `/v1/rules`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Who owns it.
    pub project_id: String,
    /// The domain of the owner; may be empty.
    pub domain_id: String,
    /// Where messages come from; null: there is no such Endpoint.
    pub source: Option<EndpointObject>,
    /// What on the source it is about.
    pub source_resource: BTreeMap<String, String>,
    /// Where messages go; null: there is no such Endpoint.
    pub target: Option<EndpointObject>,
    /// What on the target it is about.
    pub target_resource: BTreeMap<String, String>,
    /// `false` pauses it.
    pub in_use: bool,
    /// Gone, but kept until nothing is queued for it.
    pub is_deleted: bool,
    /// Milliseconds since 1970; 0 = unknown.
    pub created_at: i64,
    /// Milliseconds since 1970; 0 = unknown.
    pub updated_at: i64,
    /// Messages delivered: by this node; by all, where the cloud answers.
    pub success_messages: u64,
    /// Messages that were not, in the same way.
    pub fail_messages: u64,
    /// Whether it takes messages, and whether they arrive.
    pub state: RuleState,
    /// Why it is not `active`.
    pub reason: Option<String>,
    /// Since when it is `degraded`, in milliseconds since 1970.
    pub since: Option<i64>,
    /// When a message was delivered last, in milliseconds since 1970.
    pub last_success: Option<i64>,
    /// How long a delivery takes, smoothed.
    pub latency_ms: Option<f64>,
    /// The newest failures here, oldest first.
    pub errors: Vec<RuleErrorView>,
    /// What an operator should know.
    pub notes: Vec<String>,
}

/// Whether a Rule takes messages, and whether they arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuleState {
    /// It takes them, and the last one arrived, if there was one.
    Active,
    /// It takes them, and the last one did not arrive.
    Degraded,
    /// `in_use` is false.
    Paused,
    /// What it needs is not there yet.
    Waiting,
    /// It can never work as it is.
    Faulty,
    /// An older Rule takes the same messages.
    Overruled,
    /// It is gone, and kept for what is queued.
    Deleted,
}

/// A message that was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleErrorView {
    /// Milliseconds since 1970.
    pub at: i64,
    /// In words.
    pub detail: String,
}

impl RuleState {
    /// Every state, in the order in which they are listed.
    pub const ALL: [Self; 7] = [
        Self::Active,
        Self::Degraded,
        Self::Paused,
        Self::Waiting,
        Self::Faulty,
        Self::Overruled,
        Self::Deleted,
    ];

    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Paused => "paused",
            Self::Waiting => "waiting",
            Self::Faulty => "faulty",
            Self::Overruled => "overruled",
            Self::Deleted => "deleted",
        }
    }
}

/// How the MQTT broker of a node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Broker {
    /// As configured.
    pub url: String,
    /// Whether it is.
    pub connected: bool,
    /// Since when it is so.
    pub since_seconds: u64,
    /// Why it is not, or what it refuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
