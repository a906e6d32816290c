//! `consistentHash`: calls with one key to one Backend, by rendezvous hashing with bounded load.

use std::cmp::Ordering;
use std::sync::atomic::Ordering::Relaxed;

use crate::balance::{Ask, chance, neighbour};
use crate::hash::mix;
use crate::snapshot::Group;

/// Calls in flight up to which a Backend keeps its keys whatever the others do: a browser's six
/// connections are no overload, and would otherwise wander between idle Backends.
pub const FREE_LOAD: u64 = 8;

/// A Backend takes at most this many hundredths of its even share of the calls in flight
/// (Mirrokni, Thorup, Zadimoghaddam 2018: c = 1.25).
const BOUND: u64 = 125;

/// The Backend with the highest score for the key that is not overloaded; by chance without a key.
/// Scores depend on the key and one address alone, so that a Backend that comes or goes moves only
/// the keys that are or were its own (highest random weight, Thaler and Ravishankar 1998).
pub(super) fn bounded(group: &Group<'_>, ask: &Ask) -> usize {
    let Some(key) = ask.key else { return chance::random(group, ask) };
    let load = |i: usize| u64::from(group.backends[i].live.in_flight.load(Relaxed));
    let top = best(group, key, |_| true).unwrap_or_default();
    // The usual case, which looks at the live state of one Backend only.
    if load(top) < FREE_LOAD {
        return top;
    }
    let calls = 1 + (0..group.backends.len()).map(load).sum::<u64>();
    let share = (calls * BOUND).div_ceil(100);
    // Rounded up, so that the bounds of all add up to more than all calls.
    let fits = |i: usize| {
        let bound = (share * group.points(i).1).div_ceil(group.total());
        load(i) < bound.max(FREE_LOAD)
    };
    best(group, key, fits).unwrap_or(top)
}

/// The Backend with the next lower score, after the last the one with the highest: the keys of one
/// that rejects spread over all others. Without a key the neighbour.
pub(super) fn next(group: &Group<'_>, ask: &Ask, before: usize) -> usize {
    let Some(key) = ask.key else { return neighbour(group, ask, before) };
    let last = Score::new(group, key, before);
    let lower = |i: usize| Score::new(group, key, i).compare(&last) == Ordering::Less;
    best(group, key, lower).or_else(|| best(group, key, |_| true)).unwrap_or(before)
}

fn best(group: &Group<'_>, key: u64, may: impl Fn(usize) -> bool) -> Option<usize> {
    let mut best = None::<Score>;
    for i in 0..group.backends.len() {
        let score = Score::new(group, key, i);
        if best.as_ref().is_none_or(|best| score.compare(best).is_gt()) && may(i) {
            best = Some(score);
        }
    }
    best.map(|best| best.index)
}

/// How much a Backend is meant for a key.
struct Score {
    /// Of several Backends each has the highest one for as many keys as its weight says.
    value: f64,
    /// The hash itself: tells apart those whose value is equal.
    hash: u64,
    index: usize,
}

impl Score {
    fn new(group: &Group<'_>, key: u64, index: usize) -> Self {
        let hash = mix(key ^ group.hash(index).unwrap_or(index as u64));
        // With equal weights the hash is order enough. (Weighted rendezvous: -ln(u)/w is lowest
        // for each with the probability that w asks for.)
        let value = match group.is_even() {
            true => 0.0,
            false => log2(hash) / group.points(index).1 as f64,
        };
        Self { value, hash, index }
    }

    fn compare(&self, other: &Self) -> Ordering {
        self.value.total_cmp(&other.value).then(self.hash.cmp(&other.hash))
    }
}

/// log2(hash / 2^64), negative, to 0.001. Not the library's: that may differ in the last bit from
/// one platform to the next, and nodes must agree. Additions and multiplications do not.
fn log2(hash: u64) -> f64 {
    let hash = hash.max(1);
    let zeros = hash.leading_zeros();
    // 1 to 2: the bits after the highest.
    let m = 1.0 + ((hash << zeros << 1) >> 12) as f64 / (1_u64 << 52) as f64;
    // log2(m) by 2/ln 2 * artanh((m-1)/(m+1)), three terms.
    let t = (m - 1.0) / (m + 1.0);
    let t2 = t * t;
    let log = t * (2.885_390_08 + t2 * (0.961_796_69 + t2 * 0.577_078_02));
    log - 1.0 - f64::from(zeros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log2_is_close() {
        for hash in [1, 2, 3, 5, 1 << 40, u64::MAX / 3, u64::MAX / 2, u64::MAX] {
            let want = (hash as f64).log2() - 64.0;
            assert!((log2(hash) - want).abs() < 0.001, "{hash}: {} {want}", log2(hash));
        }
    }
}
