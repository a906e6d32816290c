//! The sections of `agent.yaml`, key by key, onto their defaults.

use std::net::IpAddr;
use std::path::PathBuf;

use edgemesh_core::config::Auto;
use edgemesh_core::config::Dns;
use edgemesh_core::config::Include;
use edgemesh_core::config::Proxy;

use crate::config::AgentConfig;
use crate::config::Cloud;
use crate::config::Environment;
use crate::config::Flags;
use crate::config::Listen;
use crate::config::Origin;
use crate::config::Peer;
use crate::config::Source;
use crate::config::parse;
use crate::config::read::Reader;
use crate::config::read::Section;
use crate::config::tree;
use crate::config::tree::Node;
use crate::config::tree::Value;

/// Reads everything; `None` where the text is no YAML or no section. A wrong value is noted as a problem and
/// its default takes its place, so that the rest can be checked too.
pub(crate) fn agent(
    reader: &mut Reader,
    text: &str,
    environment: &Environment,
    flags: &Flags,
) -> Option<AgentConfig> {
    let root = match tree::parse(text) {
        Ok(root) => root,
        Err((line, text)) => {
            reader.problem_at(line, "", text);
            return None;
        }
    };
    let is_section = matches!(root.value, Value::Null | Value::Map(_));
    let mut top = reader.open("", Some(root));
    if !is_section {
        return None; // already a problem; that nothing in it has a key is not another one
    }
    let node = node(reader, &mut top, environment, flags);
    let zone = reader.value(&mut top, "zone", parse::label_value);
    let data_dir = reader.value(&mut top, "dataDir", parse::path);
    let cloud = cloud(reader, &mut top);
    let source = source(reader, &mut top, cloud.is_some(), flags);
    let services = reader.value(&mut top, "services", parse::path);
    let proxy = proxy(reader, &mut top);
    let dns = dns(reader, &mut top);
    let peer = peer(reader, &mut top);
    let metrics = listen(reader, &mut top, "metrics", super::anywhere(15020));
    let admin = listen(reader, &mut top, "admin", super::ADMIN);
    let access_log = reader.value(&mut top, "accessLog", parse::access_log);
    reader.close(top);
    Some(AgentConfig {
        node: node.unwrap_or_default(),
        zone,
        data_dir: data_dir.unwrap_or_else(|| "/var/lib/edgemesh".into()),
        cloud,
        // Where it is wrong that is noted: a folder draws no second problem.
        source: source.unwrap_or_else(|| Source::Manifests(PathBuf::new())),
        services: services.unwrap_or_else(|| "/etc/edgemesh/services".into()),
        proxy,
        dns,
        peer,
        metrics,
        admin,
        access_log: access_log.unwrap_or_default(),
    })
}

/// The last of: host name, file, environment, flag.
fn node(
    reader: &mut Reader,
    top: &mut Section,
    environment: &Environment,
    flags: &Flags,
) -> Option<String> {
    let in_file = reader.value(top, "node", |text| Ok(text.to_owned()));
    let env = environment.node_name.as_deref().filter(|name| !name.is_empty());
    let name = if let Some(name) = &flags.node {
        reader.came_from("node", Origin::Flag("--node"));
        name.clone()
    } else if let Some(name) = env {
        reader.came_from("node", Origin::Env("NODE_NAME"));
        name.to_owned()
    } else if let Some(name) = in_file {
        name
    } else if let Some(name) = &environment.hostname {
        reader.came_from("node", Origin::Hostname);
        name.to_lowercase() // as the kubelet does
    } else {
        reader.problem("node", "no name: set `node:`, $NODE_NAME or --node");
        return None;
    };
    parse::subdomain(&name).map_err(|text| reader.problem("node", text)).ok()
}

fn cloud(reader: &mut Reader, top: &mut Section) -> Option<Cloud> {
    let (line, node) = top.take("cloud")?;
    if matches!(node.value, Value::Null) {
        return None;
    }
    reader.came_from("cloud", Origin::File(line));
    let mut section = reader.open("cloud", Some(node));
    let servers = reader.list(&mut section, "servers", parse::host_port);
    let token_file = reader.value(&mut section, "tokenFile", parse::path);
    if servers.is_none() {
        reader.problem_at(line, "cloud.servers", "is missing: [HOST:PORT] of the hub");
    } else if servers.as_ref().is_some_and(Vec::is_empty) {
        reader.problem_at(section.line(), "cloud.servers", "wants at least one HOST:PORT");
    }
    reader.close(section);
    Some(Cloud { servers: servers.unwrap_or_default(), token_file })
}

/// The source that this version serves, for messages.
pub(crate) const MANIFESTS: &str = "source: { manifests: DIR }";

fn source(reader: &mut Reader, top: &mut Section, cloud: bool, flags: &Flags) -> Option<Source> {
    let in_file = match top.take("source") {
        // With a cloud, the records are there; without, there is this node alone.
        None | Some((_, Node { value: Value::Null, .. })) if cloud => Some(Source::Cloud),
        None | Some((_, Node { value: Value::Null, .. })) => Some(Source::None),
        Some((line, node)) => {
            reader.came_from("source", Origin::File(line));
            source_value(reader, line, node)
        }
    };
    if let Some(folder) = &flags.manifests {
        reader.came_from("source", Origin::Flag("--manifests"));
        return Some(Source::Manifests(folder.clone()));
    }
    in_file
}

fn source_value(reader: &mut Reader, line: usize, node: Node) -> Option<Source> {
    match node.value {
        Value::Scalar(word) if word == "cloud" => Some(Source::Cloud),
        Value::Scalar(word) if word == "none" => Some(Source::None),
        Value::Map(entries) if entries.len() == 1 => {
            let before = reader.problems.len();
            let mut section =
                reader.open("source", Some(Node { line, value: Value::Map(entries) }));
            let folder = reader.value(&mut section, "manifests", parse::path);
            let source = match section.take("kubernetes") {
                Some((_, node)) => Some(kubernetes(reader, node)),
                None => folder.map(Source::Manifests),
            };
            reader.close(section);
            if source.is_none() && reader.problems.len() == before {
                reader.problem("source", format!("names no folder: {MANIFESTS}"));
            }
            source
        }
        Value::Scalar(word) => {
            reader.problem("source", format!("`{word}` is no source; name a folder: {MANIFESTS}"));
            None
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            reader.problem("source", format!("wants one entry: {MANIFESTS}"));
            None
        }
    }
}

fn kubernetes(reader: &mut Reader, node: Node) -> Source {
    let mut section = reader.open("source.kubernetes", Some(node));
    let server = reader.value(&mut section, "server", parse::url);
    reader.close(section);
    Source::Kubernetes { server }
}

fn proxy(reader: &mut Reader, top: &mut Section) -> Proxy {
    let mut section = reader.section(top, "proxy");
    let default = Proxy::default();
    let proxy = Proxy {
        port: reader.value(&mut section, "port", parse::port).unwrap_or(default.port),
        address: reader.list(&mut section, "address", parse::ip).unwrap_or(default.address),
        node_ports: reader
            .value(&mut section, "nodePorts", parse::flag)
            .unwrap_or(default.node_ports),
        intercept: reader
            .value(&mut section, "intercept", parse::intercept)
            .unwrap_or(default.intercept),
        include: include(reader, &mut section).unwrap_or(default.include),
        exclude: reader.list(&mut section, "exclude", parse::cidr).unwrap_or(default.exclude),
        exclude_ports: reader
            .list(&mut section, "excludePorts", parse::captured_port)
            .unwrap_or(default.exclude_ports),
        service_filter_mode: reader
            .value(&mut section, "serviceFilterMode", parse::service_filter)
            .unwrap_or(default.service_filter_mode),
        mark: reader.value(&mut section, "mark", parse::mark).unwrap_or(default.mark),
    };
    reader.close(section);
    proxy
}

fn include(reader: &mut Reader, section: &mut Section) -> Option<Include> {
    let (line, node) = section.take("include")?;
    match node.value {
        Value::Scalar(word) if word == "auto" => {
            reader.came_from("proxy.include", Origin::File(line));
            Some(Include::Auto(Auto::Auto))
        }
        Value::Scalar(word) => {
            let text = format!("`{word}` is neither auto nor a list of prefixes");
            reader.problem_at(line, "proxy.include", text);
            None
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            reader.items("proxy.include", line, node, parse::cidr).map(Include::List)
        }
    }
}

fn dns(reader: &mut Reader, top: &mut Section) -> Dns {
    let mut section = reader.section(top, "dns");
    let default = Dns::default();
    let dns = Dns {
        listen: reader.list(&mut section, "listen", parse::socket).unwrap_or(default.listen),
        intercept: reader
            .value(&mut section, "intercept", parse::dns_intercept)
            .unwrap_or(default.intercept),
        domain: reader.value(&mut section, "domain", parse::subdomain).unwrap_or(default.domain),
        virtual_range: reader
            .list(&mut section, "virtualRange", parse::cidr)
            .unwrap_or(default.virtual_range),
    };
    reader.close(section);
    dns
}

fn peer(reader: &mut Reader, top: &mut Section) -> Peer {
    let mut section = reader.section(top, "peer");
    let listen = reader.value(&mut section, "listen", parse::socket);
    let advertise = reader.list(&mut section, "advertise", parse::host_port);
    reader.close(section);
    Peer {
        listen: listen.unwrap_or_else(|| super::anywhere(15008)),
        advertise: advertise.unwrap_or_default(),
    }
}

fn listen(
    reader: &mut Reader,
    top: &mut Section,
    key: &'static str,
    default: std::net::SocketAddr,
) -> Listen {
    let mut section = reader.section(top, key);
    let listen = reader.value(&mut section, "listen", parse::socket);
    reader.close(section);
    Listen { listen: listen.unwrap_or(default) }
}

/// The family's name, for messages.
pub(crate) const fn family(address: IpAddr) -> &'static str {
    match address {
        IpAddr::V4(_) => "IPv4",
        IpAddr::V6(_) => "IPv6",
    }
}
