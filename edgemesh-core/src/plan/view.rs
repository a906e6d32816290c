//! What a decision may change: everything that counts ([`Commit`]), or nothing ([`Look`]).

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{BreakerPolicy, ServiceName};

use crate::balance;
use crate::breaker::{Pass, Stance};
use crate::limit::Limiter;
use crate::plan::{Arrival, Chosen, Destination, Purpose, Target, Via};
use crate::refusal::Refusal;
use crate::snapshot::{Backend, Pool, Rule, Service, Source};

/// The live state as a decision sees it.
pub(super) trait View {
    fn resolved(&mut self, destination: &Destination<'_>, service: &Service, port: usize);
    fn take(&mut self, side: &'static str, limiter: &Limiter, now: Instant)
    -> Result<(), Duration>;
    fn turn(&mut self, pool: &Pool) -> u64;
    fn rule_turn(&mut self, rule: &Rule) -> u64;
    /// Says why; only where somebody reads it.
    fn note(&mut self, what: &'static str, why: impl FnOnce() -> String);
    fn admit(
        &mut self,
        backend: &Backend,
        policy: Option<&BreakerPolicy>,
        purpose: Purpose<'_>,
        now: Instant,
    ) -> Result<Pass, Duration>;
    fn skipped(&mut self, backend: &Backend, why: &'static str, wait: Option<Duration>);
}

/// Decides for real.
pub(super) struct Commit;

impl View for Commit {
    fn resolved(&mut self, _: &Destination<'_>, _: &Service, _: usize) {}

    fn take(&mut self, _: &'static str, limiter: &Limiter, now: Instant) -> Result<(), Duration> {
        limiter.take(now)
    }

    fn turn(&mut self, pool: &Pool) -> u64 {
        pool.live.turn.fetch_add(1, Relaxed)
    }

    fn rule_turn(&mut self, rule: &Rule) -> u64 {
        rule.turn.fetch_add(1, Relaxed)
    }

    fn note(&mut self, _: &'static str, _: impl FnOnce() -> String) {}

    fn admit(
        &mut self,
        backend: &Backend,
        policy: Option<&BreakerPolicy>,
        purpose: Purpose<'_>,
        now: Instant,
    ) -> Result<Pass, Duration> {
        match purpose {
            Purpose::Race(_) => ordinary(backend.live.breaker.look(policy, now)),
            Purpose::Call | Purpose::Retry(_) => backend.live.breaker.admit(policy, now),
        }
    }

    fn skipped(&mut self, _: &Backend, _: &'static str, _: Option<Duration>) {}
}

/// A race takes no probe: it goes only where everyone may go.
fn ordinary(stance: Stance) -> Result<Pass, Duration> {
    match stance {
        Stance::Admits => Ok(Pass::Ordinary),
        Stance::WouldProbe => Err(Duration::ZERO),
        Stance::Rejects { wait } => Err(wait),
    }
}

/// One step of an explained decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at: `resolve`, `policy`, `route`, `weights`, `limit`, `skip`, `pick`, `via`.
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
            let policy = balance::name(chosen.service.policy.balance);
            let of = chosen.pool.backends.len();
            let tier = backend.tier.name();
            self.step(
                "pick",
                format!("{} by {policy} from tier {tier}, {of} in all{probe}", backend.address),
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
            Some(name) => format!("TrafficPolicy {}/{name}", service.name.namespace),
            None => "defaults: no TrafficPolicy names this Service".into(),
        };
        self.step("policy", policy);
        self.service = Some(service.name.clone());
    }

    fn take(
        &mut self,
        side: &'static str,
        limiter: &Limiter,
        now: Instant,
    ) -> Result<(), Duration> {
        let looked = limiter.look(now);
        let limit = limiter.limit();
        let says = match looked {
            Ok(()) => "admits".into(),
            Err(wait) => format!("is spent for {} ms", wait.as_millis().max(1)),
        };
        self.step(
            "limit",
            format!("{side} side, {} a second, bursts of {}: {says}", limit.qps, limit.burst),
        );
        looked
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
        backend: &Backend,
        policy: Option<&BreakerPolicy>,
        purpose: Purpose<'_>,
        now: Instant,
    ) -> Result<Pass, Duration> {
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
