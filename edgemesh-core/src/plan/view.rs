//! What a decision may change: everything that counts ([`Commit`]), or nothing
//! ([`Look`](super::look::Look)).

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{BreakerPolicy, HashKey, Locality};

use crate::backends::{Capped, CappedPlace};
use crate::breaker::Pass;
use crate::limit::{Caller, Limiter};
use crate::plan::away::{Away, ordinary, rejected, well};
use crate::plan::limits::{Calling, Guard};
use crate::plan::pick::Session;
use crate::plan::{Destination, Purpose};
use crate::snapshot::{Backend, Pool, Rule, Service, Who};

/// The live state as a decision sees it.
pub(super) trait View {
    fn resolved(&mut self, destination: &Destination<'_>, service: &Service, port: usize);
    fn allowed(&mut self, calling: &Calling<'_>, who: Option<&Who>, meant: Option<usize>);
    fn place(
        &mut self,
        service: &Service,
        what: Capped,
        most: u32,
    ) -> Result<Option<CappedPlace>, ()>;
    fn take(
        &mut self,
        side: &'static str,
        limiter: &Limiter,
        caller: &Caller,
        now: Instant,
    ) -> Result<(), Duration>;
    fn tiers(&mut self, pool: &Pool, locality: Locality, guard: Guard);
    /// Whether the caller has a `session`, and with which Backend, if that is there.
    fn session(&mut self, session: &Session<'_>, known: bool, backend: Option<usize>);
    fn remember(&mut self, session: &Session<'_>, backend: usize, now: Instant);
    /// The caller's node has chosen this Backend, if it is one of this node's.
    fn wish(&mut self, wish: SocketAddr, backend: Option<usize>);
    /// Sessions are kept, but nobody knows who calls.
    fn anonymous(&mut self);
    fn key(&mut self, by: &HashKey, key: Option<u64>);
    fn turn(&mut self, pool: &Pool) -> u64;
    fn rule_turn(&mut self, rule: &Rule) -> u64;
    /// Says why; only where somebody reads it.
    fn note(&mut self, what: &'static str, why: impl FnOnce() -> String);
    fn admit(
        &mut self,
        pool: &Pool,
        backend: &Backend,
        policy: Option<&BreakerPolicy>,
        purpose: Purpose<'_>,
        now: Instant,
    ) -> Result<Pass, Away>;
    /// What [`View::admit`] gave is not used.
    fn give_back(&mut self, backend: &Backend, pass: Pass, now: Instant);
    fn tried(&mut self, backend: &Backend);
    fn skipped(&mut self, backend: &Backend, away: Away);
}

/// Decides for real.
pub(super) struct Commit;

impl View for Commit {
    fn resolved(&mut self, _: &Destination<'_>, _: &Service, _: usize) {}

    fn allowed(&mut self, _: &Calling<'_>, _: Option<&Who>, _: Option<usize>) {}

    fn place(
        &mut self,
        service: &Service,
        what: Capped,
        most: u32,
    ) -> Result<Option<CappedPlace>, ()> {
        service.live.place(what, most).map(Some).ok_or(())
    }

    fn take(
        &mut self,
        _: &'static str,
        limiter: &Limiter,
        caller: &Caller,
        now: Instant,
    ) -> Result<(), Duration> {
        limiter.take(caller, now)
    }

    fn tiers(&mut self, _: &Pool, _: Locality, _: Guard) {}

    fn session(&mut self, _: &Session<'_>, _: bool, _: Option<usize>) {}

    fn remember(&mut self, session: &Session<'_>, backend: usize, now: Instant) {
        let Session { pool, caller, timeout } = *session;
        if let Some(tag) = pool.tag(backend) {
            pool.live.remember(caller, tag, timeout, now);
        }
    }

    fn wish(&mut self, _: SocketAddr, _: Option<usize>) {}

    fn anonymous(&mut self) {}

    fn key(&mut self, _: &HashKey, _: Option<u64>) {}

    fn turn(&mut self, pool: &Pool) -> u64 {
        pool.live.turn.fetch_add(1, Relaxed)
    }

    fn rule_turn(&mut self, rule: &Rule) -> u64 {
        rule.turn.fetch_add(1, Relaxed)
    }

    fn note(&mut self, _: &'static str, _: impl FnOnce() -> String) {}

    fn admit(
        &mut self,
        pool: &Pool,
        backend: &Backend,
        policy: Option<&BreakerPolicy>,
        purpose: Purpose<'_>,
        now: Instant,
    ) -> Result<Pass, Away> {
        well(pool, backend, now)?;
        match purpose {
            Purpose::Race(_) => ordinary(backend.live.breaker.look(policy, now)),
            Purpose::Call | Purpose::Retry(_) => {
                backend.live.breaker.admit(policy, now).map_err(rejected)
            }
        }
    }

    fn give_back(&mut self, backend: &Backend, pass: Pass, now: Instant) {
        backend.live.breaker.cancelled(pass, now);
    }

    fn tried(&mut self, _: &Backend) {}

    fn skipped(&mut self, _: &Backend, _: Away) {}
}
