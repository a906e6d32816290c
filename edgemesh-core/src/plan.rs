//! The decision: a [`Destination`] becomes a [`Hop`] or a [`Refusal`].
//!
//! Synchronous, without a clock, and free of side effects apart from the live state of the one
//! Service it is about. Once a connection for bytes, once a request for HTTP. [`explain`] runs
//! the same code on a view that changes nothing.

mod hop;
mod key;
mod pick;
mod route;
mod view;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use edgemesh_proto::record::Transport;
use http::{HeaderMap, Method, Request, Uri};

use crate::refusal::Refusal;
use crate::snapshot::{Found, Pool, Service, Snapshot, split_name};

pub use hop::{Hop, Outcome, Via};
use pick::pick;
pub use route::{Redirection, Routed, redirection};
use view::{Commit, Look, View};
pub use view::{Explanation, Step};

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
    /// What is asked for; `None` for a connection of bytes.
    pub request: Option<Head<'a>>,
    /// What the first attempt at the same call fitted.
    pub routed: Option<&'a Routed>,
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
}

/// What a decision is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// A new call.
    Call,
    /// The same call again, on a Backend that it has not tried; takes no client-side token.
    Retry(&'a [SocketAddr]),
    /// A dial while nobody has spoken, on a Backend that was not tried: takes no token and no
    /// probe. [`confirm`] takes the tokens when the flow turns out to be a connection.
    Race(&'a [SocketAddr]),
}

impl<'a> Destination<'a> {
    /// A connection of bytes, by nobody in particular.
    pub const fn new(to: Target<'a>, arrival: Arrival, purpose: Purpose<'a>) -> Self {
        Self { to, arrival, purpose, caller: None, request: None, routed: None }
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

/// Takes the tokens of a raced dial that became a connection, which from now on counts as a call.
pub fn confirm(hop: &mut Hop, now: Instant) -> Result<(), Refusal> {
    limits(hop.service(), hop.service(), Purpose::Call, now, &mut Commit)?;
    hop.became_a_call();
    Ok(())
}

/// The same decision on a view that changes nothing, step by step.
pub fn explain(snapshot: &Snapshot, destination: &Destination<'_>, now: Instant) -> Explanation {
    let mut look = Look::default();
    let decided = decide(snapshot, destination, now, &mut look);
    look.into_explanation(decided)
}

/// A Service port that a call is for; captured calls to an unknown place are `NoService`.
pub fn resolve<'s>(snapshot: &'s Snapshot, to: Target<'_>) -> Result<Found<'s>, Refusal> {
    match to {
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
#[derive(Clone, Debug)]
struct Chosen {
    service: Arc<Service>,
    port: usize,
    pool: Arc<Pool>,
    backend: usize,
    pass: crate::breaker::Pass,
    purpose: Counted,
    route: Option<Routed>,
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
    let called = resolve(snapshot, destination.to)?;
    view.resolved(destination, called.service, called.port);
    // A host is meant, and nobody else.
    let (found, route) = match called.host {
        None => route::route(snapshot, called, destination, view)?,
        Some(_) => (called, None),
    };
    if found.service.proxy_protocol && destination.request.is_some() {
        return Err(Refusal::ProxyProtocol);
    }
    limits(called.service, found.service, destination.purpose, now, view)?;
    let chosen = pick(found, destination, now, view)?;
    Ok(Chosen { route, ..chosen })
}

/// Limit first, then pick: a refused call cannot use up a breaker's probe. The client side is
/// that of the Service that was called, the server side that of the one that takes the call.
fn limits<V: View>(
    called: &Service,
    service: &Service,
    purpose: Purpose<'_>,
    now: Instant,
    view: &mut V,
) -> Result<(), Refusal> {
    let limited = |retry_after| Refusal::RateLimited { retry_after };
    let (client, server) = match purpose {
        Purpose::Call => (&called.policy.client, &service.policy.server),
        Purpose::Retry(_) => (&None, &service.policy.server),
        Purpose::Race(_) => return Ok(()),
    };
    if let Some(limiter) = client {
        view.take("client", limiter, now).map_err(limited)?;
    }
    // Every Backend is this agent's to guard: it runs on this node, or on one without an agent.
    if let Some(limiter) = server {
        view.take("server", limiter, now).map_err(limited)?;
    }
    Ok(())
}
