//! The tables of the metastore, their version, and the mark by which a file is known as ours.

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

/// `application_id` of every metastore: the letters `EMsh`. SQLite keeps it at byte 68 of the
/// file, so that a file can be told from other people's without opening it.
pub(super) const APPLICATION_ID: i32 = 0x454d_7368;

/// The schema that this program writes (`user_version`).
pub(super) const VERSION: u32 = STEPS.len() as u32;

/// A higher `user_version` than any release will ever have: such a number is damage.
pub(super) const IMPLAUSIBLE_VERSION: u32 = 10_000;

/// Tables by which a file without our mark is still known as ours.
pub(super) const OUR_TABLES: [&str; 3] = ["record", "sync_state", "virtual_address"];

/// One step for each version; a released step never changes.
const STEPS: &[M<'_>] = &[M::up(include_str!("schema_1.sql")), M::up(include_str!("schema_2.sql"))];

/// Brings the tables up to [`VERSION`], each step in a transaction of its own.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), rusqlite::Error> {
    Migrations::from_slice(STEPS).to_latest(connection).map_err(|error| match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => err,
        // The type is non-exhaustive and these are about the steps above, not about the file.
        other => rusqlite::Error::SqliteFailure(
            rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_SCHEMA),
            Some(format!("schema step: {other}")),
        ),
    })
}

/// The `user_version` of an open database.
pub(super) fn version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    connection.query_row("PRAGMA user_version", [], |row| row.get(0))
}
