//! Rate limits: governor's cell-rate algorithm (GCRA), driven by the caller's clock.

mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edgemesh_proto::record::{LimitBy, RateLimit};
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::limit::table::{Fills, Table};

pub use crate::limit::table::{Caller, MAX_CALLERS};

/// Admits `qps` calls a second in the long run and `burst` at once, of all callers together or
/// of each.
pub struct Limiter {
    limit: RateLimit,
    base: Instant,
    fill: Filled,
}

enum Filled {
    Together(Fill, Governor),
    Each(Arc<Table>, RateLimiter<Caller, Fills, GivenClock, NoOpMiddleware<Nanos>>),
}

type Governor = RateLimiter<NotKeyed, Fill, GivenClock, NoOpMiddleware<Nanos>>;

/// The time that the last caller gave, in nanoseconds since `base`. governor asks a clock of its
/// own; this one answers what `plan` was told, so that time stays an argument.
#[derive(Default)]
struct GivenClock(AtomicU64);

/// The state of one limiter, shared with [`Limiter`] so that it can be looked at.
#[derive(Clone, Default)]
struct Fill(Arc<AtomicU64>);

impl Limiter {
    /// A limiter that is full at `now`.
    pub fn new(limit: RateLimit, now: Instant) -> Self {
        let fill = match limit.by {
            LimitBy::Service => {
                let fill = Fill::default();
                Filled::Together(fill.clone(), governor(limit, fill))
            }
            LimitBy::Workload | LimitBy::Namespace | LimitBy::Ip => {
                let table = Arc::new(Table::new());
                let fills = Fills(table.clone());
                Filled::Each(table, RateLimiter::new(quota(limit), fills, GivenClock::default()))
            }
        };
        Self { limit, base: now, fill }
    }

    /// What it was made from.
    pub const fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes one token of `caller`, or says how long until one is free.
    pub fn take(&self, caller: &Caller, now: Instant) -> Result<(), Duration> {
        let now = self.since_base(now);
        let taken = match &self.fill {
            Filled::Together(_, governor) => {
                governor.clock().set(now);
                governor.check()
            }
            Filled::Each(table, governor) => {
                table.now.fetch_max(now, Ordering::Relaxed);
                governor.clock().set(now);
                governor.check_key(caller)
            }
        };
        taken.map_err(|not_until| not_until.wait_time_from(Nanos::from(now)))
    }

    /// What [`Limiter::take`] would say, without taking anything.
    pub fn look(&self, caller: &Caller, now: Instant) -> Result<(), Duration> {
        let fill = match &self.fill {
            Filled::Together(fill, _) => fill.0.load(Ordering::Relaxed),
            Filled::Each(table, _) => table.fill(caller).map_or(0, |fill| fill.as_u64()),
        };
        let copy = Self {
            limit: self.limit,
            base: self.base,
            fill: {
                let copy = Fill(Arc::new(AtomicU64::new(fill)));
                Filled::Together(copy.clone(), governor(self.limit, copy))
            },
        };
        copy.take(&Caller::Everyone, now)
    }

    fn since_base(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)
    }

    #[cfg(test)]
    fn table(&self) -> Option<&Table> {
        match &self.fill {
            Filled::Together(..) => None,
            Filled::Each(table, _) => Some(table),
        }
    }
}

fn quota(limit: RateLimit) -> Quota {
    Quota::per_second(limit.qps).allow_burst(limit.burst)
}

fn governor(limit: RateLimit, fill: Fill) -> Governor {
    RateLimiter::new(quota(limit), fill, GivenClock::default())
}

impl GivenClock {
    /// Threads may come with times in either order: the clock must not run backwards.
    fn set(&self, now: u64) {
        self.0.fetch_max(now, Ordering::Relaxed);
    }
}

impl Clock for GivenClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.load(Ordering::Relaxed).into()
    }
}

impl StateStore for Fill {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            let (answer, next) = measure((seen != 0).then(|| seen.into()))?;
            match self.0.compare_exchange_weak(
                seen,
                next.into(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Ok(answer),
                Err(other) => seen = other,
            }
        }
    }
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Limiter").field(&self.limit).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn limit(qps: u32, burst: u32) -> RateLimit {
        let (qps, burst) = (NonZeroU32::new(qps).unwrap(), NonZeroU32::new(burst).unwrap());
        RateLimit { qps, burst, by: LimitBy::Service }
    }

    #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn burst_then_rate() {
        let t0 = start();
        let limiter = Limiter::new(limit(10, 3), t0);
        for _ in 0..3 {
            assert_eq!(limiter.look(&Caller::Everyone, t0), Ok(()), "looking takes nothing");
            assert_eq!(limiter.take(&Caller::Everyone, t0), Ok(()));
        }
        assert_eq!(limiter.look(&Caller::Everyone, t0), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take(&Caller::Everyone, t0), Err(Duration::from_millis(100)));
        assert_eq!(
            limiter.take(&Caller::Everyone, t0 + Duration::from_millis(99)),
            Err(Duration::from_millis(1))
        );
        assert_eq!(limiter.take(&Caller::Everyone, t0 + Duration::from_millis(100)), Ok(()));
        assert!(limiter.take(&Caller::Everyone, t0 + Duration::from_millis(100)).is_err());
    }

    proptest! {
        /// Law: whatever the arrival times, no window grants more than burst + rate * window.
        #[test]
        fn never_more_than_burst_and_rate(
            qps in 1u32..200, burst in 1u32..50, gaps in prop::collection::vec(0u64..50, 1..300)
        ) {
            let t0 = start();
            let limiter = Limiter::new(limit(qps, burst), t0);
            let (mut at, mut granted) = (0, 0u64);
            for gap in gaps {
                at += gap;
                granted += u64::from(limiter.take(&Caller::Everyone, t0 + Duration::from_millis(at)).is_ok());
                prop_assert!(granted <= u64::from(burst) + u64::from(qps) * at / 1000 + 1);
            }
        }
    }
}
