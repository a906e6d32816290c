//! One Backend of one Service port: where it is, as seen from this node, and how it is reached.

use std::cmp::Ordering;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use edgemesh_proto::record::NodeName;

use crate::backends::{BackendLive, NodeLive};

/// How far away a Backend is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// On this node.
    Node,
    /// In this node's zone.
    Zone,
    /// Elsewhere, or nobody said where.
    Anywhere,
}

/// Whose a Backend is to call.
#[derive(Clone, Debug)]
pub enum Reach {
    /// This agent's: it runs on this node. Always of [`Tier::Node`], and nobody else is.
    Here,
    /// Nobody's: no agent runs where it runs, or nobody said where, so its address is dialled.
    Plain,
    /// The agent's of its node, to which a Link leads.
    Linked(Arc<NodeLive>),
    /// The cloud's, whose process calls it for others.
    Cloud(Arc<NodeLive>),
    /// The Router's, who takes messages of Rules in at this process.
    Inbox,
}

/// Which Backend, of all: an address may mean another machine on every node (loopback, and private
/// ranges that sites choose alike).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Spot {
    /// Where it listens.
    pub address: SocketAddr,
    /// The number of the node on which the address counts; 0 = here.
    pub node: u32,
}

/// One Backend of one Service port.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    /// The machine it runs on, where that is known.
    pub node: Option<NodeName>,
    /// Its zone, where that is known.
    pub zone: Option<Box<str>>,
    /// Seen from this node, whatever the locality of the Policy.
    pub tier: Tier,
    /// Whose it is to call.
    pub reach: Reach,
    /// Pod or process behind it.
    pub workload: Option<Box<str>>,
    /// Share of the calls against the others of its tier; 0 = only when nobody else is left.
    pub weight: u16,
    /// What calls leave behind.
    pub live: Arc<BackendLive>,
}

impl Tier {
    /// `node`, `zone` or `anywhere`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Zone => "zone",
            Self::Anywhere => "anywhere",
        }
    }
}

impl Reach {
    /// The node to which a Link must lead.
    pub const fn node(&self) -> Option<&Arc<NodeLive>> {
        match self {
            Self::Linked(node) | Self::Cloud(node) => Some(node),
            Self::Here | Self::Plain | Self::Inbox => None,
        }
    }

    /// `here`, `plain`, `linked`, `cloud` or `inbox`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Here => "here",
            Self::Plain => "plain",
            Self::Linked(_) => "linked",
            Self::Cloud(_) => "cloud",
            Self::Inbox => "inbox",
        }
    }
}

impl Spot {
    /// An address that counts here.
    pub const fn here(address: SocketAddr) -> Self {
        Self { address, node: 0 }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

impl Backend {
    /// A Backend of which nothing else is known.
    pub fn new(address: SocketAddr, tier: Tier) -> Self {
        Self {
            address,
            node: None,
            zone: None,
            tier,
            reach: if tier == Tier::Node { Reach::Here } else { Reach::Plain },
            workload: None,
            weight: 1,
            live: Arc::default(),
        }
    }

    /// Which Backend it is.
    pub fn spot(&self) -> Spot {
        let node = self.reach.node().map_or(0, |node| node.number());
        Spot { address: self.address, node }
    }

    /// Whether this process calls it by its address.
    pub const fn is_dialled(&self) -> bool {
        self.reach.node().is_none()
    }

    /// The order within a tier: by address, and where that means several, by the node on which it
    /// counts. The same on every node and after every history.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        self.identity().cmp(&other.identity())
    }

    fn identity(&self) -> (SocketAddr, Option<&str>) {
        let linked = self.reach.node().and(self.node.as_ref());
        (self.address, linked.map(|node| &*node.0))
    }
}
