//! Carries HTTP: every request of a connection is decided on its own, and streamed.
//!
//! hyper parses once on each side; bodies pass frame by frame and are never held whole.
//! [`exchange`] is the path of one request: decide, find a connection, send, stream back. The
//! embedding application's requests ([`send`]) take the same path.

mod answer;
mod body;
mod call;
mod check;
mod deadline;
mod ending;
mod exchange;
mod gate;
mod head;
mod ours;
mod payload;
mod pool;
mod replay;
mod rest;
mod route;
mod serve;
mod turn;
mod upgrade;
mod upload;
mod upstream;
mod wire;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::forward::{Place, Shared};
use crate::plan::{Arrival, Target};

pub use body::{Body, BodyError};
pub use call::{By, Unserved};
pub use exchange::send;
pub use gate::{Gate, Turned};
pub use head::named;
pub use pool::{Pools, SWEEP_EVERY};
pub use serve::{Version, serve};
pub use turn::Turn;
pub use upstream::is_idempotent;

/// Where the requests of one client connection come from, and where they go.
#[derive(Clone, Debug)]
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
}

impl Origin {
    /// How calls of this connection come in.
    pub(super) const fn arrival(&self) -> Arrival {
        match self.towards {
            Towards::Address(_) => Arrival::Captured,
            Towards::Named => Arrival::Proxy,
            Towards::Library => Arrival::Library,
            Towards::Ingress => Arrival::Ingress,
        }
    }

    /// Who calls; `None` = the embedding application itself.
    pub(super) fn caller(&self) -> Option<IpAddr> {
        match self.towards {
            Towards::Address(_) | Towards::Named | Towards::Ingress => {
                Some(self.shared.caller(self.client))
            }
            Towards::Library => None,
        }
    }

    /// The target of a request that names `host`.
    pub(super) fn target<'a>(&'a self, host: &'a str, port: Option<u16>) -> Target<'a> {
        match self.towards {
            Towards::Address(address) => Target::Address(address),
            Towards::Named | Towards::Library | Towards::Ingress => {
                Target::Name { host, port, domain: &self.shared.domain }
            }
        }
    }
}
