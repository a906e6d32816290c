//! An API server as the source of records, in `/v1/status`.

use serde::{Deserialize, Serialize};

/// How the API server is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceView {
    /// Its URL; empty until it was found.
    pub server: String,
    /// Every kind of object that is asked for.
    pub kinds: Vec<SourceKind>,
}

/// How one kind of object is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceKind {
    /// `Service`
    pub kind: String,
    /// Objects that are known.
    pub objects: u64,
    /// Objects that are wrong: they count as they were before, or not at all.
    pub wrong: u64,
    /// Whether its objects are known.
    pub state: SourceState,
    /// Why they cannot be followed at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// How often that was so.
    pub failures: u64,
}

/// Whether the objects of a kind are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SourceState {
    /// They were listed, and are followed.
    Followed,
    /// Some are: the node is cut off from its cloud, and lists what it happens to have stored.
    Partial,
    /// They have not been listed yet.
    Waiting,
    /// The server knows no such kind.
    Absent,
}
