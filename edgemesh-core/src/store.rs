//! The metastore: the last known records in SQLite, so that a node serves them before it looks for
//! the cloud, also after a reboot.
//!
//! [`Store::open`] reads everything at once; from then on the store is only written. One thread
//! owns the database, and a [`Change`] is one transaction: after a crash at any point the store
//! reopens at a revision that existed, with exactly the content of that revision. After a power
//! cut this may be an earlier one than was last committed (`synchronous=NORMAL`), which the next
//! sync brings up to date.
//!
//! Damage does not end the process: the damaged file is moved aside, the last good copy takes its
//! place, else the store begins empty, and each step is a [`Repair`] that an operator can see.
//!
//! ```no_run
//! # use edgemesh_core::store::{Change, Store};
//! # async fn example(change: Change) -> Result<(), Box<dyn std::error::Error>> {
//! let (store, loaded, repairs) = Store::open("/var/lib/edgemesh".as_ref())?;
//! println!("revision {}, {} records, {repairs:?}", loaded.revision, loaded.records.len());
//! store.commit(change).await?;
//! store.close().await;
//! # Ok(())
//! # }
//! ```

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use edgemesh_proto::record::{Key, Put, Record, RuleName, ServiceName};
use edgemesh_proto::rule::Id;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::backends::Tally;
use crate::digest::Digest;
pub use crate::store::errors::{CommitError, OpenError};
pub use crate::store::folder::{Access, Folder, Lock, Owner as FileOwner, Place};
use crate::store::owner::{Job, Owner, QUEUE};
pub use crate::store::repair::Repair;
pub use crate::store::sqlite::{Fault, Schema, check_pages};

mod change;
mod count;
mod database;
mod errors;
mod folder;
mod opening;
mod owner;
mod project;
mod repair;
mod schema;
mod sqlite;
#[cfg(test)]
mod tests;

/// A handle on the open metastore. Clones share it; it ends when the last one is dropped, or with
/// [`Store::close`], which also waits for the end.
#[derive(Clone, Debug)]
pub struct Store {
    /// `None` = nothing is kept.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Everything that the metastore held when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Epoch of the registry that the revision belongs to; zeros when there was none yet, or
    /// when the content can no longer be said to be of any.
    pub epoch: [u8; 16],
    /// Revision within the epoch.
    pub revision: u64,
    /// Digest over all records (kind, namespace, name, body), whatever their order and revision.
    pub digest: [u8; 32],
    /// The records, each with the revision of the change that wrote it.
    pub records: Vec<(Record, u64)>,
    /// Every record, also those that this version cannot read.
    pub held: Vec<(Key, Digest)>,
    /// What this node adds to them.
    pub local: Vec<Record>,
    /// The addresses given out to Services that have none of their own.
    pub addresses: Vec<VirtualAddress>,
    /// What Rules have counted.
    pub counted: Vec<(RuleName, Tally)>,
    /// Whose counts these are: another one where they are no continuation of what was counted
    /// before.
    pub counter: [u8; 16],
}

/// What a Rule has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The Rule's.
    pub id: Id,
    /// Totals, and errors that are new.
    pub tally: Tally,
}

/// An address that stands for a Service, or for one Backend of it that has a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VirtualAddress {
    /// The Service.
    pub service: ServiceName,
    /// A Backend's own name below the Service's; empty = the Service itself.
    pub hostname: Box<str>,
    /// The address. It belongs to one name only: a later one takes it over.
    pub address: IpAddr,
}

/// A step to another revision. Deletes are applied before puts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Epoch of the registry.
    pub epoch: [u8; 16],
    /// The revision that this step leads to.
    pub revision: u64,
    /// All records that were there before go, those of this node too. Virtual addresses stay, since
    /// clients hold them.
    pub reset: bool,
    /// New and changed records, as they came.
    pub put: Vec<Put>,
    /// Records that are gone. What is not there is no error.
    pub delete: Vec<Key>,
    /// Records that this node adds.
    pub local_put: Vec<Put>,
    /// Records that it adds no longer.
    pub local_delete: Vec<Key>,
    /// New virtual addresses.
    pub addresses_put: Vec<VirtualAddress>,
    /// Virtual addresses that are given back.
    pub addresses_delete: Vec<VirtualAddress>,
}

impl Store {
    /// Opens the metastore in `folder`, which is made (mode 0700) where it is missing. Blocks:
    /// call it before the runtime serves, or where blocking is allowed.
    pub fn open(folder: &Path) -> Result<(Self, Loaded, Vec<Repair>), OpenError> {
        let (owner, loaded, repairs) = Owner::new(opening::open(folder)?);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let thread = Builder::new()
            .name("edgemesh-store".into())
            .spawn(move || owner.run(queue))
            .map_err(|source| OpenError::Thread { source })?;
        let store = Self { jobs: Some(jobs), thread: Arc::new(Mutex::new(Some(thread))) };
        Ok((store, loaded, repairs))
    }

    /// A store that keeps nothing and takes every change: for an application without a data folder.
    pub fn nowhere() -> Self {
        Self { jobs: None, thread: Arc::default() }
    }

    /// Stores a change in one transaction. Once it is queued it is carried out, even when the
    /// caller stops waiting. Changes are applied in the order in which they were queued.
    pub async fn commit(&self, change: impl Into<Arc<Change>>) -> Result<(), CommitError> {
        let change = change.into();
        self.ask(|answer| Job::Commit(change, answer)).await
    }

    /// Stores what Rules have counted, in one transaction. Errors of the Rules that this gives have no
    /// place yet, for these Rules wait for an Endpoint.
    pub async fn count(&self, counted: Vec<Counted>) -> Result<Vec<Id>, CommitError> {
        self.ask(|answer| Job::Count(counted, answer)).await
    }

    /// Replaces `meta.db.good` by a checked copy of the present state. The caller decides when:
    /// after a full sync, at most hourly. Commits wait meanwhile.
    pub async fn keep_good_copy(&self) -> Result<(), CommitError> {
        self.ask(Job::KeepGoodCopy).await
    }

    /// Carries out what is queued, transfers the log into the database, gives up the lock and
    /// waits for the thread. Other handles get [`CommitError::Closed`] from now on.
    pub async fn close(self) {
        let Some(jobs) = &self.jobs else { return };
        let (answer, closed) = oneshot::channel();
        if jobs.send(Job::Close(answer)).await.is_ok() {
            // An error means that another handle closed first; the join below waits for that too.
            let _ = closed.await;
        }
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // The thread has said its last word or says it without waiting for anybody.
            let _ = thread.join();
        }
    }

    async fn ask<T: Default>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, CommitError>>) -> Job,
    ) -> Result<T, CommitError> {
        let Some(jobs) = &self.jobs else { return Ok(T::default()) };
        let (answer, outcome) = oneshot::channel();
        jobs.send(job(answer)).await.map_err(|_| CommitError::Closed)?;
        outcome.await.unwrap_or(Err(CommitError::Closed))
    }
}

impl Loaded {
    /// Makes the next sync compare every record: no registry has this epoch.
    fn forget_epoch(&mut self) {
        self.epoch = [0; 16];
        self.revision = 0;
    }
}
