//! What the status of an object is to say.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use edgemesh_core::manifests::Severity;
use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::{Rule, Standing};
use edgemesh_proto::record::{PolicyOrigin, RuleName, ServiceName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::kubernetes::crds::{Condition, Reason, RuleStatus, Status, Truth};
use crate::kubernetes::objects::{Judged, Name};
use crate::registry::Counted;

/// What of a status is counted.
const COUNTS: [&str; 2] = ["successMessages", "failMessages"];

/// What is so at one moment.
pub(super) struct Facts {
    rules: HashMap<RuleName, Arc<Rule>>,
    counts: BTreeMap<RuleName, Counted>,
    /// Of TrafficPolicies that do not count, by namespace and name: which counts.
    overruled: HashMap<(Box<str>, Box<str>), Box<str>>,
    /// Services of TrafficPolicies that are not there.
    missing: HashMap<(Box<str>, Box<str>), ServiceName>,
}

impl Facts {
    pub(super) fn new(snapshot: &Snapshot, counts: BTreeMap<RuleName, Counted>) -> Self {
        let rules = snapshot.rules.all().map(|rule| (rule.name.clone(), rule.clone())).collect();
        let (mut overruled, mut missing) = (HashMap::new(), HashMap::new());
        for listed in &*snapshot.policies {
            if listed.policy.origin != PolicyOrigin::TrafficPolicy {
                continue;
            }
            let of = (listed.service.namespace.clone(), listed.name.clone());
            let ServiceName { namespace, name } = &listed.service;
            if let Some(winner) = &listed.overruled_by {
                overruled.insert(of, winner.to_string().into());
            } else if snapshot.by_name(namespace, name).is_none() {
                missing.insert(of, listed.service.clone());
            }
        }
        Self { rules, counts, overruled, missing }
    }

    /// The whole status of an object. What was so before keeps its time.
    pub(super) fn status(&self, one: &Judged) -> Value {
        let before: Vec<Condition> = one
            .mark
            .status
            .get("conditions")
            .and_then(|known| serde_json::from_value(known.clone()).ok())
            .unwrap_or_default();
        let now = Time(Timestamp::now());
        let condition = |(reason, message): (Reason, String)| {
            Condition::new(reason, &message, one.mark.generation, now.clone()).since(&before)
        };
        let mut accepted = condition(self.accepted(one));
        let observed_generation = one.mark.generation;
        let status = match one.kind {
            "Rule" => {
                let name = RuleName::new(&one.name.namespace, &one.name.name);
                let counted = self.counts.get(&name).cloned().unwrap_or_default();
                let active = self.rules.get(&name).and_then(|rule| active(rule, &counted));
                // What is known of a Rule that is idle is why, which the second condition says.
                let is_idle = active.as_ref().is_some_and(|(reason, _)| *reason != Reason::Active);
                if is_idle && accepted.status == Truth::True {
                    accepted.message.clear();
                }
                let said =
                    counted.trouble.map(|(node, trouble)| format!("{node}: {}", trouble.reason));
                serde_json::to_value(RuleStatus {
                    success_messages: i64::try_from(counted.success).unwrap_or(i64::MAX),
                    fail_messages: i64::try_from(counted.fail).unwrap_or(i64::MAX),
                    errors: said.into_iter().collect(),
                    observed_generation,
                    conditions: [Some(accepted), active.map(condition)]
                        .into_iter()
                        .flatten()
                        .collect(),
                })
            }
            _ => serde_json::to_value(Status { observed_generation, conditions: vec![accepted] }),
        };
        // Of such plain values nothing can fail.
        status.unwrap_or_default()
    }

    fn accepted(&self, one: &Judged) -> (Reason, String) {
        if let Some(remark) = &one.remark {
            let field = if remark.field.is_empty() { "" } else { ": " };
            let said = format!("{}{field}{}", remark.field, remark.reason);
            match remark.severity {
                Severity::Rejected => return (Reason::Invalid, said),
                Severity::Note if one.kind != "TrafficPolicy" => return (Reason::Accepted, said),
                Severity::Note | Severity::Ignored => {}
            }
        }
        let Name { namespace, name } = one.name.clone();
        let of = (namespace, name);
        if one.kind != "TrafficPolicy" {
            return (Reason::Accepted, String::new());
        }
        match (self.overruled.get(&of), self.missing.get(&of)) {
            (Some(winner), _) => {
                let said = format!("{winner} counts in its place: it is older, or first by name");
                (Reason::Conflicted, said)
            }
            (None, Some(service)) => {
                (Reason::NoService, format!("has no effect until Service {service} is there"))
            }
            (None, None) => (Reason::Accepted, String::new()),
        }
    }
}

/// Whether a Rule takes messages.
fn active(rule: &Rule, counted: &Counted) -> Option<(Reason, String)> {
    let reason = Reason::of(&rule.standing)?;
    let said = match &rule.standing {
        Standing::Active => match &counted.trouble {
            Some((node, trouble)) => {
                return Some((Reason::Degraded, format!("on node {node}: {}", trouble.reason)));
            }
            None => String::new(),
        },
        Standing::Paused => "its inUse is false".to_owned(),
        Standing::Waiting(why) | Standing::Faulty(why) => why.to_string(),
        Standing::Overruled(by) => {
            format!("Rule {by}, which is older or first by name, takes the same")
        }
        Standing::Deleted => String::new(),
    };
    Some((reason, said))
}

/// Whether what the server holds is what is wanted.
pub(super) fn is_same(held: &Value, wanted: &Value) -> bool {
    let all = wanted.as_object().into_iter().flatten();
    let none = json!([]);
    all.clone().all(|(key, wanted)| {
        let held = held.get(key);
        held == Some(wanted) || held.is_none() && (*wanted == none || *wanted == json!(0))
    })
}

/// The same, whatever was counted.
pub(super) fn is_same_but_for_counts(held: &Value, wanted: &Value) -> bool {
    let mut wanted = wanted.clone();
    if let Some(map) = wanted.as_object_mut() {
        map.retain(|key, _| !COUNTS.contains(&&**key));
    }
    is_same(held, &wanted)
}
