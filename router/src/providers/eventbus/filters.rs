//! What a broker is asked for, so that each message comes once however many Rules want it.
//!
//! Where filters of one client overlap, a broker may send a message once for each of them (MQTT 3.1.1
//! §3.3.5; mosquitto does unless `allow_duplicate_messages` is off, which it no longer can be in time
//! to come), and nothing in the message tells the copies from two messages alike. So filters that
//! overlap are replaced by one that covers both: [`cover`]. What it brings too much, no Rule matches.

use std::collections::{BTreeMap, BTreeSet};

use edgemesh_core::snapshot::rules::Filter;
use edgemesh_proto::record::RuleName;

/// The filters of Rules.
pub(super) type Wanted = BTreeMap<RuleName, Filter>;

/// What the broker holds for this client, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Held {
    filters: BTreeMap<Filter, Holds>,
    /// Rules that were there when their messages were asked for, so that they got what is retained.
    rules: Wanted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holds {
    /// It was asked to.
    Perhaps,
    /// It said so.
    Surely,
    /// It said no. What it held of that before, it may hold still.
    Refused,
}

/// What is to be done so that it holds what is wanted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) subscribe: Vec<Filter>,
    /// Rules that are to get what is retained.
    pub(super) newcomers: Vec<RuleName>,
    pub(super) unsubscribe: Vec<Filter>,
}

impl Held {
    /// The broker knows nothing of this client.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Whether it holds nothing for this client, for sure.
    pub(super) fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// What it does not let this client read.
    pub(super) fn refused(&self) -> impl Iterator<Item = &Filter> {
        let refused = self.filters.iter().filter(|(_, holds)| **holds == Holds::Refused);
        refused.map(|(filter, _)| filter)
    }

    /// It may hold these of a client of the same name before.
    pub(super) fn inherit(&mut self, filters: impl Iterator<Item = Filter>) {
        for filter in filters {
            self.filters.entry(filter).or_insert(Holds::Perhaps);
        }
    }

    /// Decides what is to be asked; from then on the broker may hold it.
    pub(super) fn step(&mut self, wanted: &Wanted) -> Step {
        let cover = cover(wanted.values());
        self.rules.retain(|rule, filter| wanted.get(rule) == Some(filter));
        let new = |(rule, _): &(&RuleName, &Filter)| !self.rules.contains_key(rule);
        let new: Vec<_> = wanted.iter().filter(new).collect();
        // A filter that is held already is asked for once more where a Rule is new: that brings what
        // is retained.
        let is_due = |filter: &&Filter| {
            let held = self.filters.get(filter) == Some(&Holds::Surely);
            !held || new.iter().any(|(_, own)| overlap(own, filter))
        };
        let subscribe: Vec<Filter> = cover.iter().filter(is_due).cloned().collect();
        let unsubscribe = self.filters.keys().filter(|held| !cover.contains(held)).cloned();
        let unsubscribe = unsubscribe.collect();
        let newcomers = new.into_iter().map(|(rule, _)| rule.clone()).collect();
        for filter in &subscribe {
            self.filters.insert(filter.clone(), Holds::Perhaps);
        }
        Step { subscribe, newcomers, unsubscribe }
    }

    /// The broker did a step for `wanted`, but for what it `refused`: that is asked for again with the
    /// next step.
    pub(super) fn done(&mut self, step: &Step, wanted: &Wanted, refused: &[Filter]) {
        for filter in &step.subscribe {
            let is_refused = refused.contains(filter);
            let holds = if is_refused { Holds::Refused } else { Holds::Surely };
            self.filters.insert(filter.clone(), holds);
        }
        for filter in &step.unsubscribe {
            self.filters.remove(filter);
        }
        self.rules.clone_from(wanted);
        // Those that got nothing are new still, once they may.
        self.rules.retain(|_, own| !refused.iter().any(|filter| overlap(own, filter)));
    }
}

/// The fewest filters, none of which overlap, that match all that any of `filters` does.
pub(super) fn cover<'f>(filters: impl Iterator<Item = &'f Filter>) -> BTreeSet<Filter> {
    let mut out: Vec<Filter> = Vec::new();
    for filter in filters {
        let mut wide = filter.clone();
        // What `wide` has become may overlap with what it did not before.
        while let Some(at) = out.iter().position(|other| overlap(other, &wide)) {
            wide = joined(&out.swap_remove(at), &wide);
        }
        out.push(wide);
    }
    out.into_iter().collect()
}

/// Whether a topic can match both.
fn overlap(one: &Filter, other: &Filter) -> bool {
    let (mut one, mut other) = (one.as_str().split('/'), other.as_str().split('/'));
    loop {
        match (one.next(), other.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(a), Some(b)) if a == b || a == "+" || b == "+" => {}
            (Some(_), Some(_)) => return false,
        }
    }
}

/// The narrowest filter that matches what either of two that overlap does.
fn joined(one: &Filter, other: &Filter) -> Filter {
    let (mut a, mut b) = (one.as_str().split('/'), other.as_str().split('/'));
    let mut levels = Vec::new();
    loop {
        match (a.next(), b.next()) {
            (None, None) => break,
            (Some(a), Some(b)) if a != "#" && b != "#" => {
                levels.push(if a == b { a } else { "+" });
            }
            (Some(_), _) | (None, Some(_)) => {
                levels.push("#");
                break;
            }
        }
    }
    // Of levels of two filters a filter can be made.
    Filter::parse(&levels.join("/")).unwrap_or_else(|_| one.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        Filter::parse(text).unwrap()
    }

    #[test]
    fn covers() {
        for (filters, want) in [
            ("n/a n/b", "n/a n/b"),
            ("n/a n/a", "n/a"),
            ("n/a/b n/a/+", "n/a/+"),
            ("n/a/+ n/a/b", "n/a/+"),
            ("n/# n", "n/#"),
            ("n/# n/a/b/c n/+", "n/#"),
            ("n/+/c n/b/+", "n/+/+"),
            ("n/+/x n/a/#", "n/+/#"),
            ("n/a/+ m/a/+", "m/a/+ n/a/+"),
            ("n/a n/a/b", "n/a n/a/b"),
            // The first two are joined by what comes last.
            ("n/a/c n/b/d n/+/+", "n/+/+"),
            ("n/a/+/d n/b/c/d n/+/c/d", "n/+/+/d"),
        ] {
            let filters: Vec<_> = filters.split(' ').map(filter).collect();
            let got: Vec<_> = cover(filters.iter()).iter().map(|f| f.as_str().to_owned()).collect();
            assert_eq!(got.join(" "), want, "{filters:?}");
        }
    }

    /// Which Rules there are, and what the broker is asked after each change: `-` takes back.
    #[test]
    fn steps() {
        let mut held = Held::default();
        for (rules, want) in [
            ("a=n/a", "n/a for a"),
            ("a=n/a", ""),
            ("a=n/a b=n/b", "n/b for b"),
            ("a=n/a b=n/b c=n/+", "n/+ for c -n/a -n/b"),
            // It is covered, and wants what is retained.
            ("a=n/a b=n/b c=n/+ d=n/d", "n/+ for d"),
            ("a=n/a d=n/d", "n/a n/d -n/+"),
            ("a=n/x d=n/d", "n/x for a -n/a"),
            ("", "-n/d -n/x"),
        ] {
            let pairs = rules.split_whitespace().filter_map(|pair| pair.split_once('='));
            let wanted: Wanted =
                pairs.map(|(rule, text)| (RuleName::new("n", rule), filter(text))).collect();
            let step = held.step(&wanted);
            held.done(&step, &wanted, &[]);
            let mut said: Vec<_> = step.subscribe.iter().map(|f| f.as_str().to_owned()).collect();
            for rule in &step.newcomers {
                said.extend(["for".to_owned(), rule.name.to_string()]);
            }
            said.extend(step.unsubscribe.iter().map(|f| format!("-{}", f.as_str())));
            assert_eq!(said.join(" "), want, "{rules}");
        }
    }

    #[test]
    fn what_was_not_confirmed_is_asked_for_again() {
        let mut held = Held::default();
        let wanted = Wanted::from([(RuleName::new("n", "a"), filter("n/a"))]);
        let step = held.step(&wanted);
        assert_eq!(held.step(&wanted), step);
        assert_eq!(held.step(&Wanted::new()).unsubscribe, [filter("n/a")], "it may be held");
        held.done(&step, &wanted, &[]);
        held.forget();
        assert_eq!(held.step(&wanted), step);
    }

    #[test]
    fn what_was_refused_is_remembered_and_asked_for_again() {
        let mut held = Held::default();
        let mut wanted = Wanted::from([(RuleName::new("n", "a"), filter("n/a"))]);
        let first = held.step(&wanted);
        held.done(&first, &wanted, &[filter("n/a")]);
        wanted.insert(RuleName::new("n", "b"), filter("n/b"));
        let second = held.step(&wanted);
        assert_eq!((second.subscribe.len(), second.newcomers.len()), (2, 2), "{second:?}");
        held.done(&second, &wanted, &[filter("n/a")]);
        assert_eq!(held.refused().collect::<Vec<_>>(), [&filter("n/a")]);
        wanted.remove(&RuleName::new("n", "a"));
        let third = held.step(&wanted);
        held.done(&third, &wanted, &[]);
        assert_eq!(held.refused().count(), 0);
        assert!(!held.is_empty());
        let last = held.step(&Wanted::new());
        held.done(&last, &Wanted::new(), &[]);
        assert!(held.is_empty());
    }
}
