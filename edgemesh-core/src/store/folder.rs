//! The data folder on disk: its lock, the names in it, whose a file is, and moves that a power cut
//! cannot tear.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::store::errors::OpenError;
use crate::store::repair::Repair;
use crate::store::schema::APPLICATION_ID;

/// So many damaged files are kept, the newest.
pub(super) const KEPT_DAMAGED: usize = 3;

/// What a database of ours is called, and how it is known.
#[derive(Debug)]
pub struct Place {
    /// Its file.
    pub database: &'static str,
    /// The file whose lock says who uses it.
    pub lock: &'static str,
    /// Its `application_id`.
    pub mark: i32,
}

/// The metastore.
pub(super) const META: Place = Place { database: "meta.db", lock: "lock", mark: APPLICATION_ID };

/// The database, its write-ahead log, and the journal of a switch between modes. SQLite would
/// apply a log to whatever lies at the database's place, so all of them move together.
const SUFFIXES: [&str; 3] = ["", "-wal", "-journal"];

/// In the lock file after the first successful open: a file at the metastore's place is then
/// ours, be its content what it may.
const USED: &str = "this folder holds a metastore of EdgeMesh\n";

/// The longest lock file that is read.
const LOCK_FILE_BYTES: u64 = 256;

const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// The names in a data folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    place: &'static Place,
}

/// How the folder may be used.
#[derive(Debug)]
pub enum Access {
    /// Read and write; nobody else does.
    Write(Lock),
    /// Read only, with the lock where a lock file exists.
    Read(Option<Lock>, io::Error),
}

/// The lock on a data folder; gives it up when dropped.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
    used_before: bool,
    read_only: bool,
}

/// Whose the file at the metastore's place is, judged from its first bytes alone.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    /// There is none.
    Missing,
    /// It bears our mark.
    Ours,
    /// A SQLite file without our mark: its tables have to tell.
    UnmarkedDatabase,
    /// Nothing that SQLite can read.
    NoDatabase,
}

impl Folder {
    /// A folder with that database in it, or not yet.
    pub fn new(path: &Path, place: &'static Place) -> Self {
        Self { path: path.to_path_buf(), place }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.named("")
    }

    /// Its last good copy.
    pub fn good(&self) -> PathBuf {
        self.named(".good")
    }

    fn named(&self, suffix: &str) -> PathBuf {
        self.path.join(format!("{}{suffix}", self.place.database))
    }

    /// Whose the file at the database's place is.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn owner(&self) -> io::Result<Owner> {
        Owner::of(&self.database(), self.place)
    }

    /// A file in the making; renamed when whole.
    pub fn fresh(&self) -> PathBuf {
        self.named(".new")
    }

    fn lock(&self) -> PathBuf {
        self.path.join(self.place.lock)
    }

    fn damaged(&self, number: u64, suffix: &str) -> PathBuf {
        self.named(&format!(".damaged-{number}{suffix}"))
    }

    /// Makes the folder where it is missing and takes its lock.
    ///
    /// # Errors
    /// When that is not allowed, or another process has it.
    pub fn enter(&self) -> Result<Access, OpenError> {
        let folder = || self.path.clone();
        if let Err(source) = DirBuilder::new().recursive(true).mode(0o700).create(&self.path) {
            return Err(OpenError::Folder { folder: folder(), source });
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        match options.open(self.lock()) {
            Ok(file) => self.take(file, false).map(Access::Write),
            Err(error) if refused(&error) => match File::open(self.lock()) {
                Ok(file) => Ok(Access::Read(Some(self.take(file, true)?), error)),
                Err(_) => Ok(Access::Read(None, error)),
            },
            Err(source) => Err(OpenError::Folder { folder: folder(), source }),
        }
    }

    fn take(&self, file: File, read_only: bool) -> Result<Lock, OpenError> {
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let pid = text(&mut file).lines().next().and_then(|line| line.parse().ok());
                return Err(OpenError::Locked { folder: self.path.clone(), pid });
            }
            Err((_, errno)) => {
                return Err(OpenError::Folder { folder: self.path.clone(), source: errno.into() });
            }
        };
        let used_before = text(&mut file).contains(USED.trim_end());
        let mut lock = Lock { file, used_before, read_only };
        lock.sign(used_before);
        Ok(lock)
    }

    /// Puts the whole file that [`Folder::fresh`] names in the place of `place`.
    ///
    /// # Errors
    /// What the system says.
    pub fn put_in_place(&self, place: &Path) -> io::Result<()> {
        File::open(self.fresh())?.sync_all()?;
        fs::rename(self.fresh(), place)?;
        self.sync()
    }

    /// Makes renames in the folder durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Deletes what an interrupted run left half-made.
    ///
    /// # Errors
    /// What the system says.
    pub fn clear_fresh(&self) -> io::Result<()> {
        for suffix in ["", "-journal", "-wal", "-shm"] {
            absent_is_fine(fs::remove_file(self.named(&format!(".new{suffix}"))))?;
        }
        Ok(())
    }

    /// Moves the database and its logs aside, where they exist, and forgets the oldest ones.
    ///
    /// # Errors
    /// What the system says.
    pub fn move_aside(&self, why: &str) -> io::Result<Vec<Repair>> {
        let mut numbers = self.damaged_numbers()?;
        let number = numbers.last().map_or(1, |last| last + 1);
        let mut repairs = Vec::new();
        // The database first: a log without its database is moved at the next start, but a
        // database without its log would look whole and be older than it says.
        for suffix in SUFFIXES {
            let (from, to) = (self.named(suffix), self.damaged(number, suffix));
            // An empty log says nothing.
            if !suffix.is_empty() && fs::metadata(&from).is_ok_and(|log| log.len() == 0) {
                absent_is_fine(fs::remove_file(&from))?;
                continue;
            }
            match fs::rename(&from, &to) {
                Ok(()) => repairs.push(Repair::MovedAside { from, to, why: why.into() }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        // An index of the log, made anew when needed.
        absent_is_fine(fs::remove_file(self.named("-shm")))?;
        if !repairs.is_empty() {
            numbers.push(number);
        }
        let surplus = numbers.len().saturating_sub(KEPT_DAMAGED);
        for number in &numbers[..surplus] {
            for suffix in SUFFIXES {
                absent_is_fine(fs::remove_file(self.damaged(*number, suffix)))?;
            }
            repairs.push(Repair::Forgotten { file: self.damaged(*number, "") });
        }
        self.sync()?;
        Ok(repairs)
    }

    fn damaged_numbers(&self) -> io::Result<Vec<u64>> {
        let (mut numbers, prefix) = (Vec::new(), format!("{}.damaged-", self.place.database));
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(&prefix));
            // The digits end where the suffix of a log begins.
            let number = number.and_then(|rest| rest.split('-').next());
            numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        numbers.dedup();
        Ok(numbers)
    }
}

impl Lock {
    /// Whether a database of ours was opened here before.
    pub const fn used_before(&self) -> bool {
        self.used_before
    }

    /// Whether the folder could not be written when the lock was taken.
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Notes that this folder holds a database of ours.
    pub fn mark_used(&mut self) {
        if !self.used_before {
            self.used_before = true;
            self.sign(true);
        }
    }

    /// Writes our pid into the lock file, for the message that others get. A full disk does not
    /// matter here: the lock itself needs no content.
    fn sign(&mut self, used: bool) {
        let line = format!("{}\n{}", std::process::id(), if used { USED } else { "" });
        let file = &mut *self.file;
        let _ = file.rewind();
        if file.write_all(line.as_bytes()).is_ok() {
            let _ = file.set_len(line.len() as u64);
        }
    }
}

impl Owner {
    /// Reads the first 100 bytes, the header of a SQLite file.
    pub(super) fn of(file: &Path, place: &Place) -> io::Result<Self> {
        let mut header = Vec::with_capacity(100);
        match File::open(file) {
            Ok(file) => file.take(100).read_to_end(&mut header)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::Missing),
            Err(error) => return Err(error),
        };
        Ok(if header.get(68..72) == Some(&place.mark.to_be_bytes()) {
            Self::Ours
        } else if header.starts_with(MAGIC) {
            Self::UnmarkedDatabase
        } else {
            Self::NoDatabase
        })
    }
}

/// Whether an error says that this user may read but not write here.
pub(super) fn refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    let _ = file.rewind();
    let _ = file.take(LOCK_FILE_BYTES).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
