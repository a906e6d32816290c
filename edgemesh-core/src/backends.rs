//! Live state of Services and Backends: what calls leave behind and Snapshot swaps must not lose.

mod latency;
mod node;
mod rule;
mod sessions;

use std::net::IpAddr;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use edgemesh_proto::record::ConnectionCaps;

use crate::breaker::{Breaker, Ejecting};
use crate::hash;

pub use crate::backends::latency::Latency;
pub use crate::backends::node::{Known, NodeLive, Way};
pub use crate::backends::rule::{MAX_DETAIL, MAX_ERRORS, RuleError, RuleLive, Tally, Trouble};
pub use crate::backends::sessions::{MAX_SESSIONS, Sessions};

/// Live state of one Backend on one Service port.
#[derive(Debug, Default)]
pub struct BackendLive {
    /// Whether calls may go there.
    pub breaker: Breaker,
    /// Calls and connections that have not ended.
    pub in_flight: AtomicU32,
    /// Calls that were sent there.
    pub requests: AtomicU64,
    /// Calls of those that failed by the Backend's fault.
    pub failures: AtomicU64,
    /// Its health check says that it does not answer.
    pub ill: AtomicBool,
    /// How long it takes to answer; measured only where the Policy balances by it.
    pub latency: Latency,
    /// Dials that wait for a server to speak first, while their client is silent too.
    raced: AtomicU32,
}

/// Live state of one pool of Backends.
#[derive(Debug)]
pub struct PoolLive {
    /// Grows with every pick; policies derive their choice from it.
    pub turn: AtomicU64,
    /// Held while a Backend is ejected: two failures at once must not exceed the share.
    pub ejecting: Ejecting,
    /// Backends in the Snapshot in force; calls that began before may know others.
    pub size: AtomicUsize,
    /// When it began: latencies and sessions count their time from here.
    since: Instant,
    /// Made with the first session.
    sessions: OnceLock<Box<Sessions>>,
}

/// Live state of one Service.
#[derive(Debug)]
pub struct ServiceLive {
    /// Hundredths of a retry that may be spent; see [`ServiceLive::may_retry`].
    budget: AtomicI32,
    /// Connections of bytes and HTTP requests under way, where a Policy caps them.
    under_way: [AtomicU32; 2],
}

/// Live state of one Service port.
#[derive(Debug, Default)]
pub struct PortLive {
    /// Flows in a row in which the server spoke first.
    server_first: AtomicU8,
}

/// At most this many silent dials wait on one Backend for its server to speak.
pub const RACED_PER_BACKEND: u32 = 32;

/// Flows that must agree before a port counts as server-speaks-first.
const AGREEING_FLOWS: u8 = 3;

/// A fresh budget allows ten retries, so that a Service with little traffic can retry at all.
const FRESH_BUDGET: i32 = 10 * RETRY;
/// No quiet time saves up more than a hundred retries.
const MAX_BUDGET: i32 = 100 * RETRY;
/// What one retry costs.
const RETRY: i32 = 100;

impl Default for ServiceLive {
    fn default() -> Self {
        Self { budget: AtomicI32::new(FRESH_BUDGET), under_way: Default::default() }
    }
}

impl ServiceLive {
    /// Notes a call that was admitted: it pays `percent` hundredths of a retry into the budget.
    pub fn called(&self, percent: u8) {
        // Once full (the usual case) nothing is written, so that threads do not fight for it.
        if self.budget.load(Relaxed) < MAX_BUDGET {
            self.budget.fetch_add(i32::from(percent), Relaxed);
        }
    }

    /// Pays for one retry, if the budget has it.
    pub fn may_retry(&self) -> bool {
        self.budget.fetch_update(Relaxed, Relaxed, |b| (b >= RETRY).then(|| b - RETRY)).is_ok()
    }
}

/// What a cap counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capped {
    /// Connections of bytes.
    Connection,
    /// HTTP requests.
    Request,
}

impl Capped {
    /// The cap on it.
    pub fn most(self, caps: &ConnectionCaps) -> Option<u32> {
        match self {
            Self::Connection => caps.max,
            Self::Request => caps.max_requests,
        }
        .map(std::num::NonZeroU32::get)
    }
}

/// A place below a cap; given back on drop.
#[derive(Debug)]
pub struct CappedPlace(Arc<ServiceLive>, Capped);

impl ServiceLive {
    /// Takes a place, if fewer than `most` are taken.
    pub fn place(self: &Arc<Self>, what: Capped, most: u32) -> Option<CappedPlace> {
        let taken = &self.under_way[what as usize];
        taken.fetch_update(Relaxed, Relaxed, |n| (n < most).then(|| n + 1)).ok()?;
        Some(CappedPlace(self.clone(), what))
    }

    /// Places that are taken.
    pub fn places(&self, what: Capped) -> u32 {
        self.under_way[what as usize].load(Relaxed)
    }
}

impl Drop for CappedPlace {
    fn drop(&mut self) {
        self.0.under_way[self.1 as usize].fetch_sub(1, Relaxed);
    }
}

impl PoolLive {
    /// A pool that nobody called yet.
    pub const fn new(now: Instant) -> Self {
        Self {
            turn: AtomicU64::new(0),
            ejecting: Ejecting::new(),
            size: AtomicUsize::new(0),
            since: now,
            sessions: OnceLock::new(),
        }
    }

    /// Time since it began.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// The tag of the Backend that `caller` has a session with.
    pub fn session(&self, caller: IpAddr, timeout: Duration, now: Instant) -> Option<u32> {
        let sessions = self.sessions.get()?;
        sessions.get(hash::ip(caller), seconds(self.age(now)), seconds(timeout))
    }

    /// Begins or renews the session of `caller` with the Backend of that tag.
    pub fn remember(&self, caller: IpAddr, tag: u32, timeout: Duration, now: Instant) {
        let sessions = self.sessions.get_or_init(Box::default);
        sessions.put(hash::ip(caller), tag, seconds(self.age(now)), seconds(timeout));
    }
}

/// Whole seconds; 136 years are all.
fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

impl PortLive {
    /// Notes who spoke first in a flow that was not declared: one contradiction forgets.
    pub fn spoke_first(&self, server: bool) {
        let seen = self.server_first.load(Relaxed);
        let next = if server { (seen + 1).min(AGREEING_FLOWS) } else { 0 };
        if next != seen {
            self.server_first.store(next, Relaxed);
        }
    }

    /// Whether the last flows agree that the server speaks first.
    pub fn is_server_first(&self) -> bool {
        self.server_first.load(Relaxed) >= AGREEING_FLOWS
    }
}

/// A place among the silent raced dials of a Backend; given back on drop.
#[derive(Debug)]
pub struct Raced<'a>(&'a BackendLive);

impl BackendLive {
    /// Takes a place among the silent raced dials, if one is left.
    pub fn race(&self) -> Option<Raced<'_>> {
        self.raced
            .fetch_update(Relaxed, Relaxed, |n| (n < RACED_PER_BACKEND).then(|| n + 1))
            .is_ok()
            .then(|| Raced(self)) // not `then_some`: one that is made gives its place back
    }
}

impl Drop for Raced<'_> {
    fn drop(&mut self) {
        self.0.raced.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_remembered_after_three_flows_and_forgotten_after_one() {
        let port = PortLive::default();
        for (server, want) in [
            (true, false),
            (true, false),
            (true, true),
            (true, true),
            (false, false),
            (true, false),
        ] {
            port.spoke_first(server);
            assert_eq!(port.is_server_first(), want);
        }
    }

    #[test]
    fn silent_dials_are_bounded() {
        let live = BackendLive::default();
        let mut places: Vec<_> = (0..RACED_PER_BACKEND).map(|_| live.race().unwrap()).collect();
        assert!((0..10).all(|_| live.race().is_none()), "a refusal gives nobody's place away");
        places.pop();
        let last = live.race();
        assert!(last.is_some() && live.race().is_none());
    }

    #[test]
    fn places_below_a_cap_come_back() {
        let live = Arc::<ServiceLive>::default();
        let place = |what| live.place(what, 2);
        let first = place(Capped::Connection);
        let second = place(Capped::Connection);
        assert!(first.is_some() && second.is_some() && place(Capped::Connection).is_none());
        assert!(place(Capped::Request).is_some(), "each is counted for itself");
        drop(first);
        assert!(place(Capped::Connection).is_some());
        drop(second);
        assert_eq!([live.places(Capped::Connection), live.places(Capped::Request)], [0, 0]);
    }

    #[test]
    fn retries_are_a_share_of_calls() {
        let live = ServiceLive::default();
        assert_eq!((0..50).filter(|_| live.may_retry()).count(), 10);
        (0..100).for_each(|_| live.called(20));
        assert_eq!((0..50).filter(|_| live.may_retry()).count(), 20);
    }
}
