//! Rules and Endpoints behind a Snapshot: read anew, all together, when one of them changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use edgemesh_proto::record::{
    Endpoint, EndpointName, Key, RateLimit, Rule as RuleRecord, RuleName, ServiceName, Transport,
};

use crate::backends::{RuleLive, Tally};
use crate::limit::Limiter;
use crate::snapshot::builder::make::active;
use crate::snapshot::rules::{
    Claim, Compiled, Rule, Rules, STAND_IN, Seat, Standing, Step, Target, compile, limit_of,
    overruled, rounds,
};
use crate::snapshot::{Active, Pool, Port, Service, Source};
use crate::sniff::Declared;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Book {
    endpoints: BTreeMap<EndpointName, Endpoint>,
    limiters: BTreeMap<EndpointName, Arc<Limiter>>,
    rules: BTreeMap<RuleName, Arc<RuleRecord>>,
    lives: BTreeMap<RuleName, Arc<RuleLive>>,
    current: Arc<Rules>,
}

impl Book {
    pub(super) fn put_endpoint(&mut self, name: EndpointName, endpoint: Endpoint) {
        self.endpoints.insert(name, endpoint);
    }

    pub(super) fn put_rule(&mut self, name: RuleName, rule: RuleRecord) {
        self.rules.insert(name, Arc::new(rule));
    }

    pub(super) fn forget_endpoint(&mut self, key: &Key) {
        self.endpoints.remove(&EndpointName::new(&key.namespace, &key.name));
    }

    /// What it counted is gone with it.
    pub(super) fn forget_rule(&mut self, key: &Key) {
        let name = RuleName::new(&key.namespace, &key.name);
        self.rules.remove(&name);
        self.lives.remove(&name);
    }

    /// What messages of a Rule left behind in an earlier life of this node.
    pub(super) fn counted(&mut self, rule: RuleName, before: Tally) {
        self.lives.insert(rule, Arc::new(RuleLive::counted(before)));
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = (&EndpointName, &Endpoint)> {
        self.endpoints.iter()
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = (&RuleName, &Arc<RuleRecord>)> {
        self.rules.iter()
    }

    pub(super) fn endpoint(&self, key: &Key) -> Option<&Endpoint> {
        self.endpoints.get(&EndpointName::new(&key.namespace, &key.name))
    }

    pub(super) fn rule_record(&self, key: &Key) -> Option<&RuleRecord> {
        self.rules.get(&RuleName::new(&key.namespace, &key.name)).map(Arc::as_ref)
    }

    /// All of them as they are now.
    pub(super) fn read(&mut self, seat: Seat, now: Instant) -> Arc<Rules> {
        let mut limiters = BTreeMap::new();
        for (name, endpoint) in &self.endpoints {
            if let Some(limit) = limit_of(endpoint) {
                let before = self.limiters.get(name);
                limiters.insert(name.clone(), limiter(limit, before, now));
            }
        }
        self.limiters = limiters;
        let mut rules: BTreeMap<RuleName, Rule> = BTreeMap::new();
        for (name, record) in &self.rules {
            let live = self.lives.entry(name.clone()).or_default().clone();
            let before = self.current.get(name);
            rules.insert(name.clone(), self.rule(name, record, live, before, now));
        }
        overrule(&mut rules);
        stop_rounds(&mut rules);
        for (name, rule) in &rules {
            if self.current.get(name).is_some_and(|before| !before.serves_alike(rule)) {
                rule.live.changed();
            }
        }
        let rules = rules.into_iter().map(|(name, rule)| (name, Arc::new(rule))).collect();
        self.current = Arc::new(Rules::new(seat, rules, self.endpoints.clone()));
        self.current.clone()
    }

    fn rule(
        &self,
        name: &RuleName,
        record: &Arc<RuleRecord>,
        live: Arc<RuleLive>,
        before: Option<&Arc<Rule>>,
        now: Instant,
    ) -> Rule {
        let compiled = compile(name, record, |wanted| self.endpoints.get(wanted));
        let Compiled { standing, source, target, limit, max_body, timeout, notes } = compiled;
        let own = before.and_then(|before| before.limits[0].as_ref());
        let of = |endpoint| self.limiters.get(endpoint).cloned();
        let limits = [
            limit.map(|limit| limiter(limit, own, now)),
            of(&record.source),
            of(&record.target).filter(|_| record.source != record.target),
        ];
        let stands_for = before.and_then(|before| before.stand_in.as_deref());
        let port = target.as_ref().and_then(|target| match target {
            Target::Service { .. } => None,
            Target::ServiceBus { port, .. } => Some(*port),
            Target::Rest(_) | Target::EventBus(_) => Some(1),
        });
        let policy = Active { request_timeout: timeout, ..active(None, None, now) };
        let stand_in = port.map(|port| Arc::new(stand_in(name, port, policy, stands_for, now)));
        Rule {
            name: name.clone(),
            record: record.clone(),
            standing,
            source,
            target,
            limits,
            max_body,
            timeout,
            notes,
            live,
            stand_in,
        }
    }
}

/// A limiter whose numbers did not change keeps its fill.
fn limiter(limit: RateLimit, before: Option<&Arc<Limiter>>, now: Instant) -> Arc<Limiter> {
    let same = before.filter(|before| before.limit() == limit).cloned();
    same.unwrap_or_else(|| Arc::new(Limiter::new(limit, now)))
}

/// Of several that take the same messages, the oldest does.
fn overrule(rules: &mut BTreeMap<RuleName, Rule>) {
    let claims = rules.values().filter_map(|rule| {
        Claim::of(&rule.name, &rule.record, &rule.standing, rule.source.as_ref())
    });
    for (name, by) in overruled(claims) {
        if let Some(rule) = rules.get_mut(&name) {
            rule.standing = Standing::Overruled(by);
        }
    }
}

/// Of several by which messages would go round none takes any: which of them is wrong, nobody can tell.
fn stop_rounds(rules: &mut BTreeMap<RuleName, Rule>) {
    // One that is paused lets nothing go round.
    let active = rules.values().filter(|rule| rule.standing == Standing::Active);
    let steps = active
        .filter_map(|rule| Step::of(&rule.name, rule.source.as_ref()?, rule.target.as_ref()?));
    for (name, why) in rounds(steps) {
        if let Some(rule) = rules.get_mut(&name) {
            rule.standing = Standing::Faulty(why);
        }
    }
}

/// The Service that stands for a target that is none: everything that decides about calls and carries
/// them knows Services. Its Backend is made when a message says on which node.
fn stand_in(
    rule: &RuleName,
    port: u16,
    policy: Active,
    before: Option<&Service>,
    now: Instant,
) -> Service {
    let nobody = || Arc::new(Pool::new(Vec::new(), None, now));
    let none = nobody();
    let name = format!("{STAND_IN}{}", rule.name);
    Service {
        name: ServiceName::new(&rule.namespace, &name),
        addresses: Vec::new(),
        is_virtual: false,
        external_ips: Box::default(),
        external_name: None,
        proxy_protocol: false,
        hosts: Box::default(),
        ports: vec![Port {
            name: "".into(),
            port,
            transport: Transport::Tcp,
            node_port: None,
            declared: Declared::Unknown,
            pools: [none.clone(), none],
            hosts: Box::default(),
            routes: None,
            live: Arc::default(),
        }],
        source: Source::Nothing,
        policy,
        affinity: None,
        live: before.map(|before| before.live.clone()).unwrap_or_default(),
    }
}
