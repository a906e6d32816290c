//! Follows the folders of manifests, what comes from elsewhere, and what runs on this node: all of it
//! together goes to `sync`, again after each change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_proto::message::{Body, Offer};
use edgemesh_proto::record::{Delta, NodeName};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::io::now;
use crate::manifests::{Observed as Manifests, Remark, read};
use crate::mesh::Options;
use crate::mesh::cloud_source::CloudSource;
use crate::mesh::local::{Local, Settled};
use crate::mesh::notes::Notes;
use crate::mesh::reading::{Folders, PANICKED, Read, Reading};
use crate::mesh::status::Cell;
use crate::mesh::supply::{Supplied, Supplies, Supply};
use crate::mesh::talking::{self, News, Talking};
use crate::peers::Position;
use crate::registrations::is_local;
use crate::sync::{Sync, offer};

/// What Rules have counted is stored and told so often.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// A change that the disk refused is tried again after this long.
const RETRY_STORE: Duration = Duration::from_secs(10);

/// Whoever keeps the records.
pub(super) enum Source {
    /// They are what folders say.
    Folders(Box<FolderSource>),
    /// They come from a registry.
    Cloud(Box<CloudSource>),
}

pub(super) struct FolderSource {
    node: NodeName,
    reading: Reading,
    /// Where records come from elsewhere, beside this node's own folder.
    supplies: Option<Supplies>,
    sync: Sync,
    local: Local,
    notes: Notes,
    /// Where this node has Links: who is told what runs here.
    talking: Option<Talking>,
    /// What was said of the documents when they were last read.
    said: Vec<Remark>,
}

/// What is left of a source that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) sync: Sync,
    pub(super) talking: Option<Talking>,
}

impl Source {
    /// Goes on with what another left.
    pub(super) fn new(options: &Options, ended: Ended, local: Local, status: Arc<Cell>) -> Self {
        match ended {
            Ended { sync, talking: Some(talking) } if options.is_synced => {
                Self::Cloud(Box::new(CloudSource::new(options, sync, talking, local, status)))
            }
            ended => {
                let sources = (options.folders.clone(), options.supply.clone());
                let notes = Notes::new(status, &options.data_dir);
                Self::Folders(Box::new(FolderSource::new(
                    options.node.clone(),
                    sources,
                    ended,
                    local,
                    notes,
                )))
            }
        }
    }

    /// Begins to watch, then reads everything once, so that no change falls between.
    pub(super) async fn begin(self) -> Self {
        match self {
            Self::Folders(source) => Self::Folders(Box::new(source.begin().await)),
            Self::Cloud(source) => Self::Cloud(Box::new(source.begin().await)),
        }
    }

    /// Follows every change until `stop`.
    pub(super) async fn follow(self, stop: CancellationToken) -> Ended {
        match self {
            Self::Folders(source) => source.follow(stop).await,
            Self::Cloud(source) => source.follow(stop).await,
        }
    }
}

/// When to try.
pub(super) fn retries() -> Interval {
    every(RETRY_STORE)
}

/// When to look what Rules have counted.
pub(super) fn looks() -> Interval {
    every(COUNT_EVERY)
}

/// A time that goes on while who waits for it does other things.
pub(super) fn every(time: Duration) -> Interval {
    let mut interval = tokio::time::interval(time);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl FolderSource {
    fn new(
        node: NodeName,
        (folders, supply): (Folders, Option<Supply>),
        ended: Ended,
        local: Local,
        notes: Notes,
    ) -> Self {
        let Ended { sync, talking } = ended;
        let reading = Reading::new(folders);
        let kept = || {
            let theirs = sync.records().into_iter().filter(|record| !is_local(record));
            theirs.map(|record| (record.key(), record)).collect()
        };
        let supplies = supply.map(|supply| Supplies::new(supply, kept()));
        Self { node, reading, supplies, sync, local, notes, talking, said: Vec::new() }
    }

    async fn begin(mut self) -> Self {
        self.reading.watch();
        if self.supplies.is_none() {
            // Folders know of none; what another source said before says nothing of their Services.
            self.notes.service_cidrs(Arc::default()).await;
        }
        self.read().await;
        self
    }

    /// Reads again whenever something changed.
    async fn follow(mut self, stop: CancellationToken) -> Ended {
        let (mut retry, mut look) = (retries(), looks());
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    return Ended { sync: self.sync, talking: self.talking };
                }
                _ = look.tick() => {
                    self.count().await;
                    continue;
                }
                () = self.reading.changed() => {}
                _ = retry.tick(), if self.notes.behind => {}
                () = self.local.changed() => {
                    self.observe(None).await;
                    continue;
                }
                step = next_of(self.supplies.as_ref()) => {
                    self.supplied(step).await;
                    continue;
                }
                Some(asked) = self.sync.asked() => {
                    self.sync.tell(asked);
                    continue;
                }
                news = talking::next(&mut self.talking) => {
                    self.heard(&news);
                    continue;
                }
            }
            self.reading.watch();
            self.read().await;
        }
    }

    /// Keeps and tells what Rules have counted.
    async fn count(&mut self) {
        let counts = self.sync.count().await;
        if let Some(talking) = self.talking.as_mut().filter(|_| !counts.is_empty()) {
            talking.count(self.sync.counter(), counts);
        }
    }

    /// The hub hears what runs here; its records are not wanted.
    fn heard(&mut self, news: &News) {
        let Some(talking) = &mut self.talking else { return };
        match news {
            News::Begun(_) => {
                talking.introduce();
                talking.count(self.sync.counter(), self.sync.counts());
            }
            // Next time, the hub need not tell all of that anew.
            News::Said(body) => {
                if let Body::Delta(Delta { epoch, to, digest: Some(digest), .. }) = **body {
                    talking.holds(Position { epoch, revision: to, digest });
                }
            }
            News::Over | News::Peer(_) => {}
        }
    }

    async fn read(&mut self) {
        self.read_by(read).await;
    }

    async fn read_by(&mut self, read: fn(&[PathBuf]) -> Manifests) {
        match self.reading.read_by(read).await {
            Read::All(own) => match &mut self.supplies {
                None => {
                    self.observe(Some(*own)).await;
                    self.noted(None);
                }
                Some(supplies) => {
                    supplies.read(*own);
                    let all = supplies.all();
                    self.observe(Some(all)).await;
                }
            },
            Read::Trouble(trouble) => {
                tracing::warn!("{trouble}; the last records stay in force");
                self.notes.update(|status| status.source_trouble = Some(trouble));
                // What runs here needs no source.
                self.observe(None).await;
            }
            Read::Panicked => {
                self.notes.update(|status| status.source_trouble = Some(PANICKED.to_owned()));
            }
            Read::Ending => {}
        }
    }

    /// Puts in force what came from elsewhere.
    async fn supplied(&mut self, step: Supplied) {
        let Some(supplies) = &mut self.supplies else { return };
        let (trouble, ranges) = (step.trouble.clone(), step.service_cidrs.clone());
        supplies.apply(step);
        let all = supplies.all();
        // Before the records, so that the first that is captured is what they lie in.
        if let Some(ranges) = ranges {
            self.notes.service_cidrs(ranges).await;
        }
        self.observe(Some(all)).await;
        self.noted(trouble);
    }

    /// Notes whether the source can be read.
    fn noted(&self, trouble: Option<String>) {
        self.notes.update(|status| {
            if trouble.is_none() {
                status.read_at = Some(now());
                status.has_records = true;
            }
            status.source_trouble = trouble;
        });
    }

    /// Puts in force what was `read` and what runs here; without, what was read last.
    async fn observe(&mut self, read: Option<Manifests>) {
        let records = read.map(|Manifests { records, remarks, checks, .. }| {
            self.local.read(&records, &checks);
            self.said = remarks;
            records
        });
        let Settled { records, remarks, checked, version } = self.local.settle(&self.sync, records);
        let remarks: Vec<Remark> = self.said.iter().cloned().chain(remarks).collect();
        let some = !records.is_empty();
        if let Some(talking) = &mut self.talking {
            let own = records.values().filter(|record| is_local(record));
            talking.tell(Offer { records: offer::rising(&self.node, None, own) });
        }
        self.notes.remarks(remarks, checked);
        let observed = self.sync.observe(records, now()).await;
        self.notes.update(|status| status.has_records |= some);
        self.notes.observed(observed);
        // Whoever signed something up may look now.
        self.local.settled(version);
        self.notes.keep_good_copy(&self.sync).await;
    }
}

/// The next step from elsewhere, if anything comes from there.
async fn next_of(supplies: Option<&Supplies>) -> Supplied {
    match supplies {
        Some(supplies) => supplies.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::dial::Dial;
    use crate::health::{Checker, Pace};
    use crate::registrations::Registrations;
    use crate::store::Store;

    fn source(folder: &Path, talking: Option<Talking>) -> (FolderSource, Arc<Cell>) {
        let (store, loaded, _) = Store::open(&folder.join("data")).unwrap();
        let node = NodeName("node-1".into());
        let sync = Sync::resume(store, loaded, node.clone(), None, &[], Arc::default(), now());
        let status = Arc::new(Cell::new(Vec::new(), false));
        let folders = Folders { source: Some(folder.to_owned()), ..Folders::default() };
        let checker =
            Checker::new(Dial::default(), Pace::default(), TaskTracker::new(), Default::default());
        let local = Local::new(node.clone(), Registrations::open(folder, now()), checker);
        let ended = Ended { sync, talking };
        let notes = Notes::new(status.clone(), folder);
        (FolderSource::new(node, (folders, None), ended, local, notes), status)
    }

    #[tokio::test]
    async fn a_panic_while_reading_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (mut source, status) = source(folder.path(), None);
        source.read_by(|_| panic!("a parser did")).await;
        assert_eq!(status.get().source_trouble.as_deref(), Some(PANICKED));
        source.read().await; // and the next time it may work
        assert_eq!(status.get().source_trouble, None);
        source.sync.into_store().close().await;
    }

    #[tokio::test]
    async fn what_is_not_wanted_need_not_be_told_again() {
        let folder = tempfile::tempdir().unwrap();
        let (talking, ends) = Talking::new(Position::default());
        let (mut source, _) = source(folder.path(), Some(talking));
        let part = Delta { epoch: [1; 16], to: 7, reset: true, more: true, ..Delta::default() };
        source.heard(&News::Said(Box::new(Body::Delta(part.clone()))));
        assert_eq!(*ends.position.borrow(), Position::default(), "half of it");
        let last = Delta { reset: false, more: false, digest: Some([2; 32]), ..part };
        source.heard(&News::Said(Box::new(Body::Delta(last))));
        let told = Position { epoch: [1; 16], revision: 7, digest: [2; 32] };
        assert_eq!(*ends.position.borrow(), told);
        source.sync.into_store().close().await;
    }
}
