//! One open `registry.db`: reading all of it, and changing it in one transaction.

use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use edgemesh_core::digest::{Digest, Hasher};
use edgemesh_core::store::{CommitError, OpenError};
use edgemesh_proto::record::{Key, Kind, NodeName, Put};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction};
use rusqlite_migration::{M, Migrations};

use crate::registry::Owner;
use crate::registry::store::{Kept, Pending, Repair};

/// `application_id`: the letters `EMrg`.
pub(super) const MARK: i32 = 0x454d_7267;
/// The schema that this program writes (`user_version`).
pub(super) const VERSION: u32 = STEPS.len() as u32;
/// A higher `user_version` than any release will ever have: such a number is damage.
const IMPLAUSIBLE_VERSION: u32 = 10_000;
/// One step for each version; a released step never changes.
const STEPS: &[M<'_>] = &[M::up(include_str!("registry_1.sql"))];
/// How long to wait for a lock that another program (somebody's `sqlite3`) holds.
const BUSY: Duration = Duration::from_secs(2);
/// The log is cut back to this size when its content has reached the database.
const LOG_BYTES: u32 = 8 << 20;

/// Begins the names of owners that are nodes.
const NODE: &str = "node/";

/// An open registry.
pub(super) struct Database {
    connection: Connection,
    hasher: Hasher,
}

/// Why a file that is ours cannot be used as it is.
#[derive(Debug)]
pub(super) enum Fault {
    /// A later release wrote it.
    Newer(u32),
    /// Its content is broken.
    Damaged(Box<str>),
    /// It cannot be read or written at the moment.
    Unreachable(rusqlite::Error),
}

impl Database {
    /// Makes a new, empty database in `file`, whole when this returns.
    pub(super) fn create(file: &Path) -> Result<(), rusqlite::Error> {
        let mut connection = Connection::open(file)?;
        connection.pragma_update(None, "application_id", MARK)?;
        migrate(&mut connection)
    }

    /// Opens a database of ours, and brings its tables up to date.
    pub(super) fn open(file: &Path) -> Result<Self, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(BUSY)?;
        // Closing must not write: the file may be about to be moved aside as it is.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            version if version <= VERSION => {}
            version if version < IMPLAUSIBLE_VERSION => return Err(Fault::Newer(version)),
            version => return Err(Fault::Damaged(format!("schema {version}").into())),
        }
        let mode: String =
            connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        if mode != "wal" {
            return Err(Fault::Damaged(format!("journal mode {mode}").into()));
        }
        // What was answered is there after a power cut: changes are rare.
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
        if version < VERSION {
            migrate(&mut connection)?;
        }
        Ok(Self { connection, hasher: Hasher::default() })
    }

    /// Reads everything, and with it checks every page and every record.
    pub(super) fn load(&mut self, file: &Path, repairs: &mut Vec<Repair>) -> Result<Kept, Fault> {
        let verdict: String =
            self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Fault::Damaged(verdict.replace('\n', "; ").into()));
        }
        let stored = digest(&self.connection)?;
        let (kept, found) = self.rows(repairs)?;
        if found != stored {
            repairs.push(Repair::Altered { file: file.to_path_buf() });
            self.connection.execute("UPDATE state SET digest = ?1", [found.to_bytes()])?;
        }
        Ok(kept)
    }

    fn rows(&mut self, repairs: &mut Vec<Repair>) -> Result<(Kept, Digest), Fault> {
        let sql = "SELECT owner, kind, namespace, name, body FROM owned";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let (mut kept, mut found) = (Kept::new(), Digest::default());
        while let Some(row) = rows.next()? {
            let text = |at| -> Result<&str, rusqlite::Error> { Ok(row.get_ref(at)?.as_str()?) };
            let (who, what, namespace, name) = (text(0)?, text(1)?, text(2)?, text(3)?);
            let body = row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?;
            found.add(self.hasher.record(&format!("{who} {what}"), namespace, name, body));
            let (Some(owner), Some(kind)) = (owner(who), Kind::from_name(what)) else {
                let row = format!("{what} {namespace}/{name} of {who}").into();
                let why = "this program does not know such records".into();
                repairs.push(Repair::Skipped { row, why });
                continue;
            };
            let key = Key { kind, namespace: namespace.into(), name: name.into() };
            kept.push((owner, Put { key, body: Bytes::copy_from_slice(body) }));
        }
        Ok((kept, found))
    }

    /// Applies changes whole, or not at all. `anew`: nothing else is to be there.
    pub(super) fn apply(&mut self, changes: &Pending, anew: bool) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction()?;
        let digest = if anew { Digest::default() } else { digest(&transaction)? };
        if anew {
            transaction.execute("DELETE FROM owned", [])?;
        }
        let mut rows = Rows { transaction: &transaction, hasher: &mut self.hasher, digest };
        for ((owner, key), body) in changes {
            rows.set(owner, key, body.as_deref())?;
        }
        let digest = rows.digest.to_bytes();
        transaction.execute("UPDATE state SET digest = ?1", [digest])?;
        transaction.commit()
    }

    /// Transfers the log into the database and ends without leaving one.
    pub(super) fn close(self) -> Result<(), rusqlite::Error> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        self.connection.close().map_err(|(_, error)| error)
    }
}

/// The table `owned` during one transaction, with its digest.
struct Rows<'a> {
    transaction: &'a Transaction<'a>,
    hasher: &'a mut Hasher,
    digest: Digest,
}

impl Rows<'_> {
    fn set(&mut self, owner: &Owner, key: &Key, body: Option<&[u8]>) -> rusqlite::Result<()> {
        let (who, kind) = (name_of(owner), key.kind.name());
        let mut hash = |body: &[u8]| {
            self.hasher.record(&format!("{who} {kind}"), &key.namespace, &key.name, body)
        };
        let (namespace, name) = (&*key.namespace, &*key.name);
        let old: Option<Vec<u8>> = self
            .transaction
            .prepare_cached(
                "DELETE FROM owned \
                 WHERE owner = ?1 AND kind = ?2 AND namespace = ?3 AND name = ?4 RETURNING body",
            )?
            .query_row((&*who, kind, namespace, name), |row| row.get(0))
            .optional()?;
        if let Some(old) = old {
            self.digest.remove(hash(&old));
        }
        if let Some(body) = body {
            self.transaction
                .prepare_cached("INSERT INTO owned VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute((&*who, kind, namespace, name, body))?;
            self.digest.add(hash(body));
        }
        Ok(())
    }
}

fn digest(connection: &Connection) -> Result<Digest, rusqlite::Error> {
    let sql = "SELECT digest FROM state";
    connection.query_row(sql, [], |row| row.get(0).map(|bytes| Digest::from_bytes(&bytes)))
}

fn migrate(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    Migrations::from_slice(STEPS).to_latest(connection).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => err,
        // The type is non-exhaustive and these are about the steps above, not about the file.
        other => rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA),
            Some(format!("schema step: {other}")),
        ),
    })
}

fn name_of(owner: &Owner) -> String {
    match owner {
        Owner::Manifests => "manifests".to_owned(),
        Owner::Cloud => "cloud".to_owned(),
        Owner::Node(node) => format!("{NODE}{node}"),
    }
}

fn owner(name: &str) -> Option<Owner> {
    match name {
        "manifests" => Some(Owner::Manifests),
        "cloud" => Some(Owner::Cloud),
        other => other.strip_prefix(NODE).map(|node| Owner::Node(NodeName(node.into()))),
    }
}

impl Fault {
    /// The same, met while a change was to be kept.
    pub(super) fn on_commit(self, file: &Path) -> CommitError {
        let io = |why: String| CommitError::Io {
            file: file.to_path_buf(),
            source: io::Error::other(why).into(),
        };
        match self {
            Self::Unreachable(error) => CommitError::new(file, error),
            Self::Damaged(why) => io(why.into()),
            Self::Newer(found) => io(format!("schema {found} is newer")),
        }
    }

    /// The same, met while it was opened.
    pub(super) fn on_open(self, file: &Path) -> OpenError {
        let file = file.to_path_buf();
        match self {
            Self::Newer(found) => OpenError::Newer { file, found, known: VERSION },
            Self::Damaged(why) => OpenError::DamagedReadOnly { file, why },
            Self::Unreachable(source) => OpenError::Sqlite { file, source },
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        // `ErrorCode` is SQLite's and non-exhaustive; what is not about the disk is about the file.
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::OutOfMemory
                | ErrorCode::NoLargeFileSupport
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked,
            ) => Self::Unreachable(error),
            _ => Self::Damaged(error.to_string().into()),
        }
    }
}
