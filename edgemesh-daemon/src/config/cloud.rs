//! The file `cloud.yaml` and its flags become one checked `CloudConfig`.

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use edgemesh_core::config::AccessLog;
use edgemesh_core::identity::OFFLINE_GRACE;

use crate::config::Flags;
use crate::config::Kind;
use crate::config::Listen;
use crate::config::Origin;
use crate::config::Problem;
use crate::config::Resolved;
use crate::config::Source;
use crate::config::check;
use crate::config::file;
use crate::config::loopback;
use crate::config::parse;
use crate::config::read::Reader;
use crate::config::read::Section;
use crate::config::sections;
use crate::config::source;
use crate::config::tree::Node;
use crate::config::tree::Value;

/// The cloud's admin API where the file names no address: beside an agent's on the same machine.
pub const ADMIN: SocketAddr = loopback(15010);

/// The router's ingress where the file names no address.
const ROUTER: SocketAddr = loopback(9443);

/// Everything a cloud is told, checked: values here need no second look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudConfig {
    /// Backends on Nodes of this zone that run no agent are reached through this process.
    pub zone: String,
    /// Folder of registry and certificate authority.
    pub data_dir: PathBuf,
    /// Where the records come from, beside what the nodes offer; never [`Source::Cloud`].
    pub source: Source,
    /// Where agents come in.
    pub hub: Hub,
    /// Where callers in the cloud come in.
    pub router: Router,
    /// Names.
    pub dns: CloudDns,
    /// The admin API; always on loopback.
    pub admin: Listen,
    /// Which flows are logged.
    pub access_log: AccessLog,
}

/// Where agents come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hub {
    /// Its address.
    pub listen: SocketAddr,
    /// Names and addresses that its certificate names beside `hub.edgemesh`.
    pub names: Vec<String>,
    /// How long after its end a node's certificate may still be renewed, and its name stays taken.
    pub offline_grace: Duration,
}

/// Where callers in the cloud come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its address.
    pub listen: SocketAddr,
    /// Its certificate; absent: it is spoken to in the clear.
    pub tls: Option<TlsFiles>,
    /// Who may call.
    pub auth: Auth,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM of the certificate and those that lead to its authority.
    pub cert_file: PathBuf,
    /// PEM of its key.
    pub key_file: PathBuf,
}

/// Who may call at the router's ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// Whoever reaches it.
    #[default]
    None,
    /// Who sends the token in this file.
    Token(PathBuf),
    /// Who has a certificate of an authority in this file.
    ClientCa(PathBuf),
}

/// The names of the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudDns {
    /// The cluster domain.
    pub domain: String,
}

/// Reads `text`, the contents of `file_name`, then `flags`; the later wins.
///
/// # Errors
/// All problems that were found, in the order of the file's lines.
pub fn load_cloud(
    text: &str,
    file_name: &str,
    flags: &Flags,
) -> Result<Resolved<CloudConfig>, Vec<Problem>> {
    let mut reader = Reader::new(file_name);
    let config = cloud(&mut reader, text, flags);
    if let Some(config) = &config {
        across(&mut reader, config);
    }
    reader.finish(config)
}

/// Reads the file at `path`, else [`crate::config::DEFAULT_CLOUD_FILE`] where there is one, else goes on with the
/// defaults alone.
///
/// # Errors
/// As [`load_cloud`]; a file that cannot be read is one problem.
pub fn load_cloud_or_default(
    path: Option<&Path>,
    flags: &Flags,
) -> Result<Resolved<CloudConfig>, Vec<Problem>> {
    let (text, name) = file::text_or_default(path, Kind::Cloud)?;
    load_cloud(&text, &name, flags)
}

fn cloud(reader: &mut Reader, text: &str, flags: &Flags) -> Option<CloudConfig> {
    let mut top = reader.root(text)?;
    if flags.node.is_some() {
        reader.came_from("node", Origin::Flag("--node"));
        reader.problem("node", "is for agents: a cloud is no node");
    }
    let zone = reader.value(&mut top, "zone", parse::label_value);
    let data_dir = reader.value(&mut top, "dataDir", parse::path);
    let source = source::read(reader, &mut top, Kind::Cloud, Source::None, flags);
    let hub = hub(reader, &mut top);
    let router = router(reader, &mut top);
    let dns = dns(reader, &mut top);
    let admin = sections::listen(reader, &mut top, "admin", ADMIN);
    let access_log = reader.value(&mut top, "accessLog", parse::access_log);
    reader.close(top);
    Some(CloudConfig {
        zone: zone.unwrap_or_else(|| "cloud".into()),
        data_dir: data_dir.unwrap_or_else(|| "/var/lib/edgemesh-cloud".into()),
        source,
        hub,
        router,
        dns,
        admin,
        access_log: access_log.unwrap_or_default(),
    })
}

fn hub(reader: &mut Reader, top: &mut Section) -> Hub {
    let mut section = reader.section(top, "hub");
    let listen = reader.value(&mut section, "listen", parse::socket);
    let names = reader.list(&mut section, "names", parse::host);
    let grace = reader.value(&mut section, "offlineGrace", parse::grace);
    reader.close(section);
    Hub {
        listen: listen.unwrap_or_else(|| super::anywhere(parse::HUB_PORT)),
        names: names.unwrap_or_default(),
        offline_grace: grace.unwrap_or(OFFLINE_GRACE),
    }
}

fn router(reader: &mut Reader, top: &mut Section) -> Router {
    let mut section = reader.section(top, "router");
    let listen = reader.value(&mut section, "listen", parse::socket);
    let tls = tls(reader, &mut section);
    let auth = auth(reader, &mut section);
    reader.close(section);
    Router { listen: listen.unwrap_or(ROUTER), tls, auth: auth.unwrap_or_default() }
}

fn tls(reader: &mut Reader, router: &mut Section) -> Option<TlsFiles> {
    let (line, node) = router.take("tls")?;
    if matches!(node.value, Value::Null) {
        return None;
    }
    reader.came_from("router.tls", Origin::File(line));
    let before = reader.problems.len();
    let mut section = reader.open("router.tls", Some(node));
    let cert = reader.value(&mut section, "certFile", parse::path);
    let key = reader.value(&mut section, "keyFile", parse::path);
    reader.close(section);
    if reader.problems.len() == before {
        for (file, name) in [(&cert, "certFile"), (&key, "keyFile")] {
            if file.is_none() {
                reader.problem_at(line, &format!("router.tls.{name}"), "is missing: a file of PEM");
            }
        }
    }
    // Where it is wrong that is noted: that it is meant is enough for the other rules.
    Some(TlsFiles { cert_file: cert.unwrap_or_default(), key_file: key.unwrap_or_default() })
}

fn auth(reader: &mut Reader, router: &mut Section) -> Option<Auth> {
    const KEY: &str = "router.auth";
    const KNOWN: &str = "none, { tokenFile: FILE }, { clientCa: FILE }";
    let (line, node) = router.take("auth")?;
    if matches!(node.value, Value::Null) {
        return None;
    }
    reader.came_from(KEY, Origin::File(line));
    match node.value {
        Value::Scalar(word) if word == "none" => Some(Auth::None),
        Value::Map(entries) if entries.len() == 1 => {
            let before = reader.problems.len();
            let mut section = reader.open(KEY, Some(Node { line, value: Value::Map(entries) }));
            let token = reader.value(&mut section, "tokenFile", parse::path);
            let authority = reader.value(&mut section, "clientCa", parse::path);
            reader.close(section);
            let auth = token.map(Auth::Token).or_else(|| authority.map(Auth::ClientCa));
            if auth.is_none() && reader.problems.len() == before {
                reader.problem(KEY, format!("names no file: one of {KNOWN}"));
            }
            auth
        }
        Value::Null | Value::Scalar(_) | Value::List(_) | Value::Map(_) => {
            reader.problem(KEY, format!("wants one of {KNOWN}"));
            None
        }
    }
}

fn dns(reader: &mut Reader, top: &mut Section) -> CloudDns {
    let mut section = reader.section(top, "dns");
    let domain = reader.value(&mut section, "domain", parse::subdomain);
    reader.close(section);
    CloudDns { domain: domain.unwrap_or_else(|| edgemesh_core::config::Dns::default().domain) }
}

/// Notes every rule on more than one key that `config` breaks.
fn across(reader: &mut Reader, config: &CloudConfig) {
    check::admin(reader, config.admin.listen);
    guarded(reader, &config.router);
    let listeners = [
        ("admin.listen", config.admin.listen),
        ("hub.listen", config.hub.listen),
        ("router.listen", config.router.listen),
    ];
    check::ports(reader, &listeners);
}

/// Who can reach the ingress can call every Service: beyond loopback somebody has to say who may.
fn guarded(reader: &mut Reader, router: &Router) {
    const LISTEN: &str = "router.listen";
    let (at, auth) = (router.listen, &router.auth);
    let written = reader.is_given("router.auth");
    if let (Auth::ClientCa(_), None) = (auth, &router.tls) {
        let text = "clientCa needs router.tls: certificates are shown in its handshake";
        return reader.problem("router.auth", text);
    }
    if at.ip().is_loopback() || (written && *auth == Auth::None) {
        return;
    }
    let lacks = match (&router.tls, written) {
        (Some(_), true) => return,
        (None, true) => "tls, or tokens would travel in the clear".to_owned(),
        (Some(_), false) => "auth: { tokenFile: FILE } or { clientCa: FILE }".to_owned(),
        (None, false) => "tls: { certFile: FILE, keyFile: FILE } and auth: { tokenFile: FILE } or \
                          { clientCa: FILE }"
            .to_owned(),
    };
    let text = format!("{at} is beyond loopback: it needs {lacks}; or auth: none, written out");
    reader.problem(LISTEN, text);
}
