//! Pools: the Backends of one Service port, sorted into tiers as seen from this node.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use edgemesh_proto::record::{BreakerPolicy, Locality, NodeName};

use crate::backends::{BackendLive, PoolLive};

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
    /// Pod or process behind it.
    pub workload: Option<Box<str>>,
    /// What calls leave behind.
    pub live: Arc<BackendLive>,
}

/// The Backends of one Service port for one address family.
#[derive(Debug, Default)]
pub struct Pool {
    /// Sorted by tier, then by address.
    pub backends: Vec<Backend>,
    /// Ends of the tiers in `backends`, nearest first.
    ends: [usize; 3],
    /// Live state of the pool.
    pub live: Arc<PoolLive>,
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

impl Backend {
    /// A Backend of which nothing else is known.
    pub fn new(address: SocketAddr, tier: Tier) -> Self {
        Self { address, node: None, zone: None, tier, workload: None, live: Arc::default() }
    }
}

impl Pool {
    /// Sorts `backends`, drops repeated addresses, and takes the live state of those that
    /// `previous` knew.
    pub fn new(mut backends: Vec<Backend>, previous: Option<&Self>) -> Self {
        backends.sort_by_key(|b| (b.tier, b.address));
        let mut seen = std::collections::HashSet::new();
        backends.retain(|backend| seen.insert(backend.address));
        let mut live = Arc::default();
        if let Some(previous) = previous {
            live = previous.live.clone();
            for backend in &mut backends {
                // The tier may have changed, so that the order of `previous` is of no help.
                if let Some(known) = previous.find(backend.address) {
                    backend.live = known.live.clone();
                }
            }
        }
        let end = |tier| backends.partition_point(|b| b.tier <= tier);
        let ends = [end(Tier::Node), end(Tier::Zone), backends.len()];
        live.size.store(backends.len(), Relaxed);
        Self { backends, ends, live }
    }

    /// Backends that are ejected, or wait for their probe.
    pub fn ejected(&self) -> usize {
        self.backends.iter().filter(|b| b.live.breaker.ejected_until().is_some()).count()
    }

    /// How many Backends of the pool as it is now may be ejected at once. One always may, or a
    /// breaker would be of no use to a small pool.
    pub fn ejectable(&self, breaker: &BreakerPolicy) -> usize {
        let size = self.live.size.load(Relaxed);
        (size * usize::from(breaker.max_ejected_percent) / 100).max(1)
    }

    /// Takes Backends back where more are ejected than may be, since the pool became smaller:
    /// those first whose time would come first.
    pub fn hold_share(&self, breaker: &BreakerPolicy) {
        let _nobody_ejects = self.live.ejecting.hold();
        let until = |b: &Backend| Some((b.live.breaker.ejected_until()?, b.live.clone()));
        let mut ejected: Vec<_> = self.backends.iter().filter_map(until).collect();
        let too_many = ejected.len().saturating_sub(self.ejectable(breaker));
        ejected.sort_by_key(|(until, _)| *until);
        ejected.iter().take(too_many).for_each(|(_, live)| live.breaker.readmit());
    }

    fn find(&self, address: SocketAddr) -> Option<&Backend> {
        (0..3).find_map(|tier| {
            let tier = &self.backends[self.range(tier)];
            tier.binary_search_by_key(&address, |b| b.address).ok().map(|i| &tier[i])
        })
    }

    /// Non-empty ranges of `backends` to look through, in order.
    pub fn tiers(&self, locality: Locality) -> impl Iterator<Item = Range<usize>> + use<> {
        let [node, _, all] = self.ends;
        let ranges = match locality {
            Locality::None => [0..all, 0..0, 0..0],
            Locality::PreferNode => [self.range(0), self.range(1), self.range(2)],
            Locality::OnlyNode => [0..node, 0..0, 0..0],
        };
        ranges.into_iter().filter(|range| !range.is_empty())
    }

    fn range(&self, tier: usize) -> Range<usize> {
        let start = if tier == 0 { 0 } else { self.ends[tier - 1] };
        start..self.ends[tier]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiers_and_live_state() {
        let backend = |i: u8, tier| Backend::new(([10, 0, 0, i], 80).into(), tier);
        let first = Pool::new(
            vec![
                backend(3, Tier::Anywhere),
                backend(2, Tier::Node),
                backend(1, Tier::Zone),
                backend(2, Tier::Node),
            ],
            None,
        );
        let all = |locality| first.tiers(locality).collect::<Vec<_>>();
        assert_eq!(all(Locality::PreferNode), [0..1, 1..2, 2..3]);
        assert_eq!(all(Locality::None), vec![0..3]);
        assert_eq!(all(Locality::OnlyNode), vec![0..1]);

        let second =
            Pool::new(vec![backend(2, Tier::Anywhere), backend(9, Tier::Node)], Some(&first));
        assert!(Arc::ptr_eq(&second.backends[1].live, &first.backends[0].live));
        assert!(Arc::ptr_eq(&second.live, &first.live));
        assert_eq!(second.tiers(Locality::PreferNode).collect::<Vec<_>>(), [0..1, 1..2]);
    }
}
