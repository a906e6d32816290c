//! What whoever keeps the records notes of it: in the status, in the log, and in a good copy.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;

use crate::io::now;
use crate::manifests::Remark;
use crate::mesh::local::Checked;
use crate::mesh::ranges::Ranges;
use crate::mesh::status::{Cell, Status, StoreHealth};
use crate::sync::{Observed, Sync};

/// The good copy of the store is renewed at most this often.
const GOOD_COPY_EVERY: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Notes {
    status: Arc<Cell>,
    ranges: Ranges,
    copied: Option<Instant>,
    /// The store lacks what is visible.
    pub(super) behind: bool,
}

impl Notes {
    /// Beside the metastore in `folder`.
    pub(super) fn new(status: Arc<Cell>, folder: &Path) -> Self {
        Self { status, ranges: Ranges::new(folder), copied: None, behind: false }
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.update(change);
    }

    /// Notes all ServiceCIDRs that there are.
    pub(super) async fn service_cidrs(&self, told: Arc<[IpNet]>) {
        self.ranges.told(&self.status, told).await;
    }

    /// Notes what a change came to.
    pub(super) fn observed(&mut self, observed: Observed) {
        let store = match observed {
            Observed::Same => return,
            Observed::Changed { revision, put, deleted } => {
                tracing::info!(revision, put, deleted, "records changed");
                self.behind = false;
                StoreHealth::Ok
            }
            Observed::Unsaved(error) => {
                let reason = format!("{error}");
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "records changed, but the metastore could not keep them"
                );
                self.behind = true;
                StoreHealth::ReadOnly { reason, since: SystemTime::now() }
            }
        };
        self.stored(store);
        self.status.records_changed();
    }

    /// Notes how the store is.
    pub(super) fn stored(&self, store: StoreHealth) {
        self.status.update(|status| match (&status.store, store) {
            // Keeps the time since when.
            (StoreHealth::ReadOnly { .. }, StoreHealth::ReadOnly { .. }) => {}
            (StoreHealth::Ok | StoreHealth::ReadOnly { .. }, store) => status.store = store,
        });
    }

    /// Shows the remarks, and logs those that were not there before.
    pub(super) fn remarks(&self, remarks: Vec<Remark>, checked: Arc<[Checked]>) {
        let known = self.status.get();
        remarks.iter().filter(|remark| !known.remarks.contains(remark)).for_each(Remark::log);
        self.status.update(|status| {
            status.remarks = remarks.into();
            status.checked = checked;
        });
    }

    /// Renews the good copy of the store, if it is time.
    pub(super) async fn keep_good_copy(&mut self, sync: &Sync) {
        let due =
            self.copied.is_none_or(|at| now().saturating_duration_since(at) >= GOOD_COPY_EVERY);
        if !due || self.behind {
            return;
        }
        self.copied = Some(now());
        if let Err(error) = sync.keep_good_copy().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "no good copy of the metastore"
            );
        }
    }
}
