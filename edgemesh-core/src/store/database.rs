//! One open `meta.db`: reading all of it, applying one change in one transaction, copying it.

use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use edgemesh_proto::record::{Key, Kind, Record, ServiceName};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use crate::digest::{Digest, Hasher};
use crate::store::repair::Repair;
use crate::store::schema;
use crate::store::sqlite::{Fault, check_pages, uri};
use crate::store::{Loaded, VirtualAddress};

/// An open metastore.
pub(super) struct Database {
    pub(super) connection: Connection,
    pub(super) hasher: Hasher,
}

/// What a metastore holds.
pub(super) struct Contents {
    pub(super) loaded: Loaded,
    /// Rows that make no sense.
    pub(super) skipped: Vec<Repair>,
    /// Whether the records are those whose digest was stored with them.
    pub(super) sound: bool,
}

impl Database {
    /// Makes a new, empty database in `file`, whole when this returns.
    pub(super) fn create(file: &Path) -> Result<(), rusqlite::Error> {
        schema::META.create(file)
    }

    /// See [`Schema::open`](crate::store::sqlite::Schema::open).
    pub(super) fn open(file: &Path) -> Result<Self, Fault> {
        schema::META.open(file).map(Self::of)
    }

    /// See [`Schema::open_read_only`](crate::store::sqlite::Schema::open_read_only).
    pub(super) fn open_read_only(file: &Path) -> Result<Self, Fault> {
        schema::META.open_read_only(file).map(Self::of)
    }

    fn of(connection: Connection) -> Self {
        Self { connection, hasher: Hasher::default() }
    }

    /// Reads everything, and with it checks every page: `quick_check` finds broken structure, the
    /// digest finds records that are not those that were stored.
    pub(super) fn load(&mut self) -> Result<Contents, Fault> {
        check_pages(&self.connection)?;
        let version = schema::META.version_of(&self.connection)?;
        let (epoch, revision, digest) = self.state()?;
        let mut skipped = Vec::new();
        let mut loaded = Loaded { epoch, revision, digest: digest.to_bytes(), ..Loaded::default() };
        let found = self.records(&mut loaded, &mut skipped)?;
        if version >= schema::WITH_LOCAL_RECORDS {
            loaded.local = self.local_records(&mut skipped)?;
        }
        loaded.addresses = self.addresses(&mut skipped)?;
        (loaded.counted, loaded.counter) = match version {
            schema::WITH_COUNTS.. => (self.counted()?, self.counter()?),
            _ => (Vec::new(), self.another_counter()?),
        };
        Ok(Contents { loaded, skipped, sound: found == digest })
    }

    /// Whether [`Database::load`] would find it sound; keeps nothing of what it reads.
    pub(super) fn is_sound(&mut self) -> Result<bool, Fault> {
        check_pages(&self.connection)?;
        let (_, _, digest) = self.state()?;
        Ok(self.each_record(|_, _, _| {})? == digest)
    }

    /// Epoch, revision and digest.
    pub(super) fn state(&self) -> Result<([u8; 16], u64, Digest), rusqlite::Error> {
        let sql = "SELECT epoch, revision, digest FROM sync_state";
        self.connection.prepare_cached(sql)?.query_row([], |row| {
            let revision: i64 = row.get(1)?;
            Ok((row.get(0)?, revision.cast_unsigned(), Digest::from_bytes(&row.get(2)?)))
        })
    }

    fn records(&mut self, loaded: &mut Loaded, skipped: &mut Vec<Repair>) -> Result<Digest, Fault> {
        self.each_record(|stored, revision, digest| {
            loaded.held.extend(stored.key().map(|key| (key, digest)));
            match stored.decode() {
                Ok(record) => loaded.records.push((record, revision)),
                Err(why) => skipped.push(stored.skipped(why)),
            }
        })
    }

    fn local_records(&self, skipped: &mut Vec<Repair>) -> Result<Vec<Record>, Fault> {
        // The 0 stands where `record` has a revision.
        let sql = "SELECT kind, namespace, name, 0, body FROM local_record";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let stored = StoredRecord::read(row)?;
            match stored.decode() {
                Ok(record) => records.push(record),
                Err(why) => skipped.push(stored.skipped(why)),
            }
        }
        Ok(records)
    }

    /// Shows every row with its revision and digest to `see`, and gives the digest over all.
    fn each_record(
        &mut self,
        mut see: impl FnMut(&StoredRecord<'_>, u64, Digest),
    ) -> Result<Digest, Fault> {
        let mut statement =
            self.connection.prepare("SELECT kind, namespace, name, revision, body FROM record")?;
        let mut rows = statement.query([])?;
        let mut digest = Digest::default();
        while let Some(row) = rows.next()? {
            let revision: i64 = row.get(3)?;
            let stored = StoredRecord::read(row)?;
            let StoredRecord { kind, namespace, name, body } = stored;
            let of_row = self.hasher.record(kind, namespace, name, body);
            digest.add(of_row);
            see(&stored, revision.cast_unsigned(), of_row);
        }
        Ok(digest)
    }

    fn addresses(&self, skipped: &mut Vec<Repair>) -> Result<Vec<VirtualAddress>, Fault> {
        let sql = "SELECT namespace, name, hostname, address FROM virtual_address";
        let mut statement = self.connection.prepare(sql)?;
        let mut rows = statement.query([])?;
        let mut addresses = Vec::new();
        while let Some(row) = rows.next()? {
            let service = ServiceName { namespace: row.get(0)?, name: row.get(1)? };
            let (hostname, text): (Box<str>, Box<str>) = (row.get(2)?, row.get(3)?);
            match text.parse::<IpAddr>() {
                Ok(address) => addresses.push(VirtualAddress { service, hostname, address }),
                Err(error) => skipped.push(Repair::Skipped {
                    row: format!("virtual address {text} of {service}").into(),
                    why: error.to_string().into(),
                }),
            }
        }
        Ok(addresses)
    }

    /// Makes the records that are there the stored truth, of an epoch that no registry has: the
    /// next sync then compares all of them.
    pub(super) fn adopt_altered(&mut self) -> Result<(), Fault> {
        let digest = self.each_record(|_, _, _| {})?;
        self.connection.execute(
            "UPDATE sync_state SET epoch = zeroblob(16), revision = 0, digest = ?1",
            [digest.to_bytes()],
        )?;
        Ok(())
    }

    /// Writes a compact copy to `file`, which does not exist yet.
    pub(super) fn copy_to(&self, file: &Path) -> Result<(), rusqlite::Error> {
        self.connection
            .execute("VACUUM INTO CAST(?1 AS TEXT)", [file.as_os_str().as_bytes()])
            .map(drop)
    }

    /// Transfers the log into the database and ends without leaving one.
    pub(super) fn close(self) -> Result<(), rusqlite::Error> {
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        self.connection.close().map_err(|(_, error)| error)
    }
}

/// A row of `record`, unchecked.
struct StoredRecord<'a> {
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
    body: &'a [u8],
}

impl<'a> StoredRecord<'a> {
    fn read(row: &'a Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            kind: row.get_ref(0)?.as_str()?,
            namespace: row.get_ref(1)?.as_str()?,
            name: row.get_ref(2)?.as_str()?,
            body: row.get_ref(4)?.as_blob()?,
        })
    }

    /// `None`: the kind is of a later version.
    fn key(&self) -> Option<Key> {
        let kind = Kind::from_name(self.kind)?;
        Some(Key { kind, namespace: self.namespace.into(), name: self.name.into() })
    }

    fn skipped(&self, why: Box<str>) -> Repair {
        let Self { kind, namespace, name, .. } = self;
        Repair::Skipped { row: format!("{kind} {namespace}/{name}").into(), why }
    }

    fn decode(&self) -> Result<Record, Box<str>> {
        let Some(kind) = Kind::from_name(self.kind) else {
            return Err("this program does not know the kind".into());
        };
        Record::decode(kind, self.namespace, self.name, self.body)
            .map_err(|invalid| invalid.to_string().into())
    }
}

/// Whether an unmarked SQLite file has our tables. Touches nothing, not even a lock.
pub(super) fn has_our_tables(file: &Path) -> Result<bool, rusqlite::Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri(file, "immutable=1"), flags)?;
    let mut statement = connection.prepare("SELECT 1 FROM sqlite_schema WHERE name = ?1")?;
    for table in schema::OUR_TABLES {
        if statement.query_row([table], |_| Ok(())).optional()?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}
