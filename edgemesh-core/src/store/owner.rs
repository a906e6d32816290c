//! The one thread that owns the database: it takes jobs from a bounded queue, one after the other.

use std::sync::Arc;

use edgemesh_proto::rule::Id;
use tokio::sync::{mpsc, oneshot};

use crate::store::database::Database;
use crate::store::errors::CommitError;
use crate::store::folder::{Folder, Lock};
use crate::store::opening::Opened;
use crate::store::{Change, Counted, Loaded, Repair};

/// Jobs that wait for the thread; whoever brings more waits with them.
pub(super) const QUEUE: usize = 64;

/// What the thread can be asked for. An answer that nobody waits for any more is dropped; the job
/// is done all the same.
pub(super) enum Job {
    Commit(Arc<Change>, oneshot::Sender<Result<(), CommitError>>),
    Count(Vec<Counted>, oneshot::Sender<Result<Vec<Id>, CommitError>>),
    KeepGoodCopy(oneshot::Sender<Result<(), CommitError>>),
    Close(oneshot::Sender<()>),
}

/// The database and its folder.
pub(super) struct Owner {
    folder: Folder,
    database: Option<Database>,
    /// Given up last, when the database is closed.
    lock: Option<Lock>,
    /// Whose counts these are.
    counter: [u8; 16],
}

impl Owner {
    /// Takes over what was opened.
    pub(super) fn new(opened: Opened) -> (Self, Loaded, Vec<Repair>) {
        let Opened { folder, lock, database, loaded, repairs } = opened;
        let counter = loaded.counter;
        (Self { folder, database, lock, counter }, loaded, repairs)
    }

    /// Works until the last handle is gone or one of them closes the store.
    pub(super) fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut closing = None;
        while let Some(job) = jobs.blocking_recv() {
            match job {
                Job::Commit(change, answer) => drop(answer.send(self.commit(&change))),
                Job::Count(counted, answer) => drop(answer.send(self.count(&counted))),
                Job::KeepGoodCopy(answer) => drop(answer.send(self.keep_good_copy())),
                Job::Close(answer) => {
                    // Nothing new is taken; what is queued is still done.
                    jobs.close();
                    closing = Some(answer);
                }
            }
        }
        if let Some(database) = self.database.take() {
            // If this fails, the log stays and is read at the next start.
            let _ = database.close();
        }
        drop(self.lock.take());
        if let Some(answer) = closing {
            let _ = answer.send(());
        }
    }

    fn commit(&mut self, change: &Change) -> Result<(), CommitError> {
        let file = self.folder.database();
        self.database()?.apply(change).map_err(|error| CommitError::new(&file, error))
    }

    fn count(&mut self, counted: &[Counted]) -> Result<Vec<Id>, CommitError> {
        let file = self.folder.database();
        self.database()?.count(counted).map_err(|error| CommitError::new(&file, error))
    }

    fn keep_good_copy(&mut self) -> Result<(), CommitError> {
        let (folder, fresh) = (self.folder.clone(), self.folder.fresh());
        let io = |error| CommitError::io(&fresh, error);
        folder.clear_fresh().map_err(io)?;
        let copied = self.database()?.copy_to(&fresh).map_err(|error| {
            let _ = folder.clear_fresh();
            CommitError::new(&fresh, error)
        });
        copied?;
        check_copy(&folder)?;
        folder.put_in_place(&folder.good()).map_err(io)
    }

    /// The database; opened now, if the disk did not allow it before.
    fn database(&mut self) -> Result<&mut Database, CommitError> {
        let file = self.folder.database();
        // Without the lock somebody else may have written meanwhile: only a new start can tell.
        if self.lock.as_ref().is_none_or(Lock::is_read_only) {
            return Err(CommitError::ReadOnly { file, source: None });
        }
        match &mut self.database {
            Some(database) => Ok(database),
            none => {
                let database = Database::open(&file).map_err(|fault| fault.on_commit(&file))?;
                database.go_on_as(self.counter).map_err(|error| CommitError::new(&file, error))?;
                Ok(none.insert(database))
            }
        }
    }
}

/// A copy that does not read back replaces no good one.
fn check_copy(folder: &Folder) -> Result<(), CommitError> {
    let fresh = folder.fresh();
    let sound = Database::open_read_only(&fresh).and_then(|mut copy| copy.is_sound());
    match sound {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommitError::io(
            &fresh,
            std::io::Error::other("the copy does not hold what was stored"),
        )),
        Err(fault) => Err(fault.on_commit(&fresh)),
    }
}
