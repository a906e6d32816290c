//! What the text of one value may be: each function says in its error what would be right.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use edgemesh_core::config::AccessLog;
use edgemesh_core::config::DnsIntercept;
use edgemesh_core::config::Intercept;
use edgemesh_core::config::ServiceFilter;
use ipnet::IpNet;

use crate::config::PeerPath;
use crate::config::time;

/// Longest DNS name (RFC 1035) and longest label in it.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Where hubs listen unless they are told otherwise.
pub(crate) const HUB_PORT: u16 = 10000;

/// Longest `offlineGrace`: ten years. Beyond it a certificate's end would mean nothing.
const MAX_GRACE: Duration = Duration::from_secs(3650 * 86_400);

pub(crate) fn port(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("`{text}` is no port: a number from 0 to 65535"))
}

pub(crate) fn captured_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        Ok(0) | Err(_) => Err(format!("`{text}` is no port: a number from 1 to 65535")),
    }
}

/// A firewall mark, decimal or with `0x`.
pub(crate) fn mark(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map_err(|_| format!("`{text}` is no mark: a number of 32 bits, such as 0x2065"))
}

pub(crate) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

pub(crate) fn ip(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("`{text}` is no IP address"))
}

pub(crate) fn cidr(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| format!("`{text}` is no prefix: ADDRESS/LENGTH, such as 10.96.0.0/12"))?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!("`{text}` has bits beyond its length; did you mean {}?", net.trunc()))
    }
}

pub(crate) fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no IP:PORT, such as 127.0.0.1:15000 or \"[::1]:15000\""))
}

/// `HOST:PORT`, the host a name or an address.
pub(crate) fn host_port(text: &str) -> Result<String, String> {
    if text.parse::<SocketAddr>().is_ok_and(|address| address.port() != 0) {
        return Ok(text.into());
    }
    let fits = text
        .rsplit_once(':')
        .is_some_and(|(host, port)| subdomain(host).is_ok() && captured_port(port).is_ok());
    if fits { Ok(text.into()) } else { Err(format!("`{text}` is no HOST:PORT")) }
}

/// `HOST:PORT` of a hub; the error says what was probably meant.
pub(crate) fn server(text: &str) -> Result<String, String> {
    let anywhere = |ip: SocketAddr| ip.ip().is_unspecified();
    match host_port(text) {
        Ok(_) if text.parse().is_ok_and(anywhere) => {
            Err(format!("`{text}` is an address to listen at; name the one to dial"))
        }
        Ok(server) => Ok(server),
        Err(_) => {
            let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
            let bare = bare.trim_end_matches('/').to_lowercase();
            let meant =
                [bare.clone(), format!("{bare}:{HUB_PORT}"), format!("[{bare}]:{HUB_PORT}")];
            let meant = meant.into_iter().find(|meant| host_port(meant).is_ok());
            let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            Err(format!("`{text}` is no HOST:PORT{meant}"))
        }
    }
}

/// A name or an address of the cloud, without a port.
pub(crate) fn host(text: &str) -> Result<String, String> {
    if text.parse::<IpAddr>().is_ok() || subdomain(text).is_ok() {
        return Ok(text.into());
    }
    match text.rsplit_once(':') {
        Some((host, port)) if captured_port(port).is_ok() && subdomain(host).is_ok() => {
            Err(format!("`{text}` has a port; did you mean {host}?"))
        }
        Some(_) | None => Err(format!("`{text}` is neither a host name nor an IP address")),
    }
}

pub(crate) fn path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() { Err("an empty path".into()) } else { Ok(text.into()) }
}

/// A DNS-1123 subdomain, as Kubernetes names nodes.
pub(crate) fn subdomain(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = label.as_bytes();
        (1..=MAX_LABEL).contains(&bytes.len())
            && bytes.iter().all(|c| inner(*c) || *c == b'-')
            && bytes.first().is_some_and(|c| inner(*c))
            && bytes.last().is_some_and(|c| inner(*c))
    };
    if text.len() <= MAX_NAME && text.split('.').all(label) {
        Ok(text.into())
    } else {
        Err(format!(
            "`{text}` is no name: lower-case letters, digits and `-` in parts joined by dots, \
             each part beginning and ending with a letter or digit"
        ))
    }
}

/// A zone, which is a Kubernetes label value.
pub(crate) fn label_value(text: &str) -> Result<String, String> {
    let edge = |c: Option<&u8>| c.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    let inside = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    let fits = bytes.len() <= MAX_LABEL && bytes.iter().all(inside);
    if fits && edge(bytes.first()) && edge(bytes.last()) {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is no label value: letters, digits, `-`, `_`, `.`, at most 63"))
    }
}

/// The value of a label, which may be empty.
pub(crate) fn label_value_or_none(text: &str) -> Result<String, String> {
    if text.is_empty() { Ok(String::new()) } else { label_value(text) }
}

/// The key of a label: `name` or `prefix/name`.
pub(crate) fn label_key(text: &str) -> Result<String, String> {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(p, name)| (Some(p), name));
    if prefix.is_none_or(|prefix| subdomain(prefix).is_ok()) && label_value(name).is_ok() {
        Ok(text.into())
    } else {
        Err(format!("`{text}` is no label key: NAME, or PREFIX/NAME as in example.com/site"))
    }
}

/// How long something may last.
pub(crate) fn grace(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: a whole number and s, m, h or d, such as 30d");
    let time = time::parse(text).ok_or_else(wrong)?;
    if time > MAX_GRACE {
        return Err(format!("`{text}` is too long: at most {}", time::text(MAX_GRACE)));
    }
    Ok(time)
}

pub(crate) fn peer_path(text: &str) -> Result<PeerPath, String> {
    match text {
        "auto" => Ok(PeerPath::Auto),
        "direct" => Ok(PeerPath::Direct),
        "hub" => Ok(PeerPath::Hub),
        _ => Err(format!("`{text}` is none of auto, direct, hub")),
    }
}

/// A broker, with its scheme and port written out.
pub(crate) fn broker(text: &str) -> Result<String, String> {
    let (scheme, at) = text.split_once("://").unwrap_or(("mqtt", text));
    let port = match scheme {
        "mqtt" | "tcp" => 1883,
        "mqtts" | "ssl" => 8883,
        _ => return Err(format!("`{text}` begins with neither mqtt:// nor mqtts://")),
    };
    let scheme = if port == 1883 { "mqtt" } else { "mqtts" };
    let authority = at.trim_end_matches('/').parse::<http::uri::Authority>().ok();
    let authority = authority.filter(|at| !at.host().is_empty() && !at.as_str().contains('@'));
    let has_port = authority.as_ref().is_some_and(|at| at.as_str().len() > at.host().len());
    match authority {
        Some(at) if has_port && at.port_u16().is_none_or(|port| port == 0) => {
            Err(format!("`{text}` has a port that is none"))
        }
        Some(at) => Ok(format!("{scheme}://{}:{}", at.host(), at.port_u16().unwrap_or(port))),
        None => Err(format!("`{text}` is no broker: mqtt://HOST:PORT, without user or password")),
    }
}

pub(crate) fn url(text: &str) -> Result<String, String> {
    let host = ["https://", "http://"].iter().find_map(|scheme| text.strip_prefix(scheme));
    match host {
        Some(host) if !host.is_empty() => Ok(text.into()),
        Some(_) | None => Err(format!("`{text}` is no URL: https://HOST:PORT")),
    }
}

pub(crate) fn intercept(text: &str) -> Result<Intercept, String> {
    match text {
        "iptables" => Ok(Intercept::Iptables),
        "none" => Ok(Intercept::None),
        _ => Err(format!("`{text}` is none of iptables, none")),
    }
}

pub(crate) fn service_filter(text: &str) -> Result<ServiceFilter, String> {
    let all = [ServiceFilter::LabelExists, ServiceFilter::LabelDoesNotExist];
    all.into_iter()
        .find(|mode| mode.to_string() == text)
        .ok_or_else(|| format!("`{text}` is none of {}, {}", all[0], all[1]))
}

pub(crate) fn dns_intercept(text: &str) -> Result<DnsIntercept, String> {
    match text {
        "auto" => Ok(DnsIntercept::Auto),
        "on" => Ok(DnsIntercept::On),
        "off" => Ok(DnsIntercept::Off),
        _ => Err(format!("`{text}` is none of auto, on, off")),
    }
}

pub(crate) fn access_log(text: &str) -> Result<AccessLog, String> {
    text.parse()
}
