//! `roundRobin`: one after the other.

use crate::balance::Ask;
use crate::snapshot::Group;

/// In turn. With weights each Backend has exactly its share of every full round, spread over the
/// round: with 5, 1, 1 the first is not called five times in a row while the others rest.
pub(super) fn round_robin(group: &Group<'_>, ask: &Ask) -> usize {
    group.at(group.in_turn(ask.turn))
}
