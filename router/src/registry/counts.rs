//! What Rules have counted on all nodes together.
//!
//! Nodes tell totals. Of each node the highest of its counter is kept, so that what is told twice, or
//! late, changes nothing; a new counter adds to what the ones before it had reached. A line is kept
//! for as long as its Rule is there.

use std::collections::{BTreeMap, BTreeSet};

use edgemesh_core::backends::Tally;
use edgemesh_proto::message::{Counts as Told, RuleCount, RuleTrouble};
use edgemesh_proto::record::RuleName;

/// What one Rule has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Messages that were delivered.
    pub success: u64,
    /// Messages that were not.
    pub fail: u64,
    /// When one was delivered last, in milliseconds since 1970.
    pub last_success: Option<i64>,
    /// What is wrong with it for longest, and on which node.
    pub trouble: Option<(Box<str>, RuleTrouble)>,
}

/// What one Rule has counted on one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) counter: [u8; 16],
    /// Delivered and not, the highest of that counter.
    pub(super) now: [u64; 2],
    /// The same of the node's counters before it, together.
    pub(super) past: [u64; 2],
    /// 0 = not known.
    pub(super) last_success: i64,
}

/// The line of nodes that are gone; no node has this name.
const GONE: &str = "";

/// Which Rule on which node.
pub(super) type At = (RuleName, Box<str>);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Counts {
    lines: BTreeMap<RuleName, BTreeMap<Box<str>, Line>>,
    /// What is wrong on which node. Not kept: who fails again says so again.
    troubles: BTreeMap<RuleName, BTreeMap<Box<str>, RuleTrouble>>,
    /// What the disk does not have.
    unkept: BTreeSet<At>,
}

impl Line {
    /// Takes in what is told now. Tells whether that is news.
    fn hear(&mut self, counter: [u8; 16], told: &RuleCount) -> bool {
        let before = self.clone();
        if self.counter != counter {
            self.past = self.totals();
            (self.counter, self.now) = (counter, [0; 2]);
        }
        let [success, fail] = self.now;
        self.now = [success.max(told.success), fail.max(told.fail)];
        self.last_success = self.last_success.max(told.last_success);
        *self != before
    }

    /// Takes over what another counted.
    fn inherit(&mut self, other: &Self) {
        let theirs = other.totals();
        self.past = [0, 1].map(|which| self.past[which].saturating_add(theirs[which]));
        self.last_success = self.last_success.max(other.last_success);
    }

    fn totals(&self) -> [u64; 2] {
        [0, 1].map(|which| self.now[which].saturating_add(self.past[which]))
    }
}

impl Counts {
    /// Goes on with what was kept, of the Rules that are `known`.
    pub(super) fn new(kept: Vec<(At, Line)>, known: impl Fn(&RuleName) -> bool) -> Self {
        let mut new = Self::default();
        for ((rule, node), line) in kept {
            match known(&rule) {
                true => drop(new.lines.entry(rule).or_default().insert(node, line)),
                false => drop(new.unkept.insert((rule, node))),
            }
        }
        new
    }

    /// Takes in what `node` tells of the Rules that are `known`.
    pub(super) fn hear(&mut self, node: &str, told: &Told, known: impl Fn(&RuleName) -> bool) {
        for count in told.rules.iter().filter(|count| known(&count.rule)) {
            let of_rule = self.lines.entry(count.rule.clone()).or_default();
            let line = of_rule
                .entry(node.into())
                .or_insert_with(|| Line { counter: told.counter, ..Line::default() });
            if line.hear(told.counter, count) {
                self.unkept.insert((count.rule.clone(), node.into()));
            }
            match &count.trouble {
                Some(trouble) => {
                    let of_rule = self.troubles.entry(count.rule.clone()).or_default();
                    of_rule.insert(node.into(), trouble.clone());
                }
                None => {
                    self.troubles.get_mut(&count.rule).and_then(|of_rule| of_rule.remove(node));
                }
            }
        }
    }

    /// The Rule is gone, and with it what it counted.
    pub(super) fn forget(&mut self, rule: &RuleName) {
        self.calm(Some(rule));
        let nodes = self.lines.remove(rule).unwrap_or_default().into_keys();
        self.unkept.extend(nodes.map(|node| (rule.clone(), node)));
    }

    /// What was wrong says nothing of the Rule as it is now; `None` = of no Rule.
    pub(super) fn calm(&mut self, rule: Option<&RuleName>) {
        match rule {
            Some(rule) => drop(self.troubles.remove(rule)),
            None => self.troubles.clear(),
        }
    }

    /// `node` is gone for good: what it counted joins that of the others that are, so that there are no
    /// more lines than nodes.
    pub(super) fn fold(&mut self, node: &str) {
        self.troubles.values_mut().for_each(|of_rule| drop(of_rule.remove(node)));
        for (rule, lines) in &mut self.lines {
            let Some(line) = lines.remove(node) else { continue };
            lines.entry(GONE.into()).or_default().inherit(&line);
            self.unkept.extend([node, GONE].map(|node| (rule.clone(), node.into())));
        }
    }

    /// Over all nodes.
    pub(super) fn sums(&self) -> BTreeMap<RuleName, Counted> {
        let trouble = |rule| {
            let of_rule = self.troubles.get(rule)?.iter();
            let (node, trouble) = of_rule.min_by_key(|(_, trouble)| trouble.since)?;
            Some((node.clone(), trouble.clone()))
        };
        let sum = |lines: &BTreeMap<Box<str>, Line>| {
            lines.values().fold(Counted::default(), |sum, line| {
                let [success, fail] = line.totals();
                Counted {
                    success: sum.success.saturating_add(success),
                    fail: sum.fail.saturating_add(fail),
                    last_success: sum
                        .last_success
                        .max(Some(line.last_success).filter(|at| *at > 0)),
                    trouble: None,
                }
            })
        };
        let counted = |(rule, lines)| Counted { trouble: trouble(rule), ..sum(lines) };
        self.lines.iter().map(|line| (line.0.clone(), counted(line))).collect()
    }

    /// What `node` has counted.
    pub(super) fn of(&self, node: &str) -> Vec<(RuleName, Tally)> {
        let tally = |line: &Line| {
            let [success, fail] = line.totals();
            Tally { success, fail, errors: Vec::new() }
        };
        let of_node = self.lines.iter().filter_map(|(rule, lines)| Some((rule, lines.get(node)?)));
        of_node.map(|(rule, line)| (rule.clone(), tally(line))).collect()
    }

    /// What is to be kept now; `None` = the line is gone.
    pub(super) fn take_unkept(&mut self) -> Vec<(At, Option<Line>)> {
        let places = std::mem::take(&mut self.unkept).into_iter();
        let line = |(rule, node): &At| Some(self.lines.get(rule)?.get(node)?.clone());
        places.map(|place| (place.clone(), line(&place))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Node, the first byte of its counter, Rule, delivered, not delivered.
    type Report = (&'static str, u8, &'static str, u64, u64);

    fn told((_, counter, rule, success, fail): Report) -> Told {
        let rule = RuleName::new("default", rule);
        let count = RuleCount { rule, success, fail, last_success: 7, trouble: None };
        Told { counter: [counter; 16], rules: vec![count] }
    }

    fn shown(counts: &Counts) -> String {
        let sums = counts.sums();
        let shown = sums.iter().map(|(rule, c)| format!("{}={}/{}", rule.name, c.success, c.fail));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn reports_are_summed_once() {
        let rows: &[(&[Report], &str)] = &[
            (&[], ""),
            (&[("n", 1, "a", 5, 1)], "a=5/1"),
            (&[("n", 1, "a", 5, 1), ("n", 1, "a", 5, 1)], "a=5/1"),
            // Late, and out of order.
            (&[("n", 1, "a", 5, 1), ("n", 1, "a", 3, 0), ("n", 1, "a", 6, 1)], "a=6/1"),
            (&[("n", 1, "a", 5, 1), ("m", 1, "a", 2, 2), ("n", 1, "b", 1, 0)], "a=7/3 b=1/0"),
            // A store that was lost begins at 0.
            (&[("n", 1, "a", 5, 1), ("n", 2, "a", 1, 0)], "a=6/1"),
            (&[("n", 1, "a", 5, 1), ("n", 2, "a", 1, 0), ("n", 2, "a", 1, 0)], "a=6/1"),
            (&[("n", 1, "a", 5, 1), ("n", 2, "a", 1, 0), ("n", 3, "a", 2, 2)], "a=8/3"),
            (&[("n", 1, "a", u64::MAX, 1), ("m", 2, "a", 1, 0)], "a=18446744073709551615/1"),
            // Nobody knows such a Rule.
            (&[("n", 1, "gone", 5, 1)], ""),
        ];
        for (reports, want) in rows {
            let mut counts = Counts::default();
            for report in *reports {
                counts.hear(report.0, &told(*report), |rule| &*rule.name != "gone");
            }
            assert_eq!(shown(&counts), *want, "{reports:?}");
        }
    }

    #[test]
    fn what_is_wrong_for_longest_is_told() {
        let mut counts = Counts::default();
        let hear = |counts: &mut Counts, node: &'static str, since: Option<i64>| {
            let mut told = told((node, 1, "a", 1, 1));
            told.rules[0].trouble = since.map(|since| RuleTrouble::new("no answer", since));
            counts.hear(node, &told, |_| true);
            let trouble = counts.sums().into_values().next().unwrap().trouble;
            trouble.map(|(node, trouble)| (node.to_string(), trouble.since))
        };
        let rule = RuleName::new("default", "a");
        assert_eq!(hear(&mut counts, "n", None), None);
        assert_eq!(hear(&mut counts, "n", Some(8)), Some(("n".into(), 8)));
        assert_eq!(hear(&mut counts, "m", Some(5)), Some(("m".into(), 5)));
        assert_eq!(hear(&mut counts, "m", None), Some(("n".into(), 8)));
        counts.fold("n");
        assert_eq!(hear(&mut counts, "m", None), None);
        hear(&mut counts, "m", Some(9));
        counts.calm(Some(&rule));
        assert_eq!(counts.sums()[&rule].trouble, None);
    }

    #[test]
    fn nodes_that_are_gone_share_a_line() {
        let mut counts = Counts::default();
        for report in [("n", 1, "a", 5, 1), ("m", 9, "a", 1, 1), ("o", 2, "a", 2, 0)] {
            counts.hear(report.0, &told(report), |_| true);
        }
        counts.take_unkept();
        counts.fold("n");
        counts.fold("o");
        counts.fold("unknown");
        assert_eq!(shown(&counts), "a=8/2");
        let unkept = counts.take_unkept();
        let shown: Vec<_> = unkept
            .iter()
            .map(|((_, node), line)| (&**node, line.as_ref().map(Line::totals)))
            .collect();
        assert_eq!(shown, [("", Some([7, 1])), ("n", None), ("o", None)]);
        assert_eq!(counts.sums().values().next().unwrap().last_success, Some(7));
    }

    #[test]
    fn what_is_kept_is_gone_on_with() {
        let mut counts = Counts::default();
        for report in [("n", 1, "a", 5, 1), ("m", 9, "a", 1, 1), ("n", 1, "b", 1, 0)] {
            counts.hear(report.0, &told(report), |_| true);
        }
        let kept: Vec<_> =
            counts.take_unkept().into_iter().map(|(at, line)| (at, line.unwrap())).collect();
        assert_eq!(counts.take_unkept(), []);
        counts.hear("n", &told(("n", 1, "a", 5, 1)), |_| true);
        assert_eq!(counts.take_unkept(), [], "it is no news");
        let mut again = Counts::new(kept, |rule| &*rule.name == "a");
        assert_eq!(shown(&again), "a=6/2");
        assert_eq!(again.sums().values().next().unwrap().last_success, Some(7));
        let [(gone, None)] = &again.take_unkept()[..] else { panic!("b is to go") };
        assert_eq!((&*gone.0.name, &*gone.1), ("b", "n"));
        assert_eq!(again.of("m")[0].1, Tally { success: 1, fail: 1, errors: Vec::new() });
        again.forget(&RuleName::new("default", "a"));
        assert_eq!((shown(&again), again.take_unkept().len()), (String::new(), 2));
    }
}
