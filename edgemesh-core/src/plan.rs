//! The decision: a [`Destination`] becomes a [`Hop`] or a [`Refusal`].
//!
//! Synchronous, without a clock, and free of side effects apart from the live state of the one
//! Service it is about. Once a connection for bytes, once a request for HTTP. [`explain`] runs
//! the same code on a view that changes nothing.

mod away;
mod hop;
mod key;
mod limits;
mod look;
mod pick;
mod route;
mod rule;
mod view;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use edgemesh_proto::record::{Locality, NodeName, RuleName, ServiceName, Transport};
use http::{HeaderMap, Method, Request, Uri};

use crate::backends::CappedPlace;
use crate::refusal::Refusal;
use crate::snapshot::rules::Rule;
use crate::snapshot::{Found, Pool, Service, Snapshot, Spot, Who, split_name};

pub use hop::{Hop, Outcome, Via};
use limits::{Calling, Guard};
use look::Look;
pub use look::{Explanation, Step};
use pick::pick;
pub use route::{Redirection, Routed, redirection};
use rule::Named;
pub use rule::rule_of;
use view::{Commit, View};

/// Where a client wants to go.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// What names the Service.
    pub to: Target<'a>,
    /// How the call came in.
    pub arrival: Arrival,
    /// What the decision is for.
    pub purpose: Purpose<'a>,
    /// Address of whoever calls; `None` = the embedding application itself.
    pub caller: Option<IpAddr>,
    /// Who that is, where another node says so.
    pub from: Option<&'a Vouched>,
    /// The Backend that whoever asks over a Link has chosen. Only one of this node counts.
    pub wish: Option<SocketAddr>,
    /// What is asked for; `None` for a connection of bytes.
    pub request: Option<Head<'a>>,
    /// What the first attempt at the same call fitted.
    pub routed: Option<&'a Routed>,
    /// Which Rule the first attempt at the same call went by.
    pub ruled: Ruled<'a>,
}

/// Which Rule a call of a Service goes by.
#[derive(Clone, Copy, Debug, Default)]
pub enum Ruled<'a> {
    /// That is to be found out.
    #[default]
    Unknown,
    /// None.
    No,
    /// This one. The path, which it has made another of, says so no more.
    By(&'a Arc<Rule>),
}

/// A caller on another node, for whom that node vouches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// The node, as its certificate proves, or as the hub says.
    pub node: NodeName,
    /// What it says of the caller; the node in there is that very one.
    pub who: Who,
}

/// The head of a request, as the client sent it.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// Method.
    pub method: &'a Method,
    /// In the form it came in: with or without an authority.
    pub uri: &'a Uri,
    /// Fields, hop-by-hop ones removed.
    pub headers: &'a HeaderMap,
}

/// What names the Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// The address that the client dialled. A Host or SNI beside it never reroutes.
    Address(SocketAddr),
    /// A host name without port, and the port if one was given.
    Name {
        /// `svc.ns`, `svc.ns.svc` or `svc.ns.svc.<domain>`, perhaps with a host before it.
        host: &'a str,
        /// `None` = the Service's only TCP port, else 80.
        port: Option<u16>,
        /// The cluster domain.
        domain: &'a str,
    },
    /// The Service itself, as another node names it.
    Service {
        /// Its name.
        service: &'a ServiceName,
        /// One of its TCP ports.
        port: u16,
        /// The name of the one Backend that is meant.
        hostname: Option<&'a str>,
    },
    /// The target of a Rule.
    Rule {
        /// Its name.
        rule: &'a RuleName,
        /// The node that the message names, for targets that are on one.
        node: Option<&'a str>,
    },
}

/// How a call came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// By iptables.
    Captured,
    /// At the explicit proxy.
    Proxy,
    /// From the embedding application.
    Library,
    /// From another node: it goes to a Backend of this one, or nowhere.
    Link,
    /// At the ingress of the cloud.
    Ingress,
}

/// What a decision is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// A new call.
    Call,
    /// The same call again, on a Backend that it has not tried; takes no client-side token.
    Retry(&'a [Spot]),
    /// A dial while nobody has spoken, on a Backend that was not tried: takes no token and no
    /// probe. [`confirm`] takes the tokens when the flow turns out to be a connection.
    Race(&'a [Spot]),
}

impl<'a> Destination<'a> {
    /// A connection of bytes, by nobody in particular.
    pub const fn new(to: Target<'a>, arrival: Arrival, purpose: Purpose<'a>) -> Self {
        let (caller, from, wish) = (None, None, None);
        let (request, routed, ruled) = (None, None, Ruled::Unknown);
        Self { to, arrival, purpose, caller, from, wish, request, routed, ruled }
    }
}

impl<'a> Head<'a> {
    /// The head of `request`.
    pub fn of<B>(request: &'a Request<B>) -> Self {
        Self { method: request.method(), uri: request.uri(), headers: request.headers() }
    }
}

/// Decides where a call goes. A captured destination that is [`Refusal::NoService`] is not ours:
/// the caller passes it through to where it was going.
pub fn plan(
    snapshot: &Snapshot,
    destination: &Destination<'_>,
    now: Instant,
) -> Result<Hop, Refusal> {
    let chosen = decide(snapshot, destination, now, &mut Commit)?;
    Ok(Hop::begin(chosen, now))
}

/// Takes the tokens of a raced dial of `caller` that became a connection, which from now on
/// counts as a call; `from` vouches for it, where another node raced.
pub fn confirm(
    snapshot: &Snapshot,
    hop: &mut Hop,
    (caller, from): (Option<IpAddr>, Option<&Vouched>),
    now: Instant,
) -> Result<(), Refusal> {
    if let (Some(rule), None) = (hop.rule(), from) {
        rule::take(rule, now, &mut Commit)?;
    }
    let calling = Calling { callers: &snapshot.callers, address: caller, from };
    let guard = match from {
        Some(_) => Guard::Local,
        None if hop.backend().is_dialled() => Guard::Here,
        None => Guard::There,
    };
    let place = limits::confirmed([hop.called(), hop.service()], guard, &calling, now)?;
    hop.became_a_call(place);
    Ok(())
}

/// The same decision on a view that changes nothing, step by step.
pub fn explain(snapshot: &Snapshot, destination: &Destination<'_>, now: Instant) -> Explanation {
    let mut look = Look::default();
    let decided = decide(snapshot, destination, now, &mut look);
    look.into_explanation(decided, now)
}

/// A Service port that a call is for; captured calls to an unknown place are `NoService`.
pub fn resolve<'s>(snapshot: &'s Snapshot, to: Target<'_>) -> Result<Found<'s>, Refusal> {
    match rule::named(snapshot, to) {
        Named::Rule(rule) => return rule::led_to(snapshot, rule, None),
        Named::Unknown => return Err(Refusal::NoRule),
        Named::Nothing => {}
    }
    match to {
        Target::Rule { .. } => Err(Refusal::NoRule), // looked for above
        Target::Address(address) => {
            let (ip, port) = (address.ip().to_canonical(), address.port());
            snapshot.by_address(ip, port).ok_or_else(|| match snapshot.owner(ip) {
                // Nobody else answers on an address of ours, so there is nothing to pass to.
                Some(_) if snapshot.is_virtual(ip) => Refusal::NoPort,
                _ => Refusal::NoService,
            })
        }
        Target::Name { host, port, domain } => {
            let (service, host) = named(snapshot, host, domain).ok_or(Refusal::NoService)?;
            if service.external_name.is_some() {
                return Err(Refusal::ExternalName);
            }
            let port = match port {
                Some(port) => service.port(port),
                None => only_port(service),
            };
            port.map(|port| Found { service, port, host }).ok_or(Refusal::NoPort)
        }
        Target::Service { service, port, hostname } => {
            let ServiceName { namespace, name } = service;
            let service = snapshot.by_name(namespace, name).ok_or(Refusal::NoService)?;
            let host = match hostname {
                Some(name) => Some(service.host(name).ok_or(Refusal::NoService)?),
                None => None,
            };
            let port = service.port(port).ok_or(Refusal::NoPort)?;
            Ok(Found { service, port, host })
        }
    }
}

/// A Service by its name, or by that of one of its hosts, `hostname.svc.ns`, which comes second.
fn named<'s>(
    snapshot: &'s Snapshot,
    host: &str,
    domain: &str,
) -> Option<(&'s Arc<Service>, Option<usize>)> {
    let service = |name| {
        let (namespace, name) = split_name(name, domain)?;
        by_any_case(snapshot, namespace, name)
    };
    if let Some(service) = service(host) {
        return Some((service, None));
    }
    let (host, rest) = host.split_once('.')?;
    let service = service(rest)?;
    service.host(host).map(|host| (service, Some(host)))
}

fn by_any_case<'s>(
    snapshot: &'s Snapshot,
    namespace: &str,
    name: &str,
) -> Option<&'s Arc<Service>> {
    let found = snapshot.by_name(namespace, name);
    if found.is_some() || !(namespace.contains(is_upper) || name.contains(is_upper)) {
        return found;
    }
    snapshot.by_name(&namespace.to_ascii_lowercase(), &name.to_ascii_lowercase())
}

const fn is_upper(c: char) -> bool {
    c.is_ascii_uppercase()
}

fn only_port(service: &Service) -> Option<usize> {
    let mut tcp =
        (0..service.ports.len()).filter(|i| service.ports[*i].transport == Transport::Tcp);
    match (tcp.next(), tcp.next()) {
        (only, None) => only,
        (_, Some(_)) => service.port(80),
    }
}

/// What was decided, before anything is counted in flight.
#[derive(Debug)]
struct Chosen {
    service: Arc<Service>,
    port: usize,
    host: Option<usize>,
    pool: Arc<Pool>,
    backend: usize,
    pass: crate::breaker::Pass,
    purpose: Counted,
    route: Option<Routed>,
    rule: Option<Arc<Rule>>,
    /// The Service that was called, where another takes the call.
    called: Option<Arc<Service>>,
    /// The first attempt of its call, which pays into the budget for retries.
    first: bool,
    /// Held while the call is under way, where a Policy caps them.
    place: Option<CappedPlace>,
}

/// How a hop counts in the Backend's breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Call,
    Race,
}

fn decide<V: View>(
    snapshot: &Snapshot,
    destination: &Destination<'_>,
    now: Instant,
    view: &mut V,
) -> Result<Chosen, Refusal> {
    match rule::named(snapshot, destination.to) {
        Named::Rule(rule) => return rule::decide(snapshot, (rule, None), destination, now, view),
        Named::Unknown => return Err(Refusal::NoRule),
        Named::Nothing => {}
    }
    let called = resolve(snapshot, destination.to)?;
    view.resolved(destination, called.service, called.port);
    let calling = Calling::of(snapshot, destination);
    limits::allowed(called.service, &calling, view)?;
    if let Some(rule) = rule::called(snapshot, called, destination)? {
        return rule::decide(snapshot, (rule, Some(called)), destination, now, view);
    }
    let (found, route) = match called.host {
        // Where it came from, the Routes had their say.
        None if destination.arrival != Arrival::Link => {
            route::route(snapshot, called, destination, view)?
        }
        // A host is meant, and nobody else.
        None | Some(_) => (called, None),
    };
    let pool = pool(found, destination);
    let services = [called.service, found.service];
    let chosen = choose((services, found), pool, (destination, &calling), now, view)?;
    Ok(Chosen { route, ..chosen })
}

/// Takes what a call of the first Service costs that the second takes, and picks a Backend.
fn choose<V: View>(
    (services, found): ([&Arc<Service>; 2], Found<'_>),
    pool: &Arc<Pool>,
    (destination, calling): (&Destination<'_>, &Calling<'_>),
    now: Instant,
    view: &mut V,
) -> Result<Chosen, Refusal> {
    if found.service.proxy_protocol && destination.request.is_some() {
        return Err(Refusal::ProxyProtocol);
    }
    let guard = Guard::of(destination.arrival, pool);
    if guard == Guard::Local && !pool.has_local() {
        view.tiers(pool, Locality::OnlyNode, guard);
        return Err(Refusal::NoLocalBackend);
    }
    let place = limits::admit(services, calling, destination, guard, now, view)?;
    let chosen = pick(found, pool, (destination, calling, guard), now, view)?;
    let first = !matches!(destination.purpose, Purpose::Retry(_));
    let called = (!Arc::ptr_eq(services[0], services[1])).then(|| services[0].clone());
    Ok(Chosen { called, first, place, ..chosen })
}

/// The Backends that a call may go to: of the family that the client dialled, or that the other
/// node has chosen from.
fn pool<'s>(found: Found<'s>, destination: &Destination<'_>) -> &'s Arc<Pool> {
    let like = match destination.to {
        Target::Address(address) => Some(address.ip().to_canonical()),
        Target::Name { .. } | Target::Service { .. } | Target::Rule { .. } => {
            destination.wish.map(|wish| wish.ip())
        }
    };
    let pool = found.pool(like);
    if destination.arrival != Arrival::Link || pool.has_local() {
        return pool;
    }
    let other: IpAddr = match like {
        Some(IpAddr::V6(_)) => Ipv4Addr::UNSPECIFIED.into(),
        Some(IpAddr::V4(_)) | None => Ipv6Addr::UNSPECIFIED.into(),
    };
    found.pool(Some(other))
}
