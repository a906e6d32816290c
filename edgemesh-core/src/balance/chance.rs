//! `random` and `leastRequest`: one drawn by chance, and the less busy of two drawn by chance.

use std::sync::atomic::Ordering::Relaxed;

use crate::balance::Ask;
use crate::hash::mix;
use crate::snapshot::Group;

pub(super) fn random(group: &Group<'_>, ask: &Ask) -> usize {
    group.at(mix(ask.turn) % group.total())
}

/// Power of two choices (Mitzenmacher 2001): of two *different* Backends, drawn in proportion to
/// their weights, the one with fewer calls in flight for its weight.
pub(super) fn least_request(group: &Group<'_>, ask: &Ask) -> usize {
    better_of_two(group, ask.turn, |i, weight| {
        let in_flight = group.backends[i].live.in_flight.load(Relaxed);
        in_flight as f32 / weight as f32
    })
}

/// Draws two different Backends by weight and takes the one with the lower `cost(index, weight)`;
/// the first where they are equal.
pub(super) fn better_of_two(
    group: &Group<'_>,
    turn: u64,
    cost: impl Fn(usize, u64) -> f32,
) -> usize {
    if group.backends.len() == 1 {
        return 0;
    }
    let (draw, total) = (mix(turn), group.total());
    let first = group.at(scaled(draw as u32, total));
    let (begin, weight) = group.points(first);
    // A second draw over everyone else's points.
    let point = scaled((draw >> 32) as u32, total - weight);
    let second = group.at(if point < begin { point } else { point + weight });
    if cost(second, group.points(second).1) < cost(first, weight) { second } else { first }
}

/// A number below `bound`, which is below 2^32, from one below 2^32.
const fn scaled(draw: u32, bound: u64) -> u64 {
    (draw as u64 * bound) >> 32
}
