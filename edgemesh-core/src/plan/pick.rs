//! The pick: session, then tier by tier what the balancing policy proposes, until a breaker admits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{BalancePolicy, HashKey, Locality};

use crate::balance::{self, Ask};
use crate::breaker::Pass;
use crate::plan::away::{Away, Why};
use crate::plan::limits::{self, Calling, Guard};
use crate::plan::view::View;
use crate::plan::{Chosen, Counted, Destination, Purpose, key};
use crate::refusal::Refusal;
use crate::snapshot::{Backend, Found, Group, Pool, Service, Spot, Tier};

/// So many Backends of a group are asked in the order of the policy, the others in their own: an
/// order by hash costs a look at the whole group for each.
const FOLLOWED: usize = 8;

/// Chooses a Backend of `pool` that admits the call.
pub(super) fn pick<V: View>(
    found: Found<'_>,
    pool: &Arc<Pool>,
    (destination, calling, guard): (&Destination<'_>, &Calling<'_>, Guard),
    now: Instant,
    view: &mut V,
) -> Result<Chosen, Refusal> {
    let Found { service, port, host } = found;
    let locality = match guard {
        Guard::Here | Guard::There => service.policy.locality,
        Guard::Local => Locality::OnlyNode,
    };
    view.tiers(pool, locality, guard);
    let mut search = Search {
        service,
        tried: match destination.purpose {
            Purpose::Retry(tried) | Purpose::Race(tried) => tried,
            Purpose::Call => &[],
        },
        purpose: destination.purpose,
        locality,
        calling,
        guard,
        now,
        view,
        missed: Missed::default(),
    };
    let (backend, pass) = match guard {
        Guard::Here | Guard::There => search.by_session(pool, destination)?,
        // Sessions are kept where the call began.
        Guard::Local => search.by_wish(pool, destination)?,
    };
    let purpose = match destination.purpose {
        Purpose::Race(_) => Counted::Race,
        Purpose::Call | Purpose::Retry(_) => Counted::Call,
    };
    Ok(Chosen {
        service: service.clone(),
        port,
        host,
        pool: pool.clone(),
        backend,
        pass,
        purpose,
        // The rest is said by whoever knows.
        route: None,
        rule: None,
        called: None,
        first: true,
        place: None,
    })
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
    tried: &'a [Spot],
    purpose: Purpose<'a>,
    locality: Locality,
    calling: &'a Calling<'a>,
    guard: Guard,
    now: Instant,
    view: &'a mut V,
    missed: Missed,
}

/// Why those that were asked got no call.
#[derive(Debug, Default)]
struct Missed {
    /// The shortest time for which a breaker or health check keeps calls away.
    unwell: Option<Duration>,
    /// The limit on the server's side is spent for so long.
    limited: Option<Duration>,
    /// No way leads to one of them.
    pathless: bool,
}

impl<V: View> Search<'_, V> {
    fn by_session(
        &mut self,
        pool: &Pool,
        destination: &Destination<'_>,
    ) -> Result<(usize, Pass), Refusal> {
        let session = Session::of(self.service, pool, destination);
        if session.is_none() && self.service.affinity.is_some() {
            self.view.anonymous();
        }
        let remembered = session.as_ref().and_then(|session| self.remembered(session));
        let chosen = remembered.or_else(|| self.balanced(pool, destination));
        let chosen = chosen.ok_or_else(|| self.nobody(pool))?;
        if let Some(session) = session {
            self.view.remember(&session, chosen.0, self.now);
        }
        Ok(chosen)
    }

    /// The Backend that the node of the caller has chosen; where it is gone or takes no call, what
    /// the policy proposes of those that run here.
    fn by_wish(
        &mut self,
        pool: &Pool,
        destination: &Destination<'_>,
    ) -> Result<(usize, Pass), Refusal> {
        let meant = |wish: SocketAddr| {
            let here = |b: &Backend| b.tier == Tier::Node && b.address == wish;
            pool.backends.iter().position(here)
        };
        let meant = destination.wish.and_then(meant);
        if let Some(wish) = destination.wish {
            self.view.wish(wish, meant);
        }
        let wished = meant.and_then(|at| Some((at, self.admit(pool, at)?)));
        wished.or_else(|| self.balanced(pool, destination)).ok_or_else(|| self.nobody(pool))
    }

    /// The Backend that the caller had last. It may be farther away than others are by now, and
    /// its weight may be 0: whoever asks for sessions would rather keep them.
    fn remembered(&mut self, session: &Session<'_>) -> Option<(usize, Pass)> {
        let Session { pool, caller, timeout } = *session;
        let tag = pool.live.session(caller, timeout, self.now);
        let backend = tag.and_then(|tag| pool.tagged(tag));
        let backend = backend.filter(|i| {
            self.locality != Locality::OnlyNode || pool.backends[*i].tier == Tier::Node
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
        pool.groups(self.locality).find_map(|group| self.group(pool, &group, &ask))
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
        if self.tried.contains(&backend.spot()) {
            self.view.tried(backend);
            return None;
        }
        let breaker = self.service.policy.breaker.as_ref();
        let admitted = self.view.admit(pool, backend, breaker, self.purpose, self.now);
        match admitted.and_then(|pass| self.limit(backend, pass)) {
            Ok(pass) => Some(pass),
            Err(away) => {
                self.view.skipped(backend, away);
                self.missed.note(away);
                None
            }
        }
    }

    /// Takes the token of the server's side for a Backend of this process among others whose agents
    /// take theirs. Where there is none, what was admitted is given back: a refused call uses up
    /// no probe.
    fn limit(&mut self, backend: &Backend, pass: Pass) -> Result<Pass, Away> {
        let is_race = matches!(self.purpose, Purpose::Race(_));
        if self.guard != Guard::There || is_race || !backend.is_dialled() {
            return Ok(pass);
        }
        let limited = |wait| Away { why: Why::Limited, wait };
        let took = match self.missed.limited {
            // One limit for all of them.
            Some(wait) => Err(wait),
            None => limits::server(self.service, self.calling, self.now, self.view),
        };
        took.map(|()| pass).map_err(|wait| {
            self.view.give_back(backend, pass, self.now);
            limited(wait)
        })
    }

    fn nobody(&self, pool: &Pool) -> Refusal {
        let Missed { unwell, limited, pathless } = self.missed;
        match (limited, unwell) {
            (Some(retry_after), _) => Refusal::RateLimited { retry_after },
            (None, Some(retry_after)) => Refusal::Unhealthy { retry_after },
            (None, None) if pathless => Refusal::NoPath,
            (None, None) if pool.backends.is_empty() => Refusal::NoBackend,
            (None, None) if pool.groups(self.locality).next().is_none() => Refusal::NoLocalBackend,
            (None, None) => Refusal::NoBackend,
        }
    }
}

impl Missed {
    fn note(&mut self, Away { why, wait }: Away) {
        let shortest = |known: &mut Option<Duration>| {
            *known = Some(known.map_or(wait, |known| known.min(wait)));
        };
        match why {
            Why::Rejected | Why::Ill => shortest(&mut self.unwell),
            Why::Limited => shortest(&mut self.limited),
            Why::NoPath => self.pathless = true,
        }
    }
}
