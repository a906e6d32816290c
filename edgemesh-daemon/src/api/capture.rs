//! The part of `/v1/status` about capture.

use serde::Deserialize;
use serde::Serialize;

/// The capture rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Capture {
    /// Whether they are in place.
    pub state: CaptureState,
    /// Which iptables: `nft`, `legacy`; empty when off.
    pub backend: String,
    /// The mesh's own device; empty when there is none.
    pub device: String,
    /// Prefixes that are captured.
    pub include: Vec<String>,
    /// Services whose address lies outside of them.
    pub outside: Vec<Outside>,
    /// Anything else worth knowing, one line each.
    pub notes: Vec<String>,
    /// UDP ports of Services whose Backends the kernel draws.
    #[serde(default)]
    pub udp_ports: u64,
    /// Of their Backends, those on other nodes: reached where plain routing leads to them.
    #[serde(default)]
    pub udp_elsewhere: u64,
}

/// Whether capture rules are in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CaptureState {
    /// They are.
    Installed,
    /// The configuration wants none.
    Off,
    /// They are wanted and could not be installed; `notes` says why.
    Failed,
}

/// A Service that is not captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outside {
    /// `namespace/name`
    pub service: String,
    /// The address nobody captures.
    pub address: String,
}

impl Capture {
    /// Nothing is captured.
    pub const fn off() -> Self {
        Self {
            state: CaptureState::Off,
            backend: String::new(),
            device: String::new(),
            include: Vec::new(),
            outside: Vec::new(),
            notes: Vec::new(),
            udp_ports: 0,
            udp_elsewhere: 0,
        }
    }
}
