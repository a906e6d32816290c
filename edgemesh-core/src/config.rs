//! The sections of an agent's configuration, with their defaults and the reason for each.
//!
//! The same types serve the file `agent.yaml` and embedders; reading the file is the daemon's.

mod check;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use check::Check;

/// How connections reach the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Proxy {
    /// Port of the listener for captured connections and of the explicit proxy. 15001 is what
    /// operators of other meshes expect there.
    pub port: u16,
    /// Addresses of our own device that forwarded (pod) traffic is sent to: link-local ones,
    /// which work for every kind of pod interface and clash with nothing routed.
    pub address: Vec<IpAddr>,
    /// Capture NodePorts and external IPs too. Off, since kube-proxy usually serves them.
    pub node_ports: bool,
    /// How connections are captured.
    pub intercept: Intercept,
    /// Destinations to capture. `virtualRange` is always among them.
    pub include: Include,
    /// Destinations never to capture; wins over `include`.
    pub exclude: Vec<IpNet>,
    /// Destination ports never to capture.
    pub exclude_ports: Vec<u16>,
    /// Which Services are left to others, by a label of theirs.
    pub service_filter_mode: ServiceFilter,
    /// fwmark on the mesh's own sockets, by which the capture rules let them through. The default
    /// has no bit in common with the marks of kube-proxy (0x4000, 0x8000) and Cilium (0x0f00),
    /// which would masquerade or drop what carries them.
    pub mark: u32,
}

/// Which Services are left to others, for example to kube-proxy: by whether they carry the label
/// `service.edgemesh.kubeedge.io/service-proxy-name`. The words are those of KubeEdge's EdgeMesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceFilter {
    /// Those that carry it.
    #[default]
    #[serde(rename = "FilterIfLabelExists")]
    LabelExists,
    /// Those that do not.
    #[serde(rename = "FilterIfLabelDoesNotExists")]
    LabelDoesNotExist,
}

impl fmt::Display for ServiceFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LabelExists => "FilterIfLabelExists",
            Self::LabelDoesNotExist => "FilterIfLabelDoesNotExists",
        })
    }
}

/// How connections are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Intercept {
    /// By iptables rules that the agent installs and removes.
    Iptables,
    /// Not at all: explicit proxy and library only.
    None,
}

/// Destinations to capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Include {
    /// The ServiceCIDRs, else the addresses of known Services.
    Auto(Auto),
    /// Exactly these.
    List(Vec<IpNet>),
}

/// The word `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// `auto`
    Auto,
}

/// The agent's name server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// UDP and TCP. Not port 53 by default: host resolvers often hold it.
    pub listen: Vec<SocketAddr>,
    /// Whether port 53 towards the nameservers of resolv.conf comes to the agent.
    pub intercept: DnsIntercept,
    /// The cluster domain.
    pub domain: String,
    /// Addresses for Services that have none: one range a family. 198.18.0.0/15 is set aside
    /// for benchmarks between networks (RFC 2544) and so meets no real host.
    pub virtual_range: Vec<IpNet>,
}

/// Whether port 53 comes to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DnsIntercept {
    /// When `proxy.intercept` is on.
    Auto,
    /// Always (needs `proxy.intercept: iptables`).
    On,
    /// Never.
    Off,
}

/// Which flows are written to the access log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum AccessLog {
    /// Every flow.
    #[default]
    All,
    /// Refused and failed flows.
    Errors,
    /// None.
    Off,
    /// Refused and failed flows, and one in N of the others.
    OneIn(u32),
}

/// Which flows are written, changed while flows run.
#[derive(Debug)]
pub struct AccessLogSwitch(AtomicU32);

impl AccessLogSwitch {
    const OFF: u32 = 0;
    const ERRORS: u32 = u32::MAX;

    /// Set to `choice`.
    pub const fn new(choice: AccessLog) -> Self {
        Self(AtomicU32::new(Self::code(choice)))
    }

    /// From now on `choice`.
    pub fn set(&self, choice: AccessLog) {
        self.0.store(Self::code(choice), Ordering::Relaxed);
    }

    /// What is written now.
    pub fn get(&self) -> AccessLog {
        match self.0.load(Ordering::Relaxed) {
            Self::OFF => AccessLog::Off,
            1 => AccessLog::All,
            Self::ERRORS => AccessLog::Errors,
            n => AccessLog::OneIn(n),
        }
    }

    const fn code(choice: AccessLog) -> u32 {
        match choice {
            AccessLog::Off | AccessLog::OneIn(0) => Self::OFF,
            AccessLog::All => 1,
            AccessLog::Errors => Self::ERRORS,
            AccessLog::OneIn(n) => n,
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            port: 15001,
            address: vec![
                IpAddr::V4(Ipv4Addr::new(169, 254, 96, 16)),
                IpAddr::V6(Ipv6Addr::new(0xfd00, 0x6d65, 0, 0, 0, 0, 0, 0x16)),
            ],
            node_ports: false,
            intercept: Intercept::Iptables,
            include: Include::Auto(Auto::Auto),
            exclude: Vec::new(),
            exclude_ports: Vec::new(),
            service_filter_mode: ServiceFilter::default(),
            mark: 0x2065,
        }
    }
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 15053))],
            intercept: DnsIntercept::Auto,
            domain: "cluster.local".into(),
            virtual_range: vec![
                net(Ipv4Addr::new(198, 18, 0, 0).into(), 16),
                net(Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, 0).into(), 112),
            ],
        }
    }
}

fn net(address: IpAddr, prefix: u8) -> IpNet {
    IpNet::new(address, prefix).expect("the prefix lengths above fit their families")
}

impl fmt::Display for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Errors => f.write_str("errors"),
            Self::Off => f.write_str("off"),
            Self::OneIn(n) => write!(f, "1/{n}"),
        }
    }
}

impl From<AccessLog> for String {
    fn from(value: AccessLog) -> Self {
        value.to_string()
    }
}

impl TryFrom<String> for AccessLog {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for AccessLog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "all" => Ok(Self::All),
            "errors" => Ok(Self::Errors),
            "off" => Ok(Self::Off),
            _ => text
                .strip_prefix("1/")
                .and_then(|n| n.parse().ok())
                .filter(|n| *n > 0)
                .map(Self::OneIn)
                .ok_or_else(|| format!("`{text}` is none of all, errors, off, 1/N")),
        }
    }
}
