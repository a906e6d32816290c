//! A [`Hop`]: the chosen Backend, and the duty to say how it went.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use edgemesh_proto::record::{BalancePolicy, BreakerPolicy};

use crate::backends::{CappedPlace, Known, Way};
use crate::balance::FAILED;
use crate::breaker::{Held, Pass};
use crate::plan::{Chosen, Counted, Routed};
use crate::snapshot::rules::Rule;
use crate::snapshot::{Backend, Reach, Service, Spot};

/// Where a call goes. Ends with [`Hop::finish`]; dropped without, it counts as cancelled.
#[derive(Debug)]
#[must_use = "dropping a hop cancels the call"]
pub struct Hop {
    chosen: Chosen,
    began: Instant,
    via: Via,
    /// The way that a Link took in the end, where one did; see [`Hop::went`].
    way: AtomicU8,
    /// Whether its latency was reported.
    measured: AtomicBool,
    /// What was said of it beside a Refusal.
    said: OnceLock<Box<str>>,
    finished: bool,
}

/// How a call ended, as far as the Backend's health is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The Backend did its part.
    Good,
    /// The Backend's fault: no connection, a reset, a 5xx that says so, a time-out.
    Bad,
    /// Says nothing about the Backend: the client went away, or the mesh stopped.
    Neutral,
}

/// Values of [`Hop::way`].
const WENT_DIRECTLY: u8 = 1;
const WENT_BY_HUB: u8 = 2;

/// A Backend that asks for rest is left alone for no longer: what it says may be meant for one
/// caller, or wrong.
const LONGEST_REST: Duration = Duration::from_secs(60);

/// How a Backend is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It runs on this node.
    Local,
    /// A Link to the agent of its node.
    Direct,
    /// Through the hub, to the agent of its node or to the cloud itself.
    Hub,
    /// No agent runs where it runs, or nobody said where: its address is dialled.
    PlainDial,
}

impl Via {
    /// Label in the access log and in `explain`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Direct => "direct",
            Self::Hub => "hub",
            Self::PlainDial => "plainDial",
        }
    }

    /// As far as is known before it was tried: where nothing is, a direct Link is tried first.
    pub(super) fn to(backend: &Backend, now: Instant) -> Self {
        match &backend.reach {
            Reach::Here | Reach::Inbox => Self::Local,
            Reach::Plain => Self::PlainDial,
            Reach::Cloud(_) => Self::Hub,
            Reach::Linked(node) => match node.known(now) {
                Known::Works(Way::Hub) => Self::Hub,
                Known::Works(Way::Direct) | Known::Nothing | Known::Lost { .. } => Self::Direct,
            },
        }
    }
}

impl Hop {
    pub(super) fn begin(chosen: Chosen, now: Instant) -> Self {
        let backend = &chosen.pool.backends[chosen.backend];
        backend.live.in_flight.fetch_add(1, Relaxed);
        let (via, measured) = (Via::to(backend, now), AtomicBool::new(false));
        let (way, said) = (AtomicU8::new(0), OnceLock::new());
        let hop = Self { chosen, began: now, via, way, measured, said, finished: false };
        if hop.chosen.purpose == Counted::Call {
            hop.count();
        }
        hop
    }

    /// A raced dial turned out to be a connection.
    pub(super) fn became_a_call(&mut self, place: Option<CappedPlace>) {
        self.chosen.place = place;
        if std::mem::replace(&mut self.chosen.purpose, Counted::Call) == Counted::Race {
            self.count();
        }
    }

    fn count(&self) {
        self.backend().live.requests.fetch_add(1, Relaxed);
        let service = self.service();
        if self.chosen.first {
            service.live.called(service.policy.retries.budget_percent);
        }
    }

    /// The Service that the call is for.
    pub const fn service(&self) -> &Arc<Service> {
        &self.chosen.service
    }

    /// The Service that was called, which may have led to another.
    pub(super) fn called(&self) -> &Arc<Service> {
        self.chosen.called.as_ref().unwrap_or(&self.chosen.service)
    }

    /// Index of the port in the Service.
    pub const fn port(&self) -> usize {
        self.chosen.port
    }

    /// The Rule by which it goes.
    pub const fn rule(&self) -> Option<&Arc<Rule>> {
        self.chosen.rule.as_ref()
    }

    /// The chosen Backend.
    pub fn backend(&self) -> &Backend {
        &self.chosen.pool.backends[self.chosen.backend]
    }

    /// Where to dial.
    pub fn address(&self) -> SocketAddr {
        self.backend().address
    }

    /// What the request fitted, where its Service has Routes.
    pub const fn route(&self) -> Option<&Routed> {
        self.chosen.route.as_ref()
    }

    /// Longest time for the call with all its attempts: the Route's, else the Policy's, and no longer
    /// than the Rule's.
    pub fn request_timeout(&self) -> Option<Duration> {
        let said = self.route().and_then(Routed::request_timeout);
        let said = said.unwrap_or(self.service().policy.request_timeout);
        let of_rule = self.rule().and_then(|rule| rule.timeout);
        said.into_iter().chain(of_rule).min()
    }

    /// Longest time for this attempt.
    pub fn attempt_timeout(&self) -> Option<Duration> {
        self.route()?.rule().backend_timeout
    }

    /// Which Backend that is.
    pub fn spot(&self) -> Spot {
        self.backend().spot()
    }

    /// How it is reached.
    pub fn via(&self) -> Via {
        match self.way.load(Relaxed) {
            WENT_DIRECTLY => Via::Direct,
            WENT_BY_HUB => Via::Hub,
            _ => self.via,
        }
    }

    /// The Link that is taken leads there so, whatever was foretold.
    pub fn went(&self, way: Way) {
        let way = if way == Way::Direct { WENT_DIRECTLY } else { WENT_BY_HUB };
        self.way.store(way, Relaxed);
    }

    /// Why a message of a Rule was not delivered, as whoever was to do it says; the first word counts.
    pub fn note(&self, why: &str) {
        if self.chosen.rule.is_some() {
            let _ = self.said.set(why.into()); // said before
        }
    }

    /// What was noted.
    pub fn noted(&self) -> Option<&str> {
        self.said.get().map(|why| &**why)
    }

    /// The name of the one Backend that was called, where one was.
    pub fn hostname(&self) -> Option<&str> {
        let Chosen { service, host, .. } = &self.chosen;
        host.map(|host| &*service.hosts[host].name)
    }

    /// Reports that the connection stands that the call is: what latency means where nobody knows
    /// which bytes answer which.
    pub fn connected(&self, now: Instant) {
        self.measure(now);
    }

    /// Reports that the Backend answered, long before the call may end: its latency is known, a
    /// probe has done its duty, and an ejected Backend need not wait for a connection that lives
    /// for hours.
    pub fn answered(&mut self, now: Instant) {
        self.measure(now);
        if self.is_probe() {
            self.backend().live.breaker.answered(self.chosen.pass);
            self.chosen.pass = Pass::Ordinary;
        }
    }

    /// The Backend asked to be left alone for so long: it gets its rest, up to a minute
    /// and the Policy's own bound, unless nobody else is left to ask. Without a breaker in the
    /// Policy it is the client's business alone.
    pub fn rest(&mut self, wanted: Duration, now: Instant) {
        let Chosen { service, pool, backend, pass, .. } = &self.chosen;
        let Some(policy) = &service.policy.breaker else { return };
        let rest = wanted.min(policy.max_eject_for).min(LONGEST_REST);
        let live = &pool.backends[*backend].live;
        live.breaker.rest(*pass, now + rest, || {
            self.spare(policy).filter(|_| pool.ejected() + 1 < pool.backends.len())
        });
        if self.is_probe() {
            self.chosen.pass = Pass::Ordinary;
        }
    }

    /// Reports how the call ended.
    pub fn finish(mut self, outcome: Outcome, now: Instant) {
        self.settle(outcome, now);
    }

    /// Tells the Backend's latency, once.
    fn measure(&self, now: Instant) {
        if self.is_timed() && !self.measured.swap(true, Relaxed) {
            self.took(now.saturating_duration_since(self.began), now);
        }
    }

    /// Whether the Policy wants to know latencies.
    fn is_timed(&self) -> bool {
        self.service().policy.balance == BalancePolicy::PeakEwma
    }

    fn took(&self, latency: Duration, now: Instant) {
        self.backend().live.latency.observe(latency, self.chosen.pool.live.age(now));
    }

    fn settle(&mut self, outcome: Outcome, now: Instant) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        match outcome {
            Outcome::Good => self.measure(now),
            Outcome::Bad if self.is_timed() => {
                // Once it answered, what comes after is no latency: a connection may live for days.
                let silent = match self.measured.load(Relaxed) {
                    true => Duration::ZERO,
                    false => now.saturating_duration_since(self.began),
                };
                self.took(silent.max(FAILED), now);
            }
            Outcome::Bad | Outcome::Neutral => {}
        }
        let Chosen { service, pool, backend, pass, purpose, .. } = &self.chosen;
        let live = &pool.backends[*backend].live;
        live.in_flight.fetch_sub(1, Relaxed);
        let policy = service.policy.breaker.as_ref();
        match outcome {
            Outcome::Good => live.breaker.succeeded(*pass, policy, now),
            Outcome::Neutral => live.breaker.cancelled(*pass, now),
            Outcome::Bad => {
                if *purpose == Counted::Call {
                    live.failures.fetch_add(1, Relaxed);
                }
                live.breaker.failed(*pass, policy, now, || self.spare(policy?));
            }
        }
    }

    /// Whether the Service can spare one more Backend, also where only one host was called. What
    /// this gives is to be held until that one is ejected, or two at once could both be the last
    /// that may go.
    fn spare(&self, policy: &BreakerPolicy) -> Option<Held<'_>> {
        let Chosen { service, port, .. } = &self.chosen;
        let pool = service.ports[*port].pool(Some(self.address().ip()));
        let held = pool.live.ejecting.hold();
        (pool.ejected() < pool.ejectable(policy)).then_some(held)
    }

    /// Whether it is a raced dial that has not become a connection.
    pub fn is_race(&self) -> bool {
        self.chosen.purpose == Counted::Race
    }

    /// Whether this call decides about an ejected Backend.
    pub fn is_probe(&self) -> bool {
        matches!(self.chosen.pass, Pass::Probe(_))
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        // No clock here: a cancelled probe may be repeated at once, which its start time says.
        self.settle(Outcome::Neutral, self.began);
    }
}
