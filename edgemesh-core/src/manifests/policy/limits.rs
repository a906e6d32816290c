//! `rateLimit`, `connections` and `timeouts` of a TrafficPolicy: how much may come, and be under way.

use std::time::Duration;

use edgemesh_proto::record::{ConnectionCaps, LimitBy, RateLimit};

use crate::manifests::field::{Fault, Field};
use crate::manifests::policy::{known, positive, word};
use crate::manifests::syntax;

/// Most calls a second and most calls at once that a limit may name.
const MAX_RATE: u32 = 1_000_000;
/// Most that a cap may let be under way.
const MAX_UNDER_WAY: u32 = 1_000_000;
/// Shortest time without a word that a connection may be closed for.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

/// The client's limit and the server's.
pub(super) fn limits(field: &Field<'_>) -> Result<[Option<RateLimit>; 2], Fault> {
    known(field, &["client", "server"])?;
    Ok([field.maybe("client", limit)?, field.maybe("server", limit)?])
}

fn limit(field: &Field<'_>) -> Result<RateLimit, Fault> {
    const BY: &[(&str, LimitBy)] = &[
        ("service", LimitBy::Service),
        ("workload", LimitBy::Workload),
        ("namespace", LimitBy::Namespace),
        ("ip", LimitBy::Ip),
    ];
    known(field, &["qps", "burst", "by"])?;
    let qps = positive(&field.need("qps")?, MAX_RATE)?;
    let burst = field.maybe("burst", |field| positive(field, MAX_RATE))?.unwrap_or(qps);
    let by = field.maybe("by", |field| word(field, BY))?.unwrap_or_default();
    Ok(RateLimit { qps, burst, by })
}

/// What may be under way at once.
pub(super) fn connections(field: &Field<'_>) -> Result<ConnectionCaps, Fault> {
    if let Some(pending) = field.get("maxPending")? {
        return Err(pending.fault(
            "is not needed: nothing waits for its turn here, what has no room is refused at once; remove it",
        ));
    }
    known(field, &["max", "maxRequests"])?;
    let cap = |key| field.maybe(key, |field| positive(field, MAX_UNDER_WAY));
    Ok(ConnectionCaps { max: cap("max")?, max_requests: cap("maxRequests")? })
}

/// The times for a connect, for a request, and without a word.
pub(super) fn timeouts(field: &Field<'_>) -> Result<[Option<Duration>; 3], Fault> {
    known(field, &["connect", "request", "idle"])?;
    let idle = field.maybe("idle", |field| match syntax::duration(field)? {
        idle if idle < SHORTEST_IDLE => Err(field.fault("is too short: 1s or more")),
        idle => Ok(idle),
    })?;
    let time = |key| field.maybe(key, syntax::duration);
    Ok([time("connect")?, time("request")?, idle])
}
