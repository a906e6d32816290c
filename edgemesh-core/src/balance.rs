//! Load-balancing policies: each proposes where in a tier to start looking for a Backend.

use std::sync::atomic::Ordering::Relaxed;

use edgemesh_proto::record::BalancePolicy;

use crate::snapshot::Backend;

/// Proposes an index into `tier`, which is never empty. `turn` grows by one with each pick; it
/// is the only source of order and of chance, so that a choice can be explained and repeated.
pub type Choose = fn(tier: &[Backend], turn: u64) -> usize;

/// Every policy with its configuration name, in the order of [`BalancePolicy`]. To add one, add
/// one line here and one function.
pub const POLICIES: &[(BalancePolicy, &str, Choose)] = &[
    (BalancePolicy::RoundRobin, "roundRobin", round_robin),
    (BalancePolicy::Random, "random", random),
    (BalancePolicy::LeastRequest, "leastRequest", least_request),
];

/// The function of a policy.
pub const fn choose(policy: BalancePolicy) -> Choose {
    POLICIES[policy as usize].2
}

/// The configuration name of a policy.
pub const fn name(policy: BalancePolicy) -> &'static str {
    POLICIES[policy as usize].1
}

fn round_robin(tier: &[Backend], turn: u64) -> usize {
    (turn % tier.len() as u64) as usize
}

fn random(tier: &[Backend], turn: u64) -> usize {
    (mix(turn) % tier.len() as u64) as usize
}

/// Power of two choices (Mitzenmacher 2001): of two *different* Backends drawn by chance, the
/// one with fewer calls in flight.
fn least_request(tier: &[Backend], turn: u64) -> usize {
    let n = tier.len() as u64;
    if n == 1 {
        return 0;
    }
    let draw = mix(turn);
    let first = (draw as u32 as u64 * n) >> 32;
    let step = 1 + (((draw >> 32) * (n - 1)) >> 32);
    let second = (first + step) % n;
    let load = |i: u64| tier[i as usize].live.in_flight.load(Relaxed);
    if load(second) < load(first) { second as usize } else { first as usize }
}

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): consecutive turns become unrelated draws.
const fn mix(turn: u64) -> u64 {
    let z = turn.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Tier;

    fn tier(loads: &[u32]) -> Vec<Backend> {
        let backends = loads.iter().enumerate().map(|(i, load)| {
            let address = ([10, 0, 0, i as u8], 80).into();
            let backend = Backend::new(address, Tier::Anywhere);
            backend.live.in_flight.store(*load, Relaxed);
            backend
        });
        backends.collect()
    }

    fn spread(policy: BalancePolicy, loads: &[u32], picks: u64) -> Vec<u64> {
        let tier = tier(loads);
        let mut counts = vec![0; loads.len()];
        (0..picks).for_each(|turn| counts[choose(policy)(&tier, turn)] += 1);
        counts
    }

    #[test]
    fn every_policy_has_its_row() {
        for (policy, name_in_table, function) in POLICIES {
            assert_eq!(name(*policy), *name_in_table);
            assert!(std::ptr::fn_addr_eq(choose(*policy), *function));
        }
    }

    #[test]
    fn round_robin_is_even() {
        assert_eq!(spread(BalancePolicy::RoundRobin, &[0; 3], 9), [3, 3, 3]);
    }

    #[test]
    fn chance_is_roughly_even() {
        for policy in [BalancePolicy::Random, BalancePolicy::LeastRequest] {
            for count in spread(policy, &[0; 5], 10_000) {
                assert!((1800..2200).contains(&count), "{policy:?}: {count}");
            }
        }
    }

    #[test]
    fn the_busiest_is_never_the_less_busy_of_two() {
        let counts = spread(BalancePolicy::LeastRequest, &[1, 9, 1], 1000);
        assert_eq!(counts[1], 0, "{counts:?}");
        assert_eq!(spread(BalancePolicy::LeastRequest, &[7], 3), [3]);
    }
}
