//! Messages of Rules in and out of a mesh, for whoever plugs the Router's part in.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Request, Response};
use tokio_util::sync::CancellationToken;

use crate::forward::http::{Body, ByRule, Unserved, send_by_rule};
use crate::forward::inbox::{AnswerError, Inbox};
use crate::mesh::Mesh;

impl Mesh {
    /// From now on messages for targets outside of the mesh (URLs, topics) go to `inbox`. The first
    /// one counts.
    pub fn deliver_by(&self, inbox: Arc<dyn Inbox>) {
        let _ = self.shared.inbox.set(inbox); // once a mesh
    }

    /// Ends when nothing more is to begin here: the mesh stops, or another process takes over.
    pub fn accepting(&self) -> CancellationToken {
        self.accepting.clone()
    }

    /// A way to send messages by Rules, for sources that are no connections of the mesh.
    pub fn messenger(&self) -> Messenger {
        Messenger(self.shared.clone())
    }
}

/// See [`Mesh::messenger`]. Clones share the mesh, and do not keep it open.
#[derive(Clone, Debug)]
pub struct Messenger(Arc<crate::forward::Shared>);

impl Messenger {
    /// Sends a message that came from `client`, once, and counts it on its Rule.
    ///
    /// # Errors
    /// Why it was not delivered.
    pub async fn send<B>(
        &self,
        client: SocketAddr,
        by: ByRule,
        request: Request<B>,
    ) -> Result<Response<Body>, Unserved>
    where
        B: http_body::Body<Data: Send, Error: Into<AnswerError>> + Send + 'static,
    {
        send_by_rule(self.0.clone(), client, by, request).await
    }
}
