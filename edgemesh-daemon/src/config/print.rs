//! A resolved configuration as YAML, each value with where it came from.

use std::fmt::Display;
use std::fmt::Write;
use std::path::PathBuf;

use edgemesh_core::config::Dns;
use edgemesh_core::config::DnsIntercept;
use edgemesh_core::config::Include;
use edgemesh_core::config::Intercept;
use edgemesh_core::config::Proxy;
use edgemesh_proto::message::Selector;
use edgemesh_router::kubernetes::Access;

use crate::config::AgentConfig;
use crate::config::Auth;
use crate::config::CloudConfig;
use crate::config::Origin;
use crate::config::Resolved;
use crate::config::Source;
use crate::config::TlsFiles;
use crate::config::time;

/// Column of the comments; longer values push theirs out.
const COMMENT: usize = 51;

/// `rows` as YAML.
pub(crate) fn yaml<C>(resolved: &Resolved<C>, rows: Vec<Row>) -> String {
    let mut out = String::new();
    let mut open: Vec<&str> = Vec::new();
    for (key, value, absent) in rows {
        let mut sections: Vec<&str> = key.split('.').collect();
        let name = sections.pop().unwrap_or_default();
        let same = open.iter().zip(&sections).take_while(|(have, want)| have == want).count();
        for (depth, section) in sections.iter().enumerate().skip(same) {
            push(&mut out, &format!("{}{section}:\n", indent(depth)));
        }
        let value = value.unwrap_or_else(|| "~".into());
        let comment = comment(resolved, key, absent);
        let line = format!("{}{name}: {value}", indent(sections.len()));
        push(&mut out, &format!("{line:COMMENT$} # {comment}\n"));
        open = sections;
    }
    out
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

fn push(out: &mut String, text: &str) {
    out.push_str(text);
}

fn comment<C>(resolved: &Resolved<C>, key: &str, absent: &str) -> String {
    match resolved.origin(key) {
        Origin::File(line) => format!("{}:{line}", resolved.file),
        Origin::Env(name) => format!("${name}"),
        Origin::Flag(name) => name.into(),
        Origin::Default if absent.is_empty() => "default".into(),
        Origin::Default => format!("default: {absent}"),
        Origin::Hostname => "this machine's host name".into(),
    }
}

/// Key, value as YAML, and what its absence means.
pub(crate) type Row = (&'static str, Option<String>, &'static str);

/// All keys of an agent's, in the order of the documentation.
pub(crate) fn agent(config: &AgentConfig) -> Vec<Row> {
    let zone = "the Node's zone";
    let mut rows: Vec<Row> = vec![
        ("node", Some(quote(&config.node)), ""),
        ("zone", config.zone.as_deref().map(quote), if config.zone.is_none() { zone } else { "" }),
        ("dataDir", Some(quote(config.data_dir.display())), ""),
    ];
    match &config.cloud {
        None => rows.push(("cloud", None, "none")),
        Some(cloud) => {
            let token = cloud.token_file.as_ref();
            rows.push(("cloud.servers", Some(list(&cloud.servers)), ""));
            let none = if token.is_none() { "none" } else { "" };
            rows.push(("cloud.tokenFile", token.map(|path| quote(path.display())), none));
            rows.push(("cloud.offlineGrace", Some(time::text(cloud.offline_grace)), ""));
            rows.extend(select(&cloud.select));
        }
    }
    rows.push(("source", Some(source(&config.source)), ""));
    rows.push(("services", Some(quote(config.services.display())), ""));
    rows.extend(proxy(&config.proxy));
    rows.extend(dns(&config.dns));
    let user = config.event_bus.username.as_ref();
    let password = config.event_bus.password_file.as_ref();
    rows.extend([
        ("peer.listen", Some(quote(config.peer.listen)), ""),
        ("peer.advertise", Some(list(&config.peer.advertise)), ""),
        ("peer.path", Some(config.peer.path.to_string()), ""),
        ("eventBus.broker", Some(quote(&config.event_bus.broker)), ""),
        ("eventBus.username", user.map(quote), if user.is_none() { "anonymous" } else { "" }),
        (
            "eventBus.passwordFile",
            password.map(|path| quote(path.display())),
            if password.is_none() { "none" } else { "" },
        ),
        ("serviceBus.listen", Some(quote(config.service_bus.listen)), ""),
        ("metrics.listen", Some(quote(config.metrics.listen)), ""),
        ("admin.listen", Some(quote(config.admin.listen)), ""),
        ("accessLog", Some(config.access_log.to_string()), ""),
    ]);
    rows
}

/// All keys of a cloud's, in the order of the documentation.
pub(crate) fn cloud(resolved: &Resolved<CloudConfig>) -> Vec<Row> {
    let CloudConfig { zone, data_dir, source: from, hub, router, dns, admin, access_log } =
        &resolved.config;
    let auth = match &router.auth {
        // Written out by us, it would open the door to whoever changes `listen` later.
        Auth::None if resolved.origin("router.auth") == Origin::Default => None,
        Auth::None => Some("none".into()),
        Auth::Token(file) => Some(format!("{{ tokenFile: {} }}", quote(file.display()))),
        Auth::ClientCa(file) => Some(format!("{{ clientCa: {} }}", quote(file.display()))),
    };
    let mut rows: Vec<Row> = vec![
        ("zone", Some(quote(zone)), ""),
        ("dataDir", Some(quote(data_dir.display())), ""),
        ("source", Some(source(from)), ""),
        ("hub.listen", Some(quote(hub.listen)), ""),
        ("hub.names", Some(list(&hub.names)), ""),
        ("hub.offlineGrace", Some(time::text(hub.offline_grace)), ""),
        ("router.listen", Some(quote(router.listen)), ""),
    ];
    match &router.tls {
        None => rows.push(("router.tls", None, "none")),
        Some(TlsFiles { cert_file, key_file }) => rows.extend([
            ("router.tls.certFile", Some(quote(cert_file.display())), ""),
            ("router.tls.keyFile", Some(quote(key_file.display())), ""),
        ]),
    }
    rows.extend([
        ("router.auth", auth, "none, on loopback"),
        ("dns.domain", Some(quote(&dns.domain)), ""),
        ("admin.listen", Some(quote(admin.listen)), ""),
        ("accessLog", Some(access_log.to_string()), ""),
    ]);
    rows
}

/// Which nodes' records.
fn select(selector: &Selector) -> Vec<Row> {
    if selector.is_everything() {
        return vec![("cloud.select", None, "every node")];
    }
    let labels = selector.labels.iter();
    let labels = labels.map(|(key, value)| format!("{}: {}", quote(key), quote(value)));
    let labels: Vec<_> = labels.collect();
    let labels =
        if labels.is_empty() { "{}".into() } else { format!("{{ {} }}", labels.join(", ")) };
    vec![
        ("cloud.select.zones", Some(list(&selector.zones)), "any"),
        ("cloud.select.labels", Some(labels), "any"),
    ]
}

fn source(source: &Source) -> String {
    match source {
        Source::None => "none".into(),
        Source::Cloud => "cloud".into(),
        Source::Manifests(folder) => format!("{{ manifests: {} }}", quote(folder.display())),
        Source::Kubernetes(access) => match kubernetes(access) {
            rows if rows.is_empty() => "{ kubernetes: {} }".into(),
            rows => format!("{{ kubernetes: {{ {} }} }}", rows.join(", ")),
        },
    }
}

fn kubernetes(access: &Access) -> Vec<String> {
    let file = |key: &str, file: &Option<PathBuf>| {
        file.as_ref().map(|file| format!("{key}: {}", quote(file.display())))
    };
    match access {
        Access::InCluster => Vec::new(),
        Access::Kubeconfig { file: config, context } => {
            let context = context.as_deref().map(|name| format!("context: {}", quote(name)));
            let config = format!("kubeconfig: {}", quote(config.display()));
            [Some(config), context].into_iter().flatten().collect()
        }
        Access::Url { server, token_file, ca_file } => {
            let server = Some(format!("server: {}", quote(server)));
            let files = [file("tokenFile", token_file), file("caFile", ca_file)];
            [server].into_iter().chain(files).flatten().collect()
        }
    }
}

fn proxy(proxy: &Proxy) -> Vec<Row> {
    let intercept = match proxy.intercept {
        Intercept::Iptables => "iptables",
        Intercept::None => "none",
    };
    let include = match &proxy.include {
        Include::Auto(_) => "auto".into(),
        Include::List(prefixes) => list(prefixes),
    };
    vec![
        ("proxy.port", Some(proxy.port.to_string()), ""),
        ("proxy.address", Some(list(&proxy.address)), ""),
        ("proxy.nodePorts", Some(proxy.node_ports.to_string()), ""),
        ("proxy.intercept", Some(intercept.into()), ""),
        ("proxy.include", Some(include), ""),
        ("proxy.exclude", Some(list(&proxy.exclude)), ""),
        ("proxy.excludePorts", Some(list(&proxy.exclude_ports)), ""),
        ("proxy.serviceFilterMode", Some(proxy.service_filter_mode.to_string()), ""),
        ("proxy.mark", Some(format!("{:#x}", proxy.mark)), ""),
    ]
}

fn dns(dns: &Dns) -> Vec<Row> {
    let intercept = match dns.intercept {
        DnsIntercept::Auto => "auto",
        DnsIntercept::On => "on",
        DnsIntercept::Off => "off",
    };
    vec![
        ("dns.listen", Some(list(&dns.listen)), ""),
        ("dns.intercept", Some(intercept.into()), ""),
        ("dns.domain", Some(quote(&dns.domain)), ""),
        ("dns.virtualRange", Some(list(&dns.virtual_range)), ""),
    ]
}

fn list<T: Display>(items: &[T]) -> String {
    let mut out = String::from("[");
    for (index, item) in items.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        let _ = write!(out, "{comma}{}", quote(item)); // a String takes everything
    }
    out.push(']');
    out
}

/// As a plain scalar where that is safe in a flow list too, else in double quotes.
fn quote(value: impl Display) -> String {
    let text = value.to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:".contains(c);
    let tricky = text.contains("::")
        || text.ends_with(':')
        || text.starts_with('-')
        || text.eq_ignore_ascii_case("null");
    if !text.is_empty() && text.chars().all(plain) && !tricky {
        text
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
