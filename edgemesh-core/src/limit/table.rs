//! The fills of a limit that each caller has for itself: a bounded table, swept.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use governor::nanos::Nanos;
use governor::state::StateStore;
use parking_lot::Mutex;

/// Callers of one limit that are told apart; the rest share one fill.
pub const MAX_CALLERS: usize = 10_000;
/// Locks are split by caller, so that threads seldom meet.
const SHARDS: usize = 16;
const PER_SHARD: usize = MAX_CALLERS / SHARDS;
/// Callers before a shard looks for those that may be forgotten.
const FIRST_SWEEP: usize = 64;
/// A full shard looks for them at most so often.
const SWEEP_PAUSE_NANOS: u64 = 1_000_000_000;

/// Who takes a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Caller {
    /// Nobody in particular: all share one fill.
    Everyone,
    /// A Workload or a namespace.
    Named(Arc<str>),
    /// An IPv4 address, or the first of an IPv6 /64; see [`Caller::at`].
    Address(IpAddr),
}

impl Caller {
    /// The caller at an address. A host has a whole IPv6 /64 to choose from, so that it counts as
    /// one.
    pub fn at(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V4(v4) => v4.into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        })
    }
}

/// When each caller's fill is whole again, in nanoseconds since the limiter's base.
#[derive(Debug)]
pub(super) struct Table {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// Of those that found no room.
    rest: Mutex<Option<Nanos>>,
    /// The time that the last caller gave.
    pub(super) now: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    fills: HashMap<Caller, Nanos>,
    /// Callers that make it look for those that may be forgotten.
    sweep_at: usize,
    /// When it last did.
    swept: u64,
}

impl Default for Shard {
    fn default() -> Self {
        Self { fills: HashMap::new(), sweep_at: FIRST_SWEEP, swept: 0 }
    }
}

impl Shard {
    /// Whether one more caller has room. One whose fill is whole may be forgotten: it would be
    /// told the same as one that was never here.
    fn has_room(&mut self, now: u64) -> bool {
        let len = self.fills.len();
        if len < self.sweep_at {
            return true;
        }
        if len >= PER_SHARD && now.saturating_sub(self.swept) < SWEEP_PAUSE_NANOS {
            return false;
        }
        self.fills.retain(|_, whole_at| whole_at.as_u64() > now);
        self.swept = now;
        self.sweep_at = (2 * self.fills.len()).clamp(FIRST_SWEEP, PER_SHARD);
        self.fills.len() < PER_SHARD
    }
}

impl Table {
    pub(super) fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            rest: Mutex::default(),
            now: AtomicU64::new(0),
        }
    }

    /// The fill that `caller` would take from.
    pub(super) fn fill(&self, caller: &Caller) -> Option<Nanos> {
        let shard = self.shard(caller).lock();
        match shard.fills.get(caller) {
            Some(fill) => Some(*fill),
            None if shard.fills.len() >= PER_SHARD => *self.rest.lock(),
            None => None,
        }
    }

    fn shard(&self, caller: &Caller) -> &Mutex<Shard> {
        &self.shards[self.hasher.hash_one(caller) as usize % SHARDS]
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().fills.len()).sum()
    }
}

/// The table as governor wants it.
#[derive(Clone, Debug)]
pub(super) struct Fills(pub(super) Arc<Table>);

impl StateStore for Fills {
    type Key = Caller;

    fn measure_and_replace<T, F, E>(&self, caller: &Caller, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let table = &*self.0;
        let mut shard = table.shard(caller).lock();
        if let Some(fill) = shard.fills.get_mut(caller) {
            let (answer, next) = measure(Some(*fill))?;
            *fill = next;
            return Ok(answer);
        }
        if shard.has_room(table.now.load(Relaxed)) {
            let (answer, next) = measure(None)?;
            shard.fills.insert(caller.clone(), next);
            return Ok(answer);
        }
        drop(shard);
        let mut rest = table.rest.lock();
        let (answer, next) = measure(*rest)?;
        *rest = Some(next);
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    use edgemesh_proto::record::{LimitBy, RateLimit};
    use proptest::prelude::*;

    use super::*;
    use crate::limit::Limiter;

    #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn limit(qps: u32, burst: u32, by: LimitBy) -> RateLimit {
        let number = |n| NonZeroU32::new(n).unwrap();
        RateLimit { qps: number(qps), burst: number(burst), by }
    }

    fn at(number: u32) -> Caller {
        Caller::at(IpAddr::V4(number.into()))
    }

    #[test]
    fn a_host_is_one_caller() {
        for (one, other, same) in [
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "::ffff:10.0.0.1", true),
            ("10.0.0.1", "10.0.0.2", false),
            ("fd00::1", "fd00::ffff:0:0:1", true),
            ("fd00::1", "fd00:0:0:1::1", false),
        ] {
            let of = |text: &str| Caller::at(text.parse().unwrap());
            assert_eq!(of(one) == of(other), same, "{one} {other}");
        }
    }

    /// A flood of addresses takes no more room than the bound, does not touch those that were
    /// there before, and is forgotten.
    #[test]
    fn a_flood_of_callers_is_bounded() {
        let t0 = start();
        let limiter = Limiter::new(limit(1, 2, LimitBy::Ip), t0);
        assert_eq!(limiter.take(&at(0), t0), Ok(()));
        let granted = (1..50_000).filter(|n| limiter.take(&at(*n), t0).is_ok()).count();
        let table = limiter.table().unwrap();
        assert!(table.len() <= MAX_CALLERS && table.len() > MAX_CALLERS - PER_SHARD);
        // Each that was told apart got one, and the rest a burst together.
        assert_eq!(granted, table.len() - 1 + 2);
        assert_eq!(limiter.take(&at(0), t0), Ok(()), "its own burst");
        assert_eq!(limiter.take(&at(0), t0), Err(Duration::from_secs(1)));
        let later = t0 + Duration::from_secs(60);
        (60_000..60_400).for_each(|n| assert_eq!(limiter.take(&at(n), later), Ok(())));
        assert!(table.len() < 2 * SHARDS * FIRST_SWEEP, "{} are left", table.len());
    }

    proptest! {
        /// Law: each caller is told what a limiter of its own would tell it, sweeps or not, and
        /// looking takes nothing.
        #[test]
        fn as_if_each_had_its_own(
            qps in 1u32..50, burst in 1u32..5,
            calls in prop::collection::vec((0u32..400, 0u64..20), 1..600)
        ) {
            let t0 = start();
            let shared = Limiter::new(limit(qps, burst, LimitBy::Ip), t0);
            let mut own = BTreeMap::new();
            let mut ms = 0;
            for (caller, gap) in calls {
                ms += gap;
                let now = t0 + Duration::from_millis(ms);
                let model = own
                    .entry(caller)
                    .or_insert_with(|| Limiter::new(limit(qps, burst, LimitBy::Service), t0));
                let want = model.take(&Caller::Everyone, now);
                prop_assert_eq!(shared.look(&at(caller), now), want);
                prop_assert_eq!(shared.take(&at(caller), now), want);
            }
        }
    }
}
