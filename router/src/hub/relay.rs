//! Passes an exchange on to another node, by its first Message.

use std::sync::Arc;

use edgemesh_core::identity::CLOUD;
use edgemesh_core::link::{Answering, Called, Failure, Rest};
use edgemesh_proto::message::{Body, Refused};
use edgemesh_proto::record::NodeName;

use crate::hub::Hub;

/// What a peer cannot know and the hub does: there is no way.
pub(super) fn no_path(text: impl Into<String>) -> Body {
    Refused { label: "noPath".into(), text: text.into(), retry_after_ms: 0 }.into()
}

/// Answers for the node that the first Message names. `from` is who asks, as TLS proved.
pub(super) async fn pass_on(hub: &Hub, mut called: Called, from: &NodeName) -> Answering {
    // A node speaks only as itself, whatever it writes.
    called.opening.route.source = from.0.to_string();
    let to = called.opening.route.destination.as_str();
    if to.is_empty() || to == CLOUD || hub.is_own(to) {
        let own = hub.0.own.read().clone();
        return match own {
            Some(own) => own.serve(called).await,
            None => called.answer(no_path("the cloud does not serve yet")),
        };
    }
    let name = NodeName(to.into());
    let Some(node) = hub.node(&name) else {
        return called.answer(no_path(format!("node {to} is not linked to the hub")));
    };
    let link = match node.link().await {
        Ok(link) => link,
        Err(error) => return called.answer(no_path(error.to_string())),
    };
    let Called { operation, opening, body, .. } = called;
    match link.open(operation, &opening, Rest::Inbound(body)).await {
        Ok(reply) => Answering { opening: reply.opening, rest: Rest::Inbound(reply.body) },
        Err(error) => {
            tracing::debug!(to, "not passed on: {error}");
            let (label, text) = match error.kind() {
                Failure::NotSent => ("noPath", format!("node {to}: {error}")),
                Failure::Cancelled
                | Failure::Broken
                | Failure::Protocol
                | Failure::TimedOut => ("backendReset", format!("node {to}: {error}")),
            };
            Answering::refused(&opening, CLOUD, label, text)
        }
    }
}

#[expect(unused, reason = "the handler is shared")]
type Shared = Arc<Hub>;
