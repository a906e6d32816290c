//! Circuit breaker of one backend: it admits, rejects, or lets one probe through.
//!
//! Too many failures in a row, or too small a share of good calls in a window, start an ejection.

mod share;
mod window;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use edgemesh_proto::record::BreakerPolicy;
use parking_lot::Mutex;

use crate::breaker::window::Window;

pub use crate::breaker::share::{Ejecting, Held};

/// Guards one backend. While it admits and calls succeed, nothing but two relaxed loads happens,
/// and one exchange where the Policy looks at the share of good calls.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Failures in a row while admitting.
    failures: AtomicU32,
    /// Whether `ejection` says anything; lets the common case skip the lock.
    ejected: AtomicBool,
    ejection: Mutex<Ejection>,
    /// Calls of late; made by the first under a Policy that asks for it.
    window: OnceLock<Box<Window>>,
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
        if !self.is_ejected() {
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
        if policy.is_none() || !self.is_ejected() {
            return Stance::Admits;
        }
        stance(self.ejection.lock().state, now)
    }

    /// Reports a success.
    pub fn succeeded(&self, pass: Pass, policy: Option<&BreakerPolicy>, now: Instant) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        if let Some(rate) = policy.and_then(|policy| policy.success_rate.as_ref()) {
            self.window(now).count(rate, false, now);
        }
        self.answered(pass);
    }

    /// The Backend answered a call that has not ended. A straggler from before an ejection says
    /// nothing about now; only the probe does.
    pub fn answered(&self, pass: Pass) {
        if matches!(pass, Pass::Probe(_)) {
            self.readmit();
        }
    }

    /// Ends an ejection.
    pub fn readmit(&self) {
        let mut ejection = self.ejection.lock();
        *ejection = Ejection { probe: ejection.probe, ..Ejection::default() };
        self.ejected.store(false, Ordering::Release);
    }

    /// Reports a failure. `spare` is asked only when this one would start an ejection: the pool
    /// decides whether it can spare the backend, and what it gives is held until that is done.
    pub fn failed<G>(
        &self,
        pass: Pass,
        policy: Option<&BreakerPolicy>,
        now: Instant,
        spare: impl FnOnce() -> Option<G>,
    ) {
        let Some(policy) = policy else { return };
        if let Pass::Probe(number) = pass {
            return self.probe_failed(number, policy, now);
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let too_many = failures >= policy.consecutive_failures.get();
        let too_low = policy.success_rate.as_ref().is_some_and(|rate| {
            let window = self.window(now);
            window.count(rate, true, now);
            window.is_too_low(rate, now)
        });
        if (too_many || too_low) && !self.is_ejected() {
            self.eject(now + length(policy, 0), spare);
        }
    }

    /// The Backend asked to be left alone until then. Asking counts as no failure.
    pub fn rest<G>(&self, pass: Pass, until: Instant, spare: impl FnOnce() -> Option<G>) {
        match pass {
            Pass::Probe(number) => {
                let mut ejection = self.ejection.lock();
                if ejection.is_out(number) {
                    ejection.state = State::Rejecting { until };
                }
            }
            Pass::Ordinary if self.is_ejected() => {}
            Pass::Ordinary => self.eject(until, spare),
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

    /// Whether it is ejected, and when it is to be probed; a pool that has become too small
    /// takes those back first whose time comes first.
    pub fn ejected_until(&self) -> Option<Instant> {
        if !self.is_ejected() {
            return None;
        }
        match self.ejection.lock().state {
            State::Admitting => None,
            State::Rejecting { until } | State::Probing { lost_at: until } => Some(until),
        }
    }

    fn eject<G>(&self, until: Instant, spare: impl FnOnce() -> Option<G>) {
        let Some(_held_until_ejected) = spare() else { return };
        let mut ejection = self.ejection.lock();
        if ejection.state == State::Admitting {
            ejection.state = State::Rejecting { until };
            self.failures.store(0, Ordering::Relaxed);
            // What led here must not lead here again once it is back.
            if let Some(window) = self.window.get() {
                window.clear();
            }
            self.ejected.store(true, Ordering::Release);
        }
    }

    fn probe_failed(&self, number: u32, policy: &BreakerPolicy, now: Instant) {
        let mut ejection = self.ejection.lock();
        if ejection.is_out(number) {
            ejection.streak = ejection.streak.saturating_add(1);
            ejection.state = State::Rejecting { until: now + length(policy, ejection.streak) };
        }
    }

    fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Acquire)
    }

    fn window(&self, now: Instant) -> &Window {
        self.window.get_or_init(|| Box::new(Window::new(now)))
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
mod tests;
