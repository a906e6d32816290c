//! Rate limits: governor's cell-rate algorithm (GCRA), driven by the caller's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use edgemesh_proto::record::RateLimit;
use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

/// Admits `qps` calls a second in the long run and `burst` at once.
pub struct Limiter {
    limit: RateLimit,
    base: Instant,
    fill: Fill,
    inner: Governor,
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
        let fill = Fill::default();
        Self { limit, base: now, inner: governor(limit, fill.clone()), fill }
    }

    /// What it was made from.
    pub const fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Takes one token, or says how long until one is free.
    pub fn take(&self, now: Instant) -> Result<(), Duration> {
        check(&self.inner, self.since_base(now))
    }

    /// What [`Limiter::take`] would say, without taking anything.
    pub fn look(&self, now: Instant) -> Result<(), Duration> {
        let copy = Fill(Arc::new(AtomicU64::new(self.fill.0.load(Ordering::Relaxed))));
        check(&governor(self.limit, copy), self.since_base(now))
    }

    fn since_base(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.base).as_nanos()).unwrap_or(u64::MAX)
    }
}

fn governor(limit: RateLimit, fill: Fill) -> Governor {
    let quota = Quota::per_second(limit.qps).allow_burst(limit.burst);
    RateLimiter::new(quota, fill, GivenClock::default())
}

fn check(governor: &Governor, now: u64) -> Result<(), Duration> {
    // Threads may come with times in either order: the clock must not run backwards.
    governor.clock().0.fetch_max(now, Ordering::Relaxed);
    governor.check().map_err(|not_until| not_until.wait_time_from(Nanos::from(now)))
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
        RateLimit { qps: NonZeroU32::new(qps).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
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
            assert_eq!(limiter.look(t0), Ok(()), "looking takes nothing");
            assert_eq!(limiter.take(t0), Ok(()));
        }
        assert_eq!(limiter.look(t0), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take(t0), Err(Duration::from_millis(100)));
        assert_eq!(limiter.take(t0 + Duration::from_millis(99)), Err(Duration::from_millis(1)));
        assert_eq!(limiter.take(t0 + Duration::from_millis(100)), Ok(()));
        assert!(limiter.take(t0 + Duration::from_millis(100)).is_err());
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
                granted += u64::from(limiter.take(t0 + Duration::from_millis(at)).is_ok());
                prop_assert!(granted <= u64::from(burst) + u64::from(qps) * at / 1000 + 1);
            }
        }
    }
}
