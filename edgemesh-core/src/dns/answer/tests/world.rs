//! Names that the rows are about.

use std::net::{IpAddr, Ipv4Addr};

use crate::dns::names::{Named, Names, OwnName, Place, PortName};

/// A few Services, one of them with two hosts and named ports.
pub(super) struct World;

impl Names for World {
    fn service(&self, namespace: &str, name: &str) -> Option<Named> {
        if let Some(other) = alias(namespace, name) {
            return Some(Named::Alias(other.into()));
        }
        let texts: Vec<String> = match (namespace, name) {
            ("default", "web") => vec!["198.18.0.7".into()],
            ("default", "six") => vec!["fd96::6".into()],
            ("shop", "both") => vec!["198.18.0.8".into(), "198.18.0.9".into(), "fd96::8".into()],
            ("default", "none") => Vec::new(),
            ("default", "many") => (0..2000).map(|i| Ipv4Addr::from(i).to_string()).collect(),
            ("svc", "odd") => vec!["198.18.0.10".into()],
            ("default", "db") => vec!["198.18.1.0".into()],
            _ => return None,
        };
        Some(Named::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect()))
    }

    fn host(&self, namespace: &str, service: &str, host: &str) -> Option<Vec<IpAddr>> {
        match (namespace, service, host) {
            ("default", "db", "db-0") => Some(vec![ip("198.18.1.1"), ip("fd96::1:1")]),
            ("default", "db", "db-1") => Some(vec![ip("198.18.1.2")]),
            _ => None,
        }
    }

    fn port(&self, namespace: &str, service: &str, wanted: PortName<'_>) -> Option<Vec<Place>> {
        let place = |host: Option<&str>| {
            let owner = own_name(namespace, service, host);
            let addresses = match host {
                Some(host) => self.host(namespace, service, host)?,
                None => vec![ip("198.18.0.7")],
            };
            Some(Place { owner, port: 8080, addresses })
        };
        match (namespace, service, wanted.name, wanted.transport) {
            ("default", "web", "http", "tcp") => Some(vec![place(None)?]),
            ("default", "db", "sql", "tcp") => {
                Some(vec![place(Some("db-0"))?, place(Some("db-1"))?])
            }
            _ => None,
        }
    }

    fn owners(&self, address: IpAddr) -> Vec<OwnName> {
        match address.to_string().as_str() {
            "198.18.0.7" => vec![own_name("default", "web", None)],
            "10.1.0.9" => {
                vec![own_name("default", "db", Some("db-0")), own_name("shop", "x", Some("h"))]
            }
            "fd96::1:1" => vec![own_name("default", "db", Some("db-0"))],
            _ => Vec::new(),
        }
    }
}

fn alias(namespace: &str, name: &str) -> Option<&'static str> {
    match (namespace, name) {
        ("default", "outside") => Some("www.example.com"),
        ("default", "inside") => Some("both.shop.svc.cluster.local"),
        ("default", "bare") => Some("both.shop"),
        ("default", "twice") => Some("inside.default.svc.cluster.local"),
        ("default", "lost") => Some("nobody.shop.svc.cluster.local"),
        ("default", "circle") => Some("circle.default.svc.cluster.local"),
        _ => None,
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn own_name(namespace: &str, service: &str, host: Option<&str>) -> OwnName {
    OwnName { host: host.map(Into::into), service: service.into(), namespace: namespace.into() }
}
