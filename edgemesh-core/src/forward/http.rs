//! Carries HTTP: every request of a connection is decided on its own, and streamed.
//!
//! hyper parses once on each side; bodies pass frame by frame and are never held whole.
//! [`exchange`] is the path of one request: decide, find a connection, send, stream back. The
//! embedding application's requests ([`send`]) take the same path.

mod answer;
mod became;
mod body;
mod call;
mod check;
mod deadline;
mod ending;
mod exchange;
mod gate;
mod head;
mod payload;
mod plain;
mod pool;
mod replay;
mod rest;
mod route;
mod ruled;
mod serve;
mod source;
mod turn;
mod undone;
mod upgrade;
mod upload;
mod upstream;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::forward::across::Passed;
use crate::forward::{Place, Shared};
use crate::plan::{Arrival, Target};

pub use body::Body;
pub use call::{By, Unserved};
pub use exchange::{passed_on, send, send_by_rule};
pub use gate::{Gate, Turned};
pub use head::named;
pub use plain::{Chosen, PlainRequest};
pub use pool::{Pools, SWEEP_EVERY};
pub use ruled::ByRule;
pub use serve::{Version, serve, serve_socket};
pub use source::BodyError;
pub use turn::Turn;
pub use upload::Outgoing;
pub use upstream::is_idempotent;
pub use wire::as_http1;

/// Where the requests of one client connection come from, and where they go.
#[derive(Debug)]
pub struct Origin {
    /// What every flow uses.
    pub shared: Arc<Shared>,
    /// Where its connection has room; held by whatever it became. The embedding application has
    /// no connection.
    pub place: Option<Arc<Place>>,
    /// Who called.
    pub client: SocketAddr,
    /// Where requests go.
    pub towards: Towards,
    /// What the client dialled, for the log; a NodePort stands for another address.
    pub dialled: Option<SocketAddr>,
    /// What another node says of the one request that it passes on; see [`Towards::Link`].
    pub passed: Option<Passed>,
}

/// Where the requests of a connection go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Towards {
    /// To the Service at the address that the client dialled, whatever they name.
    Address(SocketAddr),
    /// To the Service that each of them names (explicit proxy).
    Named,
    /// The same, from the embedding application.
    Library,
    /// The same, from whoever comes in at the ingress of the cloud.
    Ingress,
    /// To a Backend of this node, of the Service that the other node names.
    Link,
}

impl Origin {
    /// How calls of this connection come in.
    pub(super) const fn arrival(&self) -> Arrival {
        match self.towards {
            Towards::Address(_) => Arrival::Captured,
            Towards::Named => Arrival::Proxy,
            Towards::Library => Arrival::Library,
            Towards::Ingress => Arrival::Ingress,
            Towards::Link => Arrival::Link,
        }
    }

    /// Who calls; `None` = the embedding application itself.
    pub(super) fn caller(&self) -> Option<IpAddr> {
        match self.towards {
            Towards::Address(_) | Towards::Named | Towards::Ingress => {
                Some(self.shared.caller(self.client))
            }
            Towards::Library => None,
            Towards::Link => self.passed.as_ref().and_then(Passed::caller),
        }
    }

    /// The target of a request that names `host`.
    pub(super) fn target<'a>(&'a self, host: &'a str, port: Option<u16>) -> Target<'a> {
        match (self.towards, &self.passed) {
            (Towards::Link, Some(passed)) => passed.to(),
            (Towards::Address(address), _) => Target::Address(address),
            (Towards::Named | Towards::Library | Towards::Ingress | Towards::Link, _) => {
                Target::Name { host, port, domain: &self.shared.domain }
            }
        }
    }
}
