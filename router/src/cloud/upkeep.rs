//! What other commands leave for the running cloud: nodes that were removed; and its own certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::identity::authority::LIFETIME;
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
    /// How long certificates may have been expired.
    pub(super) grace: Duration,
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
                        this.forget_old().await;
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
            if self.registry.revoked(&node) == Some(before) || self.is_over(before) {
                continue;
            }
            tracing::info!(node = %node.0, "removed");
            // What it has open by an older certificate then ends by itself.
            let is_back = || self.hub.is_linked_since(&node, before);
            self.registry.remove(&node, before, is_back).await;
        }
    }

    /// Revocations of which nothing is left to revoke go, else they would be with every node for ever.
    async fn forget_old(&self) {
        let all = self.registry.revocations().borrow().clone();
        for (node, _) in all.iter().filter(|(_, before)| self.is_over(**before)) {
            tracing::info!(node = %node.0, "nothing is left of what its removal made void");
            self.registry.forget_revocation(node).await;
        }
    }

    fn is_over(&self, before: i64) -> bool {
        is_over(before, self.grace, self.clock.seconds())
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

/// Whether every certificate that was issued before that time has expired, with its grace.
fn is_over(before: i64, grace: Duration, now: i64) -> bool {
    let lives = LIFETIME.saturating_add(grace).as_secs();
    now > before.saturating_add(i64::try_from(lives).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use edgemesh_core::identity::OFFLINE_GRACE;

    use super::*;

    const DAY: i64 = 86_400;

    #[test]
    fn revocations_end_with_what_they_revoke() {
        for (days, grace, want) in [
            (0, OFFLINE_GRACE, false),
            (30, OFFLINE_GRACE, false),
            (60, OFFLINE_GRACE, false),
            (61, OFFLINE_GRACE, true),
            (31, Duration::ZERO, true),
            (1_000_000, Duration::MAX, false),
        ] {
            assert_eq!(is_over(1000, grace, 1000 + days * DAY), want, "{days} {grace:?}");
        }
    }
}
