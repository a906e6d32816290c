//! What a call must pass before a Backend is picked: who may call, how much may be under way,
//! and how often.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use edgemesh_proto::record::LimitBy;

use crate::backends::{Capped, CappedPlace};
use crate::limit::{Caller, Limiter};
use crate::plan::view::View;
use crate::plan::{Destination, Purpose};
use crate::refusal::Refusal;
use crate::snapshot::{Callers, Service, Snapshot};

/// Whether the caller may call `service` at all: asked before anything else, so that who may not
/// takes neither place nor token, and no turn of a Route.
pub(super) fn allowed<V: View>(
    snapshot: &Snapshot,
    service: &Service,
    caller: Option<IpAddr>,
    view: &mut V,
) -> Result<(), Refusal> {
    let Some(allow) = &service.policy.allow else { return Ok(()) };
    let who = snapshot.callers.who(caller);
    let meant = who.and_then(|who| {
        allow.iter().position(|entry| who.is_meant(entry, &service.name.namespace))
    });
    view.allowed(caller, who, meant);
    meant.map(|_| ()).ok_or(Refusal::NotAllowed)
}

/// Admits a call of the Service that was called to the one that takes it, or says why not. A call
/// for which there is no place takes no token, and neither of them uses up a breaker's probe.
pub(super) fn admit<V: View>(
    snapshot: &Snapshot,
    [called, service]: [&Arc<Service>; 2],
    destination: &Destination<'_>,
    now: Instant,
    view: &mut V,
) -> Result<Option<CappedPlace>, Refusal> {
    let who = (&*snapshot.callers, destination.caller);
    if !Arc::ptr_eq(called, service) {
        allowed(snapshot, service, destination.caller, view)?;
    }
    if let Purpose::Race(_) = destination.purpose {
        return Ok(None);
    }
    let what = destination.request.map_or(Capped::Connection, |_| Capped::Request);
    let place = place(service, what, destination.purpose, view)?;
    tokens([called, service], who, destination.purpose, now, view)?;
    Ok(place)
}

/// As [`admit`] for a raced dial, which was allowed, and turned out to be a connection.
pub(super) fn confirmed<V: View>(
    service: &Service,
    who: (&Callers, Option<IpAddr>),
    now: Instant,
    view: &mut V,
) -> Result<Option<CappedPlace>, Refusal> {
    let place = place(service, Capped::Connection, Purpose::Call, view)?;
    tokens([service, service], who, Purpose::Call, now, view)?;
    Ok(place)
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

/// The client side is that of the Service that was called, the server side that of the one that
/// takes the call.
fn tokens<V: View>(
    [called, service]: [&Service; 2],
    who: (&Callers, Option<IpAddr>),
    purpose: Purpose<'_>,
    now: Instant,
    view: &mut V,
) -> Result<(), Refusal> {
    // Every Backend is this agent's to guard: it runs on this node, or on one without an agent.
    let client = called.policy.client.as_ref().filter(|_| matches!(purpose, Purpose::Call));
    for (side, limiter) in [("client", client), ("server", service.policy.server.as_ref())] {
        let Some(limiter) = limiter else { continue };
        let caller = caller(limiter, who);
        view.take(side, limiter, &caller, now)
            .map_err(|retry_after| Refusal::RateLimited { retry_after })?;
    }
    Ok(())
}

/// Whose token it is: that of the Workload or namespace, and where none is known, of the address.
fn caller(limiter: &Limiter, (callers, address): (&Callers, Option<IpAddr>)) -> Caller {
    let Some(address) = address else { return Caller::Everyone };
    let name = |of: fn(&crate::snapshot::Who) -> Option<&Arc<str>>| {
        callers.who(Some(address)).and_then(of).cloned()
    };
    let name = match limiter.limit().by {
        LimitBy::Service => return Caller::Everyone,
        LimitBy::Workload => name(|who| who.workload.as_ref()),
        LimitBy::Namespace => name(|who| who.namespace.as_ref()),
        LimitBy::Ip => None,
    };
    name.map_or_else(|| Caller::at(address), Caller::Named)
}
