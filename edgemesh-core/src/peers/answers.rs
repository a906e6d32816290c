//! Who among other agents may ask for what, whoever dialled.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use edgemesh_proto::message::{Body, Refused};

use crate::link::{Answering, Called, Operation, Rest, Serve};
use crate::peers::control::Controls;
use crate::peers::{Standing, message, removal};

/// Answers what other agents open on direct Links.
pub struct Answers {
    /// Knows who was removed.
    pub standing: Standing,
    /// Answers Requests and Streams.
    pub calls: Arc<dyn Serve>,
    /// Conversations.
    pub controls: Controls,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("controls", &self.controls).finish_non_exhaustive()
    }
}

impl Answers {
    async fn answer(&self, called: Called) -> Answering {
        let Some(node) = called.from.node().cloned() else {
            let text = "who has no certificate may ask for nothing";
            return self.refuse(&called, "notAllowed", text);
        };
        if self.standing.is_revoked(&called.from) {
            let Refused { label, text, .. } = removal(&node);
            return self.refuse(&called, &label, &text);
        }
        match called.operation {
            Operation::Control => self.controls.answer(called, node),
            Operation::Request | Operation::Stream => self.calls.clone().serve(called).await,
            Operation::Join => self.refuse(&called, "unknownOperation", "nodes join at the hub"),
        }
    }

    fn refuse(&self, called: &Called, label: &str, text: &str) -> Answering {
        tracing::warn!(peer = %called.from, label, "a peer was refused: {text}");
        let refused = Refused { label: label.into(), text: text.into(), retry_after_ms: 0 };
        let to = called.opening.route.source.as_str();
        let own = &self.controls.node.0;
        let mut opening = message([own, to], Body::Refused(refused));
        opening.header.parent_id.clone_from(&called.opening.header.id);
        Answering { opening, rest: Rest::Nothing }
    }
}

impl Serve for Answers {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        Box::pin(async move { self.answer(called).await })
    }
}
