//! `authority.db`: the tokens that were given out, and who has which name.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use edgemesh_core::identity::{CaHash, IdentityError, JoinToken, TokenId};
use edgemesh_proto::record::{NodeName, Revocation};
use rusqlite::{
    Connection, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, params,
};
use rusqlite_migration::{Error, M, MigrationDefinitionError, Migrations};

use crate::authority::after;
use crate::authority::error::AuthorityError;

/// How long a command waits for the cloud's write, and the other way round.
const BUSY: Duration = Duration::from_secs(5);

/// An expired token is remembered for so long, in seconds, to be called expired and not unknown.
const REMEMBER_TOKENS: i64 = 7 * 86_400;

/// So many tokens are known at a time.
const MAX_TOKENS: i64 = 10_000;

/// So many names are known at a time.
const MAX_NODES: i64 = 100_000;

/// One step for each version; a released step never changes.
const STEPS: &[M<'_>] = &[M::up(
    "CREATE TABLE ca (one INTEGER PRIMARY KEY CHECK (one = 1), hash TEXT NOT NULL) STRICT;
     CREATE TABLE token (
         number INTEGER PRIMARY KEY AUTOINCREMENT,
         id TEXT NOT NULL UNIQUE,
         secret BLOB NOT NULL,      -- SHA-256 of it
         expires INTEGER NOT NULL,  -- seconds since 1970, as all times here
         node TEXT                  -- the only one it is for
     ) STRICT;
     CREATE TABLE node (
         name TEXT PRIMARY KEY,
         key BLOB,                  -- SHA-256 of the public key; null = free
         not_after INTEGER NOT NULL,
         removed INTEGER NOT NULL,  -- certificates issued before are void
         barred INTEGER NOT NULL,   -- tokens up to this number do not invite it
         token TEXT                 -- by which it joined
     ) STRICT;",
)];

/// An open `authority.db`.
#[derive(Debug)]
pub(super) struct Book {
    file: PathBuf,
    connection: Connection,
}

/// Whose a book is.
pub(super) struct Peek {
    /// The hash of its CA.
    pub(super) ca: String,
    /// Whether that CA signed anyone.
    pub(super) has_nodes: bool,
}

/// What is being read and written as one.
pub(super) struct Entry<'a> {
    file: &'a Path,
    transaction: Transaction<'a>,
}

/// A token that we gave out.
pub(super) struct Invited {
    /// Later ones have higher numbers; clocks may be set, and a second is long.
    pub(super) number: i64,
    pub(super) expires: i64,
    pub(super) node: Option<NodeName>,
}

/// What is known of a name.
#[derive(Clone, Default)]
pub(super) struct Known {
    pub(super) key: Option<[u8; 32]>,
    pub(super) not_after: i64,
    pub(super) removed: i64,
    pub(super) barred: i64,
    pub(super) token: Option<TokenId>,
}

/// A state of the book; equal only to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Changes when another process writes.
    outside: i64,
    /// Rows that this one has written.
    own: u64,
}

impl Book {
    /// Opens or makes the file. What it says of another CA is forgotten.
    pub(super) fn open(file: &Path, ca: CaHash) -> Result<Self, AuthorityError> {
        // SQLite would make it readable for others, and gives its journals the same mode.
        let private = OpenOptions::new().append(true).create(true).mode(0o600).open(file);
        private.map_err(|source| IdentityError::File { file: file.into(), source })?;
        let failed = |source| AuthorityError::of_sqlite(file, source);
        let mut connection = Connection::open(file).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        // One file and a journal that comes and goes: two processes may hold it, seldom.
        connection.pragma_update(None, "journal_mode", "DELETE").map_err(failed)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        migrate(&mut connection, file)?;
        let mut book = Self { file: file.into(), connection };
        book.belong_to(ca).map_err(failed)?;
        Ok(book)
    }

    /// Looks into the file without touching it; `None` where there is none or it is still empty.
    pub(super) fn peek(file: &Path) -> Result<Option<Peek>, AuthorityError> {
        if !file.exists() {
            return Ok(None);
        }
        let look = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(file, flags)?;
            connection.busy_timeout(BUSY)?;
            if connection.table_exists(None, "ca")? {
                let sql = "SELECT hash, EXISTS (SELECT 1 FROM node) FROM ca";
                let row = |row: &Row<'_>| Ok(Peek { ca: row.get(0)?, has_nodes: row.get(1)? });
                connection.query_row(sql, [], row).optional()
            } else {
                Ok(None)
            }
        };
        look().map_err(|source| AuthorityError::of_sqlite(file, source))
    }

    fn belong_to(&mut self, ca: CaHash) -> rusqlite::Result<()> {
        let entry = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let known: Option<String> =
            entry.query_row("SELECT hash FROM ca", [], |row| row.get(0)).optional()?;
        if known.is_none_or(|known| known != ca.to_string()) {
            entry.execute("DELETE FROM token", [])?;
            entry.execute("DELETE FROM node", [])?;
            entry.execute("REPLACE INTO ca VALUES (1, ?1)", [ca.to_string()])?;
        }
        entry.commit()
    }

    /// Notes a token, and forgets those that expired long ago.
    pub(super) fn add_token(
        &mut self,
        token: &JoinToken,
        node: Option<&NodeName>,
        now: i64,
        expires: i64,
    ) -> Result<(), AuthorityError> {
        let entry = self.begin()?;
        entry.execute("DELETE FROM token WHERE expires < ?1", [now - REMEMBER_TOKENS])?;
        if entry.count("SELECT count(*) FROM token")? >= MAX_TOKENS {
            return Err(AuthorityError::TooMany("10,000 tokens"));
        }
        entry.execute(
            "INSERT INTO token (id, secret, expires, node) VALUES (?1, ?2, ?3, ?4)",
            params![
                token.id().to_string(),
                token.secret_hash(),
                expires,
                node.map(|node| &*node.0)
            ],
        )?;
        entry.commit()
    }

    /// Begins to read and write as one; dropped without [`Entry::commit`], nothing was written.
    pub(super) fn begin(&mut self) -> Result<Entry<'_>, AuthorityError> {
        let Self { file, connection } = self;
        match connection.transaction_with_behavior(TransactionBehavior::Immediate) {
            Ok(transaction) => Ok(Entry { file, transaction }),
            Err(source) => Err(AuthorityError::of_sqlite(file, source)),
        }
    }

    pub(super) fn revocations(&self) -> Result<BTreeMap<Box<str>, Revocation>, AuthorityError> {
        let read = || {
            let mut rows =
                self.connection.prepare("SELECT name, removed FROM node WHERE removed > 0")?;
            let row = |row: &Row<'_>| {
                Ok((row.get::<_, Box<str>>(0)?, Revocation { before: row.get(1)? }))
            };
            rows.query_map([], row)?.collect()
        };
        self.asked(read())
    }

    pub(super) fn version(&self) -> Result<Version, AuthorityError> {
        let outside = self.connection.query_row("PRAGMA data_version", [], |row| row.get(0));
        Ok(Version { outside: self.asked(outside)?, own: self.connection.total_changes() })
    }

    fn asked<T>(&self, answer: rusqlite::Result<T>) -> Result<T, AuthorityError> {
        answer.map_err(|source| AuthorityError::of_sqlite(&self.file, source))
    }
}

impl Entry<'_> {
    /// The token, if it is one of ours and its secret is right.
    pub(super) fn token(&self, token: &JoinToken) -> Result<Option<Invited>, AuthorityError> {
        // Hashes are compared, so how long that takes tells nothing of a secret.
        let found = self.transaction.query_row(
            "SELECT number, expires, node FROM token WHERE id = ?1 AND secret = ?2",
            params![token.id().to_string(), token.secret_hash()],
            |row| {
                let node = row.get::<_, Option<Box<str>>>(2)?.map(NodeName);
                Ok(Invited { number: row.get(0)?, expires: row.get(1)?, node })
            },
        );
        self.asked(found.optional())
    }

    pub(super) fn delete_token(&self, token: TokenId) -> Result<(), AuthorityError> {
        self.execute("DELETE FROM token WHERE id = ?1", [token.to_string()])
    }

    /// The number of the newest token, also if it is gone.
    pub(super) fn newest_token(&self) -> Result<i64, AuthorityError> {
        self.count("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'token'")
    }

    /// Whether anything is known of a name.
    pub(super) fn knows(&self, node: &NodeName) -> Result<bool, AuthorityError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM node WHERE name = ?1)";
        self.asked(self.transaction.query_row(sql, [&*node.0], |row| row.get(0)))
    }

    /// What is known of a name; of a new one, nothing.
    pub(super) fn node(&self, node: &NodeName) -> Result<Known, AuthorityError> {
        let found = self.transaction.query_row(
            "SELECT key, not_after, removed, barred, token FROM node WHERE name = ?1",
            [&*node.0],
            |row| {
                let token: Option<String> = row.get(4)?;
                Ok(Known {
                    key: row.get(0)?,
                    not_after: row.get(1)?,
                    removed: row.get(2)?,
                    barred: row.get(3)?,
                    token: token.and_then(|token| token.parse().ok()),
                })
            },
        );
        Ok(self.asked(found.optional())?.unwrap_or_default())
    }

    /// Notes who has a name now. Where there are too many, those go that nothing depends on.
    pub(super) fn set_node(
        &self,
        node: &NodeName,
        known: &Known,
        now: i64,
        grace: Duration,
    ) -> Result<(), AuthorityError> {
        if self.count("SELECT count(*) FROM node")? >= MAX_NODES {
            let over = now.saturating_sub(after(0, grace));
            self.execute("DELETE FROM node WHERE removed = 0 AND not_after < ?1", [over])?;
            if self.count("SELECT count(*) FROM node")? >= MAX_NODES {
                return Err(AuthorityError::TooMany("100,000 names of nodes"));
            }
        }
        self.execute(
            "REPLACE INTO node VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                &*node.0,
                known.key,
                known.not_after,
                known.removed,
                known.barred,
                known.token.map(|token| token.to_string())
            ],
        )
    }

    pub(super) fn commit(self) -> Result<(), AuthorityError> {
        let Self { file, transaction } = self;
        transaction.commit().map_err(|source| AuthorityError::of_sqlite(file, source))
    }

    fn count(&self, sql: &str) -> Result<i64, AuthorityError> {
        self.asked(self.transaction.query_row(sql, [], |row| row.get(0)))
    }

    fn execute(&self, sql: &str, values: impl rusqlite::Params) -> Result<(), AuthorityError> {
        self.asked(self.transaction.execute(sql, values)).map(|_| ())
    }

    fn asked<T>(&self, answer: rusqlite::Result<T>) -> Result<T, AuthorityError> {
        answer.map_err(|source| AuthorityError::of_sqlite(self.file, source))
    }
}

fn migrate(connection: &mut Connection, file: &Path) -> Result<(), AuthorityError> {
    Migrations::from_slice(STEPS).to_latest(connection).map_err(|error| match error {
        Error::RusqliteError { err, .. } => AuthorityError::of_sqlite(file, err),
        Error::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => {
            AuthorityError::Newer { file: file.into() }
        }
        // The type is non-exhaustive and the rest is about the steps above, not about the file.
        other => {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA);
            let source = rusqlite::Error::SqliteFailure(code, Some(other.to_string()));
            AuthorityError::Store { file: file.into(), source }
        }
    })
}
