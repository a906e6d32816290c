//! When capture is looked at: soon after the kernel told of a change, and every few seconds anyway.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::capture::Watch;

/// Changes come in bursts: this long after the first, most of them are there.
const SETTLE: Duration = Duration::from_millis(200);
/// Least time between two looks, however much changes.
const LEAST: Duration = Duration::from_secs(2);

/// The next look.
pub(super) struct Checks {
    /// `None`: the kernel does not tell; looking every few seconds has to do.
    watch: Option<Watch>,
    heard: bool,
    last: Instant,
    next: Instant,
}

impl Checks {
    /// The first look is due at once. Where nothing is captured there is nothing to hear either.
    pub(super) fn new(captures: bool) -> Self {
        let now = Instant::now();
        let watch = captures.then(|| Watch::open().inspect_err(silent).ok()).flatten();
        Self { watch, heard: false, last: now, next: now }
    }

    /// Returns when a look is due. May be dropped and called again.
    pub(super) async fn due(&mut self) {
        loop {
            let changed = async {
                match &self.watch {
                    Some(watch) if !self.heard => watch.changed().await,
                    Some(_) | None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep_until(self.next) => return,
                changed = changed => match changed {
                    Ok(()) => {
                        self.heard = true;
                        let soon = (Instant::now() + SETTLE).max(self.last + LEAST);
                        self.next = self.next.min(soon);
                    }
                    Err(error) => {
                        silent(&error);
                        self.watch = None;
                    }
                },
            }
        }
    }

    /// It was looked; the next time is `after` from now, if nothing happens before.
    pub(super) fn looked(&mut self, after: Duration) {
        self.heard = false;
        self.last = Instant::now();
        self.next = self.last + after;
    }
}

fn silent(error: &io::Error) {
    tracing::info!(%error, "the kernel tells of no changes; capture is looked at every few seconds");
}
