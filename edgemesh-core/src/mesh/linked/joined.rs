//! The certificate of this node: the one that is there, the one that the cloud gives, and each next one.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_util::task::TaskTracker;

use crate::dial::Dial;
use crate::identity::{Clock, Identity, IdentityError, Step, Tls, step};
use crate::io::unique_id;
use crate::mesh::linked::{JoinTrouble, Linking, Links};
use crate::peers::{JoinError, Joining, Pause, Uplink, renew};

/// First and longest pause before a node asks to join again.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));

impl Linking {
    /// The certificate that is there, or the one that the cloud gives, however long that takes.
    pub(super) async fn identity(&self, dial: Dial, tasks: &TaskTracker) -> Arc<Tls> {
        let clock = Arc::new(Clock::open(&self.data_dir));
        let mut pause = Pause::new(PAUSE.0, PAUSE.1);
        loop {
            match self.known_or_new(&self.joining(dial, &clock, tasks)).await {
                Ok(identity) => {
                    self.links.trouble(None);
                    return Arc::new(Tls::new(identity, clock, self.options.grace));
                }
                Err(error) => {
                    self.links.trouble(Some(&error));
                    tokio::time::sleep(pause.next(unique_id() as u64)).await;
                }
            }
        }
    }

    async fn known_or_new(&self, joining: &Joining<'_>) -> Result<Identity, JoinError> {
        let known = match Identity::load(&self.data_dir) {
            Ok(known) => known,
            Err(damaged @ IdentityError::Damaged { .. }) => {
                tracing::error!("{damaged}: joining again");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let token = match self.options.token_file.as_ref().map(|_| joining.token()) {
            Some(Ok(token)) => Some(token),
            // A node that has joined needs none any more, and the file may be gone.
            Some(Err(error)) if known.is_none() => return Err(error),
            Some(Err(_)) | None => None,
        };
        let now = joining.clock.seconds();
        match step(known.as_ref(), &self.node, token.as_ref(), now, self.options.grace)? {
            Step::Join => joining.join().await,
            Step::Serve => match known {
                Some(known) => Ok(known),
                None => joining.join().await,
            },
        }
    }

    pub(super) fn joining<'a>(
        &'a self,
        dial: Dial,
        clock: &'a Clock,
        tasks: &'a TaskTracker,
    ) -> Joining<'a> {
        Joining {
            node: &self.node,
            data_dir: &self.data_dir,
            token_file: self.options.token_file.as_deref(),
            servers: &self.options.servers,
            dial,
            clock,
            grace: self.options.grace,
            tasks,
        }
    }

    /// Asks for a newer certificate when this one is a day old, and Control stands; or when the hub
    /// lets nothing else in, which counts more than what the clock here says.
    pub(super) async fn renew(&self, tls: &Tls, uplink: &Uplink) {
        if let Err(error) = tls.clock().persist() {
            tracing::debug!("the time is not persisted: {error}");
        }
        let identity = tls.identity();
        let (is_linked, is_expired) = {
            let state = uplink.state();
            let state = state.borrow();
            (state.linked.is_some(), state.is_expired)
        };
        if !(is_expired || is_linked && identity.is_due(tls.clock().seconds())) {
            return;
        }
        let Ok(link) = uplink.link_to_renew().await else { return };
        let is_newer = self.goes_on_as(tls, renew(&link, &identity).await);
        if is_expired {
            link.close(); // it was made for this alone
        }
        if is_expired && is_newer {
            uplink.network_changed(); // what the hub refused it will take now
        }
    }

    /// A node that was removed may come back with a new token. `true`: it has.
    pub(super) async fn rejoin(&self, tls: &Tls, dial: Dial, tasks: &TaskTracker) -> bool {
        self.options.token_file.is_some()
            && self.goes_on_as(tls, self.joining(dial, tls.clock(), tasks).join().await)
    }

    fn goes_on_as(&self, tls: &Tls, newer: Result<Identity, JoinError>) -> bool {
        let is_newer = newer.is_ok();
        match newer {
            Ok(newer) => {
                if let Err(error) = newer.save(&self.data_dir) {
                    tracing::error!("the new certificate cannot be kept: {error}");
                }
                tracing::info!(not_after = newer.not_after(), "a new certificate");
                tls.renew(newer);
                self.links.trouble(None);
            }
            Err(error) => self.links.trouble(Some(&error)),
        }
        is_newer
    }
}

impl Links {
    fn trouble(&self, trouble: Option<&JoinError>) {
        let mut before = self.0.trouble.lock();
        let Some(error) = trouble else {
            *before = None;
            return;
        };
        let text = describe(error);
        if before.as_ref().is_none_or(|before| before.text != text) {
            tracing::warn!("{text}");
            let is_final = matches!(
                error,
                JoinError::Refused(_) | JoinError::Token { .. } | JoinError::NoToken
            );
            *before = Some(JoinTrouble { text, is_final, since: SystemTime::now() });
        }
    }
}

fn describe(error: &JoinError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}
