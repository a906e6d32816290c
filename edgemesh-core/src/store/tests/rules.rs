//! Endpoints and Rules in the metastore: their rows, and what Rules count.

use std::collections::BTreeMap;
use std::path::Path;

use edgemesh_proto::record::{
    Body, Endpoint, EndpointName, Key, Kind, Put, Record, Rule, RuleName,
};
use edgemesh_proto::rule::{DomainId, Id, Name, Properties, ResourceMap, object_id, project_id};

use super::folder;
use crate::backends::{MAX_ERRORS, RuleError, Tally};
use crate::store::database::Database;
use crate::store::{Change, Counted, Store};

fn pairs(key: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(key.to_owned(), value.to_owned())])
}

fn endpoint(name: &str, kind: &str) -> Record {
    let body = Endpoint {
        id: object_id(Kind::Endpoint, "default", name),
        endpoint_type: Name::new("type", kind).unwrap(),
        project_id: Some(project_id("default")),
        is_shared: false,
        properties: Properties::new("properties", pairs("k", kind)).unwrap(),
        created_at: 1,
        updated_at: 2,
    };
    Record { namespace: "default".into(), name: name.into(), body: Body::Endpoint(body) }
}

fn rule(name: &str, source: &str, target: &str) -> Record {
    let body = Rule {
        id: id(name),
        project_id: project_id("default"),
        domain_id: DomainId::default(),
        source: EndpointName::new("default", source),
        source_resource: ResourceMap::new("source_resource", pairs("path", "/a")).unwrap(),
        target: EndpointName::new("default", target),
        target_resource: ResourceMap::default(),
        in_use: true,
        is_deleted: false,
        created_at: 3,
        updated_at: 4,
    };
    Record { namespace: "default".into(), name: name.into(), body: Body::Rule(body) }
}

/// Short, so that tables can be read.
fn id(rule: &str) -> Id {
    Id::new("id", &format!("id-{rule}")).unwrap()
}

fn key(kind: Kind, name: &str) -> Key {
    Key { kind, namespace: "default".into(), name: name.into() }
}

fn put(records: &[Record]) -> Change {
    Change { put: records.iter().map(Put::from).collect(), ..Change::default() }
}

fn delete(kind: Kind, name: &str) -> Change {
    Change { delete: vec![key(kind, name)], ..Change::default() }
}

fn counted(rule: &str, success: u64, fail: u64, errors: &[i64]) -> Counted {
    let error = |at: &i64| RuleError { at: *at, detail: format!("at {at}").into() };
    let errors = errors.iter().map(error).collect();
    Counted { id: id(rule), tally: Tally { success, fail, errors } }
}

/// Endpoints by name and type, Rules by name with counts and errors.
fn rows(folder: &Path) -> String {
    let database = Database::open(&folder.join("meta.db")).unwrap();
    let list = |sql: &str| -> Vec<String> {
        let mut statement = database.connection.prepare(sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let endpoints = list("SELECT name || ':' || type FROM endpoint ORDER BY name");
    let rules = list(
        "SELECT name || '=' || success_messages || '/' || fail_messages || '+' || \
         (SELECT count(*) FROM rule_error WHERE rule_id = rule.id) FROM rule ORDER BY name",
    );
    let waiting = list("SELECT id || '~' || success_messages FROM waiting_count ORDER BY id");
    [endpoints, rules, waiting].concat().join(" ")
}

enum Step {
    Commit(Change),
    Count(Vec<Counted>),
}

/// Each step on a store that was just opened, and the rows after it.
#[tokio::test]
async fn rows_follow_the_records() {
    use Step::{Commit, Count};
    let (a, b, r, s) = (
        endpoint("a", "rest"),
        endpoint("b", "eventbus"),
        rule("r", "a", "b"),
        rule("s", "a", "a"),
    );
    let put = |records: &[&Record]| {
        Commit(put(&records.iter().map(|record| (*record).clone()).collect::<Vec<_>>()))
    };
    let again = Record { body: endpoint("a", "servicebus").body, ..a.clone() };
    let reset = |records: &[Record]| Commit(Change { reset: true, ..super::rules::put(records) });
    let local = |records: &[Record], gone: &[Key]| {
        let local_put = records.iter().map(Put::from).collect();
        Commit(Change { local_put, local_delete: gone.to_vec(), ..Change::default() })
    };
    let steps = [
        // A Rule has no row until both its Endpoints are there.
        (put(&[&r]), ""),
        (put(&[&a]), "a:rest"),
        (put(&[&b]), "a:rest b:eventbus r=0/0+0"),
        (Count(vec![counted("r", 5, 2, &[7, 8])]), "a:rest b:eventbus r=5/2+2"),
        // Rows that stay keep what was counted.
        (put(&[&r, &s]), "a:rest b:eventbus r=5/2+2 s=0/0+0"),
        (put(&[&again]), "a:servicebus b:eventbus r=5/2+2 s=0/0+0"),
        (reset(&[a.clone(), b.clone(), r.clone()]), "a:rest b:eventbus r=5/2+2"),
        // One that waits keeps its counts for when its Endpoint comes again.
        (Commit(delete(Kind::Endpoint, "b")), "a:rest id-r~5"),
        (Count(vec![counted("r", 6, 2, &[9])]), "a:rest id-r~6"),
        (put(&[&b]), "a:rest b:eventbus r=6/2+0"),
        (reset(&[b.clone(), r.clone()]), "b:eventbus id-r~6"),
        (put(&[&a]), "a:rest b:eventbus r=6/2+0"),
        // This node's own are rows too; the registry's count before them.
        (local(&[s.clone(), again.clone()], &[]), "a:rest b:eventbus r=6/2+0 s=0/0+0"),
        (Commit(delete(Kind::Endpoint, "a")), "a:servicebus b:eventbus r=6/2+0 s=0/0+0"),
        (local(&[], &[a.key(), s.key()]), "b:eventbus id-r~6"),
        // With a Rule goes all that it counted.
        (Commit(delete(Kind::Rule, "r")), "b:eventbus"),
        (put(&[&a, &r]), "a:rest b:eventbus r=0/0+0"),
        (Count(vec![counted("gone", 1, 1, &[])]), "a:rest b:eventbus r=0/0+0 id-gone~1"),
        (Commit(delete(Kind::Rule, "r")), "a:rest b:eventbus"),
        (reset(&[]), ""),
    ];
    let folder = folder();
    for (number, (step, want)) in steps.into_iter().enumerate() {
        let (store, ..) = Store::open(folder.path()).unwrap();
        match step {
            Commit(change) => store.commit(change).await.unwrap(),
            Count(counts) => drop(store.count(counts).await.unwrap()),
        }
        store.close().await;
        assert_eq!(rows(folder.path()), want, "step {number}");
    }
}

/// A change of one Rule writes the row of that Rule.
#[tokio::test]
async fn rows_that_stay_as_they_are_are_not_written() {
    let folder = folder();
    let (store, ..) = Store::open(folder.path()).unwrap();
    let all =
        [endpoint("a", "rest"), endpoint("b", "rest"), rule("r", "a", "b"), rule("s", "a", "b")];
    store.commit(put(&all)).await.unwrap();
    store.close().await;
    let mut database = Database::open(&folder.path().join("meta.db")).unwrap();
    for (record, rows) in
        [(rule("s", "a", "b"), 0), (rule("s", "b", "a"), 1), (endpoint("a", "eventbus"), 1)]
    {
        let before = database.connection.total_changes();
        database.apply(&put(&[record])).unwrap();
        // Beside them the record, out and in again, and the state.
        assert_eq!(database.connection.total_changes() - before, rows + 3);
    }
}

/// Columns hold what the rule table says, names of any length too.
#[tokio::test]
async fn columns_hold_the_record() {
    let long = "n".repeat(200);
    let folder = folder();
    let (store, ..) = Store::open(folder.path()).unwrap();
    store.commit(put(&[endpoint(&long, "rest"), rule("r", &long, &long)])).await.unwrap();
    store.close().await;
    let database = Database::open(&folder.path().join("meta.db")).unwrap();
    let sql = "SELECT endpoint.name, properties, source = endpoint.id AND target = endpoint.id, \
               source_resource, target_resource, rule.created_at, rule.updated_at \
               FROM rule, endpoint";
    let row = database.connection.query_row(sql, [], |row| {
        let texts: [String; 2] = [row.get(0)?, row.get(1)?];
        let maps: [String; 2] = [row.get(3)?, row.get(4)?];
        Ok((texts, row.get::<_, bool>(2)?, maps, [row.get::<_, i64>(5)?, row.get(6)?]))
    });
    let ([name, properties], is_same, maps, times) = row.unwrap();
    assert_eq!(name, edgemesh_proto::rule::short_name(&long).unwrap().as_str());
    assert_eq!((&*properties, is_same), (r#"{"k":"rest"}"#, true));
    assert_eq!((maps, times), ([r#"{"path":"/a"}"#.to_owned(), "{}".to_owned()], [3, 4]));
}

/// What was counted is there again, with the newest errors; two Rules of one id harm nobody.
#[tokio::test]
async fn counts_outlive_the_process() {
    let folder = folder();
    let (store, loaded, _) = Store::open(folder.path()).unwrap();
    let counter = loaded.counter;
    let twin = Record { name: "z".into(), ..rule("r", "a", "a") };
    store.commit(put(&[endpoint("a", "rest"), rule("r", "a", "a"), twin])).await.unwrap();
    let errors: Vec<i64> = (0..40).collect();
    store.count(vec![counted("r", u64::MAX, 3, &errors)]).await.unwrap();
    store.close().await;
    let (store, loaded, _) = Store::open(folder.path()).unwrap();
    store.close().await;
    let [(name, tally)] = &loaded.counted[..] else { panic!("{:?}", loaded.counted) };
    assert_eq!(*name, RuleName::new("default", "r"));
    assert_eq!((tally.success, tally.fail), (u64::MAX, 3));
    let at: Vec<i64> = tally.errors.iter().map(|error| error.at).collect();
    assert_eq!(at, (40 - MAX_ERRORS as i64..40).collect::<Vec<_>>());
    assert_eq!(loaded.counter, counter);
}

/// Counts of a copy are older than what was told of them: another counter begins.
#[tokio::test]
async fn a_restored_store_counts_anew() {
    let folder = folder();
    let (store, loaded, _) = Store::open(folder.path()).unwrap();
    store.commit(put(&[endpoint("a", "rest"), rule("r", "a", "a")])).await.unwrap();
    store.count(vec![counted("r", 5, 5, &[])]).await.unwrap();
    store.keep_good_copy().await.unwrap();
    store.close().await;
    std::fs::write(folder.path().join("meta.db"), [7; 8192]).unwrap();
    let (store, restored, repairs) = Store::open(folder.path()).unwrap();
    store.close().await;
    assert!(!repairs.is_empty());
    assert_eq!((restored.records.len(), restored.counted), (2, vec![]));
    assert_ne!(restored.counter, loaded.counter);
}
