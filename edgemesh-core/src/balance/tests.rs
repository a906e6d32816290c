//! What each policy promises: even shares, exact weights, keys that stay, bounded load.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use edgemesh_proto::record::Locality;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::hash::mix;
use crate::snapshot::{Backend, Pool, Tier};

/// Backends 10.0.0.0, 10.0.0.1, … with these weights.
#[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
fn pool(weights: impl IntoIterator<Item = (u8, u16)>) -> Pool {
    let backend = |(i, weight): (u8, u16)| {
        let address = ([10, 0, 0, i], 80).into();
        Backend { weight, ..Backend::new(address, Tier::Anywhere) }
    };
    Pool::new(weights.into_iter().map(backend).collect(), None, Instant::now()).hashed()
}

fn even(backends: u8) -> Pool {
    pool((0..backends).map(|i| (i, 1)))
}

fn group(pool: &Pool) -> Group<'_> {
    pool.groups(Locality::None).next().unwrap()
}

const fn ask(turn: u64) -> Ask {
    Ask { turn, key: None, age: Duration::ZERO }
}

const fn keyed(key: u64) -> Ask {
    Ask { turn: 0, key: Some(key), age: Duration::ZERO }
}

/// How often each is chosen.
fn spread(policy: BalancePolicy, pool: &Pool, asks: impl Iterator<Item = Ask>) -> Vec<u64> {
    let mut counts = vec![0; pool.backends.len()];
    asks.for_each(|ask| counts[choose(policy)(&group(pool), &ask)] += 1);
    counts
}

fn loaded(loads: &[u32]) -> Pool {
    let pool = even(loads.len() as u8);
    for (backend, load) in pool.backends.iter().zip(loads) {
        backend.live.in_flight.store(*load, Relaxed);
    }
    pool
}

#[test]
fn every_policy_has_its_row() {
    for (policy, name_in_table, function, next) in POLICIES {
        assert_eq!(name(*policy), *name_in_table);
        assert!(std::ptr::fn_addr_eq(choose(*policy), *function));
        assert!(std::ptr::fn_addr_eq(follow(*policy), *next));
    }
}

#[test]
fn round_robin_is_even() {
    assert_eq!(spread(BalancePolicy::RoundRobin, &even(3), (0..9).map(ask)), [3, 3, 3]);
}

#[test]
fn chance_is_roughly_even() {
    for policy in [
        BalancePolicy::Random,
        BalancePolicy::LeastRequest,
        BalancePolicy::PeakEwma,
        BalancePolicy::ConsistentHash, // without keys
    ] {
        for count in spread(policy, &even(5), (0..10_000).map(ask)) {
            assert!((1800..2200).contains(&count), "{policy:?}: {count}");
        }
    }
}

#[test]
fn the_busiest_is_never_the_less_busy_of_two() {
    for policy in [BalancePolicy::LeastRequest, BalancePolicy::PeakEwma] {
        let counts = spread(policy, &loaded(&[1, 9, 1]), (0..1000).map(ask));
        assert_eq!(counts[1], 0, "{policy:?}: {counts:?}");
        assert_eq!(spread(policy, &loaded(&[7]), (0..3).map(ask)), [3]);
    }
}

/// Latencies in milliseconds (0 = unmeasured), loads, and who is never chosen.
#[test]
fn peak_ewma_prefers_the_quick() {
    let rows: &[([u64; 3], [u32; 3], &[usize])] = &[
        ([5, 90, 5], [0; 3], &[1]),
        // quick but so busy that the slow one is quicker now
        ([10, 35, 35], [3, 0, 0], &[0]),
        ([10, 45, 45], [3, 0, 0], &[]),
        // a newcomer is tried, and then only when its answer is there
        ([5, 0, 5], [0; 3], &[]),
        ([5, 0, 5], [0, 1, 0], &[1]),
    ];
    for (latencies, loads, never) in rows {
        let pool = loaded(loads);
        for (backend, ms) in pool.backends.iter().zip(latencies) {
            if *ms > 0 {
                backend.live.latency.observe(Duration::from_millis(*ms), Duration::ZERO);
            }
        }
        let counts = spread(BalancePolicy::PeakEwma, &pool, (0..1000).map(ask));
        for (i, count) in counts.iter().enumerate() {
            assert_eq!(*count == 0, never.contains(&i), "{latencies:?} {loads:?}: {counts:?}");
        }
    }
}

/// A change here moves keys between Backends on every node that is updated, and makes nodes of two
/// versions disagree: not without a reason and a line in the changelog.
#[test]
fn golden_choices() {
    let (even, weighed) = (even(10), pool((0..10).map(|i| (i, u16::from(i) + 1))));
    let of = |pool: &Pool| {
        let key = |user: u32| keyed(crate::hash::bytes(format!("user-{user}").as_bytes()));
        let choice = |user| choose(BalancePolicy::ConsistentHash)(&group(pool), &key(user));
        (0..10).map(choice).collect::<Vec<_>>()
    };
    assert_eq!(of(&even), [5, 1, 0, 1, 1, 3, 9, 7, 5, 2]);
    assert_eq!(of(&weighed), [8, 1, 9, 8, 5, 3, 9, 7, 5, 2]);
}

#[test]
fn a_smooth_round_interleaves() {
    let pool = pool([(0, 5), (1, 1), (2, 1)]);
    let choice = |turn| choose(BalancePolicy::RoundRobin)(&group(&pool), &ask(turn));
    assert_eq!((0..7).map(choice).collect::<Vec<_>>(), [0, 1, 0, 0, 2, 0, 0]);
}

/// A thousand calls in flight with three keys: nobody has more than 1.25 of the even share.
#[test]
fn load_is_bounded() {
    let pool = even(10);
    for call in 0..1000_u64 {
        let at = choose(BalancePolicy::ConsistentHash)(&group(&pool), &keyed(mix(call % 3)));
        let in_flight = &pool.backends[at].live.in_flight;
        in_flight.fetch_add(1, Relaxed);
        let share = ((call + 1) as f64 * 1.25 / 10.0).ceil().max(FREE_LOAD as f64);
        assert!(f64::from(in_flight.load(Relaxed)) <= share, "call {call}");
    }
}

#[test]
fn a_few_calls_stay_together() {
    let pool = even(10);
    let at: Vec<_> = (0..=FREE_LOAD)
        .map(|_| {
            let at = choose(BalancePolicy::ConsistentHash)(&group(&pool), &keyed(7));
            pool.backends[at].live.in_flight.fetch_add(1, Relaxed);
            at
        })
        .collect();
    assert!(at[1..FREE_LOAD as usize].iter().all(|i| *i == at[0]), "{at:?}");
    assert_ne!(at[FREE_LOAD as usize], at[0], "the ninth is too much");
}

fn weights() -> impl Strategy<Value = Vec<u16>> {
    vec(prop_oneof![Just(1_u16), 1..20_u16, 1..=1000_u16], 1..12)
}

fn numbered(weights: &[u16]) -> Vec<(u8, u16)> {
    (0..).zip(weights.iter().copied()).collect()
}

proptest! {
    /// Every full round gives each Backend exactly its weight, and in no part of a round is it off
    /// by more than a few calls.
    #[test]
    fn weighted_turns_are_exact_and_smooth(weights in vec(1..20_u16, 2..8), from in 0..1000_u64) {
        let pool = pool(numbered(&weights));
        let total: u64 = weights.iter().map(|w| u64::from(*w)).sum();
        let counts = spread(BalancePolicy::RoundRobin, &pool, (from..from + total).map(ask));
        prop_assert_eq!(&counts, &weights.iter().map(|w| u64::from(*w)).collect::<Vec<_>>());
        let half = spread(BalancePolicy::RoundRobin, &pool, (from..from + total / 2).map(ask));
        for (count, weight) in half.iter().zip(&weights) {
            let want = f64::from(*weight) / 2.0;
            prop_assert!((*count as f64 - want).abs() <= 4.0, "{} of {}", count, weight);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// All policies of chance give shares by weight while all else is equal.
    #[test]
    fn chance_honours_weights(weights in vec(1..20_u16, 2..6)) {
        const CALLS: u64 = 20_000;
        let pool = pool(numbered(&weights));
        let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
        for policy in [BalancePolicy::Random, BalancePolicy::LeastRequest, BalancePolicy::PeakEwma] {
            let counts = spread(policy, &pool, (0..CALLS).map(ask));
            check_shares(policy, &weights, total, &counts, CALLS)?;
        }
        let keys = (0..CALLS).map(|key| keyed(mix(key)));
        let counts = spread(BalancePolicy::ConsistentHash, &pool, keys);
        check_shares(BalancePolicy::ConsistentHash, &weights, total, &counts, CALLS)?;
    }

}

proptest! {
    /// Without a Backend its keys move, and no others; each goes where it was going next.
    #[test]
    fn removing_a_backend_moves_only_its_keys(
        weights in weights(),
        gone in any::<prop::sample::Index>(),
        keys in vec(any::<u64>(), 1..200),
    ) {
        let (all, policy) = (numbered(&weights), BalancePolicy::ConsistentHash);
        let gone = gone.index(all.len()) as u8;
        let (before, after) = (pool(all.clone()), pool(all.into_iter().filter(|(i, _)| *i != gone)));
        prop_assume!(!after.backends.is_empty());
        for key in keys {
            let (had, has) = (group(&before), group(&after));
            let first = choose(policy)(&had, &keyed(key));
            let now = after.backends[choose(policy)(&has, &keyed(key))].address;
            let next = match before.backends[first].address.port() {
                _ if first != usize::from(gone) => first,
                _ => follow(policy)(&had, &keyed(key), first),
            };
            prop_assert_eq!(now, before.backends[next].address);
        }
    }

    /// Whom to ask next: everybody, once, whatever the policy and whoever was first.
    #[test]
    fn following_asks_everybody_once(weights in weights(), key in any::<u64>(), turn in any::<u64>()) {
        let pool = pool(numbered(&weights));
        for (policy, ..) in POLICIES {
            let ask = Ask { turn, key: Some(key), age: Duration::ZERO };
            let mut at = choose(*policy)(&group(&pool), &ask);
            let mut asked = vec![at];
            for _ in 1..weights.len() {
                at = follow(*policy)(&group(&pool), &ask, at);
                asked.push(at);
            }
            asked.sort_unstable();
            prop_assert!(asked.iter().copied().eq(0..weights.len()), "{:?}: {:?}", policy, asked);
        }
    }
}

fn check_shares(
    policy: BalancePolicy,
    weights: &[u16],
    total: f64,
    counts: &[u64],
    calls: u64,
) -> Result<(), TestCaseError> {
    for (weight, count) in weights.iter().zip(counts) {
        let (want, got) = (f64::from(*weight) / total, *count as f64 / calls as f64);
        // five standard deviations
        let off = 5.0 * (want * (1.0 - want) / calls as f64).sqrt() + 0.002;
        prop_assert!((want - got).abs() <= off, "{:?} {:?}: {:?}", policy, weights, counts);
    }
    Ok(())
}
