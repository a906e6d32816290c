//! Pools: the Backends of one Service port, sorted into tiers as seen from this node.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use edgemesh_proto::record::{BreakerPolicy, Locality};

use crate::backends::PoolLive;
use crate::hash;
use crate::snapshot::backend::{Backend, Tier};
use crate::snapshot::group::{Group, Shares, stride};

/// The Backends of one Service port for one address family.
#[derive(Debug)]
pub struct Pool {
    /// Those of weight 0 last, then sorted by tier, then by address.
    pub backends: Vec<Backend>,
    /// Some are called by others than this process.
    pub is_linked: bool,
    /// Ends of the tiers in `backends`, nearest first, then of the same without weight.
    ends: [u32; 2 * TIERS],
    /// What only some policies need.
    extras: Option<Box<Extras>>,
    /// Live state of the pool.
    pub live: Arc<PoolLive>,
}

/// What an agent with ten thousand plain Services should not have to keep.
#[derive(Debug, Default)]
struct Extras {
    /// Sum of the weights before each Backend, and after the last; empty where all are equal.
    sums: Box<[u64]>,
    /// See [`stride`]: for each tier, and for all of them together.
    strides: [u64; TIERS + 1],
    /// Hash of each address; empty where nobody asks for it.
    hashes: Box<[u64]>,
}

/// Variants of [`Tier`].
const TIERS: usize = 3;

impl Pool {
    /// Sorts `backends`, drops repeated ones, and takes the live state of those that
    /// `previous` knew; a pool without one begins at `now`.
    pub fn new(backends: Vec<Backend>, previous: Option<&Self>, now: Instant) -> Self {
        let live = previous.map(|previous| previous.live.clone());
        Self::with(backends, previous, live.unwrap_or_else(|| Arc::new(PoolLive::new(now))))
    }

    /// Some Backends of `all`, with turns and sessions of their own.
    pub fn part(backends: Vec<Backend>, all: &Self, now: Instant) -> Self {
        Self::with(backends, Some(all), Arc::new(PoolLive::new(now)))
    }

    fn with(mut backends: Vec<Backend>, previous: Option<&Self>, live: Arc<PoolLive>) -> Self {
        let rank = |b: &Backend| (b.weight == 0, b.tier);
        backends.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.order(b)));
        let mut seen = HashSet::new();
        backends.retain(|backend| seen.insert(backend.spot()));
        backends.shrink_to_fit(); // they stay, and were found one by one
        if let Some(previous) = previous {
            for backend in &mut backends {
                // The tier may have changed, so that the order of `previous` is of no help.
                if let Some(known) = previous.find(backend) {
                    backend.live = known.live.clone();
                }
            }
        }
        let end = |idle, tier| {
            let end = backends.partition_point(|b| (b.weight == 0, b.tier) <= (idle, tier));
            u32::try_from(end).expect("a Snapshot of 2^32 Backends does not fit into memory")
        };
        let tiers = [Tier::Node, Tier::Zone, Tier::Anywhere];
        let [node, zone, anywhere] = tiers.map(|tier| end(false, tier));
        let [idle_node, idle_zone, idle] = tiers.map(|tier| end(true, tier));
        let ends = [node, zone, anywhere, idle_node, idle_zone, idle];
        live.size.store(backends.len(), Relaxed);
        let is_linked = backends.iter().any(|backend| !backend.is_dialled());
        Self { backends, is_linked, ends, extras: None, live }.weighed()
    }

    /// The same pool for policies that hash: it knows the hash of every address. One that means
    /// several machines is told apart by their names, which every node knows alike.
    pub fn hashed(mut self) -> Self {
        let (mut seen, mut twice) = (HashSet::new(), HashSet::new());
        twice.extend(self.backends.iter().map(|b| b.address).filter(|at| !seen.insert(*at)));
        let of = |backend: &Backend| {
            let name = backend.node.as_ref().filter(|_| twice.contains(&backend.address));
            let node = name.map_or(0, |name| hash::bytes(name.0.as_bytes()));
            hash::address(backend.address) ^ node
        };
        let hashes = self.backends.iter().map(of).collect();
        self.extras.get_or_insert_default().hashes = hashes;
        self
    }

    fn weighed(mut self) -> Self {
        let working = &self.backends[..self.end(TIERS - 1)];
        let first = working.first().map_or(1, |b| b.weight);
        if working.iter().all(|b| b.weight == first) {
            return self;
        }
        let mut sum = 0;
        let sums: Box<[u64]> = [0]
            .into_iter()
            .chain(working.iter().map(|b| {
                sum += u64::from(b.weight);
                sum
            }))
            .collect();
        let of = |range: Range<usize>| stride((sums[range.end] - sums[range.start]).max(1));
        let [node, zone, anywhere] = [0, 1, 2].map(|tier| of(self.range(tier)));
        let strides = [node, zone, anywhere, of(0..working.len())];
        self.extras = Some(Box::new(Extras { sums, strides, hashes: [].into() }));
        self
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

    /// The same Backend, whatever its tier was, and however it was reached.
    fn find(&self, like: &Backend) -> Option<&Backend> {
        (0..self.ends.len()).find_map(|tier| {
            let tier = &self.backends[self.range(tier)];
            let first = tier.partition_point(|b| b.address < like.address);
            let mut alike = tier[first..].iter().take_while(|b| b.address == like.address);
            alike.find(|b| b.order(like).is_eq() || b.node == like.node)
        })
    }

    /// Whether anybody in it runs on this node.
    pub fn has_local(&self) -> bool {
        !self.range(0).is_empty() || !self.range(TIERS).is_empty()
    }

    /// Non-empty groups to look through, in order: tier by tier, and after them all those that
    /// take calls only when nobody else does.
    pub fn groups(&self, locality: Locality) -> impl Iterator<Item = Group<'_>> {
        let nothing = || (0..0, TIERS);
        let one = |tier| (self.range(tier), tier);
        let working = self.end(TIERS - 1);
        let ranges = match locality {
            Locality::None => {
                let idle = (working..self.backends.len(), TIERS);
                [(0..working, TIERS), idle, nothing(), nothing(), nothing(), nothing()]
            }
            Locality::PreferNode => [one(0), one(1), one(2), one(3), one(4), one(5)],
            Locality::OnlyNode => [one(0), one(3), nothing(), nothing(), nothing(), nothing()],
        };
        let filled = ranges.into_iter().filter(|(range, _)| !range.is_empty());
        filled.map(|(range, tier)| self.group(range, tier))
    }

    /// The Backend whose address has a hash that begins with `tag`, in a hashed pool.
    pub fn tagged(&self, tag: u32) -> Option<usize> {
        self.extras.as_ref()?.hashes.iter().position(|hash| (hash >> 32) as u32 == tag)
    }

    /// The tag of a Backend, in a hashed pool.
    pub fn tag(&self, backend: usize) -> Option<u32> {
        Some((self.extras.as_ref()?.hashes.get(backend)? >> 32) as u32)
    }

    /// Backends of each tier, nearest first, and of all tiers those of weight 0.
    pub fn counts(&self) -> ([usize; 3], usize) {
        let working = self.end(TIERS - 1);
        ([0, 1, 2].map(|tier| self.range(tier).len()), self.backends.len() - working)
    }

    fn group(&self, range: Range<usize>, tier: usize) -> Group<'_> {
        let start = range.start;
        let backends = &self.backends[range.clone()];
        let Some(extras) = &self.extras else {
            return Group { start, backends, shares: None, hashes: &[] };
        };
        // Sums end where weight 0 begins: there, all count alike.
        let shares = extras
            .sums
            .get(start..=range.end)
            .map(|sums| Shares { sums, stride: extras.strides[tier.min(TIERS)] });
        Group { start, backends, shares, hashes: extras.hashes.get(range).unwrap_or_default() }
    }

    fn range(&self, tier: usize) -> Range<usize> {
        let start = if tier == 0 { 0 } else { self.end(tier - 1) };
        start..self.end(tier)
    }

    const fn end(&self, tier: usize) -> usize {
        self.ends[tier] as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
    fn pool(backends: Vec<Backend>, previous: Option<&Pool>) -> Pool {
        Pool::new(backends, previous, Instant::now())
    }

    fn backend(i: u8, tier: Tier, weight: u16) -> Backend {
        Backend { weight, ..Backend::new(([10, 0, 0, i], 80).into(), tier) }
    }

    fn ranges(pool: &Pool, locality: Locality) -> Vec<Range<usize>> {
        pool.groups(locality).map(|g| g.start..g.start + g.backends.len()).collect()
    }

    #[test]
    fn tiers_and_live_state() {
        let first = pool(
            vec![
                backend(3, Tier::Anywhere, 1),
                backend(2, Tier::Node, 1),
                backend(1, Tier::Zone, 1),
                backend(2, Tier::Node, 1),
            ],
            None,
        );
        assert_eq!(ranges(&first, Locality::PreferNode), [0..1, 1..2, 2..3]);
        assert_eq!(ranges(&first, Locality::None), vec![0..3]);
        assert_eq!(ranges(&first, Locality::OnlyNode), vec![0..1]);

        let second =
            pool(vec![backend(2, Tier::Anywhere, 0), backend(9, Tier::Node, 1)], Some(&first));
        assert!(Arc::ptr_eq(&second.backends[1].live, &first.backends[0].live));
        assert!(Arc::ptr_eq(&second.live, &first.live));
        let third = pool(vec![backend(2, Tier::Zone, 1)], Some(&second));
        assert!(Arc::ptr_eq(&third.backends[0].live, &first.backends[0].live));
        assert_eq!(ranges(&second, Locality::PreferNode), [0..1, 1..2]);
    }

    #[test]
    fn weights_share_and_weight_0_comes_last() {
        let pool = pool(
            vec![
                backend(1, Tier::Node, 0),
                backend(2, Tier::Node, 5),
                backend(3, Tier::Node, 1),
                backend(4, Tier::Zone, 2),
                backend(5, Tier::Zone, 0),
            ],
            None,
        );
        assert_eq!(ranges(&pool, Locality::PreferNode), [0..2, 2..3, 3..4, 4..5]);
        assert_eq!(ranges(&pool, Locality::None), [0..3, 3..5]);
        assert_eq!(ranges(&pool, Locality::OnlyNode), [0..2, 3..4]);
        assert_eq!(pool.counts(), ([2, 1, 0], 2));
        let groups: Vec<_> = pool.groups(Locality::PreferNode).collect();
        assert_eq!(groups.iter().map(Group::total).collect::<Vec<_>>(), [6, 2, 1, 1]);
        let owners: Vec<_> = (0..6).map(|point| groups[0].at(point)).collect();
        assert_eq!(owners, [0, 0, 0, 0, 0, 1]);
        assert_eq!([groups[0].points(0), groups[0].points(1)], [(0, 5), (5, 1)]);
        assert_eq!(groups[1].points(0), (0, 2));
    }

    #[test]
    fn tags_name_backends_of_hashed_pools_only() {
        let backends = || (1..200).map(|i| backend(i, Tier::Zone, 1)).collect::<Vec<_>>();
        let (plain, hashed) = (pool(backends(), None), pool(backends(), None).hashed());
        assert_eq!(plain.tag(0), None);
        for i in 0..hashed.backends.len() {
            assert_eq!(hashed.tag(i).and_then(|tag| hashed.tagged(tag)), Some(i));
        }
    }
}
