//! What the status of an object is to say.

use std::collections::{BTreeMap, HashMap, HashSet};
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
    /// TrafficPolicies that are known.
    policies: HashSet<(Box<str>, Box<str>)>,
}

impl Facts {
    pub(super) fn new(snapshot: &Snapshot, counts: BTreeMap<RuleName, Counted>) -> Self {
        let rules = snapshot.rules.all().map(|rule| (rule.name.clone(), rule.clone())).collect();
        let (mut overruled, mut missing) = (HashMap::new(), HashMap::new());
        let mut policies = HashSet::new();
        for listed in &*snapshot.policies {
            if listed.policy.origin != PolicyOrigin::TrafficPolicy {
                continue;
            }
            let of = (listed.service.namespace.clone(), listed.name.clone());
            policies.insert(of.clone());
            let ServiceName { namespace, name } = &listed.service;
            if let Some(winner) = &listed.overruled_by {
                overruled.insert(of, winner.to_string().into());
            } else if snapshot.by_name(namespace, name).is_none() {
                missing.insert(of, listed.service.clone());
            }
        }
        Self { rules, counts, overruled, missing, policies }
    }

    /// The whole status of an object. What was so before keeps its time. `None`: the mesh does not have it yet.
    pub(super) fn status(&self, one: &Judged) -> Option<Value> {
        let now = Time(Timestamp::now());
        let before = conditions(&one.mark.status);
        let condition = |(reason, message): (Reason, String)| {
            Condition::new(reason, &message, one.mark.generation, now.clone()).since(&before)
        };
        let accepted = condition(self.accepted(one));
        let is_accepted = accepted.status == Truth::True;
        let observed_generation = one.mark.generation;
        let status = match one.kind {
            "Rule" => {
                let name = RuleName::new(&one.name.namespace, &one.name.name);
                let counted = self.counts.get(&name).cloned().unwrap_or_default();
                let rule = self.rules.get(&name);
                if is_accepted && rule.is_none() {
                    return None;
                }
                let active = rule.and_then(|rule| active(rule, &counted));
                serde_json::to_value(of_rule(accepted, active.map(condition), counted))
            }
            "TrafficPolicy" if is_accepted && !self.policies.contains(&key(&one.name)) => {
                return None;
            }
            _ => serde_json::to_value(Status { observed_generation, conditions: vec![accepted] }),
        };
        // Of such plain values nothing can fail.
        status.ok()
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
        let of = key(&one.name);
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

fn key(name: &Name) -> (Box<str>, Box<str>) {
    (name.namespace.clone(), name.name.clone())
}

fn of_rule(mut accepted: Condition, active: Option<Condition>, counted: Counted) -> RuleStatus {
    // What is known of a Rule that is idle is why, which the second condition says.
    let is_idle = active.as_ref().is_some_and(|active| active.reason != Reason::Active.as_str());
    if is_idle && accepted.status == Truth::True {
        accepted.message.clear();
    }
    let said = counted.trouble.map(|(node, trouble)| format!("{node}: {}", trouble.reason));
    RuleStatus {
        success_messages: i64::try_from(counted.success).unwrap_or(i64::MAX),
        fail_messages: i64::try_from(counted.fail).unwrap_or(i64::MAX),
        errors: said.into_iter().collect(),
        observed_generation: accepted.observed_generation,
        conditions: [Some(accepted), active].into_iter().flatten().collect(),
    }
}

/// Those that the server holds, as far as they can be read.
fn conditions(status: &Value) -> Vec<Condition> {
    let held = status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    held.filter_map(|one| serde_json::from_value(one.clone()).ok()).collect()
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

/// Whether what the server holds is what is wanted; conditions of others stand beside ours.
pub(super) fn is_same(held: &Value, wanted: &Value) -> bool {
    let none = json!([]);
    wanted.as_object().into_iter().flatten().all(|(key, wanted)| match (&**key, held.get(key)) {
        ("conditions", Some(_)) => {
            let held = conditions(held);
            let ours = serde_json::from_value::<Vec<Condition>>(wanted.clone()).unwrap_or_default();
            ours.iter().all(|one| held.contains(one))
        }
        (_, Some(held)) => held == wanted,
        (_, None) => *wanted == none || *wanted == json!(0),
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
