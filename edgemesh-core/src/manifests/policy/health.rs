//! `healthCheck` of a TrafficPolicy: how the Backends are asked whether they are well.

use std::num::NonZeroU32;
use std::time::Duration;

use edgemesh_proto::record::{HealthCheck, HealthQuestion};

use crate::manifests::field::{Fault, Field, boolean};
use crate::manifests::policy::{known, positive};
use crate::manifests::syntax;

/// Shortest time between two questions, and for an answer.
const SHORTEST: Duration = Duration::from_millis(100);
/// The usual interval and time-out.
const USUAL: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(1)];
/// Answers and failures in a row that change what is thought of a Backend.
const USUAL_HEALTHY: NonZeroU32 = NonZeroU32::MIN;
const USUAL_UNHEALTHY: NonZeroU32 = NonZeroU32::MIN.saturating_add(2);
/// Most of either.
const MAX_IN_A_ROW: u32 = 100;
/// Longest path.
const MAX_PATH: usize = 253;

/// The whole section.
pub(super) fn check(field: &Field<'_>) -> Result<HealthCheck, Fault> {
    known(field, &["http", "tcp", "interval", "timeout", "healthy", "unhealthy"])?;
    let how = match (field.get("http")?, field.get("tcp")?) {
        (Some(path), None) => HealthQuestion::Http(http(&path)?),
        (None, Some(tcp)) if boolean(&tcp)? => HealthQuestion::Tcp,
        (None, Some(tcp)) => return Err(tcp.wrong("`true`")),
        (Some(_), Some(tcp)) => {
            return Err(tcp.fault("is one question too many beside `http`; remove one"));
        }
        (None, None) => return Err(field.fault("asks nothing; add `http: /path` or `tcp: true`")),
    };
    let time = |key, usual| {
        let time = field.maybe(key, |field| match syntax::duration(field)? {
            time if time < SHORTEST => Err(field.fault("is too short: 100ms or more")),
            time => Ok(time),
        });
        time.map(|time| time.unwrap_or(usual))
    };
    let row = |key, usual| {
        let row = field.maybe(key, |field| positive(field, MAX_IN_A_ROW));
        row.map(|row| row.unwrap_or(usual))
    };
    Ok(HealthCheck {
        how,
        interval: time("interval", USUAL[0])?,
        timeout: time("timeout", USUAL[1])?,
        healthy: row("healthy", USUAL_HEALTHY)?,
        unhealthy: row("unhealthy", USUAL_UNHEALTHY)?,
    })
}

fn http(field: &Field<'_>) -> Result<Box<str>, Fault> {
    let path = field.text()?;
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if !path.starts_with('/') || !plain || path.len() > MAX_PATH {
        return Err(field.wrong("a path such as `/healthz`"));
    }
    Ok(path.into())
}
