//! The life of a breaker, and its laws.

use std::num::NonZeroU32;

use edgemesh_proto::record::SuccessRate;
use proptest::prelude::*;

use super::*;

fn policy() -> BreakerPolicy {
    BreakerPolicy {
        consecutive_failures: NonZeroU32::new(2).unwrap(),
        eject_for: Duration::from_secs(1),
        max_eject_for: Duration::from_secs(3),
        max_ejected_percent: 100,
        success_rate: None,
    }
}

#[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
fn start() -> Instant {
    Instant::now()
}

#[test]
fn a_life() {
    let (policy, t0) = (policy(), start());
    let at = |s: f64| t0 + Duration::from_secs_f64(s);
    let p = Some(&policy);
    let b = Breaker::default();
    b.failed(Pass::Ordinary, p, t0, || Some(()));
    b.succeeded(Pass::Ordinary, p, t0);
    b.failed(Pass::Ordinary, p, t0, || Some(()));
    assert_eq!(b.admit(p, t0), Ok(Pass::Ordinary), "a success between resets the count");
    b.failed(Pass::Ordinary, p, t0, || Some(()));
    assert_eq!(b.admit(p, t0), Err(Duration::from_secs(1)));
    b.succeeded(Pass::Ordinary, p, t0);
    assert!(b.admit(p, t0).is_err(), "a straggler does not end an ejection");
    assert_eq!(b.look(p, at(1.0)), Stance::WouldProbe);
    assert_eq!(b.admit(p, at(1.0)), Ok(Pass::Probe(1)));
    assert!(b.admit(p, at(1.0)).is_err(), "one probe at a time");
    b.failed(Pass::Probe(1), p, at(1.0), || Some(()));
    assert_eq!(b.admit(p, at(1.0)), Err(Duration::from_secs(2)), "doubled");
    assert_eq!(b.admit(p, at(3.0)), Ok(Pass::Probe(2)));
    b.failed(Pass::Probe(2), p, at(3.0), || Some(()));
    assert_eq!(b.admit(p, at(3.0)), Err(Duration::from_secs(3)), "capped");
    assert_eq!(b.admit(p, at(6.0)), Ok(Pass::Probe(3)));
    assert_eq!(b.admit(p, at(7.0)), Ok(Pass::Probe(4)), "a lost probe is forgotten");
    b.cancelled(Pass::Probe(3), at(7.0));
    b.failed(Pass::Probe(3), p, at(7.0), || Some(()));
    assert!(b.admit(p, at(7.0)).is_err(), "and its late report says nothing");
    b.cancelled(Pass::Probe(4), at(7.0));
    assert_eq!(b.admit(p, at(7.0)), Ok(Pass::Probe(5)), "a cancelled one is repeated at once");
    b.succeeded(Pass::Probe(5), p, t0);
    assert_eq!(b.admit(p, at(7.0)), Ok(Pass::Ordinary));
    b.failed(Pass::Probe(4), p, at(7.0), || Some(()));
    (0..2).for_each(|_| b.failed(Pass::Ordinary, p, at(7.0), || Some(())));
    assert!(b.admit(p, at(7.0)).is_err(), "a lost probe's report leaves the breaker working");
    assert_eq!(b.look(None, t0), Stance::Admits);
}

#[test]
fn the_pool_can_refuse_an_ejection() {
    let (policy, t0) = (policy(), start());
    let b = Breaker::default();
    for _ in 0..5 {
        b.failed(Pass::Ordinary, Some(&policy), t0, || None::<()>);
    }
    assert_eq!(b.look(Some(&policy), t0), Stance::Admits);
    b.failed(Pass::Ordinary, Some(&policy), t0, || Some(()));
    assert!(matches!(b.look(Some(&policy), t0), Stance::Rejects { .. }));
}

#[test]
fn a_share_of_failures_ejects() {
    let t0 = start();
    let at = |s: u64| t0 + Duration::from_secs(s);
    let rate = SuccessRate {
        percent: 80,
        window: Duration::from_secs(10),
        min_requests: NonZeroU32::new(10).unwrap(),
    };
    let never = NonZeroU32::new(1000).unwrap();
    let policy =
        BreakerPolicy { consecutive_failures: never, success_rate: Some(rate), ..policy() };
    let p = Some(&policy);
    let b = Breaker::default();
    // One in three fails: never two in a row, and too many all the same.
    for call in 1..=9 {
        match call % 3 {
            0 => b.failed(Pass::Ordinary, p, at(call / 3), || Some(())),
            _ => b.succeeded(Pass::Ordinary, p, at(call / 3)),
        }
        assert_eq!(b.admit(p, at(call / 3)), Ok(Pass::Ordinary), "too few to tell");
    }
    b.failed(Pass::Ordinary, p, at(3), || None::<()>);
    assert_eq!(b.admit(p, at(3)), Ok(Pass::Ordinary), "the pool cannot spare it");
    b.failed(Pass::Ordinary, p, at(3), || Some(()));
    assert_eq!(b.admit(p, at(3)), Err(Duration::from_secs(1)));
    let Ok(probe) = b.admit(p, at(4)) else { panic!("no probe") };
    assert!(b.admit(p, at(4)).is_err(), "one probe at a time");
    b.failed(probe, p, at(4), || Some(()));
    assert_eq!(b.admit(p, at(4)), Err(Duration::from_secs(2)), "doubled");
    let Ok(probe) = b.admit(p, at(6)) else { panic!("no probe") };
    b.succeeded(probe, p, at(6));
    b.failed(Pass::Ordinary, p, at(6), || Some(()));
    assert_eq!(b.admit(p, at(6)), Ok(Pass::Ordinary), "what led to the ejection is forgotten");
}

#[test]
fn a_backend_that_asks_for_rest_gets_it() {
    let (policy, t0) = (policy(), start());
    let at = |s: u64| t0 + Duration::from_secs(s);
    let p = Some(&policy);
    let b = Breaker::default();
    b.rest(Pass::Ordinary, at(9), || None::<()>);
    assert_eq!(b.look(p, t0), Stance::Admits, "the pool cannot spare it");
    b.rest(Pass::Ordinary, at(9), || Some(()));
    b.rest(Pass::Ordinary, at(1), || Some(()));
    assert_eq!(b.admit(p, at(1)), Err(Duration::from_secs(8)), "the first word counts");
    let Ok(probe) = b.admit(p, at(9)) else { panic!("no probe") };
    b.rest(probe, at(20), || None::<()>);
    b.succeeded(Pass::Ordinary, p, at(9));
    assert_eq!(b.admit(p, at(9)), Err(Duration::from_secs(11)), "a probe may ask too");
    let Ok(probe) = b.admit(p, at(20)) else { panic!("no probe") };
    b.failed(probe, p, at(20), || Some(()));
    assert_eq!(b.admit(p, at(20)), Err(Duration::from_secs(2)), "resting doubled nothing");
    b.readmit();
    assert_eq!(b.admit(p, at(20)), Ok(Pass::Ordinary));
    b.failed(probe, p, at(20), || Some(()));
    assert_eq!(b.admit(p, at(20)), Ok(Pass::Ordinary), "a probe from before says nothing");
}

proptest! {
    /// Law: between two reports of a probe, at most one probe is let through per `eject_for`.
    #[test]
    fn at_most_one_probe(steps in prop::collection::vec((0u8..4, 0u64..400), 1..200)) {
        let (policy, t0) = (policy(), start());
        let p = Some(&policy);
        let b = Breaker::default();
        let (mut ms, mut out): (u64, Option<(u64, u32)>) = (0, None);
        for (what, gap) in steps {
            ms += gap;
            let now = t0 + Duration::from_millis(ms);
            match what {
                0 | 1 => if let Ok(Pass::Probe(number)) = b.admit(p, now) {
                    if let Some((since, _)) = out {
                        prop_assert!(ms - since >= 1000, "second probe after {} ms", ms - since);
                    }
                    out = Some((ms, number));
                },
                2 => b.failed(Pass::Ordinary, p, now, || Some(())),
                _ => if let Some((_, number)) = out.take() {
                    b.failed(Pass::Probe(number), p, now, || Some(()));
                },
            }
        }
    }
}
