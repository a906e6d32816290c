//! Rules as series of `/metrics`: bounded, however many there are.

use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::Rule;

use crate::agent::views::standing;
use crate::api::RuleState;

/// Rules that have series of their own, the first by name; the others share one.
const MOST: usize = 1000;
/// What those are called; no Rule has an empty namespace.
const OTHERS: (&str, &str) = ("", "others");

/// The names of the series, without the prefix and `_total`, and what they say.
pub(crate) const MESSAGES: (&str, &str) =
    ("rule_messages", "Messages of Rules, by whether they were delivered");
/// See [`MESSAGES`].
pub(crate) const LATENCY: (&str, &str) =
    ("rule_latency_seconds", "How long a delivery of a Rule takes, smoothed");
/// See [`MESSAGES`].
pub(crate) const STATES: (&str, &str) = ("rules", "Rules known, by their state");

/// See the module.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Series {
    /// Namespace and Rule, delivered, not delivered.
    pub(crate) messages: Vec<(Of, u64, u64)>,
    /// In seconds, where it was measured.
    pub(crate) latencies: Vec<(Of, f64)>,
    /// Of each state.
    pub(crate) states: Vec<(RuleState, u64)>,
}

/// Namespace and name of a Rule.
pub(crate) type Of = (String, String);

impl Series {
    /// Of every Rule; `counts` says what was delivered and what was not.
    pub(crate) fn of(snapshot: &Snapshot, counts: impl Fn(&Rule) -> (u64, u64)) -> Self {
        let mut series =
            Self { states: RuleState::ALL.map(|state| (state, 0)).to_vec(), ..Self::default() };
        for (index, rule) in snapshot.rules.all().enumerate() {
            let (state, ..) = standing(rule);
            let of_state = series.states.iter_mut().find(|(of, _)| *of == state);
            of_state.into_iter().for_each(|(_, count)| *count += 1);
            series.add(index, rule, counts(rule));
        }
        series
    }

    fn add(&mut self, index: usize, rule: &Rule, (success, fail): (u64, u64)) {
        if index < MOST {
            let of = || (rule.name.namespace.to_string(), rule.name.name.to_string());
            self.messages.push((of(), success, fail));
            let latency = rule.live.latency().map(|took| (of(), took.as_secs_f64()));
            return self.latencies.extend(latency);
        }
        if index == MOST {
            self.messages.push(((OTHERS.0.into(), OTHERS.1.into()), 0, 0));
        }
        if let Some((_, all, failed)) = self.messages.last_mut() {
            (*all, *failed) = (all.saturating_add(success), failed.saturating_add(fail));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use edgemesh_core::io::now;
    use edgemesh_core::manifests;
    use edgemesh_core::snapshot::{Builder, Change};
    use edgemesh_proto::record::NodeName;

    use super::*;

    fn snapshot(text: &str) -> Arc<Snapshot> {
        let parsed = manifests::parse(Path::new("a.yaml"), text);
        let put = parsed.documents.into_iter().flat_map(|document| document.records).collect();
        let change = Change { put, ..Change::default() };
        Builder::new(NodeName("edge-1".into()), None).apply(change, now())
    }

    #[test]
    fn series_are_bounded() {
        let mut text = "{type: rest, name: in}\n".to_owned();
        for n in 0..MOST + 5 {
            let _ = writeln!(
                text,
                "---\n{{name: r{n:04}, source: in, source_resource: {{path: /r{n}}}, target: {}, \
                 target_resource: {{resource: 'http://a/'}}}}",
                if n == 0 { "gone" } else { "in" },
            );
        }
        let snapshot = snapshot(&text);
        for rule in snapshot.rules.all() {
            rule.live.delivered(Duration::from_millis(2), 7);
        }
        let series = Series::of(&snapshot, |rule| rule.live.counts());
        assert_eq!((series.messages.len(), series.latencies.len()), (MOST + 1, MOST));
        assert_eq!(series.messages[0], (("default".into(), "r0000".into()), 1, 0));
        assert_eq!(series.messages[MOST], ((String::new(), "others".into()), 5, 0));
        let states: Vec<_> = series.states.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(states, [&(RuleState::Active, MOST as u64 + 4), &(RuleState::Waiting, 1)]);
    }
}
