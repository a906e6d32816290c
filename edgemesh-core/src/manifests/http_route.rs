//! `gateway.networking.k8s.io HTTPRoute` with Services as parents, as a Route record.
//!
//! What is not for a mesh is ignored with a remark. What this version cannot do makes the rule
//! that asks for it answer 500, as the Gateway API demands: a rule without its filter would let
//! through what the filter was to stop.

mod filters;
mod matches;

use std::time::Duration;

use edgemesh_proto::record::{
    PathEdit, Route, RouteBackend, RouteEdits, RouteMatch, RouteParent, RoutePath, RouteRule,
    RouteTarget,
};

use crate::manifests::field::{Fault, Field};
use crate::manifests::http_route::filters::Filters;
use crate::manifests::syntax::{self, known};
use crate::manifests::{Severity, field};

/// Bounds of the Gateway API.
const MAX_PARENTS: usize = 32;
const MAX_HOSTNAMES: usize = 16;
const MAX_RULES: usize = 16;
const MAX_MATCHES: usize = 64;
const MAX_MATCHES_IN_ALL: usize = 128;
const MAX_BACKENDS: usize = 16;
const MAX_WEIGHT: u32 = 1_000_000;

/// What is said of an accepted Route, beside it.
pub(super) type Notes = Vec<(Severity, Fault)>;

/// Where a Route lives, and what is said of it.
struct Reading<'a> {
    namespace: &'a str,
    parents: Vec<RouteParent>,
    notes: Notes,
}

/// Reads the whole object; `None` when nothing in it is for a Service.
pub(super) fn read(
    top: &Field<'_>,
    namespace: &str,
    created: i64,
) -> Result<Option<(Route, Notes)>, Fault> {
    known(top, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    let spec = top.need("spec")?;
    known(&spec, &["parentRefs", "hostnames", "rules"])?;
    let mut reading = Reading { namespace, parents: Vec::new(), notes: Vec::new() };
    up_to(&spec, "parentRefs", MAX_PARENTS, |parent| reading.parent(parent))?;
    if reading.parents.is_empty() {
        return Ok(None);
    }
    if let Some(hostnames) = spec.get("hostnames")?
        && !up_to(&spec, "hostnames", MAX_HOSTNAMES, field::boxed)?.is_empty()
    {
        let reason = "has no effect: a Service's Routes apply whatever host is named; remove it";
        reading.notes.push((Severity::Note, hostnames.fault(reason)));
    }
    let mut rules = up_to(&spec, "rules", MAX_RULES, |rule| reading.rule(rule))?;
    let all: usize = rules.iter().map(|rule| rule.matches.len()).sum();
    if all > MAX_MATCHES_IN_ALL {
        let reason = format!("have {all} matches in all; {MAX_MATCHES_IN_ALL} are the most");
        return Err(spec.need("rules")?.fault(reason));
    }
    if rules.is_empty() {
        // As the API server would write it: one rule for everything.
        rules.push(RouteRule::default());
    }
    Ok(Some((Route { created, parents: reading.parents, rules }, reading.notes)))
}

/// Reads the list under `key`, which has at most so many items.
fn up_to<T>(
    map: &Field<'_>,
    key: &str,
    most: usize,
    mut read: impl FnMut(&Field<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let Some(list) = map.get(key)? else {
        return Ok(Vec::new());
    };
    let items = list.items()?;
    if items.len() > most {
        return Err(list.fault(format!("has {} entries; {most} are the most", items.len())));
    }
    items.map(|item| read(&item)).collect()
}

/// Whether a reference is to a Service of the core group, by default to `usual`.
fn is_service(reference: &Field<'_>, usual: (&str, &str)) -> Result<bool, Fault> {
    let group = reference.maybe("group", field::boxed)?;
    let kind = reference.maybe("kind", field::boxed)?;
    Ok((group.as_deref().unwrap_or(usual.0), kind.as_deref().unwrap_or(usual.1)) == ("", "Service"))
}

impl Reading<'_> {
    fn parent(&mut self, parent: &Field<'_>) -> Result<(), Fault> {
        known(parent, &["group", "kind", "namespace", "name", "sectionName", "port"])?;
        if !is_service(parent, ("gateway.networking.k8s.io", "Gateway"))? {
            let reason =
                "is no Service; the mesh serves Routes of Services (group \"\", kind Service)";
            self.notes.push((Severity::Ignored, parent.fault(reason)));
            return Ok(());
        }
        let namespace = parent.maybe("namespace", syntax::label)?;
        self.parents.push(RouteParent {
            namespace: namespace.unwrap_or_else(|| self.namespace.into()),
            service: syntax::label(&parent.need("name")?)?,
            port: parent.maybe("port", syntax::port)?,
            section: parent.maybe("sectionName", syntax::subdomain)?.unwrap_or_default(),
        });
        Ok(())
    }

    fn rule(&mut self, rule: &Field<'_>) -> Result<RouteRule, Fault> {
        for (key, what) in [("retry", "retries"), ("sessionPersistence", "sessions")] {
            if let Some(field) = rule.get(key)? {
                let reason = format!(
                    "is experimental and not served; {what} of a TrafficPolicy do the same"
                );
                return Err(field.fault(reason));
            }
        }
        known(rule, &["name", "matches", "filters", "backendRefs", "timeouts"])?;
        let notes = &mut self.notes;
        let matches = up_to(rule, "matches", MAX_MATCHES, |entry| matches::read(entry, notes))?;
        let Filters { edits, redirect, fault } = filters::read(rule)?;
        let path = redirect.as_ref().and_then(|r| r.path.as_ref()).or(edits.path.as_ref());
        replaces_one_prefix(rule, path, &matches)?;
        let backends = up_to(rule, "backendRefs", MAX_BACKENDS, |b| self.backend(b, &matches))?;
        if redirect.is_some() && !backends.is_empty() {
            let reason = "have no place beside a RequestRedirect; remove one of the two";
            return Err(rule.need("backendRefs")?.fault(reason));
        }
        let [request_timeout, backend_timeout] =
            rule.maybe("timeouts", timeouts)?.unwrap_or_default();
        let fault = fault.map(|fault| {
            let reason = format!("{}; requests that match this rule get 500", fault.reason);
            let short = fault.reason.clone().into();
            self.notes.push((Severity::Note, Fault { reason, ..fault })); // the Route stays in force
            short
        });
        Ok(RouteRule {
            name: rule.maybe("name", syntax::subdomain)?.unwrap_or_default(),
            matches,
            edits,
            redirect,
            backends,
            request_timeout,
            backend_timeout,
            fault,
        })
    }

    fn backend(
        &mut self,
        backend: &Field<'_>,
        matches: &[RouteMatch],
    ) -> Result<RouteBackend, Fault> {
        known(backend, &["group", "kind", "namespace", "name", "port", "weight", "filters"])?;
        let weight = backend.maybe("weight", |field| field.int(0..=MAX_WEIGHT))?.unwrap_or(1);
        let Filters { edits, redirect, fault } = filters::read(backend)?;
        replaces_one_prefix(backend, edits.path.as_ref(), matches)?;
        let mut target = self.target(backend)?;
        if redirect.is_some() {
            target =
                Err("a RequestRedirect has no place in a backendRef; move it to the rule".into());
        }
        if let Some(fault) = &fault {
            target = Err(fault.reason.as_str().into());
        }
        if let Err(why) = &target {
            let reason = format!("{why}; its share of the requests gets 500");
            self.notes.push((Severity::Note, backend.fault(reason)));
        }
        let edits = if target.is_ok() { edits } else { RouteEdits::default() };
        Ok(RouteBackend { target, weight, edits })
    }

    /// Who takes the share, or why nobody can.
    fn target(&self, backend: &Field<'_>) -> Result<Result<RouteTarget, Box<str>>, Fault> {
        if !is_service(backend, ("", "Service"))? {
            return Ok(Err("is no Service (group \"\", kind Service)".into()));
        }
        let namespace = backend.maybe("namespace", syntax::label)?;
        let namespace = namespace.unwrap_or_else(|| self.namespace.into());
        let service = syntax::label(&backend.need("name")?)?;
        let port = syntax::port(&backend.need("port")?)?;
        // Whoever calls a parent may be sent to it; anything else in another namespace is up to
        // that namespace's owner, and grants are not read.
        let is_parent = |p: &RouteParent| (&p.namespace, &p.service) == (&namespace, &service);
        if *namespace != *self.namespace && !self.parents.iter().any(is_parent) {
            return Ok(Err(
                "is in another namespace, which takes a ReferenceGrant, and those are not read"
                    .into(),
            ));
        }
        Ok(Ok(RouteTarget { namespace, service, port }))
    }
}

/// A prefix can only be replaced where one is matched, and no other.
fn replaces_one_prefix(
    rule: &Field<'_>,
    edit: Option<&PathEdit>,
    matches: &[RouteMatch],
) -> Result<(), Fault> {
    match (edit, matches) {
        (None | Some(PathEdit::Full(_)), _) | (_, []) => Ok(()),
        (_, [RouteMatch { path: RoutePath::Prefix(_), .. }]) => Ok(()),
        (Some(PathEdit::Prefix(_)), _) => Err(rule.need("filters")?.fault(
            "replaces a prefix, so the rule must have one match, of a path of type PathPrefix",
        )),
    }
}

/// The time for a request and the one for an attempt.
fn timeouts(field: &Field<'_>) -> Result<[Option<Duration>; 2], Fault> {
    known(field, &["request", "backendRequest"])?;
    let request = field.maybe("request", timeout)?;
    let backend = field.maybe("backendRequest", timeout)?;
    if let (Some(request), Some(backend)) = (request, backend)
        && !request.is_zero()
        && backend > request
    {
        let reason = "is longer than `request`, which holds all attempts; shorten it";
        return Err(field.need("backendRequest")?.fault(reason));
    }
    Ok([request, backend])
}

/// A duration; zero of any unit = no bound.
fn timeout(field: &Field<'_>) -> Result<Duration, Fault> {
    let zero = |text: &str| !text.is_empty() && text.trim_end_matches(['h', 'm', 's']) == "0";
    match field.text() {
        Ok(text) if zero(text) => Ok(Duration::ZERO),
        Ok(_) | Err(_) => syntax::duration(field),
    }
}
