//! Decides without changing anything, and takes notes: what `explain` says.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{
    BreakerPolicy, HashKey, Locality, NodeName, PolicyOrigin, ServiceName,
};

use crate::backends::{Capped, CappedPlace, Known, NodeLive};
use crate::balance;
use crate::breaker::{Pass, Stance};
use crate::limit::{Caller, Limiter};
use crate::plan::away::{Away, Why, ordinary, well};
use crate::plan::limits::{Calling, Guard};
use crate::plan::pick::Session;
use crate::plan::view::View;
use crate::plan::{Chosen, Destination, Purpose, Target, Via};
use crate::refusal::Refusal;
use crate::snapshot::{Backend, Pool, Reach, Rule, Service, Source, Who};

/// One step of an explained decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at: `resolve`, `policy`, `allow`, `route`, `weights`, `cap`, `limit`, `tier`,
    /// `session`, `wish`, `key`, `skip`, `pick`, `via`, `path`.
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
    pub verdict: Result<(SocketAddr, Via), Refusal>,
    /// Where that Backend runs, if that is known.
    pub node: Option<NodeName>,
}

/// Decides without changing anything, and takes notes.
#[derive(Default)]
pub(super) struct Look {
    steps: Vec<Step>,
    service: Option<ServiceName>,
    /// The Backend that a session or the caller's node asks for, and which of the two.
    asked: Option<(usize, &'static str)>,
}

impl Look {
    fn step(&mut self, what: &'static str, why: String) {
        self.steps.push(Step { what, why });
    }

    pub(super) fn into_explanation(
        mut self,
        decided: Result<Chosen, Refusal>,
        now: Instant,
    ) -> Explanation {
        let mut node = None;
        let verdict = decided.map(|chosen| {
            let backend = &chosen.pool.backends[chosen.backend];
            node.clone_from(&backend.node);
            self.picked(&chosen, backend);
            self.reached(&chosen.service, backend, now);
            (backend.address, Via::to(backend, now))
        });
        Explanation { steps: self.steps, service: self.service, verdict, node }
    }

    fn picked(&mut self, chosen: &Chosen, backend: &Backend) {
        let probe = match chosen.pass {
            Pass::Probe(_) => ", as the probe of its breaker",
            Pass::Ordinary => "",
        };
        let policy = match self.asked {
            Some((asked, by)) if asked == chosen.backend => by,
            Some(_) | None => balance::name(chosen.service.policy.balance),
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
    }

    fn reached(&mut self, service: &Service, backend: &Backend, now: Instant) {
        let node = backend.node.as_ref().map_or("", |node| &node.0);
        let (how, limit) = match &backend.reach {
            Reach::Here => ("the backend runs on this node".into(), None),
            Reach::Inbox => ("the Router of this process delivers it".into(), None),
            Reach::Plain => (
                "no agent is known where the backend runs: its address is dialled".into(),
                Some("the server side is held here: at caller".into()),
            ),
            Reach::Linked(_) => (
                format!("the agent of node {node} is asked over a Link"),
                Some(format!("the server side is held by the agent of node {node}")),
            ),
            Reach::Cloud(_) => (
                format!("the cloud is asked over a Link, for node {node}"),
                Some("the server side is held by the cloud".into()),
            ),
        };
        self.step("via", how);
        if let Some(live) = backend.reach.node() {
            self.step("path", path(live, now));
        }
        if let Some(limit) = limit.filter(|_| service.policy.server.is_some()) {
            self.step("limit", limit);
        }
    }
}

/// How a Link leads to a node, why so, and how long that takes.
fn path(node: &NodeLive, now: Instant) -> String {
    let way = match node.known(now) {
        Known::Works(way) => way.name(),
        Known::Nothing => return "not known yet: a direct Link is tried before the hub".into(),
        Known::Lost { .. } => "lost",
    };
    let round_trip = node.round_trip().map(|took| format!(", {:.1} ms", took.as_secs_f64() * 1e3));
    let why = node.why().map(|why| format!(": {why}"));
    format!("{way}{}{}", round_trip.unwrap_or_default(), why.unwrap_or_default())
}

impl View for Look {
    fn resolved(&mut self, destination: &Destination<'_>, service: &Service, port: usize) {
        let port = &service.ports[port];
        let by = match destination.to {
            Target::Address(address) => format!("address {address}"),
            Target::Name { host, port: Some(port), .. } => format!("name {host}, port {port}"),
            Target::Name { host, port: None, .. } => format!("name {host}"),
            Target::Rule { rule, .. } => format!("the target of Rule {rule}"),
            Target::Service { hostname: None, .. } => "what the other node names".into(),
            Target::Service { hostname: Some(host), .. } => {
                format!("what the other node names, host {host},")
            }
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

    fn allowed(&mut self, calling: &Calling<'_>, who: Option<&Who>, meant: Option<usize>) {
        let address = match (calling.address, calling.from) {
            (Some(address), _) => address.to_string(),
            (None, None) => "this machine".into(),
            (None, Some(from)) => format!("node {}", from.node),
        };
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

    fn tiers(&mut self, pool: &Pool, locality: Locality, guard: Guard) {
        let ([node, zone, anywhere], idle) = pool.counts();
        let order = match locality {
            Locality::OnlyNode if guard == Guard::Local => {
                format!("from another node: {node} on this node, {} not asked", zone + anywhere)
            }
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
        self.asked = backend.map(|backend| (backend, "session"));
        let with = match (known, backend) {
            (false, _) => "none yet, the policy chooses".into(),
            (true, None) => "its backend is gone, the policy chooses".into(),
            (true, Some(backend)) => format!("with {}", pool.backends[backend].address),
        };
        self.step("session", format!("of {caller}, {} s: {with}", timeout.as_secs()));
    }

    fn remember(&mut self, _: &Session<'_>, _: usize, _: Instant) {}

    fn wish(&mut self, wish: SocketAddr, backend: Option<usize>) {
        self.asked = backend.map(|backend| (backend, "wish"));
        let found = match backend {
            Some(_) => "as the caller's node has chosen",
            None => "which is no Backend of this node: the policy chooses",
        };
        self.step("wish", format!("{wish}, {found}"));
    }

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
        well(pool, backend, now)?;
        match (backend.live.breaker.look(policy, now), purpose) {
            (Stance::WouldProbe, Purpose::Call | Purpose::Retry(_)) => Ok(Pass::Probe(0)),
            (stance, _) => ordinary(stance),
        }
    }

    fn give_back(&mut self, _: &Backend, _: Pass, _: Instant) {}

    fn tried(&mut self, backend: &Backend) {
        self.step("skip", format!("{}: tried already", backend.address));
    }

    fn skipped(&mut self, backend: &Backend, Away { why, wait }: Away) {
        let why = match (why, backend.reach.node().and_then(|node| node.why())) {
            (Why::Rejected, _) => "its breaker rejects".into(),
            (Why::Ill, _) => "its health check fails".into(),
            (Why::Limited, _) => "the limit of the server side is spent".into(),
            (Why::NoPath, why) => {
                let node = backend.node.as_ref().map_or("", |node| &node.0);
                let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
                format!("no Link leads to node {node}{why}")
            }
        };
        self.step("skip", format!("{}: {why} for {} ms", backend.address, wait.as_millis()));
    }
}
