//! Which of several Rules takes a message: the longest path, then the oldest.

use std::cmp::Ordering;
use std::sync::Arc;

use edgemesh_proto::record::{Rule as RuleRecord, RuleName};

use crate::snapshot::rules::{Rule, Source, Standing};

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

    /// By which of two the older is told. An unknown age is the youngest.
    fn age(&self) -> (bool, i64, &RuleName) {
        (self.created_at == 0, self.created_at, self.rule)
    }

    /// Whether both take the same messages, so that one of them can take none. Of one topic each
    /// gets every message.
    fn contends(&self, other: &Self) -> bool {
        match (self.source, other.source) {
            (Source::Rest { path }, Source::Rest { path: same }) => {
                self.rule.namespace == other.rule.namespace && path.is_same(same)
            }
            (Source::ServiceBus { url, node }, Source::ServiceBus { url: same, node: there }) => {
                url == same && node == there
            }
            (
                Source::Service { service, port, path },
                Source::Service { service: same, port: there, path: alike },
            ) => {
                let paths = match (path, alike) {
                    (Some(path), Some(alike)) => path.is_same(alike),
                    (path, alike) => path.is_none() && alike.is_none(),
                };
                service == same && port == there && paths
            }
            (
                Source::Rest { .. }
                | Source::EventBus { .. }
                | Source::ServiceBus { .. }
                | Source::Service { .. },
                _,
            ) => false,
        }
    }
}

/// Those that are overruled, each with the Rule that takes its messages.
pub fn overruled<'a>(claims: impl Iterator<Item = Claim<'a>>) -> Vec<(RuleName, RuleName)> {
    let mut by_age: Vec<Claim<'a>> = claims.collect();
    by_age.sort_by(|one, other| one.age().cmp(&other.age()));
    let mut winners: Vec<Claim<'a>> = Vec::new();
    let mut overruled = Vec::new();
    for claim in by_age {
        match winners.iter().find(|winner| winner.contends(&claim)) {
            Some(winner) => overruled.push((claim.rule.clone(), winner.rule.clone())),
            None => winners.push(claim),
        }
    }
    overruled
}

/// The longer path first, then the older, then the name. An unknown age is the youngest.
pub(super) fn order(one: &Arc<Rule>, other: &Arc<Rule>) -> Ordering {
    let paths = match (one.path(), other.path()) {
        (Some(one), Some(other)) => one.order(other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    };
    paths.then_with(|| age(one).cmp(&age(other)))
}

/// By which of two Rules the older is told.
fn age(rule: &Rule) -> (bool, i64, &RuleName) {
    (rule.record.created_at == 0, rule.record.created_at, &rule.name)
}
