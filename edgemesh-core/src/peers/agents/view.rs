//! The ways of an agent as people see them.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use edgemesh_proto::record::NodeName;

use crate::backends::Way;
use crate::peers::agents::{Known, Peers};

/// How one other node is reached, for people.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// The node.
    pub node: NodeName,
    /// The way that works; `None` = none does.
    pub way: Option<Way>,
    /// Why it is not a better one.
    pub why: String,
    /// The peer's address, of a direct Link.
    pub address: Option<SocketAddr>,
    /// Since when the direct way is as it is.
    pub since: Option<SystemTime>,
    /// How long there and back takes.
    pub round_trip: Option<Duration>,
}

impl Peers {
    /// Everybody who was asked for, by name.
    pub fn views(&self) -> Vec<PeerView> {
        let all: Vec<_> = self.0.known.read().values().cloned().collect();
        all.iter().map(|known| self.view(known)).collect()
    }

    fn view(&self, known: &Known) -> PeerView {
        let facts = known.facts.lock().clone();
        let direct = known.direct.ready().is_some();
        let hub = facts.by_hub && self.0.parts.uplink.ready().is_some();
        PeerView {
            node: known.node.clone(),
            way: if direct { Some(Way::Direct) } else { hub.then_some(Way::Hub) },
            why: known.path.lock().why().0.to_owned(),
            address: facts.address.filter(|_| direct),
            since: facts.since,
            round_trip: self.live(&known.node).and_then(|live| live.round_trip()),
        }
    }
}
