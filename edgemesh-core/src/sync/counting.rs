//! What Rules have counted: stored now and then, and told. A message only counts in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use edgemesh_proto::message::{RuleCount, RuleTrouble};
use edgemesh_proto::record::RuleName;
use edgemesh_proto::rule::Id;

use crate::backends::{RuleError, RuleLive, Tally};
use crate::snapshot::Rules;
use crate::snapshot::rules::Rule;
use crate::store::Counted;
use crate::sync::Sync;

/// What was stored last.
#[derive(Debug, Default)]
pub(super) struct Counting {
    stored: BTreeMap<RuleName, Stored>,
    /// The disk did not take it the last time.
    failing: bool,
}

#[derive(Debug)]
struct Stored {
    counts: (u64, u64),
    errors: Arc<Vec<RuleError>>,
}

impl Counting {
    /// All of these are stored.
    pub(super) fn from(rules: &Rules) -> Self {
        let stored = rules.all().map(|rule| (rule.name.clone(), Stored::of(&rule.live)));
        Self { stored: stored.collect(), failing: false }
    }

    /// Errors of Rules that are `unplaced` are stored with what is counted when they have a place.
    fn are_stored(&mut self, stored: Vec<(RuleName, Id, Stored)>, unplaced: &[Id]) {
        self.failing = false;
        for (name, id, mut now) in stored {
            if unplaced.contains(&id) {
                let before = self.stored.remove(&name);
                now.errors = before.map(|before| before.errors).unwrap_or_default();
            }
            self.stored.insert(name, now);
        }
    }
}

impl Stored {
    fn of(live: &RuleLive) -> Self {
        Self { counts: live.counts(), errors: live.errors() }
    }
}

impl Sync {
    /// Stores what Rules have counted since the last time, in one transaction, and gives those that
    /// have counted something. What the disk refuses is stored the next time.
    pub async fn count(&mut self) -> Vec<RuleCount> {
        let rules = self.live.load().rules.clone();
        let (mut counted, mut stored, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for rule in rules.all() {
            let before = self.counting.stored.get(&rule.name);
            let counts = before.map_or((0, 0), |before| before.counts);
            // The errors after the counts: none can be missed, since each counts first.
            let now = Stored::of(&rule.live);
            if now.counts == counts {
                continue;
            }
            let known: &[RuleError] = before.map_or(&[], |before| &before.errors);
            let ((success, fail), errors) = (now.counts, fresh(known, &now.errors).to_vec());
            let id = rule.record.id.clone();
            counted.push(Counted { id: id.clone(), tally: Tally { success, fail, errors } });
            stored.push((rule.name.clone(), id, now));
            told.push(told_of(rule, (success, fail)));
        }
        if self.counting.stored.len() > rules.all().count() {
            self.counting.stored.retain(|name, _| rules.get(name).is_some());
        }
        if counted.is_empty() {
            return told;
        }
        match self.store.count(counted).await {
            Ok(unplaced) => self.counting.are_stored(stored, &unplaced),
            Err(error) => {
                if !std::mem::replace(&mut self.counting.failing, true) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "what Rules have counted is not stored");
                }
            }
        }
        told
    }

    /// What Rules have counted, where that is something.
    pub fn counts(&self) -> Vec<RuleCount> {
        let rules = self.live.load().rules.clone();
        let all = rules.all().map(|rule| told_of(rule, rule.live.counts()));
        all.filter(|count| (count.success, count.fail) != (0, 0)).collect()
    }

    /// Under which name they are told.
    pub fn counter(&self) -> [u8; 16] {
        self.counter
    }
}

fn told_of(rule: &Rule, (success, fail): (u64, u64)) -> RuleCount {
    let last_success = rule.live.last_success().unwrap_or(0);
    let trouble = rule.live.trouble().map(|t| RuleTrouble::new(&t.reason, t.since));
    RuleCount { rule: rule.name.clone(), success, fail, last_success, trouble }
}

/// Those of `now` that came after `before`: both are the newest of one growing list.
fn fresh<'n>(before: &[RuleError], now: &'n [RuleError]) -> &'n [RuleError] {
    let kept = (0..=before.len()).map(|gone| &before[gone..]).find(|kept| now.starts_with(kept));
    &now[kept.map_or(0, <[_]>::len)..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_are_new_are_added() {
        let list = |at: &[i64]| -> Vec<RuleError> {
            at.iter().map(|at| RuleError { at: *at, detail: "x".into() }).collect()
        };
        for (before, now, want) in [
            (&[][..], &[][..], &[][..]),
            (&[], &[1, 2], &[1, 2]),
            (&[1, 2], &[1, 2], &[]),
            (&[1, 2], &[1, 2, 3], &[3]),
            (&[1, 2, 3], &[3, 4, 5], &[4, 5]),
            (&[1, 2, 3], &[4, 5, 6], &[4, 5, 6]),
        ] {
            assert_eq!(fresh(&list(before), &list(now)), list(want), "{before:?} {now:?}");
        }
    }
}
