//! What a call must pass before a Backend is picked: who may call, how much may be under way,
//! and how often.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgemesh_proto::record::LimitBy;

use crate::backends::{Capped, CappedPlace};
use crate::limit::{Caller, Limiter};
use crate::plan::view::{Commit, View};
use crate::plan::{Arrival, Destination, Purpose, Vouched};
use crate::refusal::Refusal;
use crate::snapshot::{Callers, Pool, Service, Snapshot, Who};

/// Who calls, as far as this node can know.
pub(super) struct Calling<'a> {
    pub(super) callers: &'a Callers,
    pub(super) address: Option<IpAddr>,
    pub(super) from: Option<&'a Vouched>,
}

/// Where the limit on the server's side is held: once a call, by the agent that calls the Backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guard {
    /// Here, whoever is picked.
    Here,
    /// Here, and only who runs here may be picked: what came over a Link is not passed on.
    Local,
    /// By the agents of the Backends' nodes, except for a Backend that this process calls.
    There,
}

impl Guard {
    pub(super) fn of(arrival: Arrival, pool: &Pool) -> Self {
        match arrival {
            Arrival::Link => Self::Local,
            _ if pool.is_linked => Self::There,
            Arrival::Captured | Arrival::Proxy | Arrival::Library | Arrival::Ingress => Self::Here,
        }
    }
}

impl<'a> Calling<'a> {
    pub(super) fn of(snapshot: &'a Snapshot, destination: &Destination<'a>) -> Self {
        let (address, from) = (destination.caller, destination.from);
        Self { callers: &snapshot.callers, address, from }
    }

    /// Who it is; `None` = no record knows. Of a caller elsewhere the records count that place it
    /// on the node that vouches for it, and else that node's word.
    fn who(&self) -> Option<&'a Who> {
        let Some(from) = self.from else { return self.callers.who(self.address) };
        let known = self.address.and_then(|address| self.callers.of_address(address));
        Some(known.filter(|who| who.node.as_ref() == Some(&from.node)).unwrap_or(&from.who))
    }

    /// Whose token it is: that of the Workload or namespace, and where none is known, of the
    /// address.
    fn name(&self, limiter: &Limiter) -> Caller {
        let name = |of: fn(&Who) -> Option<&Arc<str>>| self.who().and_then(of).cloned();
        let name = match (limiter.limit().by, self.address, self.from) {
            (LimitBy::Service, ..) | (_, None, None) => return Caller::Everyone,
            (LimitBy::Workload, ..) => name(|who| who.workload.as_ref()),
            (LimitBy::Namespace, ..) => name(|who| who.namespace.as_ref()),
            (LimitBy::Ip, ..) => None,
        };
        match (name, self.address, self.from) {
            (Some(name), ..) => Caller::Named(name),
            // Every node has a loopback of its own.
            (None, Some(address), Some(from)) if address.is_loopback() => {
                Caller::Named((&*from.node.0).into())
            }
            (None, Some(address), _) => Caller::at(address),
            // The application that embeds the mesh there.
            (None, None, Some(from)) => Caller::Named((&*from.node.0).into()),
            (None, None, None) => Caller::Everyone,
        }
    }
}

/// Whether the caller may call `service` at all: asked before anything else, so that who may not
/// takes neither place nor token, and no turn of a Route.
pub(super) fn allowed<V: View>(
    service: &Service,
    calling: &Calling<'_>,
    view: &mut V,
) -> Result<(), Refusal> {
    let Some(allow) = &service.policy.allow else { return Ok(()) };
    let who = calling.who();
    let meant = who.and_then(|who| {
        allow.iter().position(|entry| who.is_meant(entry, &service.name.namespace))
    });
    view.allowed(calling, who, meant);
    meant.map(|_| ()).ok_or(Refusal::NotAllowed)
}

/// Admits a call of the Service that was called to the one that takes it, or says why not. A call
/// for which there is no place takes no token, and neither of them uses up a breaker's probe.
pub(super) fn admit<V: View>(
    [called, service]: [&Arc<Service>; 2],
    calling: &Calling<'_>,
    destination: &Destination<'_>,
    guard: Guard,
    now: Instant,
    view: &mut V,
) -> Result<Option<CappedPlace>, Refusal> {
    if !Arc::ptr_eq(called, service) {
        allowed(service, calling, view)?;
    }
    if let Purpose::Race(_) = destination.purpose {
        return Ok(None);
    }
    let what = destination.request.map_or(Capped::Connection, |_| Capped::Request);
    let place = place(service, what, destination.purpose, view)?;
    // The client's side had its token where the call began, and a further attempt has it.
    if guard != Guard::Local && matches!(destination.purpose, Purpose::Call) {
        take("client", called.policy.client.as_ref(), calling, now, view).map_err(limited)?;
    }
    if guard != Guard::There {
        server(service, calling, now, view).map_err(limited)?;
    }
    Ok(place)
}

/// As [`admit`] for a raced dial, which was allowed, and turned out to be a connection.
pub(super) fn confirmed(
    [called, service]: [&Arc<Service>; 2],
    guard: Guard,
    calling: &Calling<'_>,
    now: Instant,
) -> Result<Option<CappedPlace>, Refusal> {
    let view = &mut Commit;
    let place = place(service, Capped::Connection, Purpose::Call, view)?;
    if guard != Guard::Local {
        take("client", called.policy.client.as_ref(), calling, now, view).map_err(limited)?;
    }
    if guard != Guard::There {
        server(service, calling, now, view).map_err(limited)?;
    }
    Ok(place)
}

/// Takes a token of the server's side: of the Service that takes the call, by whoever calls its
/// Backend.
pub(super) fn server<V: View>(
    service: &Service,
    calling: &Calling<'_>,
    now: Instant,
    view: &mut V,
) -> Result<(), Duration> {
    take("server", service.policy.server.as_ref(), calling, now, view)
}

fn take<V: View>(
    side: &'static str,
    limiter: Option<&Arc<Limiter>>,
    calling: &Calling<'_>,
    now: Instant,
    view: &mut V,
) -> Result<(), Duration> {
    limiter.map_or(Ok(()), |limiter| view.take(side, limiter, &calling.name(limiter), now))
}

const fn limited(retry_after: Duration) -> Refusal {
    Refusal::RateLimited { retry_after }
}

fn place<V: View>(
    service: &Service,
    what: Capped,
    purpose: Purpose<'_>,
    view: &mut V,
) -> Result<Option<CappedPlace>, Refusal> {
    let most = service.policy.connections.as_ref().and_then(|caps| what.most(caps));
    let Some(most) = most else { return Ok(None) };
    // A further attempt stands in for the one before, which still has its place.
    let most = if matches!(purpose, Purpose::Retry(_)) { u32::MAX } else { most };
    view.place(service, what, most).map_err(|()| Refusal::Overloaded)
}
