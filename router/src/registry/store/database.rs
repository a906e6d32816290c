//! One open `registry.db`: reading all of it, and changing it in one transaction.

use std::path::Path;

use bytes::Bytes;
use edgemesh_core::digest::{Digest, Hasher};
use edgemesh_core::store::{Fault, Schema, check_pages};
use edgemesh_proto::record::{Key, Kind, NodeName, Put, RuleName};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, Transaction};
use rusqlite_migration::M;

use crate::registry::Owner;
use crate::registry::counts::{At, Line};
use crate::registry::store::{Kept, Pending, Repair};

/// `application_id`: the letters `EMrg`.
pub(super) const MARK: i32 = 0x454d_7267;
/// What was answered is there after a power cut: changes are rare.
pub(super) static SCHEMA: Schema = Schema { mark: MARK, steps: STEPS, synchronous: "FULL" };

const STEPS: &[M<'_>] =
    &[M::up(include_str!("registry_1.sql")), M::up(include_str!("registry_2.sql"))];

/// The version that brought `rule_count`, which a file that can only be read may not have.
const WITH_COUNTS: u32 = 2;

/// Begins the names of owners that are nodes.
const NODE: &str = "node/";

/// An open registry.
pub(super) struct Database {
    connection: Connection,
    hasher: Hasher,
}

impl Database {
    /// Opens a database of ours, and brings its tables up to date.
    pub(super) fn open(file: &Path) -> Result<Self, Fault> {
        SCHEMA.open(file).map(Self::of)
    }

    /// Opens it only to read what it holds.
    pub(super) fn open_read_only(file: &Path) -> Result<Self, Fault> {
        SCHEMA.open_read_only(file).map(Self::of)
    }

    fn of(connection: Connection) -> Self {
        Self { connection, hasher: Hasher::default() }
    }

    /// Reads everything, and with it checks every page and every record.
    pub(super) fn load(&mut self, file: &Path, repairs: &mut Vec<Repair>) -> Result<Kept, Fault> {
        check_pages(&self.connection)?;
        let stored = digest(&self.connection)?;
        let (records, found) = self.rows(repairs)?;
        if found != stored {
            repairs.push(Repair::Altered { file: file.to_path_buf() });
            if !self.connection.is_readonly("main")? {
                self.connection.execute("UPDATE state SET digest = ?1", [found.to_bytes()])?;
            }
        }
        let counts = match SCHEMA.version_of(&self.connection)? {
            WITH_COUNTS.. => self.counts()?,
            _ => Vec::new(),
        };
        Ok(Kept { records, counts })
    }

    fn rows(&mut self, repairs: &mut Vec<Repair>) -> Result<(Vec<(Owner, Put)>, Digest), Fault> {
        let sql = "SELECT owner, kind, namespace, name, body FROM owned";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let (mut kept, mut found) = (Vec::new(), Digest::default());
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

    fn counts(&self) -> Result<Vec<(At, Line)>, rusqlite::Error> {
        let sql = "SELECT namespace, name, node, counter, success, fail, past_success, past_fail, \
                   last_success FROM rule_count";
        let mut statement = self.connection.prepare(sql)?;
        let rows = statement.query_map([], |row| {
            let number = |at| row.get(at).map(i64::cast_unsigned);
            let rule = RuleName { namespace: row.get(0)?, name: row.get(1)? };
            let line = Line {
                counter: row.get(3)?,
                now: [number(4)?, number(5)?],
                past: [number(6)?, number(7)?],
                last_success: row.get(8)?,
            };
            Ok(((rule, row.get(2)?), line))
        })?;
        rows.collect()
    }

    /// Applies changes whole, or not at all.
    pub(super) fn apply(&mut self, changes: &Pending) -> Result<(), rusqlite::Error> {
        let transaction = self.connection.transaction()?;
        let digest = digest(&transaction)?;
        let mut rows = Rows { transaction: &transaction, hasher: &mut self.hasher, digest };
        for ((owner, key), body) in &changes.records {
            rows.set(owner, key, body.as_deref())?;
        }
        let digest = rows.digest.to_bytes();
        transaction.execute("UPDATE state SET digest = ?1", [digest])?;
        for (place, line) in &changes.counts {
            set_count(&transaction, place, line.as_ref())?;
        }
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

fn set_count(
    transaction: &Transaction<'_>,
    (RuleName { namespace, name }, node): &At,
    line: Option<&Line>,
) -> Result<(), rusqlite::Error> {
    let Some(Line { counter, now, past, last_success }) = line else {
        let sql = "DELETE FROM rule_count WHERE namespace = ?1 AND name = ?2 AND node = ?3";
        transaction.prepare_cached(sql)?.execute((namespace, name, node))?;
        return Ok(());
    };
    let [success, fail, past_success, past_fail] =
        [now[0], now[1], past[0], past[1]].map(u64::cast_signed);
    let row =
        (namespace, name, node, counter, success, fail, past_success, past_fail, last_success);
    let sql = "INSERT OR REPLACE INTO rule_count VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    transaction.prepare_cached(sql)?.execute(row).map(drop)
}

fn digest(connection: &Connection) -> Result<Digest, rusqlite::Error> {
    let sql = "SELECT digest FROM state";
    connection.query_row(sql, [], |row| row.get(0).map(|bytes| Digest::from_bytes(&bytes)))
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
