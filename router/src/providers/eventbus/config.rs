//! Which broker a node has, and how to log in there.

use std::fmt;
use std::path::Path;

use crate::providers::connect::Place;

/// Where a broker is, unless it is said: on the same machine.
const USUAL_URL: &str = "mqtt://127.0.0.1:1883";
/// Schemes, whether they mean TLS, and their port. KubeEdge writes `tcp://`.
const SCHEMES: [(&str, bool, u16); 4] = [
    ("mqtt://", false, 1883),
    ("tcp://", false, 1883),
    ("mqtts://", true, 8883),
    ("ssl://", true, 8883),
];

/// See the module.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    /// `mqtt://host:port`, or `mqtts://` for TLS.
    pub url: Box<str>,
    /// Whom to log in as.
    pub username: Option<Box<str>>,
    /// With which password.
    pub password: Option<Box<str>>,
    /// By which the broker knows this node again; `None` = `edgemesh-` and the node's name.
    pub client_id: Option<Box<str>>,
    /// Locked by the process of this node that is the broker's client; `None` = there is never another.
    pub lock: Option<Box<Path>>,
}

/// A URL that no broker can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{url}` is no broker: {why}; write mqtt://host:port or mqtts://host:port")]
pub struct BadBroker {
    /// What was written.
    pub url: Box<str>,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self { url: USUAL_URL.into(), username: None, password: None, client_id: None, lock: None }
    }
}

impl BrokerConfig {
    /// Whether it can be a broker at all.
    ///
    /// # Errors
    /// What is wrong with its URL.
    pub fn check(&self) -> Result<(), BadBroker> {
        self.place().map(drop)
    }

    /// Where the broker is.
    pub(super) fn place(&self) -> Result<Place, BadBroker> {
        let bad = |why| BadBroker { url: self.url.clone(), why };
        let scheme = SCHEMES.iter().find(|(scheme, ..)| self.url.starts_with(scheme));
        let (scheme, tls, usual) = *scheme.ok_or_else(|| bad("its scheme is none of MQTT's"))?;
        let rest = self.url[scheme.len()..].trim_end_matches('/');
        if rest.contains('@') {
            return Err(bad("it holds a user name or password, which have keys of their own"));
        }
        let authority: http::uri::Authority =
            rest.parse().map_err(|_| bad("it names no host and port"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let has_port = authority.as_str().len() > authority.host().len();
        let port = authority.port_u16().filter(|port| *port > 0);
        if host.is_empty() || (has_port && port.is_none()) {
            return Err(bad("it names no host, or a port that is none"));
        }
        Ok(Place { host: host.into(), port: port.unwrap_or(usual), tls })
    }
}

/// Without the password.
impl fmt::Debug for BrokerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let password = self.password.as_ref().map(|_| "…");
        f.debug_struct("BrokerConfig")
            .field("url", &self.url)
            .field("username", &self.username)
            .field("password", &password)
            .field("client_id", &self.client_id)
            .field("lock", &self.lock)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (url, want) in [
            ("mqtt://127.0.0.1:1883", "127.0.0.1:1883"),
            ("tcp://b.example/", "b.example:1883"),
            ("mqtts://b.example", "b.example:8883 tls"),
            ("ssl://[::1]:9", "[::1]:9 tls"),
            ("http://b.example", "its scheme is none"),
            ("mqtt://u:p@b.example", "holds a user name"),
            ("mqtt://", "names no host"),
            ("mqtt://b:0", "a port that is none"),
            ("mqtt://b:99999", "a port that is none"),
        ] {
            let config = BrokerConfig { url: url.into(), ..BrokerConfig::default() };
            match config.place() {
                Ok(at) => assert_eq!(format!("{at}{}", if at.tls { " tls" } else { "" }), want),
                Err(error) => assert!(error.to_string().contains(want), "{url}: {error}"),
            }
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let config = BrokerConfig { password: Some("secret".into()), ..BrokerConfig::default() };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
