//! Reads the folders of manifests, and watches them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Interval;

use crate::config::ServiceFilter;
use crate::manifests::{Observed, Watcher};
use crate::mesh::source::every;

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

/// Pause before another try to watch, where the kernel gives no inotify instance.
const RETRY_WATCH: Duration = Duration::from_secs(1);

/// What is wrong when the reading panics: no manifest may do that.
pub(super) const PANICKED: &str = "reading the manifests failed: please report this";

pub(super) struct Reading {
    folders: Folders,
    /// `None` while the kernel gives no inotify instance.
    watcher: Option<Watcher>,
    /// When to read then.
    again: Interval,
}

/// What came of reading.
pub(super) enum Read {
    /// Everything that the folders say.
    All(Box<Observed>),
    /// The source cannot be read, and why.
    Trouble(String),
    /// A parser panicked.
    Panicked,
    /// The runtime goes down, and nobody waits any more.
    Ending,
}

impl Reading {
    pub(super) fn new(folders: Folders) -> Self {
        Self { folders, watcher: None, again: every(RETRY_WATCH) }
    }

    fn all(&self) -> Vec<PathBuf> {
        self.folders.source.iter().chain(&self.folders.services).cloned().collect()
    }

    /// Begins to watch, where it does not yet. Before the first reading, so that no change falls
    /// between.
    pub(super) fn watch(&mut self) {
        if self.watcher.is_some() {
            return;
        }
        match Watcher::new(&self.all()) {
            Ok(watcher) => self.watcher = Some(watcher),
            Err(error) => tracing::warn!(%error, "manifests are read every second instead"),
        }
    }

    /// Resolves when it is time to read again. Dropping the future loses nothing.
    pub(super) async fn changed(&mut self) {
        match &mut self.watcher {
            Some(watcher) => watcher.changed().await,
            None => drop(self.again.tick().await),
        }
    }

    /// Reads everything.
    pub(super) async fn read_by(&self, read: fn(&[PathBuf]) -> Observed) -> Read {
        let mut folders = self.all();
        let Folders { source, services, service_filter } = self.folders.clone();
        let done = tokio::task::spawn_blocking(move || {
            if let Some(trouble) = source.as_deref().and_then(unreadable) {
                return Read::Trouble(trouble);
            }
            folders.retain(|folder| services.as_ref() != Some(folder) || folder.exists());
            Read::All(Box::new(read(&folders).without(service_filter)))
        });
        match done.await {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => Read::Ending,
            Err(error) => {
                tracing::error!(%error, "{PANICKED}; the last records stay in force");
                Read::Panicked
            }
        }
    }
}

fn unreadable(folder: &Path) -> Option<String> {
    let error = std::fs::read_dir(folder).err()?;
    Some(format!("cannot read the manifests in {}: {error}", folder.display()))
}
