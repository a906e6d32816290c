//! What a decision may change: everything that counts ([`Commit`]), or nothing ([`Look`]).

use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{BreakerPolicy, ServiceName};

use crate::backends::{Capped, CappedPlace};
use crate::balance;
use crate::breaker::{Pass, Stance};
use crate::limit::{Caller, Limiter};
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

/// Why a Backend gets no call, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) why: &'static str,
    pub(super) wait: Duration,
}

/// A Backend that is ill is asked again by its health check within about so long.
const ILL_FOR: Duration = Duration::from_secs(1);

/// Whether a Backend's health check keeps calls away. Where all are ill, none of the checks is
/// believed: a call that may fail is better than one that must.
fn well(pool: &Pool, backend: &Backend) -> Result<(), Away> {
    let is_ill = |backend: &Backend| backend.live.ill.load(Relaxed);
    match is_ill(backend) && !pool.backends.iter().all(is_ill) {
        true => Err(Away { why: "its health check fails", wait: ILL_FOR }),
        false => Ok(()),
    }
}

const fn rejected(wait: Duration) -> Away {
    Away { why: "its breaker rejects", wait }
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

/// A race takes no probe: it goes only where everyone may go.
fn ordinary(stance: Stance) -> Result<Pass, Away> {
    match stance {
        Stance::Admits => Ok(Pass::Ordinary),
        Stance::WouldProbe => Err(rejected(Duration::ZERO)),
        Stance::Rejects { wait } => Err(rejected(wait)),
    }
}

/// One step of an explained decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at: `resolve`, `policy`, `allow`, `route`, `weights`, `cap`, `limit`, `skip`,
    /// `pick`, `via`.
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
