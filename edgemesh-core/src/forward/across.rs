//! Calls that cross nodes: what the entry agent says of them, and what the agent of the Backend hears.

mod opening;
mod passed;

use std::time::Duration;

use edgemesh_proto::message::Refused;
use tokio::time::timeout;

use crate::forward::Shared;
use crate::link::{Failure, Limits, Link, LinkError};
use crate::plan::Hop;
use crate::refusal::Refusal;
use crate::tunnel::refused;

pub(crate) use opening::{Calling, Unopened, open_stream};
pub use passed::{Passed, meant};

/// Links that may turn out to be closed before one call is given up: what was sent over none of
/// them may be sent over the next.
pub(crate) const LINK_TRIES: usize = 2;

/// Finds a Link to the node of a Hop's Backend, within `time`.
pub(crate) async fn link(shared: &Shared, hop: &Hop, time: Duration) -> Result<Link, Refusal> {
    let (Some(node), Some(ways)) = (&hop.backend().node, shared.ways.get()) else {
        return Err(Refusal::NoPath);
    };
    let found = match ways.ready(node) {
        Some(ready) => Ok(ready),
        None => match timeout(time, ways.find(node)).await {
            Ok(found) => found.map_err(|none| none.to_string()),
            Err(_) => Err(format!("none was found within {} ms", time.as_millis())),
        },
    };
    match found {
        Ok((link, _)) if link.exchanges() >= Limits::REQUESTS.exchanges as usize => {
            tracing::debug!(%node, "its Link is full");
            Err(Refusal::Overloaded)
        }
        Ok((link, way)) => {
            hop.went(way);
            Ok(link)
        }
        Err(why) => {
            tracing::debug!(%node, "no Link: {why}");
            Err(Refusal::NoPath)
        }
    }
}

/// What another node refuses a call of a Hop for. Where no way leads to its node, whoever keeps the
/// ways learns of it: the next call shall not find out again.
pub(crate) fn refused_for(shared: &Shared, hop: &Hop, why: &Refused) -> Refusal {
    let refusal = refused(why);
    if let (Refusal::NoPath, Some(node), Some(ways)) =
        (refusal, &hop.backend().node, shared.ways.get())
    {
        ways.leads_nowhere(node, &why.text);
    }
    refusal
}

/// What a request is refused for whose exchange broke before the head of its answer: its Backend may
/// have been called, and is not to blame.
pub(crate) fn unanswered(error: &LinkError) -> Refusal {
    tracing::debug!("no answer from another node: {error}");
    match error.kind() {
        Failure::Protocol => Refusal::BackendProtocol,
        Failure::TimedOut => Refusal::RequestTimeout,
        Failure::NotSent | Failure::Cancelled | Failure::Broken => Refusal::BackendReset,
    }
}
