//! One [`Change`] becomes one transaction: records, digest, addresses and projections together.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use edgemesh_proto::record::{Key, Put};
use rusqlite::{OptionalExtension, Transaction, TransactionBehavior};

use crate::digest::{Digest, Hasher};
use crate::store::database::Database;
use crate::store::{Change, project};

impl Database {
    /// Applies a change whole, or not at all: deletes first, then puts, records before addresses.
    pub(super) fn apply(&mut self, change: &Change) -> Result<(), rusqlite::Error> {
        let (_, _, mut digest) = self.state()?;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut records =
            Records { transaction: &transaction, hasher: &mut self.hasher, digest: &mut digest };
        if change.reset {
            records.clear()?;
        }
        for key in &change.delete {
            records.delete(key)?;
        }
        for put in &change.put {
            records.put(put, change.revision)?;
        }
        put_local(&transaction, change)?;
        if project::is_touched(change) {
            project::project(&transaction)?;
        }
        put_addresses(&transaction, change)?;
        transaction
            .prepare_cached("UPDATE sync_state SET epoch = ?1, revision = ?2, digest = ?3")?
            .execute((change.epoch, change.revision.cast_signed(), digest.to_bytes()))?;
        transaction.commit()
    }
}

impl Change {
    /// Both, one after the other, as one.
    #[must_use]
    pub fn followed_by(self, later: Self) -> Self {
        let cleared = later.reset;
        let (put, delete) = joined((self.put, self.delete), (later.put, later.delete), cleared);
        let (local_put, local_delete) = joined(
            (self.local_put, self.local_delete),
            (later.local_put, later.local_delete),
            cleared,
        );
        let mut addresses: BTreeSet<_> = self.addresses_put.into_iter().collect();
        addresses.retain(|address| !later.addresses_delete.contains(address));
        let gone: BTreeSet<_> =
            self.addresses_delete.into_iter().chain(later.addresses_delete).collect();
        Self {
            epoch: later.epoch,
            revision: later.revision,
            reset: self.reset || cleared,
            put,
            delete,
            local_put,
            local_delete,
            // Of two names for one address the later takes it over.
            addresses_put: addresses.into_iter().chain(later.addresses_put).collect(),
            addresses_delete: gone.into_iter().collect(),
        }
    }
}

/// Puts and deletes of two changes; `cleared`: nothing of the earlier one is left.
fn joined(
    (put, delete): (Vec<Put>, Vec<Key>),
    later: (Vec<Put>, Vec<Key>),
    cleared: bool,
) -> (Vec<Put>, Vec<Key>) {
    if cleared {
        return later;
    }
    let mut puts: BTreeMap<Key, Bytes> = put.into_iter().map(|put| (put.key, put.body)).collect();
    later.1.iter().for_each(|key| drop(puts.remove(key)));
    puts.extend(later.0.into_iter().map(|put| (put.key, put.body)));
    let deletes: BTreeSet<Key> = delete.into_iter().chain(later.1).collect();
    let put = puts.into_iter().map(|(key, body)| Put { key, body }).collect();
    (put, deletes.into_iter().collect())
}

/// The table `record` during one transaction, with its digest.
struct Records<'a> {
    transaction: &'a Transaction<'a>,
    hasher: &'a mut Hasher,
    digest: &'a mut Digest,
}

impl Records<'_> {
    fn clear(&mut self) -> Result<(), rusqlite::Error> {
        // Rows that are still wanted after the change keep what they count: see `project`.
        self.transaction.execute_batch("DELETE FROM record; DELETE FROM local_record")?;
        *self.digest = Digest::default();
        Ok(())
    }

    fn delete(&mut self, key: &Key) -> Result<(), rusqlite::Error> {
        let columns = (key.kind.name(), &*key.namespace, &*key.name);
        let mut statement = self.transaction.prepare_cached(
            "DELETE FROM record WHERE kind = ?1 AND namespace = ?2 AND name = ?3 RETURNING body",
        )?;
        let old: Option<Vec<u8>> = statement.query_row(columns, |row| row.get(0)).optional()?;
        self.leave(key, old);
        Ok(())
    }

    fn put(&mut self, Put { key, body }: &Put, revision: u64) -> Result<(), rusqlite::Error> {
        self.delete(key)?;
        let columns =
            (key.kind.name(), &*key.namespace, &*key.name, revision.cast_signed(), &**body);
        self.transaction
            .prepare_cached("INSERT INTO record VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(columns)?;
        self.digest.add(self.hasher.of(key, body));
        Ok(())
    }

    fn leave(&mut self, key: &Key, old: Option<Vec<u8>>) {
        if let Some(body) = old {
            self.digest.remove(self.hasher.of(key, &body));
        }
    }
}

fn put_local(transaction: &Transaction<'_>, change: &Change) -> Result<(), rusqlite::Error> {
    let mut delete = transaction.prepare_cached(
        "DELETE FROM local_record WHERE kind = ?1 AND namespace = ?2 AND name = ?3",
    )?;
    for Key { kind, namespace, name } in &change.local_delete {
        delete.execute((kind.name(), &**namespace, &**name))?;
    }
    let mut put = transaction
        .prepare_cached("INSERT OR REPLACE INTO local_record VALUES (?1, ?2, ?3, ?4)")?;
    for Put { key: Key { kind, namespace, name }, body } in &change.local_put {
        put.execute((kind.name(), &**namespace, &**name, &**body))?;
    }
    Ok(())
}

fn put_addresses(transaction: &Transaction<'_>, change: &Change) -> Result<(), rusqlite::Error> {
    let mut delete = transaction.prepare_cached(
        "DELETE FROM virtual_address \
         WHERE namespace = ?1 AND name = ?2 AND hostname = ?3 AND address = ?4",
    )?;
    for gone in &change.addresses_delete {
        let service = &gone.service;
        let address = gone.address.to_string();
        delete.execute((&*service.namespace, &*service.name, &*gone.hostname, address))?;
    }
    let mut put = transaction
        .prepare_cached("INSERT OR REPLACE INTO virtual_address VALUES (?1, ?2, ?3, ?4)")?;
    for new in &change.addresses_put {
        let service = &new.service;
        let address = new.address.to_string();
        put.execute((&*service.namespace, &*service.name, &*new.hostname, address))?;
    }
    Ok(())
}
