//! The pick: session, then tier by tier what the balancing policy proposes, until a breaker admits.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{BalancePolicy, HashKey, Locality};

use crate::balance::{self, Ask};
use crate::breaker::Pass;
use crate::plan::view::View;
use crate::plan::{Chosen, Counted, Destination, Purpose, Target, key};
use crate::refusal::Refusal;
use crate::snapshot::{Found, Group, Pool, Service, Tier};

/// So many Backends of a group are asked in the order of the policy, the others in their own: an
/// order by hash costs a look at the whole group for each.
const FOLLOWED: usize = 8;

/// Chooses a Backend that admits the call.
pub(super) fn pick<V: View>(
    found: Found<'_>,
    destination: &Destination<'_>,
    now: Instant,
    view: &mut V,
) -> Result<Chosen, Refusal> {
    let Found { service, port, .. } = found;
    let like = match destination.to {
        Target::Address(address) => Some(address.ip().to_canonical()),
        Target::Name { .. } => None,
    };
    let pool = found.pool(like);
    view.tiers(pool, service.policy.locality);
    let mut search = Search {
        service,
        tried: match destination.purpose {
            Purpose::Retry(tried) | Purpose::Race(tried) => tried,
            Purpose::Call => &[],
        },
        purpose: destination.purpose,
        now,
        view,
        wait: None,
    };
    let session = Session::of(service, pool, destination);
    if session.is_none() && service.affinity.is_some() {
        search.view.anonymous();
    }
    let remembered = session.as_ref().and_then(|session| search.remembered(session));
    let Some((backend, pass)) = remembered.or_else(|| search.balanced(pool, destination)) else {
        return Err(nobody(pool, service.policy.locality, search.wait));
    };
    if let Some(session) = session {
        search.view.remember(&session, backend, now);
    }
    let purpose = match destination.purpose {
        Purpose::Race(_) => Counted::Race,
        Purpose::Call | Purpose::Retry(_) => Counted::Call,
    };
    let (service, pool) = (service.clone(), pool.clone());
    let route = None; // said by whoever knows
    Ok(Chosen { service, port, pool, backend, pass, purpose, route })
}

/// Session affinity of one call.
pub(super) struct Session<'s> {
    pub(super) pool: &'s Pool,
    pub(super) caller: IpAddr,
    pub(super) timeout: Duration,
}

impl<'s> Session<'s> {
    fn of(service: &Service, pool: &'s Pool, destination: &Destination<'_>) -> Option<Self> {
        Some(Self { timeout: service.affinity?, pool, caller: destination.caller? })
    }
}

/// Asks Backends, one after the other.
struct Search<'a, V> {
    service: &'a Service,
    tried: &'a [SocketAddr],
    purpose: Purpose<'a>,
    now: Instant,
    view: &'a mut V,
    /// The shortest time for which a breaker that was asked rejects.
    wait: Option<Duration>,
}

impl<V: View> Search<'_, V> {
    /// The Backend that the caller had last. It may be farther away than others are by now, and
    /// its weight may be 0: whoever asks for sessions would rather keep them.
    fn remembered(&mut self, session: &Session<'_>) -> Option<(usize, Pass)> {
        let Session { pool, caller, timeout } = *session;
        let tag = pool.live.session(caller, timeout, self.now);
        let backend = tag.and_then(|tag| pool.tagged(tag));
        let backend = backend.filter(|i| {
            self.service.policy.locality != Locality::OnlyNode
                || pool.backends[*i].tier == Tier::Node
        });
        self.view.session(session, tag.is_some(), backend);
        Some((backend?, self.admit(pool, backend?)?))
    }

    /// What the policy proposes, tier by tier.
    fn balanced(&mut self, pool: &Pool, destination: &Destination<'_>) -> Option<(usize, Pass)> {
        let policy = &self.service.policy;
        let key = match policy.balance {
            BalancePolicy::ConsistentHash => self.key(&policy.hash_key, destination),
            BalancePolicy::RoundRobin
            | BalancePolicy::Random
            | BalancePolicy::LeastRequest
            | BalancePolicy::PeakEwma => None,
        };
        // A key leaves nothing to chance. A second attempt takes no turn: of two Backends, one of
        // them dead, every next call would else meet the dead one first.
        let turn = match key.is_none() && self.tried.is_empty() {
            true => self.view.turn(pool),
            false => pool.live.turn.load(Relaxed),
        };
        let ask = Ask { turn, key, age: pool.live.age(self.now) };
        pool.groups(policy.locality).find_map(|group| self.group(pool, &group, &ask))
    }

    fn key(&mut self, by: &HashKey, destination: &Destination<'_>) -> Option<u64> {
        let key = key::of(by, destination);
        self.view.key(by, key);
        key
    }

    fn group(&mut self, pool: &Pool, group: &Group<'_>, ask: &Ask) -> Option<(usize, Pass)> {
        let policy = self.service.policy.balance;
        let mut ask_for = |i: usize| {
            let i = group.start + i;
            Some((i, self.admit(pool, i)?))
        };
        let others = group.backends.len() - 1;
        let mut at = balance::choose(policy)(group, ask);
        if let Some(chosen) = ask_for(at) {
            return Some(chosen);
        }
        for _ in 0..others.min(FOLLOWED) {
            at = balance::follow(policy)(group, ask, at);
            if let Some(chosen) = ask_for(at) {
                return Some(chosen);
            }
        }
        // Asks some again, which hurts nobody.
        let rest = if others > FOLLOWED { 0..others + 1 } else { 0..0 };
        let (before, after) =
            (rest.clone().take_while(|i| *i <= at), rest.skip_while(|i| *i <= at));
        after.chain(before).find_map(ask_for)
    }

    fn admit(&mut self, pool: &Pool, index: usize) -> Option<Pass> {
        let backend = &pool.backends[index];
        if self.tried.contains(&backend.address) {
            self.view.skipped(backend, "tried already", None);
            return None;
        }
        let breaker = self.service.policy.breaker.as_ref();
        match self.view.admit(backend, breaker, self.purpose, self.now) {
            Ok(pass) => Some(pass),
            Err(away) => {
                self.view.skipped(backend, "its breaker rejects", Some(away));
                self.wait = Some(self.wait.map_or(away, |wait| wait.min(away)));
                None
            }
        }
    }
}

fn nobody(pool: &Pool, locality: Locality, wait: Option<Duration>) -> Refusal {
    match wait {
        Some(retry_after) => Refusal::Unhealthy { retry_after },
        None if pool.backends.is_empty() => Refusal::NoBackend,
        None if locality == Locality::OnlyNode && pool.groups(locality).next().is_none() => {
            Refusal::NoLocalBackend
        }
        None => Refusal::NoBackend,
    }
}
