//! The agent's name server: mesh names from memory, everything else from the upstreams.
//!
//! | name | who answers |
//! |---|---|
//! | `….<domain>`, `….svc` | we do, with authority: addresses, "no data" or NXDOMAIN. Misses of a search list (`example.com.default.svc.cluster.local`) never leave the node |
//! | reverse names of mesh addresses | we do
//! | `svc.ns` | we do if there is such a Service, else an upstream |
//! | anything else | an upstream, through a small cache |
//!
//! [`answer`] decides and never waits; [`server::Server`] moves the bytes. While no upstream
//! answers, forwarded names get SERVFAIL within a second ([`upstream::BUDGET`]), or an expired
//! answer that is at most [`cache::STALE_MAX`] too old; mesh names are not affected.
//!
//! ```
//! use std::net::IpAddr;
//! use edgemesh_core::dns::answer::{Domain, Outcome, answer};
//! use edgemesh_core::dns::reply::Transport;
//!
//! let names = |namespace: &str, name: &str| -> Option<Vec<IpAddr>> {
//!     (namespace == "default" && name == "web").then(|| vec![IpAddr::from([198, 18, 0, 7])])
//! };
//! let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
//! query.extend_from_slice(b"\x03web\x07default\x00\x00\x01\x00\x01");
//! let domain = Domain::new("cluster.local")?;
//! let Outcome::Reply(reply) = answer(&query, Transport::Udp, &names, &domain) else {
//!     panic!("web.default is a mesh name");
//! };
//! assert!(reply.ends_with(&[198, 18, 0, 7]));
//! # Ok::<(), edgemesh_core::dns::answer::BadDomain>(())
//! ```

pub mod alias;
pub mod answer;
pub mod bind;
pub mod cache;
pub mod names;
pub mod reply;
pub mod resolv;
pub mod server;
pub mod upstream;
pub mod wire;

mod reverse;
#[cfg(test)]
mod sample;
mod tcp;
