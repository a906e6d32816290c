//! `peakEwma`: the quicker of two drawn by chance.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::balance::Ask;
use crate::balance::chance::better_of_two;
use crate::snapshot::Group;

/// What a failed call counts as if it took less: a Backend that refuses at once must not look like
/// the quickest of all. Also what is expected of one whose first answer is still awaited.
pub const FAILED: Duration = Duration::from_secs(1);

/// The expected latency times the calls that would then be in flight, for its weight (Finagle's
/// peak EWMA with power of two choices). Who was never measured is tried, one call at a time.
pub(super) fn peak_ewma(group: &Group<'_>, ask: &Ask) -> usize {
    better_of_two(group, ask.turn, |i, weight| {
        let live = &group.backends[i].live;
        let in_flight = live.in_flight.load(Relaxed) as f32;
        let cost = match live.latency.expected(ask.age) {
            Some(nanos) => nanos * (in_flight + 1.0),
            None => FAILED.as_nanos() as f32 * in_flight,
        };
        cost / weight as f32
    })
}
