//! What can go wrong with a metastore, in words that name the file and the fix.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why a metastore could not be opened. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder is missing and cannot be made, or cannot be entered.
    #[error("cannot use the data folder {}: make it by hand, or point dataDir at a folder that \
             this user may write", folder.display())]
    Folder {
        /// The data folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The folder cannot be written and has no metastore to read.
    #[error("the data folder {} cannot be written and holds no metastore to read: let this user \
             write there, or point dataDir elsewhere", folder.display())]
    Unwritable {
        /// The data folder.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process holds the folder.
    #[error("the data folder {} is in use by another process of EdgeMesh ({}): stop it, or give \
             this one a dataDir of its own", folder.display(), holder(*pid))]
    Locked {
        /// The data folder.
        folder: PathBuf,
        /// Process that holds it, as it wrote down itself (in its own pid namespace).
        pid: Option<u32>,
    },
    /// The file at the metastore's place is somebody else's.
    #[error("{} is no metastore of EdgeMesh but {what}: move it away, or point dataDir elsewhere \
             (it was not touched)", file.display())]
    Foreign {
        /// The file.
        file: PathBuf,
        /// What it is instead.
        what: Box<str>,
    },
    /// A later release wrote the file.
    #[error("{} has schema {found}, this program knows up to {known}: run the newer EdgeMesh, or \
             move the file away to begin empty (it was not touched)", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its schema.
        found: u32,
        /// The newest schema of this program.
        known: u32,
    },
    /// The file is damaged and the folder cannot be written, so that it cannot be moved aside.
    #[error("{} is damaged ({why}), and its folder cannot be written to move it aside: let this \
             user write there", file.display())]
    DamagedReadOnly {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: Box<str>,
    },
    /// A file could not be read, written or renamed.
    #[error("cannot read or write {}: check the permissions of the folder, the disk and its free \
             space", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// SQLite could not get at a file although it is not damaged.
    #[error("cannot open the metastore {}: check the permissions of the folder, the disk and its \
             free space", file.display())]
    Sqlite {
        /// The file.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The owner thread could not be started.
    #[error("cannot start the thread of the metastore: raise the limit of processes or memory")]
    Thread {
        /// What the system said.
        source: io::Error,
    },
}

/// Why a change was not stored. None of it was: the store is at the revision it was at.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// No space left.
    #[error("the disk of {} is full: free some space", file.display())]
    Full {
        /// The metastore.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file or its folder cannot be written.
    #[error("{} cannot be written: let this user write there (and start the agent anew, if the \
             folder was read-only when it started)", file.display())]
    ReadOnly {
        /// The metastore.
        file: PathBuf,
        /// What SQLite said; absent when the folder was read-only from the start.
        source: Option<rusqlite::Error>,
    },
    /// The disk failed.
    #[error("reading or writing {} failed: check the disk", file.display())]
    Io {
        /// The metastore or its copy.
        file: PathBuf,
        /// What SQLite or the system said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another program holds a lock on the file.
    #[error("another program holds {} locked: let it finish", file.display())]
    Busy {
        /// The metastore.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file was damaged while in use; the next start repairs it.
    #[error("{} is damaged: start the agent anew, it then falls back to the last good copy",
            file.display())]
    Damaged {
        /// The metastore.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The tables do not take the change: a defect of EdgeMesh, not of the disk.
    #[error("the tables of {} do not take the change: please report this", file.display())]
    Rejected {
        /// The metastore.
        file: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The store was closed.
    #[error("the metastore is closed")]
    Closed,
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "of unknown pid".into(), |pid| format!("pid {pid}"))
}

impl CommitError {
    /// Whether the change could not be stored for want of a disk that takes writes, so that
    /// status says `storeReadOnly`; trying later may help.
    pub const fn store_read_only(&self) -> bool {
        match self {
            Self::Full { .. }
            | Self::ReadOnly { .. }
            | Self::Io { .. }
            | Self::Busy { .. }
            | Self::Damaged { .. } => true,
            Self::Rejected { .. } | Self::Closed => false,
        }
    }

    /// From what SQLite said about a file.
    pub fn new(file: &Path, source: rusqlite::Error) -> Self {
        let file = file.to_path_buf();
        match Cause::of(&source) {
            Cause::Full => Self::Full { file, source },
            Cause::ReadOnly => Self::ReadOnly { file, source: Some(source) },
            Cause::Io => Self::Io { file, source: source.into() },
            Cause::Busy => Self::Busy { file, source },
            Cause::Damaged => Self::Damaged { file, source },
            Cause::Other => Self::Rejected { file, source },
        }
    }

    pub(super) fn io(file: &Path, source: io::Error) -> Self {
        Self::Io { file: file.to_path_buf(), source: source.into() }
    }
}

/// What an error of SQLite is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Full,
    ReadOnly,
    Io,
    Busy,
    Damaged,
    Other,
}

impl Cause {
    pub(super) fn of(error: &rusqlite::Error) -> Self {
        // `ErrorCode` is SQLite's and non-exhaustive.
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::ReadOnly,
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport,
            ) => Self::Io,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged,
            _ => Self::Other,
        }
    }
}
