//! Which of several Rules takes a message: the longest path, then the oldest.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use edgemesh_proto::record::{NodeName, Rule as RuleRecord, RuleName, ServiceName};

use crate::snapshot::rules::path::Shape;
use crate::snapshot::rules::{Pattern, Rule, Source, Standing};

/// What a Rule wants to take.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Whose claim it is.
    pub rule: &'a RuleName,
    /// When it was made, in milliseconds since 1970; 0 when unknown.
    pub created_at: i64,
    /// What it wants.
    pub source: &'a Source,
}

impl<'a> Claim<'a> {
    /// The claim of a Rule, if it has one: one that is faulty by itself, or gone, keeps nobody out.
    pub fn of(
        rule: &'a RuleName,
        record: &RuleRecord,
        standing: &Standing,
        source: Option<&'a Source>,
    ) -> Option<Self> {
        match standing {
            Standing::Active | Standing::Paused | Standing::Waiting(_) => {
                source.map(|source| Self { rule, created_at: record.created_at, source })
            }
            Standing::Faulty(_) | Standing::Overruled(_) | Standing::Deleted => None,
        }
    }

    /// What it takes; of several Rules with one such place only one takes anything. `None` = a topic, of
    /// which each gets every message.
    fn place(&self) -> Option<Place<'a>> {
        match self.source {
            Source::Rest { path } => Some(Place::Rest(&self.rule.namespace, path.shape())),
            Source::ServiceBus { url, node } => Some(Place::ServiceBus(url, node.as_ref())),
            Source::Service { service, port, path } => {
                Some(Place::Service(service, *port, path.as_ref().map(Pattern::shape)))
            }
            Source::EventBus { .. } => None,
        }
    }
}

/// See [`Claim::place`].
#[derive(PartialEq, Eq, Hash)]
enum Place<'a> {
    /// Below this namespace.
    Rest(&'a str, Shape<'a>),
    ServiceBus(&'a str, Option<&'a NodeName>),
    Service(&'a ServiceName, Option<u16>, Option<Shape<'a>>),
}

/// Those that are overruled, each with the Rule that takes its messages.
pub fn overruled<'a>(claims: impl Iterator<Item = Claim<'a>>) -> Vec<(RuleName, RuleName)> {
    let mut by_age: Vec<Claim<'a>> = claims.collect();
    by_age.sort_by(|one, other| {
        age(one.created_at, one.rule).cmp(&age(other.created_at, other.rule))
    });
    let mut winners: HashMap<Place<'a>, &'a RuleName> = HashMap::new();
    let mut overruled = Vec::new();
    for claim in by_age {
        let Some(place) = claim.place() else { continue };
        match winners.entry(place) {
            Entry::Occupied(winner) => {
                overruled.push((claim.rule.clone(), (*winner.get()).clone()))
            }
            Entry::Vacant(free) => drop(free.insert(claim.rule)),
        }
    }
    overruled
}

/// The longer path first, then as [`rank`] says.
pub(super) fn order(one: &Arc<Rule>, other: &Arc<Rule>) -> Ordering {
    let paths = match (one.path(), other.path()) {
        (Some(one), Some(other)) => one.order(other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    };
    paths.then_with(|| rank(one, other))
}

/// Of two Rules that want the same: one that is faulty keeps nobody out, then the older, then the first
/// by name.
pub fn rank(one: &Rule, other: &Rule) -> Ordering {
    let is_faulty = |rule: &Rule| matches!(rule.standing, Standing::Faulty(_));
    let ages =
        age(one.record.created_at, &one.name).cmp(&age(other.record.created_at, &other.name));
    is_faulty(one).cmp(&is_faulty(other)).then(ages)
}

/// By which of two Rules the older is told. An unknown age is the youngest.
const fn age(created_at: i64, rule: &RuleName) -> (bool, i64, &RuleName) {
    (created_at == 0, created_at, rule)
}
