//! `circuitBreaker` of a TrafficPolicy: when a Backend is left alone, and for how long.

use std::time::Duration;

use edgemesh_proto::record::{BreakerPolicy, SuccessRate};

use crate::manifests::field::{Fault, Field};
use crate::manifests::policy::{known, narrow, positive};
use crate::manifests::syntax;

/// Most failures in a row that a breaker may wait for.
const MAX_FAILURES: u32 = 10_000;
/// Most calls that a window may ask for before its share counts.
const MAX_REQUESTS: u32 = 1_000_000;
/// Shortest and longest window: below, its parts are too short to hold anything; above, a
/// Backend that is well again would be judged by yesterday.
const WINDOW: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];
/// The window where none is written.
const USUAL_WINDOW: Duration = Duration::from_secs(30);
/// The calls where none are written.
const USUAL_REQUESTS: u32 = 20;

/// The whole section.
pub(super) fn breaker(field: &Field<'_>) -> Result<BreakerPolicy, Fault> {
    known(
        field,
        &[
            "consecutiveFailures",
            "successRatePercent",
            "window",
            "minRequests",
            "ejectFor",
            "maxEjectFor",
            "maxEjectedPercent",
        ],
    )?;
    let usual = BreakerPolicy::default();
    let failures = field.maybe("consecutiveFailures", |field| positive(field, MAX_FAILURES))?;
    let eject_for = field.maybe("ejectFor", syntax::duration)?.unwrap_or(usual.eject_for);
    let longest = field.maybe("maxEjectFor", syntax::duration)?.unwrap_or(usual.max_eject_for);
    if eject_for > longest {
        return Err(too_long(field)?);
    }
    let percent = field.maybe("maxEjectedPercent", |field| narrow(field, 0..=100))?;
    Ok(BreakerPolicy {
        consecutive_failures: failures.unwrap_or(usual.consecutive_failures),
        eject_for,
        max_eject_for: longest,
        max_ejected_percent: percent.unwrap_or(usual.max_ejected_percent),
        success_rate: success_rate(field)?,
    })
}

/// The Fault of a first ejection that is longer than the longest.
fn too_long(field: &Field<'_>) -> Result<Fault, Fault> {
    let reason = format!(
        "is longer than `maxEjectFor` ({}); raise that or shorten this",
        field.get("maxEjectFor")?.map_or("5m, the default", |_| "as written")
    );
    // Where only `maxEjectFor` is written, that is the line to change.
    Ok(match field.get("ejectFor")? {
        Some(field) => field.fault(reason),
        None => field.need("maxEjectFor")?.fault("is shorter than `ejectFor` (10s, the default)"),
    })
}

fn success_rate(field: &Field<'_>) -> Result<Option<SuccessRate>, Fault> {
    let percent = field.maybe("successRatePercent", |field| narrow(field, 1..=100))?;
    let window = field.maybe("window", |field| match syntax::duration(field)? {
        window if window < WINDOW[0] || window > WINDOW[1] => {
            Err(field.fault("is no window that works: 1s to 1h"))
        }
        window => Ok(window),
    })?;
    let requests = field.maybe("minRequests", |field| positive(field, MAX_REQUESTS))?;
    let Some(percent) = percent else {
        // Without the share they would say nothing, and their writer meant something.
        for key in ["window", "minRequests"] {
            if let Some(field) = field.get(key)? {
                return Err(field.fault("means nothing without `successRatePercent`; add that"));
            }
        }
        return Ok(None);
    };
    let usual = std::num::NonZeroU32::MIN.saturating_add(USUAL_REQUESTS - 1);
    Ok(Some(SuccessRate {
        percent,
        window: window.unwrap_or(USUAL_WINDOW),
        min_requests: requests.unwrap_or(usual),
    }))
}
