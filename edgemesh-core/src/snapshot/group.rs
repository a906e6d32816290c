//! A group of Backends that are as good as each other: what a balancing policy chooses from.

use crate::snapshot::Backend;

/// Backends of one tier that take calls before those of the next.
#[derive(Clone, Copy, Debug)]
pub struct Group<'p> {
    /// Index of the first in the pool.
    pub start: usize,
    /// Never empty.
    pub backends: &'p [Backend],
    /// Absent where all count alike.
    pub(super) shares: Option<Shares<'p>>,
    /// One a Backend, in pools that were made for it.
    pub(super) hashes: &'p [u64],
}

/// The weights of a group, added up, so that a point on a line finds its Backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares<'p> {
    /// Sum of the weights before each Backend of the group, counted from the start of the pool,
    /// and after the last.
    pub(super) sums: &'p [u64],
    /// See [`stride`].
    pub(super) stride: u64,
}

impl Group<'_> {
    /// Sum of the weights; the number of Backends where all count alike.
    pub fn total(&self) -> u64 {
        match &self.shares {
            None => self.backends.len() as u64,
            Some(shares) => shares.sums[shares.sums.len() - 1] - shares.sums[0],
        }
    }

    /// The Backend at a point below [`Group::total`].
    pub fn at(&self, point: u64) -> usize {
        match &self.shares {
            None => point as usize,
            Some(Shares { sums, .. }) => sums.partition_point(|sum| *sum <= sums[0] + point) - 1,
        }
    }

    /// Where the points of a Backend begin, and how many there are: its weight.
    pub fn points(&self, backend: usize) -> (u64, u64) {
        match &self.shares {
            None => (backend as u64, 1),
            Some(Shares { sums, .. }) => {
                (sums[backend] - sums[0], sums[backend + 1] - sums[backend])
            }
        }
    }

    /// The point whose turn it is: each once in [`Group::total`] turns, and neighbours, who belong
    /// to one Backend, far from each other.
    pub fn in_turn(&self, turn: u64) -> u64 {
        let total = self.total();
        match &self.shares {
            None => turn % total,
            // Both factors are below 2^32: a weight is at most 1000.
            Some(shares) => (turn % total) * shares.stride % total,
        }
    }

    /// Whether all count alike.
    pub const fn is_even(&self) -> bool {
        self.shares.is_none()
    }

    /// The hash of a Backend's address, in a pool that was made for hashing.
    pub fn hash(&self, backend: usize) -> Option<u64> {
        self.hashes.get(backend).copied()
    }
}

/// How far to go from turn to turn: a number near `total` times the golden ratio that has no factor
/// in common with `total`, so that its multiples visit every point once. Of those the one whose
/// continued fraction has the smallest terms: it leaves no gap for long (three-distance theorem).
pub(super) fn stride(total: u64) -> u64 {
    let golden = (total as f64 * 0.618_033_988_749_895).round() as u64;
    let near = (0..CANDIDATES).flat_map(|off| [golden.saturating_sub(off), golden + off]);
    let fit = near.filter(|stride| (1..total).contains(stride));
    let rated = fit.filter_map(|stride| Some((largest_term(stride, total)?, stride)));
    rated.min_by_key(|(term, _)| *term).map_or(1, |(_, stride)| stride)
}

/// How far around the golden ratio a stride is looked for.
const CANDIDATES: u64 = 16;

/// The largest term of the continued fraction of `part / whole`; `None` where they have a factor
/// in common.
fn largest_term(mut part: u64, mut whole: u64) -> Option<u64> {
    let mut largest = 0;
    while part > 0 {
        largest = largest.max(whole / part);
        (part, whole) = (whole % part, part);
    }
    (whole == 1).then_some(largest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_visits_every_point() {
        for total in 1..500 {
            let stride = stride(total);
            let mut seen: Vec<_> = (0..total).map(|turn| turn * stride % total).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..total), "{total}: {stride}");
        }
    }
}
