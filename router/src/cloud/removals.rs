//! What other commands leave for the running cloud: nodes that were removed; and its own certificate.

use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::identity::{Clock, Tls};
use edgemesh_proto::record::NodeName;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, AuthorityError};
use crate::hub::Hub;
use crate::registry::shared::Shared as Registry;

pub(super) struct Looking {
    pub(super) authority: Arc<Authority>,
    pub(super) registry: Registry,
    pub(super) hub: Hub,
    pub(super) tls: Arc<Tls>,
    pub(super) clock: Arc<Clock>,
    pub(super) names: Vec<String>,
}

impl Looking {
    pub(super) async fn run(self, every: Duration, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut tick = tokio::time::interval(every);
            let mut seen = None;
            loop {
                tick.tick().await;
                match self.authority.version() {
                    Ok(version) if seen.as_ref() == Some(&version) => {}
                    Ok(version) => match self.revoke().await {
                        Ok(()) => seen = Some(version),
                        Err(error) => tracing::error!("removed nodes are not known: {error}"),
                    },
                    Err(error) => tracing::error!("removed nodes are not known: {error}"),
                }
                self.renew();
            }
        })
        .await;
    }

    async fn revoke(&self) -> Result<(), AuthorityError> {
        for (name, revocation) in self.authority.revocations()? {
            let node = NodeName(name);
            if self.registry.revoked(&node) == Some(revocation.before) {
                continue;
            }
            tracing::info!(node = %node.0, "removed");
            // What it has open by an older certificate then ends by itself.
            let is_back = || self.hub.is_linked_since(&node, revocation.before);
            self.registry.remove(&node, revocation.before, is_back).await;
        }
        Ok(())
    }

    /// The hub's own certificate, long before it expires.
    fn renew(&self) {
        if let Err(error) = self.clock.persist() {
            tracing::debug!("the time is not persisted: {error}");
        }
        let now = self.clock.seconds();
        if !self.tls.identity().is_due(now) {
            return;
        }
        match self.authority.hub(&self.names, now) {
            Ok(identity) => self.tls.renew(identity),
            Err(error) => tracing::error!("the hub's certificate is not renewed: {error}"),
        }
    }
}
