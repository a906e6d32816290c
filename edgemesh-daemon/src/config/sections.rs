//! The sections of `agent.yaml`, key by key, onto their defaults.

use std::net::IpAddr;

use edgemesh_core::config::Auto;
use edgemesh_core::config::Dns;
use edgemesh_core::config::Include;
use edgemesh_core::config::Proxy;
use edgemesh_core::identity::OFFLINE_GRACE;
use edgemesh_proto::message::Selector;

use crate::config::AgentConfig;
use crate::config::Cloud;
use crate::config::Environment;
use crate::config::EventBus;
use crate::config::Flags;
use crate::config::Kind;
use crate::config::Listen;
use crate::config::Origin;
use crate::config::Peer;
use crate::config::Source;
use crate::config::parse;
use crate::config::read::Reader;
use crate::config::read::Section;
use crate::config::source;
use crate::config::tree::Value;

/// Reads everything; `None` where the text is no YAML or no section. A wrong value is noted as a problem and
/// its default takes its place, so that the rest can be checked too.
pub(crate) fn agent(
    reader: &mut Reader,
    text: &str,
    environment: &Environment,
    flags: &Flags,
) -> Option<AgentConfig> {
    let mut top = reader.root(text)?;
    let node = node(reader, &mut top, environment, flags);
    let zone = reader.value(&mut top, "zone", parse::label_value);
    let data_dir = reader.value(&mut top, "dataDir", parse::path);
    let cloud = cloud(reader, &mut top);
    // With a cloud, the records are there; without, there is this node alone.
    let absent = if cloud.is_some() { Source::Cloud } else { Source::None };
    let source = source::read(reader, &mut top, Kind::Agent, absent, flags);
    let services = reader.value(&mut top, "services", parse::path);
    let proxy = proxy(reader, &mut top);
    let dns = dns(reader, &mut top);
    let peer = peer(reader, &mut top);
    let event_bus = event_bus(reader, &mut top);
    let service_bus = listen(reader, &mut top, "serviceBus", super::SERVICE_BUS);
    let metrics = listen(reader, &mut top, "metrics", super::anywhere(15020));
    let admin = listen(reader, &mut top, "admin", super::ADMIN);
    let access_log = reader.value(&mut top, "accessLog", parse::access_log);
    reader.close(top);
    Some(AgentConfig {
        node: node.unwrap_or_default(),
        zone,
        data_dir: data_dir.unwrap_or_else(|| "/var/lib/edgemesh".into()),
        cloud,
        source,
        services: services.unwrap_or_else(|| "/etc/edgemesh/services".into()),
        proxy,
        dns,
        peer,
        event_bus,
        service_bus,
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
    let servers = servers(reader, &mut section, line);
    let token_file = reader.value(&mut section, "tokenFile", parse::path);
    let grace = reader.value(&mut section, "offlineGrace", parse::grace);
    let select = select(reader, &mut section);
    reader.close(section);
    Some(Cloud {
        servers,
        token_file,
        offline_grace: grace.unwrap_or(OFFLINE_GRACE),
        select: select.unwrap_or_default(),
    })
}

fn servers(reader: &mut Reader, section: &mut Section, line: usize) -> Vec<String> {
    const KEY: &str = "cloud.servers";
    let before = reader.problems.len();
    let Some(servers) = reader.list(section, "servers", parse::server) else {
        if reader.problems.len() == before {
            reader.problem_at(line, KEY, "is missing: [HOST:PORT] of the cloud's hub");
        }
        return Vec::new();
    };
    if servers.is_empty() && reader.problems.len() == before {
        reader.problem(KEY, "wants at least one HOST:PORT");
    }
    for (index, server) in servers.iter().enumerate() {
        if servers[..index].contains(server) {
            reader.problem(KEY, format!("{server} is given twice"));
        }
    }
    servers
}

fn select(reader: &mut Reader, cloud: &mut Section) -> Option<Selector> {
    let (line, node) = cloud.take("select")?;
    if matches!(node.value, Value::Null) {
        return None;
    }
    reader.came_from("cloud.select", Origin::File(line));
    let mut section = reader.open("cloud.select", Some(node));
    let zones = reader.list(&mut section, "zones", parse::label_value).unwrap_or_default();
    let labels = reader.pairs(&mut section, "labels", parse::label_key, parse::label_value_or_none);
    reader.close(section);
    Some(Selector {
        zones: zones.into_iter().map(Into::into).collect(),
        labels: labels
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect(),
    })
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
    let path = reader.value(&mut section, "path", parse::peer_path);
    reader.close(section);
    Peer {
        listen: listen.unwrap_or_else(|| super::anywhere(15008)),
        advertise: advertise.unwrap_or_default(),
        path: path.unwrap_or_default(),
    }
}

fn event_bus(reader: &mut Reader, top: &mut Section) -> EventBus {
    let mut section = reader.section(top, "eventBus");
    let broker = reader.value(&mut section, "broker", parse::broker);
    let username = reader.value(&mut section, "username", |text| Ok(text.to_owned()));
    let password_file = reader.value(&mut section, "passwordFile", parse::path);
    reader.close(section);
    let broker = broker.unwrap_or_else(|| "mqtt://127.0.0.1:1883".into());
    EventBus { broker, username, password_file }
}

pub(crate) fn listen(
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
