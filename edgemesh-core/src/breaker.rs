//! Circuit breaker of one backend: it admits, rejects, or lets one probe through.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use edgemesh_proto::record::BreakerPolicy;
use parking_lot::Mutex;

/// Guards one backend. While it admits and calls succeed, nothing but two relaxed loads happens.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Failures in a row while admitting.
    failures: AtomicU32,
    /// Whether `ejection` says anything; lets the common case skip the lock.
    ejected: AtomicBool,
    ejection: Mutex<Ejection>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Ejection {
    state: State,
    /// Failed probes since the backend last answered; doubles the ejection time.
    streak: u32,
    /// Counts probes, so that the report of a lost one is told from that of the one that is out.
    probe: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Admitting,
    Rejecting {
        until: Instant,
    },
    Probing {
        /// When the probe counts as lost, so that a cancelled one cannot wedge the breaker.
        lost_at: Instant,
    },
}

/// What a breaker does to the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// Lets every call through.
    Admits,
    /// Would let the next call through as the one probe.
    WouldProbe,
    /// Keeps calls away for this long (a probe may be out).
    Rejects {
        /// Until the next probe.
        wait: Duration,
    },
}

/// How a call that was let through must be reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// One of many.
    Ordinary,
    /// The one that decides whether the backend is back.
    Probe(u32),
}

impl Breaker {
    /// Lets a call through, or says how long to stay away. At most one probe is out at a time.
    pub fn admit(&self, policy: Option<&BreakerPolicy>, now: Instant) -> Result<Pass, Duration> {
        let Some(policy) = policy else { return Ok(Pass::Ordinary) };
        if !self.ejected.load(Ordering::Acquire) {
            return Ok(Pass::Ordinary);
        }
        let mut ejection = self.ejection.lock();
        match stance(ejection.state, now) {
            Stance::Admits => Ok(Pass::Ordinary),
            Stance::Rejects { wait } => Err(wait),
            Stance::WouldProbe => {
                ejection.state = State::Probing { lost_at: now + policy.eject_for };
                ejection.probe = ejection.probe.wrapping_add(1);
                Ok(Pass::Probe(ejection.probe))
            }
        }
    }

    /// What [`Breaker::admit`] would do, without doing it.
    pub fn look(&self, policy: Option<&BreakerPolicy>, now: Instant) -> Stance {
        if policy.is_none() || !self.ejected.load(Ordering::Acquire) {
            return Stance::Admits;
        }
        stance(self.ejection.lock().state, now)
    }

    /// Reports a success.
    pub fn succeeded(&self, pass: Pass) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        // A straggler from before the ejection says nothing about now; only the probe does.
        if matches!(pass, Pass::Probe(_)) {
            let mut ejection = self.ejection.lock();
            *ejection = Ejection { probe: ejection.probe, ..Ejection::default() };
            self.ejected.store(false, Ordering::Release);
        }
    }

    /// Reports a failure. `may_eject` is asked only when this one would start an ejection: the
    /// pool decides whether it can spare the backend.
    pub fn failed(
        &self,
        pass: Pass,
        policy: Option<&BreakerPolicy>,
        now: Instant,
        may_eject: impl FnOnce() -> bool,
    ) {
        let Some(policy) = policy else { return };
        match pass {
            Pass::Probe(number) => {
                let mut ejection = self.ejection.lock();
                if !ejection.is_out(number) {
                    return;
                }
                ejection.streak = ejection.streak.saturating_add(1);
                ejection.state = State::Rejecting { until: now + length(policy, ejection.streak) };
            }
            Pass::Ordinary => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if failures < policy.consecutive_failures.get()
                    || self.ejected.load(Ordering::Acquire)
                    || !may_eject()
                {
                    return;
                }
                let mut ejection = self.ejection.lock();
                if ejection.state == State::Admitting {
                    ejection.state = State::Rejecting { until: now + length(policy, 0) };
                    self.failures.store(0, Ordering::Relaxed);
                    self.ejected.store(true, Ordering::Release);
                }
            }
        }
    }

    /// A probe ended without saying anything about the backend (the client went away).
    pub fn cancelled(&self, pass: Pass, now: Instant) {
        if let Pass::Probe(number) = pass {
            let mut ejection = self.ejection.lock();
            if ejection.is_out(number) {
                ejection.state = State::Rejecting { until: now };
            }
        }
    }
}

impl Ejection {
    /// Whether the probe of that number is the one that is out: a lost one says nothing any more.
    fn is_out(&self, number: u32) -> bool {
        self.probe == number && matches!(self.state, State::Probing { .. })
    }
}

fn stance(state: State, now: Instant) -> Stance {
    match state {
        State::Admitting => Stance::Admits,
        State::Rejecting { until } | State::Probing { lost_at: until } if now < until => {
            Stance::Rejects { wait: until - now }
        }
        State::Rejecting { .. } | State::Probing { .. } => Stance::WouldProbe,
    }
}

/// The ejection after `streak` failed probes: `eject_for` doubled each time, up to the maximum.
fn length(policy: &BreakerPolicy, streak: u32) -> Duration {
    policy.eject_for.saturating_mul(1 << streak.min(20)).min(policy.max_eject_for)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;

    fn policy() -> BreakerPolicy {
        BreakerPolicy {
            consecutive_failures: NonZeroU32::new(2).unwrap(),
            eject_for: Duration::from_secs(1),
            max_eject_for: Duration::from_secs(3),
            max_ejected_percent: 100,
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
        b.failed(Pass::Ordinary, p, t0, || true);
        b.succeeded(Pass::Ordinary);
        b.failed(Pass::Ordinary, p, t0, || true);
        assert_eq!(b.admit(p, t0), Ok(Pass::Ordinary), "a success between resets the count");
        b.failed(Pass::Ordinary, p, t0, || true);
        assert_eq!(b.admit(p, t0), Err(Duration::from_secs(1)));
        b.succeeded(Pass::Ordinary);
        assert!(b.admit(p, t0).is_err(), "a straggler does not end an ejection");
        assert_eq!(b.look(p, at(1.0)), Stance::WouldProbe);
        assert_eq!(b.admit(p, at(1.0)), Ok(Pass::Probe(1)));
        assert!(b.admit(p, at(1.0)).is_err(), "one probe at a time");
        b.failed(Pass::Probe(1), p, at(1.0), || true);
        assert_eq!(b.admit(p, at(1.0)), Err(Duration::from_secs(2)), "doubled");
        assert_eq!(b.admit(p, at(3.0)), Ok(Pass::Probe(2)));
        b.failed(Pass::Probe(2), p, at(3.0), || true);
        assert_eq!(b.admit(p, at(3.0)), Err(Duration::from_secs(3)), "capped");
        assert_eq!(b.admit(p, at(6.0)), Ok(Pass::Probe(3)));
        assert_eq!(b.admit(p, at(7.0)), Ok(Pass::Probe(4)), "a lost probe is forgotten");
        b.cancelled(Pass::Probe(3), at(7.0));
        b.failed(Pass::Probe(3), p, at(7.0), || true);
        assert!(b.admit(p, at(7.0)).is_err(), "and its late report says nothing");
        b.cancelled(Pass::Probe(4), at(7.0));
        assert_eq!(b.admit(p, at(7.0)), Ok(Pass::Probe(5)), "a cancelled one is repeated at once");
        b.succeeded(Pass::Probe(5));
        assert_eq!(b.admit(p, at(7.0)), Ok(Pass::Ordinary));
        b.failed(Pass::Probe(4), p, at(7.0), || true);
        (0..2).for_each(|_| b.failed(Pass::Ordinary, p, at(7.0), || true));
        assert!(b.admit(p, at(7.0)).is_err(), "a lost probe's report leaves the breaker working");
        assert_eq!(b.look(None, t0), Stance::Admits);
    }

    #[test]
    fn the_pool_can_refuse_an_ejection() {
        let (policy, t0) = (policy(), start());
        let b = Breaker::default();
        for _ in 0..5 {
            b.failed(Pass::Ordinary, Some(&policy), t0, || false);
        }
        assert_eq!(b.look(Some(&policy), t0), Stance::Admits);
        b.failed(Pass::Ordinary, Some(&policy), t0, || true);
        assert!(matches!(b.look(Some(&policy), t0), Stance::Rejects { .. }));
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
                    2 => b.failed(Pass::Ordinary, p, now, || true),
                    _ => if let Some((_, number)) = out.take() {
                        b.failed(Pass::Probe(number), p, now, || true);
                    },
                }
            }
        }
    }
}
