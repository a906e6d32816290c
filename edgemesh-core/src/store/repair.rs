//! What was found wrong with a metastore while it was opened, and what was done about it.

use std::fmt;
use std::path::PathBuf;

/// One finding, for the log and for `edgemesh status`. The store opened nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A damaged file was moved aside.
    MovedAside {
        /// Where it was.
        from: PathBuf,
        /// Where it is now.
        to: PathBuf,
        /// What was wrong with it.
        why: Box<str>,
    },
    /// An older file that had been moved aside was deleted to make room.
    Forgotten {
        /// The file that is gone.
        file: PathBuf,
    },
    /// The last good copy took the place of the metastore (in a folder that cannot be written:
    /// is served from where it lies).
    Restored {
        /// The copy.
        from: PathBuf,
        /// The revision it is at.
        revision: u64,
    },
    /// The last good copy is no good either; it was left where it is.
    CopyUnusable {
        /// The copy.
        file: PathBuf,
        /// What is wrong with it.
        why: Box<str>,
    },
    /// Nothing could be read: the store began empty.
    BeganEmpty {
        /// The new file.
        file: PathBuf,
    },
    /// The records are whole but not those that were stored, and there is no good copy: they are
    /// served, and the epoch was forgotten so that the next sync compares every one.
    Altered {
        /// The metastore.
        file: PathBuf,
    },
    /// A row does not make sense and is left out; it stays in the file.
    Skipped {
        /// Which row.
        row: Box<str>,
        /// What does not fit.
        why: Box<str>,
    },
    /// The metastore can be read but not written: changes will not be stored.
    ReadOnly {
        /// The metastore.
        file: PathBuf,
        /// Why it cannot be written.
        why: Box<str>,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MovedAside { from, to, why } => write!(
                f,
                "{} is damaged ({why}): moved to {}; delete that when nobody needs it",
                from.display(),
                to.display()
            ),
            Self::Forgotten { file } => {
                write!(f, "{} was deleted: only the newest damaged files are kept", file.display())
            }
            Self::Restored { from, revision } => write!(
                f,
                "the good copy {} is used in the metastore's place, at revision {revision}: \
                 newer changes come with the next sync",
                from.display()
            ),
            Self::CopyUnusable { file, why } => write!(
                f,
                "the good copy {} cannot be used ({why}): the next one replaces it",
                file.display()
            ),
            Self::BeganEmpty { file } => write!(
                f,
                "{} began empty: this node knows no Service before its next sync",
                file.display()
            ),
            Self::Altered { file } => write!(
                f,
                "the records in {} are not those that were stored, and there is no good copy: \
                 they are served, the next sync corrects them",
                file.display()
            ),
            Self::Skipped { row, why } => {
                write!(f, "{row} in the metastore is left out: {why}; the next sync corrects it")
            }
            Self::ReadOnly { file, why } => write!(
                f,
                "{} can only be read ({why}): changes will be lost with a restart; make the disk \
                 writable or free some space",
                file.display()
            ),
        }
    }
}
