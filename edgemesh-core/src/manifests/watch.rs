//! Tells when the manifests in a set of folders have changed: inotify, and a slow look for where it is silent.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::libc::IN_MASK_ADD;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{self, JoinHandle};
use tokio::time::{Instant, sleep_until};

use crate::manifests::folder;
use crate::manifests::settle::Settle;

/// How often files are compared where inotify tells nothing (network file systems, links that
/// lead out of the folders).
pub const RESCAN: Duration = Duration::from_secs(10);

/// A watch on a set of folders and their sub-folders.
///
/// Make it first, then [`read`](crate::manifests::read), then wait: so no change is missed.
/// Folders may be missing, deleted, replaced and made again at any time.
#[derive(Debug)]
pub struct Watcher {
    folders: Arc<[PathBuf]>,
    inotify: AsyncFd<Shared>,
    /// inotify failed for good; only the slow look is left.
    deaf: bool,
    watches: Watches,
    print: u64,
    settle: Settle,
    next_look: Instant,
    /// Goes on when nobody waits for it just then.
    looking: Option<JoinHandle<Survey>>,
}

impl Watcher {
    /// Begins to watch. Looks through the folders once (blocking, briefly).
    ///
    /// Must be called inside a tokio runtime with I/O and time. Fails when the kernel gives no
    /// inotify instance (the error says which limit to raise); a folder that is missing is no error.
    pub fn new(folders: &[PathBuf]) -> io::Result<Self> {
        let hint = |error: io::Error| {
            let limit = "raise sysctl fs.inotify.max_user_instances";
            io::Error::new(error.kind(), format!("cannot watch manifests: {error}; {limit}"))
        };
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let inotify = Inotify::init(flags).map_err(io::Error::from).map_err(hint)?;
        let inotify = Shared(Arc::new(inotify));
        let survey = survey(folders, &inotify.0);
        Ok(Self {
            folders: folders.into(),
            inotify: register(inotify)?,
            deaf: false,
            watches: survey.watches,
            print: survey.print,
            settle: Settle::default(),
            next_look: Instant::now() + RESCAN,
            looking: None,
        })
    }

    /// Resolves after a change that has settled: [`QUIET`](crate::manifests::QUIET) after the
    /// last event, at most [`MAX_DELAY`](crate::manifests::MAX_DELAY) after the first.
    ///
    /// May resolve although nothing that matters has changed. Dropping the future loses nothing.
    pub async fn changed(&mut self) {
        loop {
            let due = self.settle.due();
            tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or(self.next_look)), if due.is_some() => {
                    // New sub-folders are watched before the caller reads, so none is missed.
                    self.look().await;
                    self.settle.clear();
                    return;
                }
                heard = hear(&self.inotify, &self.watches), if !self.deaf => match heard {
                    Ok(true) => self.settle.saw(Instant::now()),
                    Ok(false) => {}
                    Err(_) => self.deaf = true,
                },
                () = sleep_until(self.next_look) => {
                    if self.look().await {
                        self.settle.clear();
                        return;
                    }
                }
            }
        }
    }

    /// Looks through the folders: watches what is new, and says whether any file is another.
    async fn look(&mut self) -> bool {
        let looking = self.looking.get_or_insert_with(|| {
            let (folders, inotify) = (self.folders.clone(), self.inotify.get_ref().0.clone());
            task::spawn_blocking(move || survey(&folders, &inotify))
        });
        let done = looking.await;
        self.looking = None;
        self.next_look = Instant::now() + RESCAN;
        // It fails only when the runtime goes down, and then nobody waits.
        let Ok(survey) = done else { return false };
        for gone in self.watches.keys().filter(|id| !survey.watches.contains_key(*id)) {
            // Fails where the folder itself is gone, which has ended the watch already.
            let _ = self.inotify.get_ref().0.rm_watch(*gone);
        }
        self.watches = survey.watches;
        let changed = self.print != survey.print;
        self.print = survey.print;
        changed
    }
}

#[expect(
    deprecated,
    reason = "its successor is an unsafe fn, which this crate denies; what that asks for holds: \
              `Shared` owns one descriptor and never gives it away or replaces it"
)]
fn register(inotify: Shared) -> io::Result<AsyncFd<Shared>> {
    AsyncFd::with_interest(inotify, Interest::READABLE)
}

/// An inotify instance that the blocking pool may use while events are awaited.
#[derive(Debug)]
struct Shared(Arc<Inotify>);

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Shared {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// What is heard on each watch.
type Watches = HashMap<WatchDescriptor, Ear>;

#[derive(Debug)]
enum Ear {
    /// A folder with manifests: every change.
    All,
    /// The parent of folders that were named: only those names.
    Names(HashSet<OsString>),
}

#[derive(Debug)]
struct Survey {
    watches: Watches,
    /// Another value for another set of files.
    print: u64,
}

/// Watches every folder, and notes what the files look like. Blocks.
fn survey(folders: &[PathBuf], inotify: &Inotify) -> Survey {
    let mut watches = Watches::new();
    // A folder may be a parent too: its watch then hears the sum of both.
    let coming = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    let going = AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_FROM;
    let kind = AddWatchFlags::IN_ONLYDIR | AddWatchFlags::from_bits_retain(IN_MASK_ADD);
    for folder in folders {
        let (Some(parent), Some(name)) = (parent_of(folder), folder.file_name()) else {
            continue;
        };
        // A parent that is missing is left to the slow look, and so are watches beyond the limit.
        if let Ok(id) = inotify.add_watch(parent, coming | going | kind)
            && let Ear::Names(names) =
                watches.entry(id).or_insert_with(|| Ear::Names(HashSet::new()))
        {
            names.insert(name.to_owned());
        }
    }
    let written =
        AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_ATTRIB;
    let itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
    let mut found = folder::find(folders);
    for _ in 0..LOOKS {
        for folder in &found.folders {
            if let Ok(id) = inotify.add_watch(folder, coming | going | written | itself | kind) {
                watches.insert(id, Ear::All);
            }
        }
        // Only now is a sub-folder heard of; one that was made before is found by looking again.
        let again = folder::find(folders);
        let settled = again.folders == found.folders;
        found = again;
        if settled {
            break;
        }
    }
    Survey { watches, print: print(&found) }
}

/// Most looks for sub-folders that are made while they are being watched; the slow look finds
/// what is made faster.
const LOOKS: usize = 3;

/// `.` for a bare name; none for `/`.
fn parent_of(folder: &Path) -> Option<&Path> {
    folder
        .parent()
        .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn print(found: &folder::Found) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in &found.files {
        path.hash(&mut hasher);
        if let Ok(file) = fs::metadata(path) {
            (file.dev(), file.ino(), file.len(), file.mode()).hash(&mut hasher);
            (file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()).hash(&mut hasher);
        }
    }
    found.folders.hash(&mut hasher);
    found.troubles.hash(&mut hasher);
    hasher.finish()
}

/// Waits for events; whether one of them matters.
async fn hear(inotify: &AsyncFd<Shared>, watches: &Watches) -> io::Result<bool> {
    let read = |shared: &Shared| shared.0.read_events().map_err(io::Error::from);
    let events = inotify.async_io(Interest::READABLE, read).await?;
    Ok(events.iter().any(|event| matters(event, watches)))
}

fn matters(event: &InotifyEvent, watches: &Watches) -> bool {
    if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
        return true;
    }
    // The end of a watch follows an event that says why.
    if event.mask.contains(AddWatchFlags::IN_IGNORED) {
        return false;
    }
    match watches.get(&event.wd) {
        Some(Ear::All) | None => true,
        Some(Ear::Names(names)) => event.name.as_ref().is_some_and(|name| names.contains(name)),
    }
}
