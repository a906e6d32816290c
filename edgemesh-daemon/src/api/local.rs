//! What the admin API says of what runs on this node: registrations, look-ups, lines of streams.

use std::num::NonZeroU16;

use serde::Deserialize;
use serde::Serialize;

use crate::api::BackendView;
use crate::api::PortView;

/// One of `/v1/registrations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationView {
    /// Namespace of its Service.
    pub namespace: String,
    /// Name of its Service.
    pub service: String,
    /// Tells apart those of one Service.
    pub id: String,
    /// `IP:PORT` it listens at.
    pub address: String,
    /// The Service's port that was named.
    pub service_port: Option<NonZeroU16>,
    /// What it must do, as it was written.
    pub check: Option<String>,
    /// Whether it gets calls.
    pub ready: bool,
    /// What the last probes say; absent without a check.
    pub health: Option<HealthView>,
    /// Seconds until it goes unless it is renewed; absent: it stays.
    pub left_seconds: Option<u64>,
    /// Why it has no effect, or will not outlive the agent.
    pub note: Option<String>,
}

/// What the last probes say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthView {
    /// In a word.
    pub state: HealthState,
    /// Why it is not healthy.
    pub reason: Option<String>,
}

/// What the last probes say, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HealthState {
    /// No probe has ended yet.
    Unknown,
    /// It is well.
    Healthy,
    /// It is not.
    Unhealthy,
}

/// `/v1/lookup?name=svc.ns[:port]`, and each line of it with `&follow=1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// Whether there is such a Service.
    pub found: bool,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where clients dial it.
    pub addresses: Vec<String>,
    /// Its ports, or the one that was asked for.
    pub ports: Vec<PortView>,
    /// Who answers there.
    pub backends: Vec<BackendView>,
}

/// A line of `/v1/records`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordsLine {
    /// A protobuf Delta in base64.
    pub delta: String,
    /// Virtual addresses: all of each Service named.
    pub addresses: Vec<VirtualAddresses>,
    /// Hosts of Services: all of each Service named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<ServiceHosts>,
    /// Name of the agent's node; with `reset` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its zone, where it was configured; with `reset` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// The virtual addresses of one Service; none = taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualAddresses {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of them.
    pub addresses: Vec<String>,
}

/// The hosts of one Service; none = taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceHosts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of them.
    pub hosts: Vec<HostAddresses>,
}

/// The virtual addresses of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostAddresses {
    /// Its hostname.
    pub name: String,
    /// All of them.
    pub addresses: Vec<String>,
}

/// A line of every stream after a while without another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The revision in force.
    pub heartbeat: u64,
}
