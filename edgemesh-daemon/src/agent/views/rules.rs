//! Endpoints and Rules of a Snapshot as the objects of the admin API.

use std::collections::BTreeMap;

use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::{Rule, Standing, check};
use edgemesh_proto::record::{Endpoint, EndpointName};
use edgemesh_proto::rule::Pairs;

use crate::api::{
    EndpointObject, EndpointView, Remark, RuleErrorView, RuleState, RuleView, Severity,
};

/// Every Endpoint.
pub(crate) fn endpoints(snapshot: &Snapshot) -> Vec<EndpointView> {
    let mut users: BTreeMap<&EndpointName, Vec<String>> = BTreeMap::new();
    for rule in snapshot.rules.all() {
        let sides = [&rule.record.source, &rule.record.target];
        let (source, target) = (sides[0], sides[1]);
        users.entry(source).or_default().push(rule.name.to_string());
        if source != target {
            users.entry(target).or_default().push(rule.name.to_string());
        }
    }
    let view = |(name, endpoint): (&EndpointName, &Endpoint)| EndpointView {
        endpoint: object(name, endpoint),
        reason: check(endpoint).err(),
        used_by: users.remove(name).unwrap_or_default(),
    };
    snapshot.rules.endpoints().map(view).collect()
}

/// Every Rule, with what this node counted.
pub(crate) fn rules(snapshot: &Snapshot) -> Vec<RuleView> {
    snapshot.rules.all().map(|rule| view(snapshot, rule)).collect()
}

/// Rules that take no messages although they should, for `status`, without those of which `said` tells.
pub(crate) fn idle_rules(snapshot: &Snapshot, said: &[Remark]) -> Vec<Remark> {
    let remark = |rule: &std::sync::Arc<Rule>| {
        let (state, reason, _) = standing(rule);
        let idle = match state {
            RuleState::Waiting | RuleState::Faulty | RuleState::Overruled => true,
            RuleState::Active | RuleState::Degraded | RuleState::Paused | RuleState::Deleted => {
                false
            }
        };
        let object = format!("Rule {}", rule.name);
        let known = said.iter().any(|remark| remark.object == object);
        (idle && !known).then(|| Remark {
            severity: Severity::Warning,
            file: String::new(),
            line: 0,
            object,
            field: String::new(),
            reason: format!("takes no messages: {}", reason.unwrap_or_default()),
        })
    };
    snapshot.rules.all().filter_map(remark).collect()
}

/// State, why, and since when.
pub(crate) fn standing(rule: &Rule) -> (RuleState, Option<String>, Option<i64>) {
    match &rule.standing {
        Standing::Active => match rule.live.trouble() {
            None => (RuleState::Active, None, None),
            Some(trouble) => {
                let reason = trouble.reason.to_string();
                (RuleState::Degraded, Some(reason), Some(trouble.since))
            }
        },
        Standing::Paused => (RuleState::Paused, Some("in_use is false".into()), None),
        Standing::Waiting(why) => (RuleState::Waiting, Some(why.to_string()), None),
        Standing::Faulty(why) => (RuleState::Faulty, Some(why.to_string()), None),
        Standing::Overruled(by) => {
            let why = format!("Rule {by} takes the same: it is older, or first by name");
            (RuleState::Overruled, Some(why), None)
        }
        Standing::Deleted => (RuleState::Deleted, Some("is_deleted is true".into()), None),
    }
}

pub(crate) fn view(snapshot: &Snapshot, rule: &Rule) -> RuleView {
    let (record, live) = (&rule.record, &rule.live);
    let side = |name: &EndpointName| snapshot.rules.endpoint(name).map(|found| object(name, found));
    let (state, reason, since) = standing(rule);
    let (success_messages, fail_messages) = live.counts();
    let error = |error: &edgemesh_core::backends::RuleError| RuleErrorView {
        at: error.at,
        detail: error.detail.to_string(),
    };
    RuleView {
        id: record.id.to_string(),
        name: rule.name.name.to_string(),
        namespace: rule.name.namespace.to_string(),
        project_id: record.project_id.to_string(),
        domain_id: record.domain_id.to_string(),
        source: side(&record.source),
        source_resource: pairs(&record.source_resource),
        target: side(&record.target),
        target_resource: pairs(&record.target_resource),
        in_use: record.in_use,
        is_deleted: record.is_deleted,
        created_at: record.created_at,
        updated_at: record.updated_at,
        success_messages,
        fail_messages,
        state,
        reason,
        since,
        last_success: live.last_success(),
        latency_ms: live.latency().map(|took| took.as_micros() as f64 / 1e3),
        errors: live.errors().iter().map(error).collect(),
        notes: rule.notes.iter().map(ToString::to_string).collect(),
    }
}

fn object(name: &EndpointName, endpoint: &Endpoint) -> EndpointObject {
    EndpointObject {
        id: endpoint.id.to_string(),
        endpoint_type: endpoint.endpoint_type.to_string(),
        name: name.name.to_string(),
        namespace: name.namespace.to_string(),
        project_id: endpoint.project_id.as_ref().map(ToString::to_string),
        is_shared: endpoint.is_shared,
        properties: pairs(&endpoint.properties),
        created_at: endpoint.created_at,
        updated_at: endpoint.updated_at,
    }
}

fn pairs<const MAX: usize>(pairs: &Pairs<MAX>) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests;
