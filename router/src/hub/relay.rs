//! Passes an exchange on to another node, by its first Message.

use edgemesh_core::identity::CLOUD;
use edgemesh_core::link::{Answering, Called, Failure, Rest};
use edgemesh_proto::record::NodeName;

use crate::hub::Hub;
use crate::hub::door::{refusal, reply};

/// Answers for the node that the first Message names. `from` is who asks, as TLS proved.
pub(super) async fn pass_on(hub: &Hub, mut called: Called, from: &NodeName) -> Answering {
    // A node speaks only as itself, whatever it writes.
    called.opening.route.source = from.0.to_string();
    let to = called.opening.route.destination.clone();
    if to.is_empty() || to == CLOUD || hub.is_own(&to) {
        let own = hub.0.own.read().clone();
        return match own {
            Some(own) => own.serve(called).await,
            None => no_path(&called, "the cloud does not serve yet"),
        };
    }
    let name = NodeName(to.as_str().into());
    let Some(node) = hub.node(&name) else {
        return no_path(&called, &format!("node {to} is not linked to the hub"));
    };
    let link = match node.link().await {
        Ok(link) => link,
        Err(error) => return no_path(&called, &error.to_string()),
    };
    let Called { operation, opening, body, .. } = called;
    match link.open(operation, &opening, Rest::Inbound(body)).await {
        Ok(reply) => Answering { opening: reply.opening, rest: Rest::Inbound(reply.body) },
        Err(error) => {
            tracing::debug!(to, "not passed on: {error}");
            let (label, text) = match error.kind() {
                Failure::NotSent => ("noPath", format!("node {to}: {error}")),
                Failure::Cancelled | Failure::Broken | Failure::Protocol | Failure::TimedOut => {
                    ("backendReset", format!("node {to}: {error}"))
                }
            };
            Answering { opening: reply(&opening, refusal(label, &text)), rest: Rest::Nothing }
        }
    }
}

/// Nobody did wrong, and it may be so for each of a thousand calls a second: the caller logs it.
fn no_path(called: &Called, text: &str) -> Answering {
    tracing::debug!(peer = %called.from, "not passed on: {text}");
    Answering { opening: reply(&called.opening, refusal("noPath", text)), rest: Rest::Nothing }
}
