//! What an agent says to the hub of itself, and what it knows of their Link.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use edgemesh_proto::message::{Body, Selector, Welcome};
use tokio::sync::mpsc;

use crate::peers::advertise::Advertise;

/// What an agent says of itself.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// `host:port` of each hub, in the order in which they are tried.
    pub servers: Vec<Box<str>>,
    /// Where other agents may dial it.
    pub links: Advertise,
    /// Which records it wants.
    pub selector: Selector,
    /// Grows with each start.
    pub generation: u64,
    /// It takes over from an older process.
    pub takes_over: bool,
}

/// The records that an agent holds, for its next hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// The registry; zeros = none.
    pub epoch: [u8; 16],
    /// Up to where.
    pub revision: u64,
    /// Digest of them.
    pub digest: [u8; 32],
}

/// One conversation with the hub, for whoever keeps the records. It is over when `incoming` ends.
#[derive(Debug)]
pub struct Talk {
    /// What the hub welcomed with.
    pub welcome: Welcome,
    /// What it says about records.
    pub incoming: mpsc::Receiver<Body>,
    /// What it is told.
    pub outgoing: mpsc::Sender<Body>,
}

/// How the Link to the hub is.
#[derive(Clone, Debug)]
pub struct UplinkState {
    /// Set while Control stands.
    pub linked: Option<Linked>,
    /// Why the last try failed, or the last Link ended.
    pub trouble: Option<Arc<str>>,
    /// The hub said no: somebody has to do something.
    pub refused: bool,
    /// It said that this node was removed: only a new token lets it in again.
    pub is_removed: bool,
    /// It said that this node's certificate expired: it may renew it, and nothing else.
    pub is_expired: bool,
    /// Since when there is none, or one.
    pub since: SystemTime,
}

impl Default for UplinkState {
    fn default() -> Self {
        Self {
            linked: None,
            trouble: None,
            refused: false,
            is_removed: false,
            is_expired: false,
            since: SystemTime::now(),
        }
    }
}

/// A Control that stands.
#[derive(Clone, Debug)]
pub struct Linked {
    /// As configured.
    pub server: Box<str>,
    /// Its address.
    pub address: SocketAddr,
    /// Since when.
    pub since: SystemTime,
    /// How long there and back takes, once measured.
    pub round_trip: Option<Duration>,
}
