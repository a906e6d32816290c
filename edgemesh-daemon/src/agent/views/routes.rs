//! The Routes of a Snapshot as the objects of the admin API, with what is wrong with them.

use std::collections::HashMap;
use std::time::Duration;

use edgemesh_core::snapshot::{Candidate, Edits, Fields, RouteEntry, Rule, Share, Snapshot};
use edgemesh_proto::record::{RouteParent, RouteRedirect, ServiceName};

use crate::api::{
    Remark, RouteBackendView, RouteParentView, RouteRuleView, RouteState, RouteView, Severity,
};

/// Every Route.
pub(crate) fn routes(snapshot: &Snapshot) -> Vec<RouteView> {
    let mut shadowed = shadowed(snapshot);
    let mut view = |entry: &RouteEntry| {
        let parents: Vec<_> = entry.record.parents.iter().map(|p| parent(snapshot, p)).collect();
        let missing = parents.iter().filter(|parent| !parent.found);
        let mut conditions: Vec<_> = missing.map(absent).collect();
        let faults = entry.rules.iter().flat_map(|rule| faults(snapshot, rule));
        conditions.extend(faults);
        let conflicts = shadowed.remove(&entry.name).unwrap_or_default();
        let state = match () {
            () if parents.iter().all(|parent| !parent.found) => RouteState::Inactive,
            () if !conflicts.is_empty() => RouteState::Conflicted,
            () if entry.rules.iter().all(|rule| serves_nobody(snapshot, rule)) => {
                RouteState::Broken
            }
            () if !conditions.is_empty() => RouteState::Partly,
            () => RouteState::Accepted,
        };
        conditions.extend(conflicts);
        RouteView {
            namespace: entry.name.namespace.to_string(),
            name: entry.name.name.to_string(),
            parents,
            rules: entry.rules.iter().map(|r| rule(r, entry.matches(r.index))).collect(),
            state,
            conditions,
        }
    };
    snapshot.routes.iter().map(|entry| view(entry)).collect()
}

/// What is wrong with Routes, for `status`, without what `said` has of the same place.
pub(crate) fn unrouted(snapshot: &Snapshot, said: &[Remark]) -> Vec<Remark> {
    let all = routes(snapshot).into_iter().flat_map(|route| {
        let object = format!("HTTPRoute {}/{}", route.namespace, route.name);
        route.conditions.into_iter().map(move |reason| Remark {
            severity: Severity::Warning,
            file: String::new(),
            line: 0,
            object: object.clone(),
            field: String::new(),
            reason,
        })
    });
    all.filter(|remark| !said.iter().any(|other| same(other, remark))).collect()
}

/// Whether a remark on a document tells what a condition `PLACE: WHY; EFFECT` of its Route does.
fn same(said: &Remark, condition: &Remark) -> bool {
    let Some((place, why)) = condition.reason.split_once(": ") else { return false };
    let why = why.rsplit_once("; ").map_or(why, |(why, _)| why);
    said.object == condition.object && said.field.contains(place) && said.reason.contains(why)
}

fn parent(snapshot: &Snapshot, parent: &RouteParent) -> RouteParentView {
    let port = match parent.port {
        Some(port) => port.to_string(),
        None => parent.section.to_string(),
    };
    let fits = |p: &edgemesh_core::snapshot::Port| {
        parent.port.is_none_or(|port| port.get() == p.port)
            && (parent.section.is_empty() || parent.section == p.name)
    };
    let service = snapshot.by_name(&parent.namespace, &parent.service);
    RouteParentView {
        service: format!("{}/{}", parent.namespace, parent.service),
        port,
        found: service.is_some_and(|service| service.ports.iter().any(fits)),
    }
}

fn absent(parent: &RouteParentView) -> String {
    let port = match parent.port.as_str() {
        "" => String::new(),
        port => format!(" with port {port}"),
    };
    format!("has no effect until Service {}{port} is there", parent.service)
}

/// What of a rule gets 500.
fn faults(snapshot: &Snapshot, rule: &Rule) -> Vec<String> {
    let at = |what: &str| format!("rules[{}]{what}", rule.index);
    if let Some(fault) = &rule.fault {
        return vec![format!("{}: {fault}; it answers 500", at(""))];
    }
    let mut out = Vec::new();
    for (index, share) in rule.shares.iter().enumerate() {
        let Some(why) = lost(snapshot, share) else { continue };
        out.push(format!("{}: {why}; its share gets 500", at(&format!(".backendRefs[{index}]"))));
    }
    if rule.redirect.is_none() && rule.split.choose(0).is_none() {
        out.push(format!("{}: no backendRef has a weight; it answers 500", at("")));
    }
    out
}

/// Why nobody takes a share; `None` = somebody does.
fn lost(snapshot: &Snapshot, share: &Share) -> Option<String> {
    match &share.target {
        Err(why) => Some(why.to_string()),
        Ok(to) => {
            let service = snapshot.by_name(&to.namespace, &to.service);
            let found = service.is_some_and(|service| service.port(to.port.get()).is_some());
            let missing =
                || format!("no Service {}/{} with port {}", to.namespace, to.service, to.port);
            (!found).then(missing)
        }
    }
}

/// Whether every request of a rule gets 500.
fn serves_nobody(snapshot: &Snapshot, rule: &Rule) -> bool {
    let served = |share: &Share| share.weight > 0 && lost(snapshot, share).is_none();
    rule.fault.is_some() || (rule.redirect.is_none() && !rule.shares.iter().any(served))
}

/// Matches that never count, by Route: another Route has the same before.
fn shadowed(snapshot: &Snapshot) -> HashMap<ServiceName, Vec<String>> {
    let mut out: HashMap<ServiceName, Vec<String>> = HashMap::new();
    for service in snapshot.services() {
        for port in &service.ports {
            let Some(routes) = &port.routes else { continue };
            for table in std::iter::once(&routes.producer).chain(routes.consumers.values()) {
                let mut first: HashMap<&str, &Candidate> = HashMap::new();
                for candidate in table {
                    let text = &*candidate.matched.text;
                    let known = *first.entry(text).or_insert(candidate);
                    if known.rule.route != candidate.rule.route {
                        let said = out.entry(candidate.rule.route.clone()).or_default();
                        said.push(format!(
                            "rules[{}]: `{text}` never counts on {}, port {}: HTTPRoute {} has it too and is older, or first by name",
                            candidate.rule.index, service.name, port.port, known.rule.route
                        ));
                    }
                }
            }
        }
    }
    out
}

fn rule(rule: &Rule, matches: Vec<String>) -> RouteRuleView {
    RouteRuleView {
        name: rule.name.to_string(),
        matches,
        backends: rule.shares.iter().map(backend).collect(),
        redirect: rule.redirect.as_ref().map(redirect),
        edits: edits(rule),
        request_timeout_ms: rule.request_timeout.map(millis),
        backend_timeout_ms: rule.backend_timeout.map(millis),
    }
}

fn backend(share: &Share) -> RouteBackendView {
    let (service, port) = match &share.target {
        Ok(to) => (format!("{}/{}", to.namespace, to.service), to.port.get()),
        Err(_) => (String::new(), 0),
    };
    RouteBackendView { service, port, weight: share.weight }
}

fn redirect(redirect: &RouteRedirect) -> String {
    let scheme = redirect.scheme.as_deref().map(|s| format!(" scheme {s}"));
    let host = redirect.hostname.as_deref().map(|h| format!(" host {h}"));
    let port = redirect.port.map(|p| format!(" port {p}"));
    let path = redirect.path.as_ref().map(|_| " path".to_owned());
    let parts: String = [scheme, host, port, path].into_iter().flatten().collect();
    format!("{}{parts}", redirect.status)
}

fn edits(rule: &Rule) -> Vec<String> {
    let all = || std::iter::once(&rule.edits).chain(rule.shares.iter().map(|share| &share.edits));
    let any = |is: fn(&Edits) -> bool| all().any(is);
    let some = |fields: &Fields| {
        !(fields.set.is_empty() && fields.add.is_empty() && fields.remove.is_empty())
    };
    let requests = all().any(|edits| some(&edits.request));
    let answers = all().any(|edits| some(&edits.response));
    let words = [
        (requests, "request headers"),
        (answers, "response headers"),
        (any(|edits| edits.hostname.is_some()), "host"),
        (any(|edits| edits.path.is_some()), "path"),
    ];
    words.into_iter().filter(|(is, _)| *is).map(|(_, word)| word.to_owned()).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
