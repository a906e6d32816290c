//! The folder of manifests as the registry's source: read, watched, read again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use edgemesh_core::manifests::{Remark, Watcher, read};
use edgemesh_proto::record::{Body, Record};
use tokio_util::sync::CancellationToken;

use crate::registry::shared::Shared as Registry;

/// Pause before another try to watch, where the kernel gives no inotify instance.
const RETRY_WATCH: Duration = Duration::from_secs(1);

/// How the source is. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Report(Arc<ArcSwap<Read>>);

/// How the source was when it was last read.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// What an operator should know.
    pub remarks: Arc<[Remark]>,
    /// Why it cannot be read at this moment; the last records stay.
    pub trouble: Option<String>,
    /// When it was last read whole.
    pub at: Option<SystemTime>,
}

impl Report {
    /// At this moment.
    pub fn get(&self) -> Arc<Read> {
        self.0.load_full()
    }

    pub(super) fn set(&self, read: Read) {
        self.0.store(Arc::new(read));
    }

    /// Logs what was not said before.
    pub(super) fn say(&self, remarks: &[Remark]) {
        let known = self.get();
        remarks.iter().filter(|remark| !known.remarks.contains(remark)).for_each(Remark::log);
    }
}

/// What runs in the cloud's zone is called by the cloud's process, unless an agent runs there.
pub(super) fn note_reach(record: &mut Record, zone: &str) {
    if let Body::Node(node) = &mut record.body {
        node.via_cloud |= node.zone.as_deref() == Some(zone);
    }
}

pub(super) struct Following {
    pub(super) folder: PathBuf,
    pub(super) zone: Box<str>,
    pub(super) registry: Registry,
    pub(super) report: Report,
}

impl Following {
    pub(super) async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            let mut watcher = None;
            loop {
                if watcher.is_none() {
                    watcher = Watcher::new(std::slice::from_ref(&self.folder))
                        .map_err(|error| tracing::warn!(%error, "read every second instead"))
                        .ok();
                }
                self.read().await;
                match &mut watcher {
                    Some(watcher) => watcher.changed().await,
                    None => tokio::time::sleep(RETRY_WATCH).await,
                }
            }
        })
        .await;
    }

    async fn read(&self) {
        let folder = self.folder.clone();
        let done = tokio::task::spawn_blocking(move || match std::fs::read_dir(&folder) {
            Ok(_) => Ok(read(&[folder])),
            Err(error) => {
                Err(format!("cannot read the manifests in {}: {error}", folder.display()))
            }
        });
        let observed = match done.await {
            Ok(Ok(observed)) => observed,
            Ok(Err(trouble)) => return self.troubled(trouble),
            Err(error) if error.is_cancelled() => return,
            Err(_) => {
                return self.troubled("reading the manifests failed: please report this".into());
            }
        };
        self.report.say(&observed.remarks);
        let mut records = observed.records;
        records.values_mut().for_each(|record| note_reach(record, &self.zone));
        self.registry.observe(records).await;
        let (remarks, at) = (observed.remarks.into(), Some(SystemTime::now()));
        self.report.set(Read { remarks, trouble: None, at });
    }

    fn troubled(&self, trouble: String) {
        tracing::warn!("{trouble}; the last records stay in force");
        let before = self.report.get();
        self.report.set(Read { trouble: Some(trouble), ..Read::clone(&before) });
    }
}
