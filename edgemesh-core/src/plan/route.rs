//! Routes in the decision: which rule a request fits, and which Service takes it.
//!
//! A request is matched once a call: [`Routed`] carries what was found over to further attempts,
//! since what a Backend is sent may no longer look like what the client sent.

mod edit;

use std::sync::Arc;
use std::time::Duration;

use edgemesh_proto::record::RouteRedirect;
use http::header::HOST;
use http::uri::Authority;

use crate::plan::route::edit::edited_path;
use crate::plan::view::View;
use crate::plan::{Destination, Head, resolve};
use crate::refusal::Refusal;
use crate::snapshot::{Candidate, Found, PortRoutes, Rule, Share, Snapshot};

/// The rule that a request fits, and the share of it that takes the request.
#[derive(Clone, Debug)]
pub struct Routed {
    rule: Arc<Rule>,
    share: usize,
}

/// Where a client is sent instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirection {
    /// HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: String,
}

impl Routed {
    /// The rule.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// The share.
    pub fn share(&self) -> &Share {
        &self.rule.shares[self.share]
    }

    /// Longest request, where the rule says it: `Some(None)` = no bound.
    pub(super) fn request_timeout(&self) -> Option<Option<Duration>> {
        self.rule.request_timeout.map(|time| Some(time).filter(|time| !time.is_zero()))
    }
}

/// The Service port that takes a call of `called`: itself, unless Routes say otherwise.
pub(super) fn route<'s, V: View>(
    snapshot: &'s Snapshot,
    called: Found<'s>,
    destination: &Destination<'_>,
    view: &mut V,
) -> Result<(Found<'s>, Option<Routed>), Refusal> {
    let routed = match destination.routed {
        Some(before) => before.clone(),
        None => match first(snapshot, called, destination, view)? {
            Some(rule) => share(rule, view)?,
            None => return Ok((called, None)),
        },
    };
    let found = match &routed.share().target {
        Ok(to) => snapshot.by_name(&to.namespace, &to.service).and_then(|service| {
            Some(Found { service, port: service.port(to.port.get())?, host: None })
        }),
        Err(_) => None,
    };
    let Some(found) = found else {
        view.note("route", || match &routed.share().target {
            Ok(to) => {
                format!("there is no Service {}/{} with port {}", to.namespace, to.service, to.port)
            }
            Err(why) => why.to_string(),
        });
        return Err(Refusal::RouteFault);
    };
    Ok((found, Some(routed)))
}

/// Where the client of a call that is [`Refusal::Redirected`] is sent.
pub fn redirection(snapshot: &Snapshot, destination: &Destination<'_>) -> Option<Redirection> {
    let called = resolve(snapshot, destination.to).ok()?;
    let (candidates, head) = table(snapshot, called, destination)?;
    let rule = &fitting(candidates, head)?.rule;
    let redirect = rule.redirect.as_ref()?;
    let port = called.service.ports[called.port].port;
    Some(Redirection { status: redirect.status, location: location(rule, redirect, head, port) })
}

/// The rule that a request fits; `None` = its Service has no Route, and takes it.
fn first<V: View>(
    snapshot: &Snapshot,
    called: Found<'_>,
    destination: &Destination<'_>,
    view: &mut V,
) -> Result<Option<Arc<Rule>>, Refusal> {
    let Some((candidates, head)) = table(snapshot, called, destination) else {
        return Ok(None);
    };
    let Some(Candidate { matched, rule }) = fitting(candidates, head) else {
        view.note("route", || format!("none of {} matches fits", candidates.len()));
        return Err(Refusal::NoRoute);
    };
    view.note("route", || {
        let of = candidates.len();
        format!("{}: {}; the first that fits of {of}", named(rule), matched.text)
    });
    if let Some(fault) = &rule.fault {
        view.note("route", || fault.to_string());
        return Err(Refusal::RouteFault);
    }
    if let Some(redirect) = &rule.redirect {
        let port = called.service.ports[called.port].port;
        view.note("redirect", || location(rule, redirect, head, port));
        return Err(Refusal::Redirected);
    }
    Ok(Some(rule.clone()))
}

/// The matches that count for a call; `None` = no Route does.
fn table<'s, 'a>(
    snapshot: &'s Snapshot,
    called: Found<'s>,
    destination: &Destination<'a>,
) -> Option<(&'s [Candidate], Head<'a>)> {
    let routes: &'s Arc<PortRoutes> = called.service.ports[called.port].routes.as_ref()?;
    let head = destination.request?;
    let caller = destination.caller.and_then(|address| snapshot.namespace_of(address));
    Some((routes.of(caller)?, head))
}

fn fitting<'s>(candidates: &'s [Candidate], head: Head<'_>) -> Option<&'s Candidate> {
    candidates.iter().find(|c| c.matched.fits(head.method, head.uri, head.headers))
}

/// By weight, in turn.
fn share<V: View>(rule: Arc<Rule>, view: &mut V) -> Result<Routed, Refusal> {
    let share = rule.split.choose(view.rule_turn(&rule));
    view.note("weights", || weights(&rule, share));
    let share = share.ok_or(Refusal::RouteFault)?;
    Ok(Routed { rule, share })
}

fn weights(rule: &Rule, chosen: Option<usize>) -> String {
    let said = |share: &Share| match &share.target {
        Ok(to) => format!("{}/{}:{} {}", to.namespace, to.service, to.port, share.weight),
        Err(_) => format!("(nobody) {}", share.weight),
    };
    let all: Vec<_> = rule.shares.iter().map(said).collect();
    match chosen {
        Some(chosen) => format!("{}; this turn is for the {}", all.join(", "), nth(chosen)),
        None if all.is_empty() => "the rule names no backend".into(),
        None => format!("{}: all are 0", all.join(", ")),
    }
}

fn nth(index: usize) -> String {
    const WORDS: [&str; 3] = ["first", "second", "third"];
    WORDS.get(index).map_or_else(|| format!("{}th", index + 1), |word| (*word).to_owned())
}

fn named(rule: &Rule) -> String {
    let name = if rule.name.is_empty() { String::new() } else { format!(" ({})", rule.name) };
    format!("HTTPRoute {}, rules[{}]{name}", rule.route, rule.index)
}

fn location(rule: &Rule, redirect: &RouteRedirect, head: Head<'_>, service_port: u16) -> String {
    let scheme = redirect.scheme.as_deref().or_else(|| head.uri.scheme_str()).unwrap_or("http");
    let named = head.headers.get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let host = match (&redirect.hostname, head.uri.authority(), &named) {
        (Some(host), ..) => host,
        (None, Some(authority), _) | (None, None, Some(authority)) => authority.host(),
        (None, None, None) => "",
    };
    // The scheme's own port where the scheme is named, else the one that was called.
    let port = match (redirect.port, &redirect.scheme) {
        (Some(port), _) => Some(port.get()),
        (None, Some(_)) => None,
        (None, None) => Some(service_port),
    };
    let port = port.filter(|port| !matches!((scheme, port), ("http", 80) | ("https", 443)));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = head.uri.path();
    let path = redirect.path.as_ref().map_or_else(|| path.into(), |e| edited_path(rule, e, path));
    let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{scheme}://{host}{port}{path}{query}")
}
