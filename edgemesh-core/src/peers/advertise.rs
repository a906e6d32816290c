//! Where other agents may dial this one.

use std::net::{IpAddr, SocketAddr};

/// Most addresses that are told: a machine with more has bridges that nobody else reaches.
const MOST: usize = 8;

/// What is told of this agent's listener.
#[derive(Clone, Debug)]
pub enum Advertise {
    /// As configured.
    Fixed(Vec<Box<str>>),
    /// This machine's own addresses, as they are when it is asked.
    Own {
        /// The listener's port.
        port: u16,
        /// Addresses that only this machine can use.
        except: Vec<IpAddr>,
    },
}

impl Advertise {
    /// `host:port`, now.
    pub fn now(&self) -> Vec<Box<str>> {
        match self {
            Self::Fixed(links) => links.clone(),
            Self::Own { port, except } => {
                let own = crate::io::own_addresses().unwrap_or_default();
                own_links(own.into_iter().filter(|ip| !except.contains(ip)), *port)
            }
        }
    }
}

/// Addresses that may mean something elsewhere, IPv4 first.
fn own_links(own: impl Iterator<Item = IpAddr>, port: u16) -> Vec<Box<str>> {
    let mut usable: Vec<IpAddr> = own.filter(is_usable).collect();
    usable.sort_by_key(|ip| (ip.is_ipv6(), *ip));
    usable.truncate(MOST);
    usable.into_iter().map(|ip| SocketAddr::new(ip, port).to_string().into()).collect()
}

fn is_usable(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_else_can_use_is_not_told() {
        let own = ["fe80::1", "127.0.0.1", "::1", "169.254.96.16", "fd01::2", "192.168.1.11"];
        let own = own.into_iter().map(|ip| ip.parse().unwrap());
        assert_eq!(own_links(own, 15008), ["192.168.1.11:15008".into(), "[fd01::2]:15008".into()]);
        let many = (0..20).map(|n| IpAddr::from([10, 0, 0, n]));
        assert_eq!(own_links(many, 1).len(), MOST);
    }
}
