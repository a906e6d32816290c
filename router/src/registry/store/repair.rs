//! What was found wrong with the registry's file, and what was done about it.

use std::fmt;
use std::path::PathBuf;

use edgemesh_core::store::Repair as Moved;

/// One finding, for the log and for people. The registry opened nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// A damaged file was moved aside, or an older one deleted.
    Folder(Moved),
    /// Nothing could be read: the registry began empty.
    BeganEmpty {
        /// The new file.
        file: PathBuf,
    },
    /// The records are readable, but not those that were kept.
    Altered {
        /// The file.
        file: PathBuf,
    },
    /// A row does not make sense and is left out.
    Skipped {
        /// Which row.
        row: Box<str>,
        /// What does not fit.
        why: Box<str>,
    },
    /// The file cannot be written at the moment, but was read.
    ReadOnly {
        /// The file.
        file: PathBuf,
        /// Why.
        why: Box<str>,
    },
    /// The file cannot be read or written at the moment.
    Unreachable {
        /// The file.
        file: PathBuf,
        /// Why.
        why: Box<str>,
    },
}

impl Repair {
    /// Nothing is kept until the file can be written.
    pub(crate) const fn is_unwritable(&self) -> bool {
        match self {
            Self::ReadOnly { .. } | Self::Unreachable { .. } => true,
            Self::Folder(_)
            | Self::BeganEmpty { .. }
            | Self::Altered { .. }
            | Self::Skipped { .. } => false,
        }
    }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(moved) => moved.fmt(f),
            Self::BeganEmpty { file } => write!(
                f,
                "{} began empty: the manifests are read anew, and nodes tell again what they run",
                file.display()
            ),
            Self::Altered { file } => write!(
                f,
                "the records in {} are not those that were kept: they count until the manifests \
                 are read and the nodes have told what they run",
                file.display()
            ),
            Self::Skipped { row, why } => {
                write!(f, "{row} in the registry is left out: {why}")
            }
            Self::ReadOnly { file, why } => write!(
                f,
                "{} cannot be written ({why}): the cloud serves what it kept, and keeps changes as \
                 soon as it can; check the disk and its free space",
                file.display()
            ),
            Self::Unreachable { file, why } => write!(
                f,
                "{} cannot be opened ({why}): the cloud serves without what it kept; as soon as it \
                 can, it moves the file aside and keeps changes in a new one; check the disk and \
                 its free space",
                file.display()
            ),
        }
    }
}
