//! Tests of the metastore, and the world they share: numbered changes whose content is known.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use edgemesh_proto::record::{Body, Key, Kind, Put, Record, Service, ServiceName};
use tempfile::TempDir;

use crate::store::{Change, CommitError, Loaded, Repair, Store, VirtualAddress};

mod damage;
mod earlier;
mod folders;
mod kill;
mod measure;
mod power;
mod rules;
mod world;

const EPOCH: [u8; 16] = [7; 16];

/// Records and addresses of the numbered world.
const NAMES: u64 = 40;

/// Records that each numbered change touches.
const TOUCHED: u64 = 5;

/// The change that leads from revision `number - 1` to `number`.
fn change(number: u64) -> Change {
    let mut change = Change { epoch: EPOCH, revision: number, ..Change::default() };
    for step in 0..TOUCHED {
        let record = service((number * TOUCHED + step) % NAMES, number);
        if (number + step).is_multiple_of(7) {
            change.delete.push(record.key());
        } else {
            change.put.push(Put::from(&record));
        }
    }
    let slot = number % NAMES;
    change.addresses_put.push(VirtualAddress {
        service: ServiceName::new("default", &format!("svc-{slot}")),
        hostname: format!("h{number}").into(),
        address: IpAddr::V4(Ipv4Addr::new(198, 18, 0, slot as u8)),
    });
    change
}

fn service(index: u64, number: u64) -> Record {
    let selector = (0..6)
        .map(|n| (format!("label-{n}").into(), format!("value-{n}-of-{number}").into()))
        .collect();
    let created = number.cast_signed();
    let body = Body::Service(Service { selector, created, ..Service::default() });
    Record { namespace: "default".into(), name: format!("svc-{index}").into(), body }
}

fn puts(records: &[&Record]) -> Vec<Put> {
    records.iter().map(|record| Put::from(*record)).collect()
}

/// What a store at `revision` holds, by the same changes.
fn expected(revision: u64) -> Loaded {
    let (mut records, mut addresses) = (BTreeMap::new(), BTreeMap::new());
    // Every name is touched within NAMES changes.
    for number in revision.saturating_sub(NAMES * 2).max(1)..=revision {
        let Change { put, delete, addresses_put, .. } = change(number);
        delete.iter().for_each(|key| drop(records.remove(key)));
        let record = |put: Put| (put.key.clone(), (put.record().unwrap(), number));
        records.extend(put.into_iter().map(record));
        addresses.extend(addresses_put.into_iter().map(|new| (new.address, new)));
    }
    Loaded {
        epoch: if revision == 0 { [0; 16] } else { EPOCH },
        revision,
        digest: [0; 32],
        records: records.into_values().collect(),
        held: Vec::new(),
        local: Vec::new(),
        addresses: addresses.into_values().collect(),
        ..Loaded::default()
    }
}

/// The store holds exactly what it held at its revision.
fn assert_whole(loaded: &Loaded) {
    let mut loaded = loaded.clone();
    (loaded.digest, loaded.counter) = ([0; 32], [0; 16]);
    loaded.held.clear();
    loaded.records.sort_by_key(|(record, _)| record.key());
    loaded.addresses.sort_by_key(|address| address.address);
    assert_eq!(loaded, expected(loaded.revision));
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A store that was closed at `revision`.
async fn filled(folder: &Path, revision: u64) {
    let (store, loaded, repairs) = Store::open(folder).unwrap();
    assert_eq!((loaded.revision, repairs), (0, vec![]));
    for number in 1..=revision {
        store.commit(change(number)).await.unwrap();
    }
    store.close().await;
}

async fn reopened(folder: &Path) -> (Loaded, Vec<Repair>) {
    let (store, mut loaded, repairs) = Store::open(folder).unwrap();
    store.close().await;
    // By chance.
    assert_ne!(loaded.counter, [0; 16]);
    loaded.counter = [0; 16];
    (loaded, repairs)
}

#[tokio::test]
async fn what_was_committed_is_there_again() {
    let folder = folder();
    for revision in [0, 1, 5, 100] {
        let place = folder.path().join(revision.to_string());
        filled(&place, revision).await;
        let (loaded, repairs) = reopened(&place).await;
        assert_eq!((loaded.revision, repairs), (revision, vec![]));
        assert_whole(&loaded);
    }
}

#[tokio::test]
async fn each_part_of_a_change_does_what_it_says() {
    let (one, two) = (service(1, 9), service(2, 9));
    let address = |service: &str, last| VirtualAddress {
        service: ServiceName::new("default", service),
        hostname: "".into(),
        address: Ipv4Addr::new(198, 18, 0, last).into(),
    };
    let (a, b, taken) = (address("a", 1), address("b", 2), address("c", 2));
    // change; then the names, the addresses
    let steps: Vec<(Change, Vec<&str>, Vec<&VirtualAddress>)> = vec![
        (Change { put: puts(&[&one, &two]), ..<_>::default() }, vec!["svc-1", "svc-2"], vec![]),
        (
            Change { addresses_put: vec![a.clone(), b.clone()], ..<_>::default() },
            vec!["svc-1", "svc-2"],
            vec![&a, &b],
        ),
        (
            Change { delete: vec![one.key(), one.key()], ..<_>::default() },
            vec!["svc-2"],
            vec![&a, &b],
        ),
        (
            Change { delete: vec![one.key()], put: puts(&[&one, &one]), ..<_>::default() },
            vec!["svc-1", "svc-2"],
            vec![&a, &b],
        ),
        (
            Change { addresses_put: vec![taken.clone()], ..<_>::default() },
            vec!["svc-1", "svc-2"],
            vec![&a, &taken],
        ),
        (
            Change { addresses_delete: vec![b.clone(), a.clone()], ..<_>::default() },
            vec!["svc-1", "svc-2"],
            vec![&taken],
        ),
        (Change { reset: true, put: puts(&[&two]), ..<_>::default() }, vec!["svc-2"], vec![&taken]),
        (Change { reset: true, ..<_>::default() }, vec![], vec![&taken]),
    ];
    let folder = folder();
    for (number, (mut change, names, addresses)) in steps.into_iter().enumerate() {
        change.epoch = [number as u8; 16];
        change.revision = u64::MAX - number as u64;
        let (store, ..) = Store::open(folder.path()).unwrap();
        store.commit(change.clone()).await.unwrap();
        store.close().await;
        let (loaded, repairs) = reopened(folder.path()).await;
        assert_eq!(repairs, vec![], "step {number}");
        assert_eq!((loaded.epoch, loaded.revision), (change.epoch, change.revision));
        let found: Vec<&str> = loaded.records.iter().map(|(record, _)| &*record.name).collect();
        assert_eq!(found, names, "step {number}");
        assert_eq!(loaded.addresses.iter().collect::<Vec<_>>(), addresses, "step {number}");
    }
}

#[tokio::test]
async fn equal_bodies_have_equal_digests_whatever_the_way_there() {
    let ways: [&[Change]; 3] = [
        &[Change { put: puts(&[&service(1, 1), &service(2, 2)]), ..Change::default() }],
        &[
            Change {
                put: puts(&[&service(2, 2), &service(3, 3)]),
                revision: 1,
                ..Change::default()
            },
            Change {
                put: puts(&[&service(1, 1)]),
                delete: vec![service(3, 0).key()],
                revision: 2,
                ..Change::default()
            },
        ],
        &[
            Change { put: puts(&[&service(1, 8), &service(2, 9)]), ..Change::default() },
            Change { put: puts(&[&service(1, 1)]), ..Change::default() },
            Change { put: puts(&[&service(2, 2)]), ..Change::default() },
        ],
    ];
    let mut digests = Vec::new();
    for way in ways {
        let folder = folder();
        let (store, ..) = Store::open(folder.path()).unwrap();
        for change in way {
            store.commit(change.clone()).await.unwrap();
        }
        store.close().await;
        digests.push(reopened(folder.path()).await.0.digest);
    }
    assert_eq!(digests[0], digests[1]);
    assert_eq!(digests[0], digests[2]);
    assert_ne!(digests[0], [0; 32]);
}

#[tokio::test]
async fn a_record_that_does_not_decode_harms_only_itself() {
    let folder = folder();
    filled(folder.path(), 20).await;
    let stray = "INSERT INTO record VALUES (?1, 'default', ?2, 20, ?3)";
    let mut database =
        crate::store::database::Database::open(&folder.path().join("meta.db")).unwrap();
    for (kind, name) in [("service", "bad"), ("moon", "far")] {
        let body = [0xff_u8; 9].as_slice();
        database.connection.execute(stray, (kind, name, body)).unwrap();
    }
    database.adopt_altered().unwrap();
    drop(database);
    for _ in 0..2 {
        let (loaded, repairs) = reopened(folder.path()).await;
        assert_eq!(loaded.records, expected_sorted(20));
        let texts: Vec<String> = repairs.iter().map(Repair::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert!(texts.iter().any(|text| text.contains("service default/bad")), "{texts:?}");
        assert!(texts.iter().any(|text| text.contains("moon default/far")), "{texts:?}");
    }
}

fn expected_sorted(revision: u64) -> Vec<(Record, u64)> {
    expected(revision).records
}

#[tokio::test]
async fn a_change_is_stored_whole_or_not_at_all() {
    let folder = folder();
    filled(folder.path(), 30).await;
    let mut database =
        crate::store::database::Database::open(&folder.path().join("meta.db")).unwrap();
    database
        .connection
        .execute_batch(
            "CREATE TEMP TRIGGER no BEFORE INSERT ON virtual_address \
             BEGIN SELECT RAISE(ABORT, 'no address'); END",
        )
        .unwrap();
    // The addresses come after the records: those must be gone again.
    let error = database.apply(&change(31)).unwrap_err();
    assert!(error.to_string().contains("no address"), "{error}");
    drop(database);
    let (loaded, repairs) = reopened(folder.path()).await;
    assert_eq!((loaded.revision, repairs), (30, vec![]));
    assert_whole(&loaded);
}

#[tokio::test]
async fn the_schema_is_the_designed_one() {
    let folder = folder();
    filled(folder.path(), 1).await;
    let database = crate::store::database::Database::open(&folder.path().join("meta.db")).unwrap();
    let columns = |table: &str| -> Vec<String> {
        let sql = format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid");
        let mut statement = database.connection.prepare(&sql).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    let tables = [
        ("record", "kind namespace name revision body"),
        ("sync_state", "epoch revision digest"),
        ("virtual_address", "namespace name hostname address"),
        ("endpoint", "id type name project_id is_shared properties created_at updated_at"),
        (
            "rule",
            "id name project_id domain_id source source_resource target target_resource in_use \
             is_deleted created_at updated_at success_messages fail_messages",
        ),
        ("rule_error", "rule_id at detail"),
        ("waiting_count", "id success_messages fail_messages"),
        ("counter", "id"),
    ];
    for (table, names) in tables {
        assert_eq!(columns(table).join(" "), names, "{table}");
    }
    let number =
        |sql: &str| -> i64 { database.connection.query_row(sql, [], |r| r.get(0)).unwrap() };
    assert_eq!(number("PRAGMA user_version"), i64::from(crate::store::schema::META.version()));
    assert_eq!(number("PRAGMA application_id"), i64::from(crate::store::schema::APPLICATION_ID));
    assert_eq!(number("PRAGMA synchronous"), 1);
    assert_eq!(number("PRAGMA foreign_keys"), 1);
}

#[tokio::test]
async fn the_errors_of_a_rule_are_bounded() {
    let folder = folder();
    filled(folder.path(), 0).await;
    let database = crate::store::database::Database::open(&folder.path().join("meta.db")).unwrap();
    let run = |sql: &str| database.connection.execute_batch(sql);
    run("INSERT INTO endpoint VALUES ('e', 'rest', 'e', NULL, 0, '{}', 0, 0);
         INSERT INTO rule (id, name, source, source_resource, target, target_resource, created_at,
             updated_at) VALUES ('r', 'r', 'e', '{}', 'e', '{}', 0, 0)")
    .unwrap();
    for at in 0..40 {
        run(&format!("INSERT INTO rule_error VALUES ('r', {at}, 'no')")).unwrap();
    }
    let (count, oldest): (i64, i64) = database
        .connection
        .query_row("SELECT count(*), min(at) FROM rule_error", [], |r| Ok((r.get(0)?, r.get(1)?)))
        .unwrap();
    assert_eq!((count, oldest), (32, 8));
    // Sizes and references are checked.
    run("UPDATE rule SET target = 'nowhere'").unwrap_err();
    run("UPDATE endpoint SET name = printf('%65d', 1)").unwrap_err();
}

#[tokio::test]
async fn commits_after_the_end_are_told_so() {
    let folder = folder();
    let (store, ..) = Store::open(folder.path()).unwrap();
    let other = store.clone();
    store.close().await;
    let error = other.commit(change(1)).await.unwrap_err();
    assert!(matches!(error, CommitError::Closed), "{error}");
    assert!(matches!(other.keep_good_copy().await.unwrap_err(), CommitError::Closed));
    other.close().await;
    // The log was transferred, the lock given up.
    assert_eq!(fs::metadata(folder.path().join("meta.db-wal")).map_or(0, |log| log.len()), 0);
    assert_eq!(reopened(folder.path()).await, (expected(0), vec![]));
}

#[test]
fn kinds_keep_their_names() {
    // Names are keys in stores that are out there.
    let names: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
    assert_eq!(
        names.join(" "),
        "service slice node workload policy route endpoint rule revocation"
    );
    let _: fn(&Record) -> Key = Record::key;
}
