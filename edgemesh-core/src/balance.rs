//! Load-balancing policies: each proposes a Backend of a group, and whom to ask when that one may not.
//!
//! Choices follow from the turn, the key and the live state that the call is given, so that they
//! can be explained and repeated. Weights are honoured by all of them; see [`Group`].

mod chance;
mod hashing;
mod latency;
mod turns;

use std::time::Duration;

use edgemesh_proto::record::BalancePolicy;

use crate::snapshot::Group;

pub use crate::balance::hashing::FREE_LOAD;
pub use crate::balance::latency::FAILED;

/// What a choice follows from, besides the group.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// Grows by one with each pick: the only source of order and of chance.
    pub turn: u64,
    /// Hash of what the call has in common with those it belongs to.
    pub key: Option<u64>,
    /// Time since the pool began.
    pub age: Duration,
}

/// Proposes the index of a Backend of the group.
pub type Choose = fn(&Group<'_>, &Ask) -> usize;

/// Whom to ask after the one of that index: as often as there are others, each is asked once.
pub type Follow = fn(&Group<'_>, &Ask, usize) -> usize;

/// Every policy with its configuration name, in the order of [`BalancePolicy`]. To add one, add
/// one line here and one function.
pub const POLICIES: &[(BalancePolicy, &str, Choose, Follow)] = &[
    (BalancePolicy::RoundRobin, "roundRobin", turns::round_robin, neighbour),
    (BalancePolicy::Random, "random", chance::random, neighbour),
    (BalancePolicy::LeastRequest, "leastRequest", chance::least_request, neighbour),
    (BalancePolicy::PeakEwma, "peakEwma", latency::peak_ewma, neighbour),
    (BalancePolicy::ConsistentHash, "consistentHash", hashing::bounded, hashing::next),
];

/// The function of a policy.
pub const fn choose(policy: BalancePolicy) -> Choose {
    POLICIES[policy as usize].2
}

/// Whom a policy asks next.
pub const fn follow(policy: BalancePolicy) -> Follow {
    POLICIES[policy as usize].3
}

/// The configuration name of a policy.
pub const fn name(policy: BalancePolicy) -> &'static str {
    POLICIES[policy as usize].1
}

fn neighbour(group: &Group<'_>, _: &Ask, before: usize) -> usize {
    if before + 1 == group.backends.len() { 0 } else { before + 1 }
}

#[cfg(test)]
mod tests;
