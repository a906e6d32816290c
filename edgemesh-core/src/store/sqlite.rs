//! What every database of ours has in common as a SQLite file: how it is made, opened for writing or
//! only for reading, brought up to date and checked, and why that may fail.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};
use rusqlite_migration::{M, Migrations};

use crate::store::errors::{Cause, CommitError, OpenError};

/// How long to wait for a lock that another program (somebody's `sqlite3`) holds.
const BUSY: Duration = Duration::from_secs(2);
/// The log is cut back to this size when its content has reached the database.
const LOG_BYTES: u32 = 8 << 20;
/// Pages in the log that start a transfer into the database: 1000 is SQLite's own default, 4 MiB.
const TRANSFER_PAGES: u32 = 1000;
/// SQLite's page cache, in KiB. Reads happen once, at opening: a large one would only hold memory.
const CACHE_KIB: i64 = 256;
/// A higher `user_version` than any release will ever have: such a number is damage.
const IMPLAUSIBLE_VERSION: u32 = 10_000;

/// One kind of database.
#[derive(Debug)]
pub struct Schema {
    /// Its `application_id`.
    pub mark: i32,
    /// One step for each version (`user_version`); a released step never changes.
    pub steps: &'static [M<'static>],
    /// SQLite's `synchronous`.
    pub synchronous: &'static str,
}

/// Why a file that is ours cannot be used as it is.
#[derive(Debug)]
pub enum Fault {
    /// A later release wrote it.
    Newer(u32),
    /// Its content is broken.
    Damaged(Box<str>),
    /// It cannot be read or written at the moment; its content may be fine.
    Unreachable(rusqlite::Error),
}

impl Schema {
    /// The schema that this program writes.
    pub const fn version(&self) -> u32 {
        self.steps.len() as u32
    }

    /// Makes a new, empty database in `file`, whole when this returns.
    ///
    /// # Errors
    /// What SQLite says.
    pub fn create(&self, file: &Path) -> Result<(), rusqlite::Error> {
        let mut connection = Connection::open(file)?;
        connection.pragma_update(None, "application_id", self.mark)?;
        self.migrate(&mut connection)
    }

    /// Opens a database of ours for reading and writing, and brings its tables up to date.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn open(&self, file: &Path) -> Result<Connection, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        // Closing must not write: the file may be about to be moved aside as it is. The owner
        // transfers the log itself.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let version = self.version_of(&connection)?;
        // Before anything is asked for that would have to be written: SQLite then answers with the
        // old state, and not with an error.
        if connection.is_readonly("main")? {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_READONLY);
            return Err(Fault::Unreachable(rusqlite::Error::SqliteFailure(code, None)));
        }
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Fault::Damaged(format!("journal mode {mode}").into()));
        }
        connection.pragma_update(None, "synchronous", self.synchronous)?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        connection.pragma_update(None, "wal_autocheckpoint", TRANSFER_PAGES)?;
        if version < self.version() {
            self.migrate(&mut connection)?;
        }
        Ok(connection)
    }

    /// Opens a database of ours where nothing can be written, not even a lock: the caller knows
    /// that nobody writes. The log, if there is one, is read too; its index is kept in memory.
    ///
    /// Its tables may be those of an earlier version, since they cannot be brought up to date:
    /// [`Schema::version_of`] tells which are there.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn open_read_only(&self, file: &Path) -> Result<Connection, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_URI
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        // Without a log SQLite would make one; `immutable` promises that none is needed.
        let logged = fs::metadata(log).is_ok_and(|log| log.len() > 0);
        let options = if logged { "vfs=unix-none" } else { "immutable=1" };
        let connection = Connection::open_with_flags(uri(file, options), flags)?;
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
        self.version_of(&connection)?;
        Ok(connection)
    }

    /// The version of the tables that are there: this program's, or an earlier one.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn version_of(&self, connection: &Connection) -> Result<u32, Fault> {
        let found: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match found {
            found if found <= self.version() => Ok(found),
            found if found < IMPLAUSIBLE_VERSION => Err(Fault::Newer(found)),
            found => Err(Fault::Damaged(format!("schema {found}").into())),
        }
    }

    /// Brings the tables up to date, each step in a transaction of its own.
    fn migrate(&self, connection: &mut Connection) -> Result<(), rusqlite::Error> {
        Migrations::from_slice(self.steps).to_latest(connection).map_err(|error| match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => err,
            // The type is non-exhaustive and these are about the steps, not about the file.
            other => rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA),
                Some(format!("schema step: {other}")),
            ),
        })
    }

    /// A fault that was met while `file` was opened.
    pub fn not_opened(&self, file: &Path, fault: Fault) -> OpenError {
        let file = file.to_path_buf();
        match fault {
            Fault::Newer(found) => OpenError::Newer { file, found, known: self.version() },
            Fault::Damaged(why) => OpenError::DamagedReadOnly { file, why },
            Fault::Unreachable(source) => OpenError::Sqlite { file, source },
        }
    }
}

/// Finds broken structure.
///
/// # Errors
/// [`Fault::Damaged`] with the place, or that it cannot be read.
pub fn check_pages(connection: &Connection) -> Result<(), Fault> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" {
        return Ok(());
    }
    let place = verdict.trim_start_matches("*** in database main ***").trim();
    Err(Fault::Damaged(place.replace('\n', "; ").into()))
}

/// A path as SQLite takes it with options: every byte that could mean something is escaped.
pub(super) fn uri(file: &Path, options: &str) -> String {
    let mut uri = String::from("file:");
    for byte in file.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                uri.push(char::from(*byte));
            }
            _ => {
                let _ = write!(uri, "%{byte:02x}");
            }
        }
    }
    uri + "?" + options
}

impl Fault {
    /// The same, met while a change was to be stored.
    pub fn on_commit(self, file: &Path) -> CommitError {
        match self {
            Self::Unreachable(error) => CommitError::new(file, error),
            Self::Damaged(why) => CommitError::io(file, io::Error::other(why.to_string())),
            Self::Newer(found) => {
                CommitError::io(file, io::Error::other(format!("schema {found} is newer")))
            }
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match Cause::of(&error) {
            // What is left over: a missing table, a value of another type.
            Cause::Damaged | Cause::Other => Self::Damaged(error.to_string().into()),
            Cause::Full | Cause::ReadOnly | Cause::Io | Cause::Busy => Self::Unreachable(error),
        }
    }
}
