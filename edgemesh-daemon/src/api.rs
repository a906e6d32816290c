//! What the admin API says, as JSON objects in camelCase: written by the agent, read by the commands.
//!
//! Lists (`/v1/services`, `/v1/backends`, `/v1/nodes`, `/v1/policies`, `/v1/routes`, `/v1/endpoints`, `/v1/rules`)
//! are JSON arrays sorted by namespace and name; the last two have the names of the rule table. An error is an [`ApiError`] beside its status. Fields may be added; none
//! changes its meaning.

mod capture;
mod links;
mod local;
mod policy;
mod routes;
mod rules;
mod source;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

pub use capture::{Capture, CaptureState, Outside};
pub use links::{Certificate, CloudLink, CloudState, Links, Path, PeerLink, rfc3339};
pub use local::{
    HealthState, HealthView, Heartbeat, HostAddresses, Lookup, RecordsLine, RegistrationView,
    ServiceHosts, VirtualAddresses,
};
pub use policy::PolicySummary;
pub use routes::{RouteBackendView, RouteParentView, RouteRuleView, RouteState, RouteView};
pub use rules::{Broker, EndpointObject, EndpointView, RuleErrorView, RuleState, RuleView};
pub use source::{SourceKind, SourceState, SourceView};

/// The body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// One line for people.
    pub error: String,
}

/// `/v1/status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Version of the agent.
    pub version: String,
    /// Whether traffic may be sent here: rules in place, a Snapshot served.
    pub ready: bool,
    /// What is missing until then, one line each; empty when ready.
    pub not_ready: Vec<String>,
    /// Revision of the records that are served.
    pub revision: u64,
    /// Epoch the revision counts in.
    pub epoch: String,
    /// Seconds since the source last confirmed the records; absent: never.
    pub data_age_seconds: Option<u64>,
    /// Whether the metastore takes changes.
    pub store: StoreState,
    /// What was repaired at the start, one line each.
    pub repairs: Vec<String>,
    /// Links to the cloud and to other nodes; absent: there are none.
    #[serde(default, skip_serializing_if = "Links::is_empty")]
    pub links: Links,
    /// The MQTT broker of this node; absent while no Rule needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker: Option<Broker>,
    /// The API server that records come from; absent: they come from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceView>,
    /// The state of the capture rules.
    pub capture: Capture,
    /// Every listener, as `NAME ADDRESS`.
    pub listeners: Vec<String>,
    /// Services in the Snapshot.
    pub services: u64,
    /// Backends in the Snapshot.
    pub backends: u64,
    /// Backends whose breaker does not admit.
    pub ejected: u64,
    /// Flows since the start.
    pub flows: Flows,
    /// Refusals since the start, by label.
    pub refusals: BTreeMap<String, u64>,
    /// What is wrong with records and manifests.
    pub remarks: Vec<Remark>,
}

/// Whether the metastore takes changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StoreState {
    /// It does.
    Ok,
    /// Disk full or an I/O error: changes are served, and lost at a restart.
    StoreReadOnly,
}

/// Flows since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flows {
    /// Open now.
    pub open: u64,
    /// Ever begun.
    pub total: u64,
}

/// Something wrong with a record or a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Remark {
    /// How bad it is.
    pub severity: Severity,
    /// File it stands in; empty where there is none.
    pub file: String,
    /// Line from 1; 0 where unknown.
    pub line: u64,
    /// `Kind namespace/name`; empty where the document has none.
    pub object: String,
    /// Path of the field; empty where the whole object is meant.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// How bad a [`Remark`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Severity {
    /// Wrong: it does not count until it is corrected.
    Rejected,
    /// It counts, and probably is not what was meant.
    Warning,
    /// Fine, but not for the mesh.
    Ignored,
}

/// One of `/v1/services`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Addresses it has by itself (cluster and external IPs).
    pub addresses: Vec<String>,
    /// Addresses the mesh gave it, from `dns.virtualRange`.
    #[serde(rename = "virtual")]
    pub virtual_addresses: Vec<String>,
    /// The DNS name that it stands for; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    /// Its Backends with names and addresses of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostView>,
    /// Its ports.
    pub ports: Vec<PortView>,
    /// The Policy in force.
    pub policy: Option<PolicySummary>,
    /// Where its Backends come from.
    pub source: BackendSource,
}

/// A Backend with a name of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostView {
    /// What stands before the Service's name.
    pub name: String,
    /// Addresses the mesh gave it.
    #[serde(rename = "virtual")]
    pub virtual_addresses: Vec<String>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortView {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// What is spoken there: `http`, `http2`, `grpc`, `tls`, `tcp`, or `sniff`.
    pub protocol: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub transport: String,
    /// Backends of this port.
    pub backends: u64,
    /// Those that are ready.
    pub ready: u64,
}

/// Where a Service's Backends come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendSource {
    /// Slices.
    Slice,
    /// Ready Pods that its selector finds.
    Pods,
    /// There are none.
    None,
}

/// One of `/v1/backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendView {
    /// Namespace of its Service.
    pub namespace: String,
    /// Name of its Service.
    pub service: String,
    /// The Service's port it serves: its name, else its number.
    pub port: String,
    /// `IP:PORT`
    pub address: String,
    /// Node it runs on; empty where unknown.
    pub node: String,
    /// Zone of that node; empty where unknown.
    pub zone: String,
    /// How near it is: `node`, `zone` or `any`.
    pub tier: String,
    /// Which way leads to its node, where that has an agent or is reached through the cloud; absent:
    /// it is on this node, or is dialled at its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<Path>,
    /// What its breaker does.
    pub state: BreakerState,
    /// What the last probes say; absent where nobody asked for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
    /// Seconds until a breaker that rejects lets a probe through.
    pub until_seconds: Option<u64>,
    /// Calls or connections in it now.
    pub in_flight: u64,
    /// Calls or connections since the start.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum BreakerState {
    /// Lets calls through.
    Admits,
    /// Lets none through.
    Rejects,
    /// Has one probe out.
    Probes,
}

/// One of `/v1/nodes`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Its name.
    pub name: String,
    /// Its zone; empty where unknown.
    pub zone: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether it is the node that answers.
    pub here: bool,
    /// Backends that run on it.
    pub backends: u64,
    /// Whether an agent runs there.
    #[serde(default)]
    pub agent: bool,
    /// Whether its Backends are reached through the cloud.
    #[serde(default)]
    pub via_cloud: bool,
    /// The way to it; absent: it is this node, or nobody has looked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<PeerLink>,
}

/// One of `/v1/policies`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyView {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the Service it is for, in the same namespace.
    pub service: String,
    /// Kind it was written as: `TrafficPolicy` or `DestinationRule`.
    pub origin: String,
    /// Whether it is in force.
    pub active: bool,
    /// Why not: the one it lost to; absent when active.
    pub conflicted: Option<String>,
    /// Why not, where it lost to none: what is missing.
    pub missing: Option<String>,
    /// What it says.
    #[serde(flatten)]
    pub policy: PolicySummary,
}

/// `/v1/explain?url=…[&header=K:V]…[&from=IP]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// What was asked for, as it was understood.
    pub destination: String,
    /// What would happen.
    pub verdict: Verdict,
    /// How it was decided, in order.
    pub steps: Vec<Step>,
    /// Where it would go, when the verdict is `hop`.
    pub backend: Option<Hop>,
    /// Why not, when it is `refused`.
    pub refusal: Option<RefusalView>,
}

/// What would happen to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It goes to a Backend.
    Hop,
    /// It is refused.
    Refused,
    /// It goes where it was going: no Service of the mesh.
    PassThrough,
    /// The kernel carries it: a port of UDP.
    Kernel,
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its name: `resolve`, `limit`, `balance`, …
    pub step: String,
    /// What came out.
    pub what: String,
    /// Why; may be empty.
    pub why: String,
}

/// Where a call would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hop {
    /// `IP:PORT` of the Backend.
    pub address: String,
    /// Node it runs on; empty where unknown.
    pub node: String,
    /// By which way.
    pub via: Via,
}

/// The way to a Backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Via {
    /// It is on this node.
    Local,
    /// A Link to the agent of its node.
    Direct,
    /// Through the hub.
    Hub,
    /// Straight to its address, where no agent runs.
    PlainDial,
}

/// Why a call would be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusalView {
    /// Label, as in metrics.
    pub label: String,
    /// HTTP status.
    pub status: u16,
    /// One line for people.
    pub text: String,
}
