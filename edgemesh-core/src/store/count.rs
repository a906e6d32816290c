//! What Rules have counted, beside their rows.

use std::collections::BTreeMap;

use edgemesh_proto::record::RuleName;
use edgemesh_proto::rule::Id;
use rusqlite::TransactionBehavior;

use crate::backends::{MAX_DETAIL, RuleError, Tally};
use crate::store::Counted;
use crate::store::database::Database;
use crate::store::project::InForce;

impl Database {
    /// Stores totals, and adds errors. A Rule without a row is kept for when it has one; one that
    /// is gone, until the next change of Rules. Gives those of whose errors none was added.
    pub(super) fn count(&mut self, counted: &[Counted]) -> Result<Vec<Id>, rusqlite::Error> {
        let mut without_row = Vec::new();
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for Counted { id, tally: Tally { success, fail, errors } } in counted {
            let columns = (id.as_str(), success.cast_signed(), fail.cast_signed());
            let rows = transaction
                .prepare_cached(
                    "UPDATE rule SET success_messages = ?2, fail_messages = ?3 WHERE id = ?1",
                )?
                .execute(columns)?;
            if rows == 0 {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO waiting_count VALUES (?1, ?2, ?3)")?
                    .execute(columns)?;
                without_row.push(id.clone());
                continue;
            }
            let mut add =
                transaction.prepare_cached("INSERT INTO rule_error VALUES (?1, ?2, ?3)")?;
            for RuleError { at, detail } in errors {
                add.execute((id.as_str(), at, &detail[..detail.floor_char_boundary(MAX_DETAIL)]))?;
            }
        }
        transaction.commit()?;
        Ok(without_row)
    }

    /// What was counted, by the Rules that are in force.
    pub(super) fn counted(&self) -> Result<Vec<(RuleName, Tally)>, rusqlite::Error> {
        let in_force = InForce::read(&self.connection)?;
        let names = in_force.names();
        let mut counted: BTreeMap<String, Tally> = BTreeMap::new();
        let mut statement = self.connection.prepare(
            "SELECT id, success_messages, fail_messages FROM rule UNION ALL \
             SELECT id, success_messages, fail_messages FROM waiting_count",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (success, fail): (i64, i64) = (row.get(1)?, row.get(2)?);
            let (success, fail) = (success.cast_unsigned(), fail.cast_unsigned());
            counted.insert(row.get(0)?, Tally { success, fail, errors: Vec::new() });
        }
        let mut statement =
            self.connection.prepare("SELECT rule_id, at, detail FROM rule_error ORDER BY rowid")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            if let Some(tally) = counted.get_mut(row.get_ref(0)?.as_str()?) {
                tally.errors.push(RuleError { at: row.get(1)?, detail: row.get(2)? });
            }
        }
        let named = |(id, tally): (String, Tally)| Some(((*names.get(&*id)?).clone(), tally));
        let said = counted.into_iter().filter(|(_, tally)| *tally != Tally::default());
        Ok(said.filter_map(named).collect())
    }

    /// Whose counts these are.
    pub(super) fn counter(&self) -> Result<[u8; 16], rusqlite::Error> {
        self.connection.query_row("SELECT id FROM counter", [], |row| row.get(0))
    }

    /// One that nobody has, for as long as the file cannot hold it.
    pub(super) fn another_counter(&self) -> Result<[u8; 16], rusqlite::Error> {
        self.connection.query_row("SELECT randomblob(16)", [], |row| row.get(0))
    }

    /// Goes on under the name that the cloud was told while this file could only be read.
    pub(super) fn go_on_as(&self, counter: [u8; 16]) -> Result<(), rusqlite::Error> {
        let sql = "UPDATE counter SET id = ?1 WHERE id IS NOT ?1";
        self.connection.execute(sql, [counter]).map(drop)
    }

    /// Forgets what was counted: it is less than what was told of it, and cannot go on from there.
    pub(super) fn count_anew(&self) -> Result<(), rusqlite::Error> {
        self.connection.execute_batch(
            "BEGIN IMMEDIATE; UPDATE counter SET id = randomblob(16); DELETE FROM waiting_count; \
             UPDATE rule SET success_messages = 0, fail_messages = 0; COMMIT",
        )
    }
}
