//! Follows the folders of manifests and what runs on this node: all of it together goes to `sync`,
//! again after each change.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use edgemesh_proto::record::{Key, Record};
use tokio_util::sync::CancellationToken;

use crate::config::ServiceFilter;
use crate::io::now;
use crate::manifests::{Observed as Manifests, Remark, Severity, Watcher, read};
use crate::mesh::local::{Local, Settled};
use crate::mesh::status::{Cell, StoreHealth};
use crate::mesh::synced::Synced;
use crate::registrations::is_local;
use crate::sync::replica::Step;
use crate::sync::{Observed, Sync};

/// Folders of manifests.
#[derive(Clone, Debug, Default)]
pub struct Folders {
    /// The source of records. When it cannot be read, the last records stay: a disk that is not
    /// mounted yet does not mean that every Service is gone.
    pub source: Option<PathBuf>,
    /// This node's own Services; may be missing.
    pub services: Option<PathBuf>,
    /// Which of their Services are left to others.
    pub service_filter: ServiceFilter,
}

/// A change that the disk refused is tried again after this long.
const RETRY_STORE: Duration = Duration::from_secs(10);
/// The good copy of the store is renewed at most this often.
const GOOD_COPY_EVERY: Duration = Duration::from_secs(3600);
/// Pause before another try to watch, where the kernel gives no inotify instance.
const RETRY_WATCH: Duration = Duration::from_secs(1);

/// What is wrong when the reading panics: no manifest may do that.
const PANICKED: &str = "reading the manifests failed: please report this";

pub(super) struct Source {
    folders: Folders,
    sync: Sync,
    local: Local,
    status: Arc<Cell>,
    /// The registry's records, where there is a cloud.
    synced: Option<Synced>,
    /// What the folders say, beside those.
    documents: BTreeMap<Key, Record>,
    /// What was said of the documents when they were last read.
    said: Vec<Remark>,
    /// `None` while the kernel gives no inotify instance.
    watcher: Option<Watcher>,
    behind: bool,
    copied: Option<Instant>,
}

impl Source {
    pub(super) const fn new(
        folders: Folders,
        sync: Sync,
        local: Local,
        status: Arc<Cell>,
        synced: Option<Synced>,
    ) -> Self {
        Self {
            folders,
            sync,
            local,
            status,
            synced,
            documents: BTreeMap::new(),
            said: Vec::new(),
            watcher: None,
            behind: false,
            copied: None,
        }
    }

    fn all(&self) -> Vec<PathBuf> {
        self.folders.source.iter().chain(&self.folders.services).cloned().collect()
    }

    /// Begins to watch, then reads everything once, so that no change falls between.
    pub(super) async fn begin(mut self) -> Self {
        self.watch();
        self.read().await;
        self
    }

    /// Reads again whenever something changed, until `stop`. Gives `sync` back.
    pub(super) async fn follow(mut self, stop: CancellationToken) -> Sync {
        loop {
            let changed = async {
                match &mut self.watcher {
                    Some(watcher) => watcher.changed().await,
                    None => tokio::time::sleep(RETRY_WATCH).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return self.sync,
                () = changed => {}
                () = tokio::time::sleep(RETRY_STORE), if self.behind => {}
                () = self.local.changed() => {
                    self.observe(None).await;
                    continue;
                }
                Some(asked) = self.sync.asked() => {
                    self.sync.tell(asked);
                    continue;
                }
                step = next(&mut self.synced) => {
                    self.step(&step).await;
                    continue;
                }
            }
            if self.watcher.is_none() {
                self.watch();
            }
            self.read().await;
        }
    }

    fn watch(&mut self) {
        match Watcher::new(&self.all()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => tracing::warn!(%error, "manifests are read every second instead"),
        }
    }

    async fn read(&mut self) {
        self.read_by(read).await;
    }

    async fn read_by(&mut self, read: fn(&[PathBuf]) -> Manifests) {
        let mut folders = self.all();
        let Folders { source, services, service_filter } = self.folders.clone();
        let done = tokio::task::spawn_blocking(move || {
            let trouble = source.as_deref().and_then(unreadable);
            folders.retain(|folder| services.as_ref() != Some(folder) || folder.exists());
            (trouble.is_none().then(|| read(&folders).without(service_filter)), trouble)
        });
        let (manifests, trouble) = match done.await {
            Ok(done) => done,
            // The runtime goes down, and then nobody waits.
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                tracing::error!(%error, "{PANICKED}; the last records stay in force");
                return self.status.update(|s| s.source_trouble = Some(PANICKED.to_owned()));
            }
        };
        match manifests {
            Some(manifests) => self.observe(Some(manifests)).await,
            None => {
                let trouble = trouble.unwrap_or_default();
                tracing::warn!("{trouble}; the last records stay in force");
                self.status.update(|status| status.source_trouble = Some(trouble));
                // What runs here needs no source.
                self.observe(None).await;
            }
        }
    }

    /// Takes in a step of the registry's records.
    async fn step(&mut self, step: &Step) {
        let Some(synced) = &mut self.synced else { return };
        synced.take(step);
        let records = synced.records().into_iter().chain(self.documents.clone()).collect();
        self.settle(Some(records), true).await;
        let stored = !self.behind;
        if let Some(synced) = &mut self.synced {
            synced.done(stored).await;
        }
    }

    /// Puts in force what was `read` and what runs here; without, what was read last.
    async fn observe(&mut self, read: Option<Manifests>) {
        let fresh = read.is_some();
        let records = read.map(|Manifests { records, remarks, checks, .. }| {
            self.local.read(&records, &checks);
            self.said = remarks;
            let Some(synced) = &self.synced else { return records };
            self.documents = records;
            synced.records().into_iter().chain(self.documents.clone()).collect()
        });
        self.settle(records, fresh).await;
    }

    async fn settle(&mut self, records: Option<BTreeMap<Key, Record>>, fresh: bool) {
        let Settled { records, remarks, checked, version } = self.local.settle(&self.sync, records);
        let remarks: Vec<Remark> = self.said.iter().cloned().chain(remarks).collect();
        let some = !records.is_empty();
        if let Some(synced) = &mut self.synced {
            let own = records
                .iter()
                .filter(|(key, record)| is_local(record) || self.documents.contains_key(key));
            synced.tell(own.map(|(_, record)| record)).await;
        }
        self.report(&remarks);
        let observed = self.sync.observe(records, now()).await;
        let store = match observed {
            Observed::Same => None,
            Observed::Changed { revision, put, deleted } => {
                tracing::info!(revision, put, deleted, "records changed");
                self.behind = false;
                Some(StoreHealth::Ok)
            }
            Observed::Unsaved(error) => {
                let reason = format!("{error}");
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "records changed, but the metastore could not keep them"
                );
                self.behind = true;
                Some(StoreHealth::ReadOnly { reason, since: SystemTime::now() })
            }
        };
        let changed = store.is_some();
        self.status.update(|status| {
            if fresh {
                status.source_trouble = None;
                status.read_at = Some(now());
            }
            status.has_records |= fresh || some;
            status.remarks = remarks.into();
            status.checked = checked;
            match (&status.store, store) {
                // Keeps the time since when.
                (StoreHealth::ReadOnly { .. }, Some(StoreHealth::ReadOnly { .. })) | (_, None) => {}
                (_, Some(store)) => status.store = store,
            }
        });
        // Whoever signed something up may look now.
        self.local.settled(version);
        if changed {
            self.status.records_changed();
        }
        self.keep_good_copy().await;
    }

    /// Logs what was not said before.
    fn report(&self, remarks: &[Remark]) {
        let known = self.status.get();
        for remark in remarks.iter().filter(|remark| !known.remarks.contains(remark)) {
            let Remark { severity, file, line, object, field, reason } = remark;
            let file = file.display();
            match severity {
                Severity::Rejected => {
                    tracing::warn!(%file, line, object, field, "rejected: {reason}");
                }
                Severity::Note => tracing::info!(%file, line, object, field, "{reason}"),
                Severity::Ignored => tracing::debug!(%file, line, object, "ignored: {reason}"),
            }
        }
    }

    async fn keep_good_copy(&mut self) {
        let due =
            self.copied.is_none_or(|at| now().saturating_duration_since(at) >= GOOD_COPY_EVERY);
        if due && !self.behind {
            self.copied = Some(now());
            if let Err(error) = self.sync.keep_good_copy().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no good copy of the metastore"
                );
            }
        }
    }
}

async fn next(synced: &mut Option<Synced>) -> Step {
    match synced {
        Some(synced) => synced.next().await,
        None => std::future::pending().await,
    }
}

fn unreadable(folder: &Path) -> Option<String> {
    let error = std::fs::read_dir(folder).err()?;
    Some(format!("cannot read the manifests in {}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::dial::Dial;
    use crate::health::{Checker, Pace};
    use crate::registrations::Registrations;
    use crate::store::Store;

    #[tokio::test]
    async fn a_panic_while_reading_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (store, loaded, _) = Store::open(&folder.path().join("data")).unwrap();
        let node = edgemesh_proto::record::NodeName("node-1".into());
        let sync = Sync::resume(store, loaded, node.clone(), None, &[], Arc::default(), now());
        let status = Arc::new(Cell::new(Vec::new(), false));
        let folders = Folders { source: Some(folder.path().to_owned()), ..Folders::default() };
        let checker =
            Checker::new(Dial::default(), Pace::default(), TaskTracker::new(), Default::default());
        let local = Local::new(node, Registrations::open(folder.path(), now()), checker);
        let mut source = Source::new(folders, sync, local, status.clone(), None);
        source.read_by(|_| panic!("a parser did")).await;
        assert_eq!(status.get().source_trouble.as_deref(), Some(PANICKED));
        source.read().await; // and the next time it may work
        assert_eq!(status.get().source_trouble, None);
        source.sync.into_store().close().await;
    }
}
