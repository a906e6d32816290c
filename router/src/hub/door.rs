//! The hub's door: who may ask for what, once TLS has said who it is.

use std::pin::Pin;
use std::sync::Arc;

use edgemesh_core::identity::{CLOUD, Proved};
use edgemesh_core::link::{Answering, Called, Operation, Rest, Serve};
use edgemesh_core::peers::{EXPIRED, REMOVED, message, removal};
use edgemesh_proto::message::{Body, Message, Refused};

use crate::hub::{Hub, relay, session};

/// Answers what one connection asks.
#[derive(Debug)]
pub(super) struct Door(pub(super) Hub);

impl Serve for Door {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        Box::pin(async move { answer(&self.0, called).await })
    }
}

async fn answer(hub: &Hub, called: Called) -> Answering {
    if called.operation == Operation::Join {
        return join(hub, &called).await;
    }
    let Some(proved) = called.from.proved.clone() else {
        return refuse(hub, &called, "notAllowed", "who has no certificate may only join");
    };
    if let Err((label, text)) = admitted(hub, &proved) {
        return refuse(hub, &called, label, &text);
    }
    match called.operation {
        Operation::Control => session::begin(hub, called, &proved).await,
        Operation::Request | Operation::Stream => relay::pass_on(hub, called, &proved.node).await,
        Operation::Join => refuse(hub, &called, "unknownOperation", "asked above"),
    }
}

/// Whether a node whose certificate is what it says may do more than join.
fn admitted(hub: &Hub, proved: &Proved) -> Result<(), (&'static str, String)> {
    let node = &proved.node.0;
    if hub.is_void(proved) {
        return Err((REMOVED, removal(&proved.node).text));
    }
    match proved.expired_for(hub.0.parts.tls.clock().seconds()) {
        None => Ok(()),
        Some(expired) => {
            let hours = expired.as_secs() / 3600;
            let text = format!("the certificate of {node} expired {hours} h ago: renew it first");
            Err((EXPIRED, text))
        }
    }
}

/// Gives out a certificate. The disk is asked, so this does not run where requests do.
async fn join(hub: &Hub, called: &Called) -> Answering {
    let Some(Body::Join(join)) = called.opening.body.as_deref().cloned() else {
        return refuse(hub, called, "malformed", "a Join without its body");
    };
    let (authority, clock) = (hub.0.parts.authority.clone(), hub.0.parts.tls.clock().clone());
    let proved = called.from.proved.clone();
    let Some(_turn) = hub.0.strangers.turn(proved.is_some()).await else {
        return refuse(hub, called, "internal", "the cloud stops");
    };
    let done = tokio::task::spawn_blocking(move || {
        authority.join(&join, proved.as_ref(), clock.seconds())
    });
    match done.await {
        Ok(Ok(joined)) => {
            Answering { opening: reply(&called.opening, Body::Joined(joined)), rest: Rest::Nothing }
        }
        Ok(Err(refused)) => refuse(hub, called, refused.label(), &refused.to_string()),
        Err(_) => refuse(hub, called, "internal", "the authority failed: see the cloud's log"),
    }
}

/// The answer that says no.
pub(super) fn refuse(hub: &Hub, called: &Called, label: &str, text: &str) -> Answering {
    let is_node = called.from.proved.is_some();
    hub.refused(is_node, format_args!("{} was refused: {text} ({label})", called.from));
    Answering { opening: reply(&called.opening, refusal(label, text)), rest: Rest::Nothing }
}

pub(super) fn refusal(label: &str, text: &str) -> Body {
    Refused { label: label.into(), text: text.into(), retry_after_ms: 0 }.into()
}

/// The first Message of an answer.
pub(super) fn reply(to: &Message, body: Body) -> Message {
    let mut reply = message([CLOUD, &to.route.source], body);
    reply.header.parent_id.clone_from(&to.header.id);
    reply.header.trace.clone_from(&to.header.trace);
    reply
}
