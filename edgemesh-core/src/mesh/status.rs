//! How store and source are: written by the one that follows the source, read by everyone.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::manifests::Remark;
use crate::mesh::local::Checked;
use crate::store::Repair;

/// How store and source are at one moment.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// What was repaired when the store was opened, in words.
    pub repairs: Vec<String>,
    /// Whether the disk takes changes.
    pub store: StoreHealth,
    /// What the source says of its documents.
    pub remarks: Arc<[Remark]>,
    /// What is probed on this node, and how it is.
    pub checked: Arc<[Checked]>,
    /// Why the source cannot be read at this moment.
    pub source_trouble: Option<String>,
    /// When the source was last read whole.
    pub read_at: Option<Instant>,
    /// The source is in conversation with us, and all that it has said is in force.
    pub in_step: bool,
    /// Where addresses of Services lie by Kubernetes' ServiceCIDRs; empty: there are none, or that is
    /// not known.
    pub service_cidrs: Arc<[IpNet]>,
    /// There is something to serve: from the store, or from the source.
    pub has_records: bool,
}

/// Whether the disk takes changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreHealth {
    /// It does.
    #[default]
    Ok,
    /// It does not; what is visible is ahead of it.
    ReadOnly {
        /// Why, and what to do.
        reason: String,
        /// Since when.
        since: SystemTime,
    },
}

/// A [`Status`] that one writes and many read.
#[derive(Debug)]
pub struct Cell {
    inner: ArcSwap<Status>,
    changed: tokio::sync::watch::Sender<u64>,
}

impl Cell {
    pub(super) fn new(repairs: Vec<Repair>, has_records: bool) -> Self {
        let repairs = repairs.iter().map(Repair::to_string).collect();
        let status = Status { repairs, has_records, ..Status::default() };
        Self { inner: ArcSwap::from_pointee(status), changed: tokio::sync::watch::Sender::new(0) }
    }

    /// The present state.
    pub fn get(&self) -> Arc<Status> {
        self.inner.load_full()
    }

    /// How long ago the source was last read whole.
    pub fn data_age(&self, now: Instant) -> Option<Duration> {
        let status = self.inner.load();
        let age =
            |at| if status.in_step { Duration::ZERO } else { now.saturating_duration_since(at) };
        status.read_at.map(age)
    }

    /// Counts changes of the records; wakes whoever waits.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut status = Status::clone(&self.inner.load());
        change(&mut status);
        self.inner.store(Arc::new(status));
    }

    pub(super) fn records_changed(&self) {
        self.changed.send_modify(|n| *n += 1);
    }
}
