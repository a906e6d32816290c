//! The tables of the metastore, their version, and the mark by which a file is known as ours.

use rusqlite_migration::M;

use crate::store::sqlite::Schema;

/// `application_id` of every metastore: the letters `EMsh`. SQLite keeps it at byte 68 of the
/// file, so that a file can be told from other people's without opening it.
pub(super) const APPLICATION_ID: i32 = 0x454d_7368;

/// The metastore. What a power cut takes away of it, the next sync repairs.
pub(super) static META: Schema =
    Schema { mark: APPLICATION_ID, steps: STEPS, synchronous: "NORMAL" };

/// Tables by which a file without our mark is still known as ours.
pub(super) const OUR_TABLES: [&str; 3] = ["record", "sync_state", "virtual_address"];

/// The versions that brought a table which not every file has that can only be read.
pub(super) const WITH_LOCAL_RECORDS: u32 = 2;
pub(super) const WITH_COUNTS: u32 = 3;

const STEPS: &[M<'_>] = &[
    M::up(include_str!("schema_1.sql")),
    M::up(include_str!("schema_2.sql")),
    M::up(include_str!("schema_3.sql")),
];
