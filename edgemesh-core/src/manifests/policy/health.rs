//! `healthCheck` of a TrafficPolicy: how the Backends are asked whether they are well.

use std::num::NonZeroU32;
use std::time::Duration;

use edgemesh_proto::record::{HealthCheck, HealthQuestion};

use crate::config::Check;
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
/// Longest path or name: what a record holds.
const MAX_TEXT: usize = edgemesh_proto::record::MAX_NAME;

/// The whole section.
pub(super) fn check(field: &Field<'_>) -> Result<HealthCheck, Fault> {
    known(field, &["http", "tcp", "grpc", "interval", "timeout", "healthy", "unhealthy"])?;
    let how = question(field)?;
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

fn question(field: &Field<'_>) -> Result<HealthQuestion, Fault> {
    let [http, tcp, grpc] = [field.get("http")?, field.get("tcp")?, field.get("grpc")?];
    match (http, tcp, grpc) {
        (Some(path), None, None) => Ok(HealthQuestion::Http(checked(&path, "http")?)),
        (None, Some(tcp), None) if boolean(&tcp)? => Ok(HealthQuestion::Tcp),
        (None, Some(tcp), None) => Err(tcp.wrong("`true`")),
        (None, None, Some(service)) => Ok(HealthQuestion::Grpc(checked(&service, "grpc")?)),
        (None, None, None) => {
            Err(field.fault("asks nothing; add `http: /path`, `tcp: true` or `grpc: \"\"`"))
        }
        (_, Some(more), _) | (_, None, Some(more)) => {
            Err(more.fault("is one question too many; remove all but one"))
        }
    }
}

/// A path or a gRPC service, as the checker takes it.
fn checked(field: &Field<'_>, kind: &str) -> Result<Box<str>, Fault> {
    let text = field.text()?;
    if text.len() > MAX_TEXT {
        return Err(field.fault(format!("is {} bytes long: at most {MAX_TEXT}", text.len())));
    }
    Check::parse(&format!("{kind}:{text}")).map_err(|why| field.fault(why))?;
    Ok(text.into())
}
