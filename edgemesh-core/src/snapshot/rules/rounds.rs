//! Rules from topic to topic by which messages would go round for ever, each publication making the next.
//!
//! Rules of other types lead to no topic that a Rule takes but by way of a program, which may know an end.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write as _;

use edgemesh_proto::record::{NodeName, RuleName};

use crate::snapshot::rules::{Filter, Source, Target};

/// As many names tell a reader which Rules it is about.
const NAMES_TOLD: usize = 6;

/// A Rule from topic to topic.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    rule: &'a RuleName,
    takes: (&'a Filter, Option<&'a NodeName>),
    makes: Topic<'a>,
}

/// What is published, and on whose broker; `None` = on any.
type Topic<'a> = (&'a str, Option<&'a NodeName>);

impl<'a> Step<'a> {
    /// That of a Rule, if it leads from topic to topic.
    pub fn of(rule: &'a RuleName, source: &'a Source, target: &'a Target) -> Option<Self> {
        let (Source::EventBus { topic, node }, Target::EventBus(to)) = (source, target) else {
            return None;
        };
        let (from, node) = (node.as_ref(), to.node.as_ref());
        // Where the target names no node it is the one on which the message began.
        Some(Self { rule, takes: (topic, from), makes: (&to.topic, node.or(from)) })
    }

    /// Whether it takes what it makes.
    pub fn is_round(&self) -> bool {
        self.takes(self.makes)
    }

    fn takes(&self, (topic, there): Topic<'_>) -> bool {
        let (filter, here) = self.takes;
        let may_be_one = here.is_none() || there.is_none() || here == there;
        may_be_one && filter.matches(topic)
    }
}

/// Those of several Rules by which messages would go round, each with the reason. Beside the nodes of
/// two Rules that follow one another no others are compared.
pub fn rounds<'a>(steps: impl Iterator<Item = Step<'a>>) -> Vec<(RuleName, Box<str>)> {
    let steps: Vec<Step<'a>> = steps.collect();
    let next = following(&steps);
    let goes_on = going_on(&next);
    let mut told: BTreeMap<usize, Box<str>> = BTreeMap::new();
    for start in (0..steps.len()).filter(|at| goes_on[*at]) {
        if told.contains_key(&start) {
            continue;
        }
        let Some(round) = round(start, &next, &goes_on) else { continue };
        // Every second is a topic.
        let rules: Vec<usize> = round.into_iter().filter(|at| *at < steps.len()).collect();
        let names: Vec<&RuleName> = rules.iter().map(|at| steps[*at].rule).collect();
        let why = why(&names);
        for at in rules {
            told.entry(at).or_insert_with(|| why.clone());
        }
    }
    told.into_iter().map(|(at, why)| (steps[at].rule.clone(), why)).collect()
}

/// What follows each Rule, and after the Rules each topic: a topic follows Rules, and Rules a topic,
/// so that many Rules on one topic are no more than their number.
fn following(steps: &[Step<'_>]) -> Vec<Vec<usize>> {
    // The first level of a filter is a namespace, never a wildcard.
    let first = |topic| str::split(topic, '/').next().unwrap_or(topic);
    let (mut plain, mut wild) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
    for (at, step) in steps.iter().enumerate() {
        let filter = step.takes.0.as_str();
        match filter.contains(['+', '#']) {
            true => wild.entry(first(filter)).or_default().push(at),
            false => plain.entry(filter).or_default().push(at),
        }
    }
    let mut topics: HashMap<Topic<'_>, usize> = HashMap::new();
    let mut next = vec![Vec::new(); steps.len()];
    for (at, Step { makes, .. }) in steps.iter().enumerate() {
        let topic = *topics.entry(*makes).or_insert_with(|| {
            let listening = [plain.get(makes.0), wild.get(first(makes.0))];
            let listening = listening.into_iter().flatten().flatten().copied();
            next.push(listening.filter(|other| steps[*other].takes(*makes)).collect());
            next.len() - 1
        });
        next[at].push(topic);
    }
    next
}

/// Which of them lead on without end; mostly none do.
fn going_on(next: &[Vec<usize>]) -> Vec<bool> {
    let mut before = vec![Vec::new(); next.len()];
    for (at, next) in next.iter().enumerate() {
        next.iter().for_each(|to| before[*to].push(at));
    }
    let mut ways: Vec<usize> = next.iter().map(Vec::len).collect();
    let mut ends: Vec<usize> = (0..next.len()).filter(|at| ways[*at] == 0).collect();
    while let Some(end) = ends.pop() {
        for at in &before[end] {
            ways[*at] -= 1;
            if ways[*at] == 0 {
                ends.push(*at);
            }
        }
    }
    ways.into_iter().map(|ways| ways > 0).collect()
}

/// The shortest way from `start` back to it, if there is one.
fn round(start: usize, next: &[Vec<usize>], goes_on: &[bool]) -> Option<Vec<usize>> {
    let mut came_from: HashMap<usize, usize> = HashMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(at) = waiting.pop_front() {
        for to in next[at].iter().copied().filter(|to| goes_on[*to]) {
            if to == start {
                let mut way = vec![at];
                while let Some(before) = way.last().and_then(|at| came_from.get(at)) {
                    way.push(*before);
                }
                way.reverse();
                return Some(way);
            }
            came_from.entry(to).or_insert_with(|| {
                waiting.push_back(to);
                at
            });
        }
    }
    None
}

fn why(round: &[&RuleName]) -> Box<str> {
    let mut text = String::from("messages would go round: ");
    for name in round.iter().take(NAMES_TOLD) {
        let _ = write!(text, "{name} → ");
    }
    if round.len() > NAMES_TOLD {
        text.push_str("… → ");
    }
    if let Some(first) = round.first() {
        let _ = write!(text, "{first}");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::rules::TopicTarget;

    /// Lines of `rule: topic[@node] -> topic[@node]`, and who goes round.
    const ROWS: &[(&str, &str)] = &[
        ("a: n/x -> n/y", ""),
        ("a: n/x -> n/x", "n/a → n/a"),
        ("a: n/x -> n/y; b: n/y -> n/x", "n/a → n/b → n/a"),
        ("a: n/x -> n/y; b: n/y -> n/z; c: n/z -> n/x; d: n/q -> n/x", "n/a → n/b → n/c → n/a"),
        ("a: n/# -> n/y; b: n/y -> m/y", "n/a → n/a"),
        ("a: n/+/x -> m/q; b: m/# -> n/1/x", "n/a → n/b → n/a"),
        ("a: n/x@1 -> n/y; b: n/y@2 -> n/x", ""),
        ("a: n/x@1 -> n/y; b: n/y -> n/x", "n/a → n/b → n/a"),
        ("a: n/x@1 -> n/y@2; b: n/y@2 -> n/x@1", "n/a → n/b → n/a"),
        ("a: n/x@1 -> n/y@2; b: n/y@2 -> n/x", ""),
        ("a: n/x@1 -> n/x@2", ""),
        ("a: n/x -> n/x@2", "n/a → n/a"),
        ("a: n/x -> n/y; b: n/y -> n/x; c: n/x -> n/y", "n/a → n/b → n/a; n/c → n/b → n/c"),
    ];

    fn side(text: &str) -> (&str, Option<NodeName>) {
        let (topic, node) = text.split_once('@').map_or((text, None), |(t, n)| (t, Some(n)));
        (topic, node.map(|node| NodeName(node.into())))
    }

    #[test]
    fn who_goes_round() {
        for (rules, want) in ROWS {
            let mut all = Vec::new();
            for line in rules.split("; ") {
                let (name, line) = line.split_once(": ").unwrap();
                let ((from, on), (to, there)) =
                    line.split_once(" -> ").map(|(from, to)| (side(from), side(to))).unwrap();
                let source = Source::EventBus { topic: Filter::parse(from).unwrap(), node: on };
                let (topic, confirmed, retain) = (to.into(), true, false);
                let target = TopicTarget { topic, node: there, confirmed, retain };
                all.push((RuleName::new("n", name), source, Target::EventBus(target)));
            }
            let steps = all.iter().filter_map(|(name, from, to)| Step::of(name, from, to));
            let told: Vec<_> = rounds(steps).into_iter().map(|(_, why)| why).collect();
            let mut ways: Vec<_> =
                told.iter().map(|why| why.rsplit(": ").next().unwrap()).collect();
            ways.dedup();
            assert_eq!(ways.join("; "), *want, "{rules}");
        }
    }

    #[test]
    fn many_rules_are_no_many_ways() {
        let name = |at: usize| RuleName::new("n", &format!("r{at}"));
        let (names, topic) = ((0..20_000).map(name).collect::<Vec<_>>(), |at| format!("n/{at}"));
        let ring: Vec<_> = (0..names.len())
            .map(|at| {
                let source =
                    Source::EventBus { topic: Filter::parse(&topic(at)).unwrap(), node: None };
                let to = topic((at + 1) % names.len()).into();
                let target = TopicTarget { topic: to, node: None, confirmed: true, retain: false };
                (source, Target::EventBus(target))
            })
            .collect();
        let steps = || names.iter().zip(&ring).filter_map(|(name, (s, t))| Step::of(name, s, t));
        let told = rounds(steps());
        assert_eq!(told.len(), names.len());
        assert!(told[0].1.ends_with("n/r5 → … → n/r0"), "{}", told[0].1);
        assert!(rounds(steps().skip(1)).is_empty());
    }
}
