//! The files `agent.yaml` and `cloud.yaml`, the environment and the flags become one checked
//! `AgentConfig` or `CloudConfig`.
//!
//! [`load`] and [`load_cloud`] are pure functions of their texts, so that every rule can be tested as
//! a table row. They read on after a mistake and report all of them, each with the file and the line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgemesh_core::config::{AccessLog, Dns, Proxy};
use edgemesh_proto::message::Selector;
use edgemesh_router::kubernetes::Access;

use crate::config::read::Reader;

mod any;
mod check;
mod cloud;
mod file;
mod kind;
mod parse;
mod print;
mod read;
mod sections;
mod source;
pub(crate) mod time;
mod tree;

pub use any::{Checked, check_any};
pub use cloud::ADMIN as CLOUD_ADMIN;
pub use cloud::{
    Auth, CloudConfig, CloudDns, Hub, Router, TlsFiles, load_cloud, load_cloud_or_default,
};
pub use file::{DEFAULT_CLOUD_FILE, DEFAULT_FILE, MAX_FILE, file_or_default};
pub use kind::{Guess, Kind, guess};
pub(crate) use parse::subdomain as node_name;

/// Everything an agent is told, checked: values here need no second look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Name of this node: a DNS-1123 subdomain, as Kubernetes names nodes.
    pub node: String,
    /// Zone of this node; absent: the zone label of its Node record.
    pub zone: Option<String>,
    /// Folder of metastore, keys and socket.
    pub data_dir: PathBuf,
    /// Identity, Links and Rules; absent: the node stands alone.
    pub cloud: Option<Cloud>,
    /// Where the records come from.
    pub source: Source,
    /// Folder of this node's own Services; it need not exist.
    pub services: PathBuf,
    /// Capture.
    pub proxy: Proxy,
    /// Names.
    pub dns: Dns,
    /// Links from other nodes.
    pub peer: Peer,
    /// The MQTT broker of this node, for Rules.
    pub event_bus: EventBus,
    /// Where applications of this node send messages by Rules; always on loopback.
    pub service_bus: Listen,
    /// The page for scrapers and probes.
    pub metrics: Listen,
    /// The admin API; always on loopback.
    pub admin: Listen,
    /// Which flows are logged.
    pub access_log: AccessLog,
}

/// How to reach the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    /// `host:port` of each hub, tried in this order; at least one, none twice.
    pub servers: Vec<String>,
    /// File with the join token; needed until the node has joined.
    pub token_file: Option<PathBuf>,
    /// How long after its end another node's certificate is still accepted.
    pub offline_grace: Duration,
    /// Of which nodes this one wants the records.
    pub select: Selector,
}

/// Where records come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From nowhere but this node itself: its `services:` and what is signed up.
    None,
    /// From the cloud, by Link. Only where there is a [`Cloud`].
    Cloud,
    /// From a watched folder of Kubernetes YAML.
    Manifests(PathBuf),
    /// From a Kubernetes API server, or KubeEdge's MetaServer.
    Kubernetes(Access),
}

/// Links from other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where other agents dial in.
    pub listen: SocketAddr,
    /// `host:port` others should dial, where it is not what they would guess.
    pub advertise: Vec<String>,
    /// Which ways to other nodes are used.
    pub path: PeerPath,
}

/// The MQTT broker of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventBus {
    /// `mqtt://host:port` or `mqtts://host:port`.
    pub broker: String,
    /// Who logs in there; absent: anonymously.
    pub username: Option<String>,
    /// File with the password.
    pub password_file: Option<PathBuf>,
}

/// Which ways to other nodes are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerPath {
    /// Straight where that works, else through the hub.
    #[default]
    Auto,
    /// Straight only.
    Direct,
    /// Through the hub only.
    Hub,
}

impl fmt::Display for PeerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Direct => "direct",
            Self::Hub => "hub",
        })
    }
}

/// One listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Its address.
    pub listen: SocketAddr,
}

/// What the environment says; gathered once, by `main`.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `$NODE_NAME`, as a DaemonSet sets it. Empty counts as absent.
    pub node_name: Option<String>,
    /// This machine's host name, the last resort for `node`.
    pub hostname: Option<String>,
    /// `$COLUMNS`: how wide answers may be where stdout is no terminal.
    pub columns: Option<String>,
}

impl Environment {
    /// Asks the process and the kernel. The only place that reads the environment.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads it")]
    pub fn of_process() -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        Self {
            node_name: std::env::var("NODE_NAME").ok(),
            hostname: hostname.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()),
            columns: std::env::var("COLUMNS").ok(),
        }
    }
}

/// What the command line says about the configuration; it wins over file and environment.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--node`
    pub node: Option<String>,
    /// `--manifests`: short for `source: { manifests: DIR }`
    pub manifests: Option<PathBuf>,
}

/// A checked configuration, and where each value came from.
#[derive(Clone, Debug)]
pub struct Resolved<C = AgentConfig> {
    /// The values.
    pub config: C,
    file: String,
    origins: BTreeMap<String, Origin>,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This line (from 1) of the file.
    File(usize),
    /// An environment variable.
    Env(&'static str),
    /// A flag.
    Flag(&'static str),
    /// Nobody said otherwise.
    Default,
    /// The machine's name.
    Hostname,
}

/// One mistake, in words for the person who made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where: `agent.yaml:12`, `$NODE_NAME`, `--node`, or only the file's name.
    pub place: String,
    /// Path of the key, `proxy.port`; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.text)
    }
}

/// Reads `text` (the contents of `file_name`), then `environment`, then `flags`; the later wins.
///
/// # Errors
/// All problems that were found, in the order of the file's lines.
pub fn load(
    text: &str,
    file_name: &str,
    environment: &Environment,
    flags: &Flags,
) -> Result<Resolved, Vec<Problem>> {
    let mut reader = Reader::new(file_name);
    let config = sections::agent(&mut reader, text, environment, flags);
    if let Some(config) = &config {
        check::across(&mut reader, config);
    }
    reader.finish(config)
}

/// Reads the file at `path` and then as [`load`] does.
///
/// # Errors
/// As [`load`]; a file that cannot be read is one problem.
pub fn load_file(
    path: &Path,
    environment: &Environment,
    flags: &Flags,
) -> Result<Resolved, Vec<Problem>> {
    let (text, name) = file::read(path)?;
    load(&text, &name, environment, flags)
}

/// Reads [`file_or_default`], or goes on with the defaults alone.
///
/// # Errors
/// As [`load_file`].
pub fn load_or_default(
    path: Option<&Path>,
    environment: &Environment,
    flags: &Flags,
) -> Result<Resolved, Vec<Problem>> {
    let (text, name) = file::text_or_default(path, Kind::Agent)?;
    load(&text, &name, environment, flags)
}

impl<C> Resolved<C> {
    /// Where the value at `key` (a path such as `proxy.port`) came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).copied().unwrap_or(Origin::Default)
    }
}

impl Resolved {
    /// The configuration as YAML that [`load`] reads back, with a comment on where each value
    /// came from.
    pub fn to_yaml(&self) -> String {
        print::yaml(self, print::agent(&self.config))
    }
}

impl Resolved<CloudConfig> {
    /// The configuration as YAML that [`load_cloud`] reads back, with a comment on where each value
    /// came from.
    pub fn to_yaml(&self) -> String {
        print::yaml(self, print::cloud(self))
    }
}

/// The admin API's address where the file names none; the command line's `--admin` knows it too.
pub const ADMIN: SocketAddr = loopback(15000);

/// Where KubeEdge's ServiceBus listens.
const SERVICE_BUS: SocketAddr = loopback(9060);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}
