//! Typed bodies: what is said on a Link, checked.

mod calls;
mod codec;
mod counts;
mod joining;
mod ranges;

use std::collections::BTreeMap;

pub use crate::message::body::calls::{
    Accepted, Answer, Caller, Connect, HeaderField, MAX_BACKED, MAX_FIELDS, Refused, Request,
    Target,
};
pub(crate) use crate::message::body::codec::exact;
pub use crate::message::body::counts::{Counts, MAX_COUNTS, RuleCount, RuleTrouble};
pub use crate::message::body::joining::{DialBack, Join, Joined};
pub use crate::message::body::ranges::{MAX_RANGES, Ranges};
use crate::record::{Delta, Node, NodeName, Put};

/// Buckets that the records of a selector are spread over, by the hash of their key.
pub const BUCKETS: usize = 256;

/// What a Message says beside its route; none of these in Messages of applications.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Welcome`].
    Welcome(Welcome),
    /// A step of the records.
    Delta(Delta),
    /// See [`Ack`].
    Ack(Ack),
    /// See [`Held`].
    Held(Held),
    /// See [`Offer`].
    Offer(Offer),
    /// See [`Request`].
    Request(Request),
    /// See [`Answer`].
    Answer(Answer),
    /// See [`Connect`].
    Connect(Connect),
    /// See [`Accepted`].
    Accepted(Accepted),
    /// See [`Refused`].
    Refused(Refused),
    /// See [`Join`].
    Join(Join),
    /// See [`Joined`].
    Joined(Joined),
    /// See [`DialBack`].
    DialBack(DialBack),
    /// See [`Ping`].
    Ping(Ping),
    /// See [`Counts`].
    Counts(Counts),
    /// See [`Ranges`].
    Ranges(Ranges),
}

impl Body {
    /// What it is called in `route.operation`.
    pub const fn operation(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Welcome(_) => "welcome",
            Self::Delta(_) => "delta",
            Self::Ack(_) => "ack",
            Self::Held(_) => "digest",
            Self::Offer(_) => "offer",
            Self::Request(_) => "request",
            Self::Answer(_) => "answer",
            Self::Connect(_) => "connect",
            Self::Accepted(_) => "accepted",
            Self::Refused(_) => "refused",
            Self::Join(_) => "join",
            Self::Joined(_) => "joined",
            Self::DialBack(_) => "dialBack",
            Self::Ping(_) => "ping",
            Self::Counts(_) => "counts",
            Self::Ranges(_) => "ranges",
        }
    }

    /// What it is about, in `route.resource`: `namespace/service:port` of a call, else empty.
    pub fn resource(&self) -> String {
        match self {
            Self::Request(Request { target, .. }) | Self::Connect(Connect { target, .. }) => {
                format!("{}:{}", target.service, target.port)
            }
            Self::Hello(_)
            | Self::Welcome(_)
            | Self::Delta(_)
            | Self::Ack(_)
            | Self::Held(_)
            | Self::Offer(_)
            | Self::Answer(_)
            | Self::Accepted(_)
            | Self::Refused(_)
            | Self::Join(_)
            | Self::Joined(_)
            | Self::DialBack(_)
            | Self::Ping(_)
            | Self::Counts(_)
            | Self::Ranges(_) => String::new(),
        }
    }
}

/// The first Message of whoever dialled, on Control: who it is and what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its name; must be that of its certificate.
    pub node: NodeName,
    /// Random, of this process.
    pub instance: [u8; 16],
    /// Grows with each start of the node's agent.
    pub generation: u64,
    /// Version of the program.
    pub version: String,
    /// The registry whose records it holds; zeros = none.
    pub epoch: [u8; 16],
    /// Up to where.
    pub revision: u64,
    /// Digest of them.
    pub digest: [u8; 32],
    /// Which records it wants.
    pub selector: Selector,
    /// `host:port` at which other agents may dial it.
    pub links: Vec<Box<str>>,
    /// It takes over from an older process of the same node.
    pub takes_over: bool,
}

/// Which records a node wants: those that live on no node, and those of the nodes selected.
/// Nothing named selects every node.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Selector {
    /// One of them.
    pub zones: Vec<Box<str>>,
    /// All of them.
    pub labels: BTreeMap<Box<str>, Box<str>>,
}

impl Selector {
    /// Whether every node is wanted.
    pub fn is_everything(&self) -> bool {
        self.zones.is_empty() && self.labels.is_empty()
    }

    /// Whether a node is wanted.
    pub fn selects(&self, node: &Node) -> bool {
        let zone = || node.zone.as_ref().is_some_and(|zone| self.zones.contains(zone));
        (self.zones.is_empty() || zone())
            && self.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
    }
}

/// The answer to [`Hello`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// Who answers: a node, or the cloud.
    pub node: NodeName,
    /// Random, of this process.
    pub instance: [u8; 16],
    /// The registry; zeros where a peer answers.
    pub epoch: [u8; 16],
    /// Its revision.
    pub revision: u64,
    /// The certificate that the node came with is older than a day.
    pub renew: bool,
}

/// The records up to here are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The registry.
    pub epoch: [u8; 16],
    /// Up to where.
    pub revision: u64,
}

/// What somebody holds at a revision (`Digest` on the wire): from the registry to be compared, from
/// a node to be mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The registry.
    pub epoch: [u8; 16],
    /// Up to where.
    pub revision: u64,
    /// Over all records of the selector.
    pub digest: [u8; 32],
    /// The same for each of the [`BUCKETS`]; empty = not said.
    pub buckets: Vec<[u8; 32]>,
}

/// All records that a node makes itself; those of an earlier Offer that are not in it are gone. What
/// has a key that this version cannot read is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// In no order.
    pub records: Vec<Put>,
}

/// Answered with the same number, to measure the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ping {
    /// Of whoever asks.
    pub number: u64,
    /// This is the answer.
    pub answer: bool,
}
