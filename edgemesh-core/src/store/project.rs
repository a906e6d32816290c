//! The tables `endpoint` and `rule`: rows made of the records, with what each Rule has counted.
//!
//! They are made anew, all together, when a change touches one of them. A row that stays is updated, so
//! that its counts and errors stay too, and one that stays as it is not even written.

use std::collections::{BTreeMap, BTreeSet};

use edgemesh_proto::record::{
    Body, Endpoint, EndpointName, Invalid, Key, Kind, Record, Rule, RuleName,
};
use edgemesh_proto::rule::{Id, short_name};
use rusqlite::{Connection, Row, params};

use crate::store::Change;

/// Endpoints and Rules that are in force.
#[derive(Default)]
pub(super) struct InForce {
    endpoints: BTreeMap<EndpointName, Endpoint>,
    rules: BTreeMap<RuleName, Rule>,
}

/// Whether a change touches what is projected.
pub(super) fn is_touched(change: &Change) -> bool {
    let touches = |key: &Key| matches!(key.kind, Kind::Endpoint | Kind::Rule);
    let puts = change.put.iter().chain(&change.local_put).map(|put| &put.key);
    change.reset || puts.chain(&change.delete).chain(&change.local_delete).any(touches)
}

/// Brings the rows in line with the records. Columns hold what [`edgemesh_proto::rule`] says.
pub(super) fn project(connection: &Connection) -> Result<(), rusqlite::Error> {
    let InForce { endpoints, rules } = InForce::read(connection)?;
    let mut ids: BTreeMap<&EndpointName, &Id> = BTreeMap::new();
    let mut taken: BTreeSet<&Id> = BTreeSet::new();
    for (name, endpoint) in &endpoints {
        // Of two with one id the first has the row.
        if taken.insert(&endpoint.id) && put_endpoint(connection, name, endpoint)? {
            ids.insert(name, &endpoint.id);
        }
    }
    let (mut shown, mut waiting) = (BTreeSet::new(), BTreeSet::new());
    for (name, rule) in &rules {
        if shown.contains(&rule.id) || waiting.contains(&rule.id) {
            continue;
        }
        match (ids.get(&rule.source), ids.get(&rule.target)) {
            (Some(source), Some(target)) => {
                put_rule(connection, name, rule, [source, target])?;
                shown.insert(&rule.id);
            }
            (None, _) | (_, None) => {
                waiting.insert(&rule.id);
            }
        }
    }
    for id in others(connection, "SELECT id FROM rule", &shown)? {
        if waiting.iter().any(|waits| waits.as_str() == id) {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO waiting_count \
                     SELECT id, success_messages, fail_messages FROM rule WHERE id = ?1",
                )?
                .execute([&id])?;
        }
        connection.prepare_cached("DELETE FROM rule WHERE id = ?1")?.execute([&id])?;
    }
    for id in others(connection, "SELECT id FROM waiting_count", &waiting)? {
        connection.prepare_cached("DELETE FROM waiting_count WHERE id = ?1")?.execute([&id])?;
    }
    for id in others(connection, "SELECT id FROM endpoint", &taken)? {
        connection.prepare_cached("DELETE FROM endpoint WHERE id = ?1")?.execute([&id])?;
    }
    Ok(())
}

impl InForce {
    /// Those of the registry before those of this node, as they are shown. What cannot be read is
    /// no row.
    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let mut found = Self::default();
        for table in ["local_record", "record"] {
            let sql =
                format!("SELECT kind, namespace, name, body FROM {table} WHERE kind IN (?1, ?2)");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query((Kind::Endpoint.name(), Kind::Rule.name()))?;
            while let Some(row) = rows.next()? {
                found.add(row)?;
            }
        }
        Ok(found)
    }

    /// Names of the Rules by their ids.
    pub(super) fn names(&self) -> BTreeMap<&str, &RuleName> {
        self.rules.iter().map(|(name, rule)| (rule.id.as_str(), name)).rev().collect()
    }

    fn add(&mut self, row: &Row<'_>) -> Result<(), rusqlite::Error> {
        let kind = Kind::from_name(row.get_ref(0)?.as_str()?);
        let (namespace, name) = (row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
        let body = row.get_ref(3)?.as_blob()?;
        let record: Option<Result<Record, Invalid>> =
            kind.map(|kind| Record::decode(kind, namespace, name, body));
        match record {
            Some(Ok(Record { namespace, name, body: Body::Endpoint(endpoint) })) => {
                self.endpoints.insert(EndpointName { namespace, name }, endpoint);
            }
            Some(Ok(Record { namespace, name, body: Body::Rule(rule) })) => {
                self.rules.insert(RuleName { namespace, name }, rule);
            }
            Some(Ok(_) | Err(_)) | None => {}
        }
        Ok(())
    }
}

/// Whether it has a row now: its name may be one that no row can have.
fn put_endpoint(
    connection: &Connection,
    name: &EndpointName,
    endpoint: &Endpoint,
) -> Result<bool, rusqlite::Error> {
    let Ok(name) = short_name(&name.name) else { return Ok(false) };
    connection
        .prepare_cached(
            "INSERT INTO endpoint VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) \
             ON CONFLICT (id) DO UPDATE SET type = ?2, name = ?3, project_id = ?4, \
             is_shared = ?5, properties = ?6, created_at = ?7, updated_at = ?8 \
             WHERE (type, name, project_id, is_shared, properties, created_at, updated_at) \
             IS NOT (?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            endpoint.id.as_str(),
            endpoint.endpoint_type.as_str(),
            name.as_str(),
            endpoint.project_id.as_ref().map(Id::as_str),
            endpoint.is_shared,
            endpoint.properties.to_json(),
            endpoint.created_at,
            endpoint.updated_at,
        ])?;
    Ok(true)
}

/// A row that is new begins with what its Rule counted while it waited.
fn put_rule(
    connection: &Connection,
    name: &RuleName,
    rule: &Rule,
    [source, target]: [&Id; 2],
) -> Result<(), rusqlite::Error> {
    let Ok(name) = short_name(&name.name) else { return Ok(()) };
    connection
        .prepare_cached(
            "INSERT INTO rule VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, \
             coalesce((SELECT success_messages FROM waiting_count WHERE id = ?1), 0), \
             coalesce((SELECT fail_messages FROM waiting_count WHERE id = ?1), 0)) \
             ON CONFLICT (id) DO UPDATE SET name = ?2, project_id = ?3, domain_id = ?4, \
             source = ?5, source_resource = ?6, target = ?7, target_resource = ?8, in_use = ?9, \
             is_deleted = ?10, created_at = ?11, updated_at = ?12 \
             WHERE (name, project_id, domain_id, source, source_resource, target, \
             target_resource, in_use, is_deleted, created_at, updated_at) \
             IS NOT (?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            rule.id.as_str(),
            name.as_str(),
            rule.project_id.as_str(),
            rule.domain_id.as_str(),
            source.as_str(),
            rule.source_resource.to_json(),
            target.as_str(),
            rule.target_resource.to_json(),
            rule.in_use,
            rule.is_deleted,
            rule.created_at,
            rule.updated_at,
        ])?;
    Ok(())
}

/// Ids of rows that are none of `keep`.
fn others(
    connection: &Connection,
    sql: &str,
    keep: &BTreeSet<&Id>,
) -> Result<Vec<String>, rusqlite::Error> {
    let keep: BTreeSet<&str> = keep.iter().map(|id| id.as_str()).collect();
    let mut statement = connection.prepare_cached(sql)?;
    let ids = statement.query_map([], |row| row.get::<_, String>(0))?;
    let ids: Vec<String> = ids.collect::<Result<_, _>>()?;
    Ok(ids.into_iter().filter(|id| !keep.contains(id.as_str())).collect())
}
