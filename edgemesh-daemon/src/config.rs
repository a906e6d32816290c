//! The file `agent.yaml`, the environment and the flags become one checked `AgentConfig`.
//!
//! [`load`] is a pure function of their texts, so that every rule can be tested as a table row.
//! It reads on after a mistake and reports all of them, each with the file and the line.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use edgemesh_core::config::{AccessLog, Dns, Proxy};

use crate::config::read::Reader;

mod check;
mod parse;
mod print;
mod read;
mod sections;
mod tree;

/// Longest configuration file that is read. A file beyond it is not a configuration.
pub const MAX_FILE: u64 = 1 << 20;

/// Everything an agent is told, checked: values here need no second look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Name of this node: a DNS-1123 subdomain, as Kubernetes names nodes.
    pub node: String,
    /// Zone of this node; absent: the zone label of its Node record.
    pub zone: Option<String>,
    /// Folder of metastore, keys and socket.
    pub data_dir: PathBuf,
    /// Identity, Links and Rules; this version refuses it.
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
    /// `host:port` of each hub, tried in turn; at least one.
    pub servers: Vec<String>,
    /// File with the join token; absent once the node has joined.
    pub token_file: Option<PathBuf>,
}

/// Where records come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// From nowhere but this node itself: its `services:` and what is signed up.
    None,
    /// From the cloud; this version refuses it.
    Cloud,
    /// From a watched folder of Kubernetes YAML.
    Manifests(PathBuf),
    /// From a Kubernetes API server; this version refuses it.
    Kubernetes {
        /// `https://…` of the API server; absent: the one of the Pod this runs in.
        server: Option<String>,
    },
}

/// Links from other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where other agents dial in.
    pub listen: SocketAddr,
    /// `host:port` others should dial, where it is not what they would guess.
    pub advertise: Vec<String>,
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
pub struct Resolved {
    /// The values.
    pub config: AgentConfig,
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
    let Reader { file, mut problems, origins } = reader;
    match config {
        Some(config) if problems.is_empty() => Ok(Resolved { config, file, origins }),
        Some(_) | None => {
            problems.sort_by_key(|(line, _)| *line);
            Err(problems.into_iter().map(|(_, problem)| problem).collect())
        }
    }
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
    let name = path.display().to_string();
    let text = read_text(path)
        .map_err(|text| vec![Problem { place: name.clone(), key: String::new(), text }])?;
    load(&text, &name, environment, flags)
}

/// The file that counts where nobody names one.
pub const DEFAULT_FILE: &str = "/etc/edgemesh/agent.yaml";

/// `path`, else [`DEFAULT_FILE`] where there is one.
pub fn file_or_default(path: Option<&Path>) -> Option<&Path> {
    let default = Path::new(DEFAULT_FILE);
    path.or_else(|| default.exists().then_some(default))
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
    match file_or_default(path) {
        Some(path) => load_file(path, environment, flags),
        None => load("", "no file", environment, flags),
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = std::fs::File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("is longer than {MAX_FILE} bytes, which no configuration is"));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".into())
}

impl Resolved {
    /// Where the value at `key` (a path such as `proxy.port`) came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.origins.get(key).copied().unwrap_or(Origin::Default)
    }

    /// The configuration as YAML that [`load`] reads back, with a comment on where each value
    /// came from.
    pub fn to_yaml(&self) -> String {
        print::yaml(self)
    }
}

/// The admin API's address where the file names none; the command line's `--admin` knows it too.
pub const ADMIN: SocketAddr = loopback(15000);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

const fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}
