//! The share of good calls of late: buckets of time, counted without a lock.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use edgemesh_proto::record::SuccessRate;

/// Parts of a window. It moves on by one of them at a time, so that between nine tenths of it and
/// the whole are looked at.
const BUCKETS: usize = 10;

/// Calls of one Backend that ended within a window.
#[derive(Debug)]
pub(super) struct Window {
    base: Instant,
    /// Each a [`Bucket`] in one word, so that counting is one exchange.
    buckets: [AtomicU64; BUCKETS],
}

/// Calls that ended in one part of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bucket {
    /// Which part it is, counted from the base; 24 bits, so that after months of silence an old
    /// one could pass for new, but for one window at most.
    slot: u64,
    /// Calls, 20 bits; more are not counted.
    all: u64,
    /// Those of them that failed.
    bad: u64,
}

const SLOT_BITS: u64 = 0xff_ffff;
const COUNT_BITS: u64 = 0xf_ffff;

impl Bucket {
    const fn unpack(word: u64) -> Self {
        Self { slot: word >> 40, all: word >> 20 & COUNT_BITS, bad: word & COUNT_BITS }
    }

    const fn pack(self) -> u64 {
        self.slot << 40 | self.all << 20 | self.bad
    }

    fn with(self, slot: u64, failed: bool) -> Self {
        let Self { all, bad, .. } = if self.slot == slot { self } else { Self::default() };
        if all == COUNT_BITS {
            return self;
        }
        Self { slot, all: all + 1, bad: bad + u64::from(failed) }
    }
}

impl Window {
    /// An empty one.
    pub(super) fn new(now: Instant) -> Self {
        Self { base: now, buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }

    /// Counts a call that ended now.
    pub(super) fn count(&self, rate: &SuccessRate, failed: bool, now: Instant) {
        let slot = self.slot(rate, now);
        let bucket = &self.buckets[slot as usize % BUCKETS];
        let _always_some = bucket.fetch_update(Relaxed, Relaxed, |word| {
            Some(Bucket::unpack(word).with(slot, failed).pack())
        });
    }

    /// Whether there were enough calls, and too few of them were good.
    pub(super) fn is_too_low(&self, rate: &SuccessRate, now: Instant) -> bool {
        let slot = self.slot(rate, now);
        let (mut all, mut bad) = (0, 0);
        for bucket in self.buckets.iter().map(|word| Bucket::unpack(word.load(Relaxed))) {
            if slot.wrapping_sub(bucket.slot) & SLOT_BITS < BUCKETS as u64 {
                all += bucket.all;
                bad += bucket.bad;
            }
        }
        all >= u64::from(rate.min_requests.get())
            && (all - bad.min(all)) * 100 < all * u64::from(rate.percent)
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.buckets.iter().for_each(|bucket| bucket.store(0, Relaxed));
    }

    fn slot(&self, rate: &SuccessRate, now: Instant) -> u64 {
        let width = (rate.window.as_nanos() / BUCKETS as u128).max(1);
        let since = now.saturating_duration_since(self.base).as_nanos();
        (since / width) as u64 & SLOT_BITS
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::num::NonZeroU32;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
    fn start() -> Instant {
        Instant::now()
    }

    fn rate(percent: u8, min: u32) -> SuccessRate {
        let min_requests = NonZeroU32::new(min).unwrap();
        SuccessRate { percent, window: Duration::from_secs(10), min_requests }
    }

    #[test]
    fn buckets_pack() {
        for bucket in [
            Bucket::default(),
            Bucket { slot: SLOT_BITS, all: COUNT_BITS, bad: COUNT_BITS },
            Bucket { slot: 7, all: 5, bad: 3 },
        ] {
            assert_eq!(Bucket::unpack(bucket.pack()), bucket);
        }
        let full = Bucket { slot: 1, all: COUNT_BITS, bad: 9 };
        assert_eq!(full.with(1, true), full, "full is full");
        assert_eq!(full.with(11, true), Bucket { slot: 11, all: 1, bad: 1 }, "a new time");
    }

    proptest! {
        /// Law: it says what a list of the calls of the last nine to ten tenths says.
        #[test]
        fn as_a_list_of_calls(
            calls in prop::collection::vec((any::<bool>(), 0u64..900), 1..300),
            percent in 1u8..=100, min in 1u32..30,
        ) {
            let (t0, rate) = (start(), rate(percent, min));
            let window = Window::new(t0);
            let mut list = VecDeque::new();
            let mut ms = 0;
            for (failed, gap) in calls {
                ms += gap;
                let now = t0 + Duration::from_millis(ms);
                window.count(&rate, failed, now);
                list.push_back((ms / 1000, failed));
                list.retain(|(second, _)| ms / 1000 - second < 10);
                let bad = list.iter().filter(|(_, failed)| *failed).count();
                let (all, good) = (list.len(), list.len() - bad);
                let want = all >= min as usize && good * 100 < all * usize::from(percent);
                prop_assert_eq!(window.is_too_low(&rate, now), want);
            }
            window.clear();
            prop_assert!(!window.is_too_low(&rate, t0 + Duration::from_millis(ms)));
        }
    }
}
