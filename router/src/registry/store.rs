//! The registry on disk: `registry.db`, so that a cloud that starts anew, or without its manifests, goes on
//! with what it knew.
//!
//! One thread owns the database; the changes that wait for it become one transaction, synced to
//! the disk before they are answered. The registry's numbers are not in it: each start is a new
//! epoch, so that a file that was put back from an old copy is only another set of records.
//!
//! Damage does not end the process: the damaged file is moved aside, the store begins empty, and
//! each step is a [`Repair`]. A file that cannot be written is read, and one that cannot even be read
//! is moved aside before anything is kept: what nobody has seen is never overwritten. Manifests are read again anyway, and nodes tell again what they run.

mod database;
mod repair;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use bytes::Bytes;
use edgemesh_core::store::{Access, CommitError, Fault, FileOwner, Folder, Lock, OpenError, Place};
use edgemesh_proto::record::{Key, Put};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::registry::counts::{At, Line};
use crate::registry::store::database::{Database, MARK, SCHEMA};
use crate::registry::{Owner, Write};

pub use crate::registry::store::repair::Repair;

/// Changes that wait for the thread; whoever brings more waits with them.
const QUEUE: usize = 64;

static PLACE: Place = Place { database: "registry.db", lock: "registry.lock", mark: MARK };

/// A handle on the open store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    jobs: mpsc::Sender<Job>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Room for one change.
#[derive(Debug)]
pub struct Room(mpsc::OwnedPermit<Job>);

/// What was kept.
#[derive(Debug, Default, PartialEq)]
pub struct Kept {
    /// Records by owner.
    pub(super) records: Vec<(Owner, Put)>,
    /// What Rules have counted.
    pub(super) counts: Vec<(At, Line)>,
}

/// Kept, or why not; what is not is tried again with the next change.
pub type Outcome = Result<(), Arc<CommitError>>;

enum Job {
    Keep(Vec<Write>, Vec<(At, Option<Line>)>, oneshot::Sender<Outcome>),
    Close(oneshot::Sender<()>),
}

impl Store {
    /// Opens the registry in `folder`, which is made (mode 0700) where it is missing. Blocks.
    ///
    /// # Errors
    /// When another process has it, or the disk does not allow it. Nothing was changed.
    pub fn open(folder: &Path) -> Result<(Self, Kept, Vec<Repair>), OpenError> {
        let (keeper, kept, repairs) = open(Folder::new(folder, &PLACE))?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = Builder::new()
            .name("edgemesh-registry".into())
            .spawn(move || keeper.run(queue))
            .map_err(|source| OpenError::Thread { source })?;
        Ok((Self { jobs, thread: Arc::new(Mutex::new(Some(thread))) }, kept, repairs))
    }

    /// Waits for room in the queue, so that what is kept is kept in the order in which it was
    /// decided. `None`: the store is closed.
    pub async fn room(&self) -> Option<Room> {
        self.jobs.clone().reserve_owned().await.ok().map(Room)
    }

    /// Carries out what is queued, gives up the lock and waits for the thread.
    pub async fn close(self) {
        let (answer, closed) = oneshot::channel();
        if self.jobs.send(Job::Close(answer)).await.is_ok() {
            // An error means that another handle closed first.
            let _ = closed.await;
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = thread.join(); // it has said its last word
        }
    }
}

impl Room {
    /// Keeps what was decided. Once this returns it will be, also when nobody waits for the answer.
    pub(super) fn keep(
        self,
        writes: Vec<Write>,
        counts: Vec<(At, Option<Line>)>,
    ) -> oneshot::Receiver<Outcome> {
        let (answer, kept) = oneshot::channel();
        self.0.send(Job::Keep(writes, counts, answer));
        kept
    }
}

/// Changes that are not kept yet, the last one of each row.
#[derive(Default)]
struct Pending {
    records: BTreeMap<(Owner, Key), Option<Bytes>>,
    counts: BTreeMap<At, Option<Line>>,
}

/// What the thread works on.
struct Keeper {
    folder: Folder,
    database: Option<Database>,
    /// What the disk refused before; tried again with the next change.
    pending: Pending,
    /// Why what the file holds is not known: it is moved aside, and everything is written anew.
    unknown: Option<Box<str>>,
    /// Given up last.
    lock: Lock,
}

impl Keeper {
    /// Works until the last handle is gone or one of them closes the store.
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut closing = None;
        while let Some(job) = jobs.blocking_recv() {
            let mut answers = Vec::new();
            let mut next = Some(job);
            while let Some(job) = next {
                match job {
                    Job::Keep(writes, counts, answer) => {
                        let write = |Write { owner, key, body }| ((owner, key), body);
                        self.pending.records.extend(writes.into_iter().map(write));
                        self.pending.counts.extend(counts);
                        answers.push(answer);
                    }
                    Job::Close(answer) => {
                        jobs.close();
                        closing = Some(answer);
                    }
                }
                next = jobs.try_recv().ok();
            }
            let kept = self.keep().map_err(Arc::new);
            for answer in answers {
                let _ = answer.send(kept.clone()); // nobody may wait any more
            }
        }
        if let Some(database) = self.database.take() {
            // If this fails, the log stays and is read at the next start.
            let _ = database.close();
        }
        drop(self.lock);
        if let Some(answer) = closing {
            let _ = answer.send(());
        }
    }

    fn keep(&mut self) -> Result<(), CommitError> {
        if self.pending.records.is_empty() && self.pending.counts.is_empty() {
            return Ok(());
        }
        let file = self.folder.database();
        let database = match &mut self.database {
            Some(database) => database,
            none => none.insert(reopened(&self.folder, self.unknown.as_deref())?),
        };
        self.unknown = None;
        database.apply(&self.pending).map_err(|error| CommitError::new(&file, error))?;
        self.pending = Pending::default();
        Ok(())
    }
}

/// The file that could not be written before; a new one in its place where that is `unknown`, and why.
fn reopened(folder: &Folder, unknown: Option<&str>) -> Result<Database, CommitError> {
    let file = folder.database();
    let Some(why) = unknown else {
        return Database::open(&file).map_err(|fault| fault.on_commit(&file));
    };
    let io = |source: Box<dyn std::error::Error + Send + Sync>| CommitError::Io {
        file: file.clone(),
        source,
    };
    folder.clear_fresh().map_err(|error| io(error.into()))?;
    let mut repairs = Vec::new();
    let database = begin_empty(folder, why, &mut repairs).map_err(|error| io(error.into()))?;
    for repair in &repairs {
        tracing::warn!("registry: {repair}");
    }
    Ok(database)
}

/// The file itself, else a new one. One that cannot be got at does not keep the cloud from serving.
fn open(folder: Folder) -> Result<(Keeper, Kept, Vec<Repair>), OpenError> {
    let mut lock = match folder.enter()? {
        Access::Write(lock) => lock,
        Access::Read(_, source) => {
            return Err(OpenError::Unwritable { folder: folder.path().into(), source });
        }
    };
    let file = folder.database();
    let io = |source| OpenError::Io { file: file.clone(), source };
    folder.clear_fresh().map_err(io)?;
    let mut repairs = Vec::new();
    let found = match folder.owner().map_err(io)? {
        FileOwner::Missing => Err(Fault::Damaged("there is a log but no database".into())),
        FileOwner::Ours => attempt(&file, &mut repairs),
        FileOwner::UnmarkedDatabase | FileOwner::NoDatabase if lock.used_before() => {
            Err(Fault::Damaged("it is no registry any more".into()))
        }
        FileOwner::UnmarkedDatabase | FileOwner::NoDatabase => {
            return Err(OpenError::Foreign { file, what: "a file of another kind".into() });
        }
    };
    let mut unknown = None;
    let (database, kept) = match found {
        Ok((database, kept)) => (Some(database), kept),
        Err(Fault::Damaged(why)) => {
            (Some(begin_empty(&folder, &why, &mut repairs)?), Kept::default())
        }
        Err(Fault::Unreachable(error)) => {
            let why: Box<str> = error.to_string().into();
            match attempt_reading(&file, &mut repairs) {
                Ok(kept) => {
                    repairs.push(Repair::ReadOnly { file, why });
                    (None, kept)
                }
                Err(newer @ Fault::Newer(_)) => return Err(SCHEMA.not_opened(&file, newer)),
                Err(Fault::Damaged(_) | Fault::Unreachable(_)) => {
                    unknown = Some(format!("it could not be opened: {why}").into());
                    repairs.push(Repair::Unreachable { file, why });
                    (None, Kept::default())
                }
            }
        }
        Err(newer @ Fault::Newer(_)) => return Err(SCHEMA.not_opened(&file, newer)),
    };
    lock.mark_used();
    let keeper = Keeper { folder, database, pending: Pending::default(), unknown, lock };
    Ok((keeper, kept, repairs))
}

/// What can be read of a file that cannot be written: the lock says that nobody of ours writes it.
fn attempt_reading(file: &Path, repairs: &mut Vec<Repair>) -> Result<Kept, Fault> {
    Database::open_read_only(file)?.load(file, repairs)
}

fn attempt(file: &Path, repairs: &mut Vec<Repair>) -> Result<(Database, Kept), Fault> {
    let mut database = Database::open(file)?;
    let kept = database.load(file, repairs)?;
    Ok((database, kept))
}

fn begin_empty(
    folder: &Folder,
    why: &str,
    repairs: &mut Vec<Repair>,
) -> Result<Database, OpenError> {
    let (file, fresh) = (folder.database(), folder.fresh());
    let io = |source| OpenError::Io { file: file.clone(), source };
    // Only when the successor is whole does the old file leave its place.
    SCHEMA.create(&fresh).map_err(|source| OpenError::Sqlite { file: fresh, source })?;
    let moved = folder.move_aside(why).map_err(io)?;
    folder.put_in_place(&file).map_err(io)?;
    repairs.clear(); // findings about what was moved
    if !moved.is_empty() {
        repairs.extend(moved.into_iter().map(Repair::Folder));
        repairs.push(Repair::BeganEmpty { file: file.clone() });
    }
    Database::open(&file).map_err(|fault| SCHEMA.not_opened(&file, fault))
}
