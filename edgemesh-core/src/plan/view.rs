//! What a decision may change: everything that counts ([`Commit`]), or nothing ([`Look`]).

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{BreakerPolicy, HashKey, Locality, PolicyOrigin, ServiceName};

use crate::backends::{Capped, CappedPlace};
use crate::balance;
use crate::breaker::{Pass, Stance};
use crate::limit::{Caller, Limiter};
use crate::plan::away::{Away, ordinary, rejected, well};
use crate::plan::pick::Session;
use crate::plan::{Arrival, Chosen, Destination, Purpose, Target, Via};
use crate::refusal::Refusal;
use crate::snapshot::{Backend, Pool, Rule, Service, Source, Who};

/// The live state as a decision sees it.
pub(super) trait View {
    fn resolved(&mut self, destination: &Destination<'_>, service: &Service, port: usize);
    fn allowed(&mut self, address: Option<IpAddr>, who: Option<&Who>, meant: Option<usize>);
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
    fn tiers(&mut self, pool: &Pool, locality: Locality);
    /// Whether the caller has a `session`, and with which Backend, if that is there.
    fn session(&mut self, session: &Session<'_>, known: bool, backend: Option<usize>);
    fn remember(&mut self, session: &Session<'_>, backend: usize, now: Instant);
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
    fn skipped(&mut self, backend: &Backend, why: &'static str, wait: Option<Duration>);
}

/// Decides for real.
pub(super) struct Commit;

impl View for Commit {
    fn resolved(&mut self, _: &Destination<'_>, _: &Service, _: usize) {}

    fn allowed(&mut self, _: Option<IpAddr>, _: Option<&Who>, _: Option<usize>) {}

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

    fn tiers(&mut self, _: &Pool, _: Locality) {}

    fn session(&mut self, _: &Session<'_>, _: bool, _: Option<usize>) {}

    fn remember(&mut self, session: &Session<'_>, backend: usize, now: Instant) {
        let Session { pool, caller, timeout } = *session;
        if let Some(tag) = pool.tag(backend) {
            pool.live.remember(caller, tag, timeout, now);
        }
    }

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
        well(pool, backend)?;
        match purpose {
            Purpose::Race(_) => ordinary(backend.live.breaker.look(policy, now)),
            Purpose::Call | Purpose::Retry(_) => {
                backend.live.breaker.admit(policy, now).map_err(rejected)
            }
        }
    }

    fn skipped(&mut self, _: &Backend, _: &'static str, _: Option<Duration>) {}
}

/// One step of an explained decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at: `resolve`, `policy`, `allow`, `route`, `weights`, `cap`, `limit`, `tier`,
    /// `session`, `key`, `skip`, `pick`, `via`.
    pub what: &'static str,
    /// What it said.
    pub why: String,
}

/// A decision, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// In order.
    pub steps: Vec<Step>,
    /// The Service, if one was found.
    pub service: Option<ServiceName>,
    /// The Backend that the next call would get, or why it would get none.
    pub verdict: Result<(std::net::SocketAddr, Via), Refusal>,
}

/// Decides without changing anything, and takes notes.
#[derive(Default)]
pub(super) struct Look {
    steps: Vec<Step>,
    service: Option<ServiceName>,
    captured_address: bool,
    /// The Backend that a session asks for.
    by_session: Option<usize>,
}

impl Look {
    fn step(&mut self, what: &'static str, why: String) {
        self.steps.push(Step { what, why });
    }

    pub(super) fn into_explanation(mut self, decided: Result<Chosen, Refusal>) -> Explanation {
        let verdict = decided.map(|chosen| {
            let backend = &chosen.pool.backends[chosen.backend];
            let probe = if matches!(chosen.pass, Pass::Probe(_)) {
                ", as the probe of its breaker"
            } else {
                ""
            };
            let policy = match self.by_session == Some(chosen.backend) {
                true => "session",
                false => balance::name(chosen.service.policy.balance),
            };
            let of = chosen.pool.backends.len();
            let tier = backend.tier.name();
            let weight = match backend.weight {
                1 => String::new(),
                weight => format!(", weight {weight}"),
            };
            let address = backend.address;
            self.step(
                "pick",
                format!("{address} by {policy} from tier {tier}, {of} in all{weight}{probe}"),
            );
            let via = Via::to(backend);
            let how = match via {
                Via::Local => "the backend runs on this node",
                Via::PlainDial => {
                    "no agent is known where the backend runs: its address is dialled"
                }
            };
            self.step("via", how.into());
            if via == Via::PlainDial && chosen.service.policy.server.is_some() {
                self.step("limit", "the server side is held here: at caller".into());
            }
            (backend.address, via)
        });
        Explanation { steps: self.steps, service: self.service, verdict }
    }
}

impl View for Look {
    fn resolved(&mut self, destination: &Destination<'_>, service: &Service, port: usize) {
        self.captured_address = destination.arrival == Arrival::Captured;
        let port = &service.ports[port];
        let by = match destination.to {
            Target::Address(address) => format!("address {address}"),
            Target::Name { host, port: Some(port), .. } => format!("name {host}, port {port}"),
            Target::Name { host, port: None, .. } => format!("name {host}"),
        };
        let named = if port.name.is_empty() { String::new() } else { format!(" ({})", port.name) };
        self.step(
            "resolve",
            format!("{by} is Service {}, port {}{named}", service.name, port.port),
        );
        let from = match service.source {
            Source::Slices => "its Slices",
            Source::Workloads => "ready Pods that its selector matches, since it has no Slice",
            Source::Nothing => "nowhere: no Slice, and no ready Pod that a selector matches",
        };
        self.step("backends", format!("from {from}"));
        let policy = match &service.policy.name {
            Some(name) => {
                let kind = match service.policy.origin {
                    PolicyOrigin::TrafficPolicy => "TrafficPolicy",
                    PolicyOrigin::DestinationRule => "DestinationRule",
                };
                format!("{kind} {}/{name}", service.name.namespace)
            }
            None => "defaults: no TrafficPolicy names this Service".into(),
        };
        self.step("policy", policy);
        self.service = Some(service.name.clone());
    }

    fn allowed(&mut self, address: Option<IpAddr>, who: Option<&Who>, meant: Option<usize>) {
        let address = address.map_or_else(|| "this machine".into(), |ip| ip.to_string());
        let who = who.map_or_else(|| "no record knows it".into(), Who::to_string);
        let says = match meant {
            Some(entry) => format!("is let in by entry {}", entry + 1),
            None => "is meant by no entry".into(),
        };
        self.step("allow", format!("caller {address} ({who}) {says}"));
    }

    fn place(
        &mut self,
        service: &Service,
        what: Capped,
        most: u32,
    ) -> Result<Option<CappedPlace>, ()> {
        let taken = service.live.places(what);
        let things = match what {
            Capped::Connection => "connections",
            Capped::Request => "requests",
        };
        self.step("cap", format!("{taken} of {most} {things} are under way"));
        if taken < most { Ok(None) } else { Err(()) }
    }

    fn take(
        &mut self,
        side: &'static str,
        limiter: &Limiter,
        caller: &Caller,
        now: Instant,
    ) -> Result<(), Duration> {
        let looked = limiter.look(caller, now);
        let limit = limiter.limit();
        let of = match caller {
            Caller::Everyone => String::new(),
            Caller::Named(name) => format!(" for {name}"),
            Caller::Address(address) => format!(" for {address}"),
        };
        let says = match looked {
            Ok(()) => "admits".into(),
            Err(wait) => format!("is spent for {} ms", wait.as_millis().max(1)),
        };
        self.step(
            "limit",
            format!("{side} side{of}, {} a second, bursts of {}: {says}", limit.qps, limit.burst),
        );
        looked
    }

    fn tiers(&mut self, pool: &Pool, locality: Locality) {
        let ([node, zone, anywhere], idle) = pool.counts();
        let order = match locality {
            Locality::None => format!("none: {} alike, wherever they are", node + zone + anywhere),
            Locality::PreferNode => {
                format!("preferNode: {node} on this node, {zone} in its zone, {anywhere} elsewhere")
            }
            Locality::OnlyNode => {
                format!("onlyNode: {node} on this node, {} not asked", zone + anywhere)
            }
        };
        let idle = match idle {
            0 => String::new(),
            idle => format!("; {idle} of weight 0, for when nobody else is left"),
        };
        self.step("tier", order + &idle);
    }

    fn session(&mut self, session: &Session<'_>, known: bool, backend: Option<usize>) {
        let Session { pool, caller, timeout } = *session;
        self.by_session = backend;
        let with = match (known, backend) {
            (false, _) => "none yet, the policy chooses".into(),
            (true, None) => "its backend is gone, the policy chooses".into(),
            (true, Some(backend)) => format!("with {}", pool.backends[backend].address),
        };
        self.step("session", format!("of {caller}, {} s: {with}", timeout.as_secs()));
    }

    fn remember(&mut self, _: &Session<'_>, _: usize, _: Instant) {}

    fn anonymous(&mut self) {
        self.step("session", "none: nobody in particular calls".into());
    }

    fn key(&mut self, by: &HashKey, key: Option<u64>) {
        let (what, name): (_, &str) = match by {
            HashKey::SourceIp => ("the caller's address", ""),
            HashKey::Header(name) => ("header ", name),
            HashKey::Cookie(name) => ("cookie ", name),
            HashKey::Query(name) => ("query parameter ", name),
        };
        self.step(
            "key",
            match key {
                Some(hash) => format!("{what}{name}, hash {hash:016x}"),
                None => format!("{what}{name} is not known of this call: chosen by chance"),
            },
        );
    }

    fn turn(&mut self, pool: &Pool) -> u64 {
        pool.live.turn.load(Relaxed)
    }

    fn rule_turn(&mut self, rule: &Rule) -> u64 {
        rule.turn.load(Relaxed)
    }

    fn note(&mut self, what: &'static str, why: impl FnOnce() -> String) {
        self.step(what, why());
    }

    fn admit(
        &mut self,
        pool: &Pool,
        backend: &Backend,
        policy: Option<&BreakerPolicy>,
        purpose: Purpose<'_>,
        now: Instant,
    ) -> Result<Pass, Away> {
        well(pool, backend)?;
        match (backend.live.breaker.look(policy, now), purpose) {
            (Stance::WouldProbe, Purpose::Call | Purpose::Retry(_)) => Ok(Pass::Probe(0)),
            (stance, _) => ordinary(stance),
        }
    }

    fn skipped(&mut self, backend: &Backend, why: &'static str, wait: Option<Duration>) {
        let wait = wait.map(|w| format!(" for {} ms", w.as_millis())).unwrap_or_default();
        self.step("skip", format!("{}: {why}{wait}", backend.address));
    }
}
