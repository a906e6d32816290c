//! What other commands leave for the running cloud: nodes that were removed; and its own certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::identity::{Clock, Tls};
use edgemesh_proto::record::{NodeName, Revocation};
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, AuthorityError, Version};
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

/// What the disk says.
struct Seen {
    version: Version,
    /// Where that is another version than before.
    revocations: Option<BTreeMap<Box<str>, Revocation>>,
}

impl Looking {
    pub(super) async fn run(self, every: Duration, stop: CancellationToken) {
        let this = Arc::new(self);
        stop.run_until_cancelled(async {
            let mut tick = tokio::time::interval(every);
            let mut known = None;
            loop {
                tick.tick().await;
                // The disk may be slow, or locked by a command: that must not hold up Links.
                let disk = this.clone();
                let looked = tokio::task::spawn_blocking(move || {
                    disk.renew();
                    disk.look(known)
                });
                match looked.await {
                    Ok(Ok(Seen { version, revocations })) => {
                        this.remove(revocations.unwrap_or_default()).await;
                        known = Some(version);
                    }
                    Ok(Err(error)) => tracing::error!("removed nodes are not known: {error}"),
                    Err(error) => tracing::error!("removed nodes are not looked at: {error}"),
                }
            }
        })
        .await;
    }

    fn look(&self, known: Option<Version>) -> Result<Seen, AuthorityError> {
        let version = self.authority.version()?;
        let news = known != Some(version);
        let revocations = news.then(|| self.authority.revocations()).transpose()?;
        Ok(Seen { version, revocations })
    }

    async fn remove(&self, revocations: BTreeMap<Box<str>, Revocation>) {
        for (name, Revocation { before }) in revocations {
            let node = NodeName(name);
            if self.registry.revoked(&node) == Some(before) {
                continue;
            }
            tracing::info!(node = %node.0, "removed");
            // What it has open by an older certificate then ends by itself.
            let is_back = || self.hub.is_linked_since(&node, before);
            self.registry.remove(&node, before, is_back).await;
        }
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
