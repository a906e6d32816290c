//! Passes an exchange on to another node, by its first Message.

use std::time::Duration;

use edgemesh_core::identity::CLOUD;
use edgemesh_core::io::now;
use edgemesh_core::link::{Answering, Called, Failure, Peer, Rest};
use edgemesh_proto::message::Message;
use edgemesh_proto::record::NodeName;
use tokio::time::timeout;

use crate::hub::Hub;
use crate::hub::door::{refusal, reply};

/// Times that something is tried once more: a Link that ends just now takes nothing any more, and the
/// node's next one does.
const TRIES: usize = 1;

/// Answers for the node that the first Message names. `from` is who asks, as TLS proved.
pub(super) async fn pass_on(hub: &Hub, mut called: Called, from: &NodeName) -> Answering {
    // A node speaks only as itself, whatever it writes.
    called.opening.route.source = from.0.to_string();
    let to = called.opening.route.destination.clone();
    if to.is_empty() || to == CLOUD || hub.is_own(&to) {
        let own = hub.0.own.read().clone();
        return match own {
            Some(own) => own.serve(called).await,
            None => no_path(&called.from, &called.opening, "the cloud does not serve yet"),
        };
    }
    let name = NodeName(to.as_str().into());
    let Some(node) = hub.node(&name) else {
        let why = format!("node {to} is not linked to the hub");
        return no_path(&called.from, &called.opening, &why);
    };
    let Called { operation, mut opening, body, from: peer } = called;
    let (began, within) = (now(), opening.header.deadline_ms);
    let mut rest = Some(Rest::Inbound(body));
    let mut tries = 0;
    let error = loop {
        let link = match timeout(patience(within, now() - began), node.link()).await {
            Ok(Ok(link)) => link,
            Ok(Err(why)) => return no_path(&peer, &opening, &why.to_string()),
            Err(_) => return no_path(&peer, &opening, &format!("node {to}: out of time")),
        };
        let Some(left) = left(within, now() - began) else {
            return no_path(&peer, &opening, &format!("node {to}: out of time"));
        };
        opening.header.deadline_ms = left;
        match link.open_with(operation, &opening, &mut rest).await {
            Ok(reply) => {
                return Answering { opening: reply.opening, rest: Rest::Inbound(reply.body) };
            }
            // What left this process may have been done; what did not goes by the next Link.
            Err(error) if error.kind() == Failure::NotSent && rest.is_some() && tries < TRIES => {
                tries += 1;
            }
            Err(error) => break error,
        }
    };
    tracing::debug!(to, "not passed on: {error}");
    let (label, text) = match error.kind() {
        Failure::NotSent => ("noPath", format!("node {to}: {error}")),
        Failure::Cancelled | Failure::Broken | Failure::Protocol | Failure::TimedOut => {
            ("backendReset", format!("node {to}: {error}"))
        }
    };
    Answering { opening: reply(&opening, refusal(label, &text)), rest: Rest::Nothing }
}

/// How long to wait for a Link, where `within` milliseconds are the caller's and some are spent; 0 =
/// no bound but that of the Link.
fn patience(within: u64, spent: Duration) -> Duration {
    match within {
        0 => Duration::MAX,
        within => Duration::from_millis(within).saturating_sub(spent),
    }
}

/// What is left of `within` milliseconds; 0 = no bound. `None`: nothing.
fn left(within: u64, spent: Duration) -> Option<u64> {
    match within {
        0 => Some(0),
        within => {
            let spent = u64::try_from(spent.as_millis()).unwrap_or(u64::MAX);
            within.checked_sub(spent).filter(|left| *left > 0)
        }
    }
}

/// Nobody did wrong, and it may be so for each of a thousand calls a second: the caller logs it.
fn no_path(peer: &Peer, opening: &Message, text: &str) -> Answering {
    tracing::debug!(%peer, "not passed on: {text}");
    Answering { opening: reply(opening, refusal("noPath", text)), rest: Rest::Nothing }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hubs_own_time_is_taken_off() {
        for (within, spent, want, waits) in [
            (0, 5000, Some(0), Duration::MAX),
            (1000, 0, Some(1000), Duration::from_secs(1)),
            (1000, 300, Some(700), Duration::from_millis(700)),
            (1000, 1000, None, Duration::ZERO),
            (1000, 9000, None, Duration::ZERO),
        ] {
            let spent = Duration::from_millis(spent);
            assert_eq!(left(within, spent), want, "{within} {spent:?}");
            assert_eq!(patience(within, spent), waits, "{within} {spent:?}");
        }
    }
}
