//! A resolved configuration as YAML, each value with where it came from.

use std::fmt::Display;
use std::fmt::Write;

use edgemesh_core::config::DnsIntercept;
use edgemesh_core::config::Include;
use edgemesh_core::config::Intercept;

use crate::config::Origin;
use crate::config::Resolved;
use crate::config::Source;

/// Column of the comments; longer values push theirs out.
const COMMENT: usize = 51;

/// All keys in the order of the documentation.
pub(crate) fn yaml(resolved: &Resolved) -> String {
    let mut out = String::new();
    let mut open = "";
    for (key, value, absent) in rows(resolved) {
        let (section, name) = key.split_once('.').unwrap_or(("", key));
        if section != open && !section.is_empty() {
            push(&mut out, &format!("{section}:\n"));
        }
        open = section;
        let indent = if section.is_empty() { "" } else { "  " };
        let value = value.unwrap_or_else(|| "~".into());
        let comment = comment(resolved, key, absent);
        let line = format!("{indent}{name}: {value}");
        push(&mut out, &format!("{line:COMMENT$} # {comment}\n"));
    }
    out
}

fn push(out: &mut String, text: &str) {
    out.push_str(text);
}

fn comment(resolved: &Resolved, key: &str, absent: &str) -> String {
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
type Row = (&'static str, Option<String>, &'static str);

fn rows(resolved: &Resolved) -> Vec<Row> {
    let config = &resolved.config;
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
            rows.push(("cloud.tokenFile", token.map(|path| quote(path.display())), "none"));
        }
    }
    rows.push(("source", Some(source(&config.source)), ""));
    rows.push(("services", Some(quote(config.services.display())), ""));
    rows.extend(proxy(resolved));
    rows.extend(dns(resolved));
    rows.extend([
        ("peer.listen", Some(quote(config.peer.listen)), ""),
        ("peer.advertise", Some(list(&config.peer.advertise)), ""),
        ("metrics.listen", Some(quote(config.metrics.listen)), ""),
        ("admin.listen", Some(quote(config.admin.listen)), ""),
        ("accessLog", Some(config.access_log.to_string()), ""),
    ]);
    rows
}

fn source(source: &Source) -> String {
    match source {
        Source::None => "none".into(),
        Source::Cloud => "cloud".into(),
        Source::Manifests(folder) => format!("{{ manifests: {} }}", quote(folder.display())),
        Source::Kubernetes { server: None } => "{ kubernetes: {} }".into(),
        Source::Kubernetes { server: Some(server) } => {
            format!("{{ kubernetes: {{ server: {} }} }}", quote(server))
        }
    }
}

fn proxy(resolved: &Resolved) -> Vec<Row> {
    let proxy = &resolved.config.proxy;
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

fn dns(resolved: &Resolved) -> Vec<Row> {
    let dns = &resolved.config.dns;
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
    let tricky = text.contains("::") || text.ends_with(':') || text.starts_with('-');
    if !text.is_empty() && text.chars().all(plain) && !tricky {
        text
    } else {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
