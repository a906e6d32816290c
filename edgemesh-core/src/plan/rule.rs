//! Rules in the decision: which one takes a message, whether it does so now, and where that leads.
//!
//! A message names its Rule (the ingress, a broker, a ServiceBus, another node), or calls a Service
//! that is some Rule's source. One step: what a Rule leads to is subject to no other Rule.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use edgemesh_proto::record::{NodeName, RuleName};
use http::Method;

use crate::identity::CLOUD;
use crate::limit::Caller;
use crate::plan::limits::{self, Calling};
use crate::plan::view::View;
use crate::plan::{
    Arrival, Chosen, Destination, Purpose, Ruled, Target, choose, only_port, resolve,
};
use crate::refusal::Refusal;
use crate::snapshot::rules::{Rest, Rule, STAND_IN, Seat, Source, Standing, TOPIC, Target as Aim};
use crate::snapshot::{Backend, Found, Pool, Reach, Snapshot, Tier};

/// The Rule by which a message goes, if it goes by one.
pub fn rule_of<'s>(snapshot: &'s Snapshot, destination: &Destination<'_>) -> Option<&'s Arc<Rule>> {
    match named(snapshot, destination.to) {
        Named::Rule(rule) => Some(rule),
        Named::Unknown => None,
        Named::Nothing if snapshot.rules.has_services() => {
            called(snapshot, resolve(snapshot, destination.to).ok()?, destination).ok()?
        }
        Named::Nothing => None,
    }
}

/// What a destination says of a Rule.
pub(super) enum Named<'s> {
    /// It is this one.
    Rule(&'s Arc<Rule>),
    /// It is one that is not there.
    Unknown,
    /// Nothing.
    Nothing,
}

/// The Rule that a destination names.
pub(super) fn named<'s>(snapshot: &'s Snapshot, to: Target<'_>) -> Named<'s> {
    let found = match to {
        Target::Rule { rule, .. } => snapshot.rules.get(rule),
        Target::Service { service, .. } => match service.name.strip_prefix(STAND_IN) {
            Some(name) => snapshot.rules.get(&RuleName::new(&service.namespace, name)),
            None => return Named::Nothing,
        },
        Target::Address(_) | Target::Name { .. } => return Named::Nothing,
    };
    found.map_or(Named::Unknown, Named::Rule)
}

/// The Rule whose source is the Service that is called. A further attempt goes by the one that the
/// first went by, for as long as that still leads to the same place.
pub(super) fn called<'s>(
    snapshot: &'s Snapshot,
    found: Found<'_>,
    destination: &Destination<'_>,
) -> Result<Option<&'s Arc<Rule>>, Refusal> {
    if destination.arrival == Arrival::Link || found.host.is_some() {
        return Ok(None);
    }
    match destination.ruled {
        Ruled::No => Ok(None),
        Ruled::By(before) => {
            let rule = snapshot.rules.get(&before.name).ok_or(Refusal::NoRule)?;
            if rule.target == before.target { Ok(Some(rule)) } else { Err(Refusal::NoRule) }
        }
        Ruled::Unknown => {
            let path = destination.request.map(|head| head.uri.path());
            Ok(snapshot.rules.of_service(&found.service.name, found.port().port, path))
        }
    }
}

/// The Service that a Rule leads to: its target, or what stands for that. Where neither says which
/// port, it is the one that was `called`, or the only one.
pub(super) fn led_to<'s>(
    snapshot: &'s Snapshot,
    rule: &'s Rule,
    called: Option<u16>,
) -> Result<Found<'s>, Refusal> {
    if let Some(service) = &rule.stand_in {
        return Ok(Found { service, port: 0, host: None });
    }
    let Some(Aim::Service { service, port, .. }) = &rule.target else {
        return Err(not_taking(&rule.standing).unwrap_or(Refusal::RuleFault));
    };
    // Not `noService`: that would let a captured call pass through to where nobody is.
    let service =
        snapshot.by_name(&service.namespace, &service.name).ok_or(Refusal::RuleWaiting)?;
    let port = match port {
        Some(port) => service.port(*port),
        None => called.and_then(|port| service.port(port)).or_else(|| only_port(service)),
    };
    port.map(|port| Found { service, port, host: None }).ok_or(Refusal::RuleWaiting)
}

/// Decides about a message of `rule`; `called` is the Service whose call it is, if it is one.
pub(super) fn decide<V: View>(
    snapshot: &Snapshot,
    (rule, called): (&Arc<Rule>, Option<Found<'_>>),
    destination: &Destination<'_>,
    now: Instant,
    view: &mut V,
) -> Result<Chosen, Refusal> {
    view.note("rule", || described(rule));
    if let Some(refusal) = not_taking(&rule.standing) {
        return Err(refusal);
    }
    let is_entry = destination.arrival != Arrival::Link;
    // A node may not have others do what its own programs could not ask for.
    if destination.from.is_some_and(|from| !rule.may_begin_on(&from.node)) {
        return Err(Refusal::NotAllowed);
    }
    // What leads to a Service comes over a Link as a call of that, not as a message.
    if !is_entry && rule.stand_in.is_none() {
        return Err(Refusal::NoRule);
    }
    let found = led_to(snapshot, rule, called.map(|called| called.port().port))?;
    let calling = Calling::of(snapshot, destination);
    if called.is_none() {
        limits::allowed(found.service, &calling, view)?; // where one was called, `choose` asks
    }
    if is_entry && matches!(destination.purpose, Purpose::Call) {
        take(rule, now, view)?;
    }
    let made;
    let pool = match &rule.stand_in {
        None => found.pool(None),
        Some(_) if destination.request.is_none() => return Err(Refusal::Unsupported),
        Some(_) => {
            check_made(rule, destination, is_entry)?;
            let backend = backend(snapshot, rule, destination, view)?;
            made = Arc::new(Pool::new(vec![backend], None, now));
            &made
        }
    };
    let services = [called.map_or(found.service, |called| called.service), found.service];
    let chosen = choose((services, found), pool, (destination, &calling), now, view)?;
    Ok(Chosen { rule: Some(rule.clone()), ..chosen })
}

/// Takes a token of each limit: of the Rule, its source and its target.
pub(super) fn take<V: View>(rule: &Rule, now: Instant, view: &mut V) -> Result<(), Refusal> {
    let sides = ["rule", "source Endpoint", "target Endpoint"];
    for (side, limiter) in sides.into_iter().zip(&rule.limits) {
        let Some(limiter) = limiter else { continue };
        let taken = view.take(side, limiter, &Caller::Everyone, now);
        taken.map_err(|retry_after| Refusal::RateLimited { retry_after })?;
    }
    Ok(())
}

/// What another node asks for must be what this Rule could have made of a message: it may have
/// changed since, and nobody may ask for more.
fn check_made(rule: &Rule, destination: &Destination<'_>, is_entry: bool) -> Result<(), Refusal> {
    let Some(head) = destination.request.filter(|_| !is_entry) else { return Ok(()) };
    let made = match &rule.target {
        Some(Aim::EventBus(_)) => {
            let topic = head.headers.get(TOPIC).map(|topic| topic.as_bytes());
            topic.and_then(|topic| std::str::from_utf8(topic).ok())
        }
        Some(Aim::Rest(_) | Aim::ServiceBus { .. } | Aim::Service { .. }) | None => {
            Some(head.uri.path())
        }
    };
    let by_broker = matches!(rule.source, Some(Source::EventBus { .. }));
    let could = made.is_some_and(|made| rule.could_make(made, head.uri.query()));
    // What a broker brings becomes a POST.
    match could && (!by_broker || head.method == Method::POST) {
        true => Ok(()),
        false => Err(Refusal::NoRule),
    }
}

/// Where the target is, of those that are no Service.
fn backend<V: View>(
    snapshot: &Snapshot,
    rule: &Rule,
    destination: &Destination<'_>,
    view: &mut V,
) -> Result<Backend, Refusal> {
    let here = match &rule.target {
        Some(Aim::ServiceBus { port, .. }) => {
            Backend::new((Ipv4Addr::LOCALHOST, *port).into(), Tier::Node)
        }
        Some(Aim::EventBus(_)) => inbox(),
        Some(Aim::Rest(_)) => return caller_of_urls(&snapshot.rules.seat, destination.arrival),
        Some(Aim::Service { .. }) | None => return Err(Refusal::RuleFault),
    };
    let asked = match destination.to {
        Target::Rule { node, .. } => node,
        Target::Address(_) | Target::Name { .. } | Target::Service { .. } => None,
    };
    let Seat { node: own, is_cloud, .. } = &snapshot.rules.seat;
    let node = rule.target_node().map(|node| &*node.0).or(asked).unwrap_or(&own.0);
    match (*node == *own.0, is_cloud) {
        (true, false) => return Ok(here),
        // On which node it should be, nobody says.
        (true, true) => {
            view.note("rule", || "names no node, and nor does the message".into());
            return Err(Refusal::RuleFault);
        }
        (false, _) if destination.arrival == Arrival::Link => return Err(Refusal::NoLocalBackend),
        (false, _) => {}
    }
    let Some(live) = snapshot.lives.get(node) else {
        view.note("rule", || format!("no agent runs on node {node}"));
        return Err(Refusal::NoPath);
    };
    let reach = Reach::Linked(live.clone());
    Ok(Backend { node: Some(NodeName(node.into())), reach, tier: Tier::Anywhere, ..here })
}

/// Who calls the URLs of targets.
fn caller_of_urls(seat: &Seat, arrival: Arrival) -> Result<Backend, Refusal> {
    match &seat.rest {
        Rest::Here => Ok(inbox()),
        Rest::Cloud(_) if arrival == Arrival::Link => Err(Refusal::NoLocalBackend),
        Rest::Cloud(live) => Ok(Backend {
            node: Some(NodeName(CLOUD.into())),
            reach: Reach::Cloud(live.clone()),
            ..Backend::new(nowhere(), Tier::Anywhere)
        }),
    }
}

fn inbox() -> Backend {
    Backend { reach: Reach::Inbox, ..Backend::new(nowhere(), Tier::Node) }
}

/// The address of what has none.
const fn nowhere() -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}

/// Why a Rule takes nothing, if so.
const fn not_taking(standing: &Standing) -> Option<Refusal> {
    match standing {
        Standing::Active => None,
        Standing::Paused => Some(Refusal::RulePaused),
        Standing::Waiting(_) => Some(Refusal::RuleWaiting),
        Standing::Faulty(_) => Some(Refusal::RuleFault),
        Standing::Overruled(_) | Standing::Deleted => Some(Refusal::NoRule),
    }
}

fn described(rule: &Rule) -> String {
    let Rule { name, record, standing, .. } = rule;
    format!("Rule {name} ({} to {}) is {standing}", record.source, record.target)
}
