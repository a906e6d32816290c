//! Files of earlier versions where the step to this one cannot be written: what they hold is served.

use std::fs;
use std::path::Path;

use edgemesh_proto::record::Put;
use rusqlite::Connection;

use super::folders::{fill, mount};
use super::world::{given_folder, hidden_in_namespace};
use super::{EPOCH, change, folder, service};
use crate::digest::{Digest, Hasher};
use crate::store::schema::APPLICATION_ID;
use crate::store::{Loaded, Repair, Store};

const STEPS: [&str; 2] = [include_str!("../schema_1.sql"), include_str!("../schema_2.sql")];
/// Records in each file.
const RECORDS: u64 = 5;
/// Their revision.
const REVISION: u64 = 9;

/// What a release of that `version` left in `file`.
fn write(file: &Path, version: usize) {
    let connection = Connection::open(file).unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
    STEPS[..version].iter().for_each(|step| connection.execute_batch(step).unwrap());
    connection.pragma_update(None, "user_version", version as i64).unwrap();
    let (mut digest, mut hasher) = (Digest::default(), Hasher::default());
    let insert = |table: &str, index: u64, revision: &str| {
        let Put { key, body } = Put::from(&service(index, REVISION));
        let sql = format!("INSERT INTO {table} VALUES (?1, ?2, ?3, {revision} ?4)");
        let row = (key.kind.name(), &*key.namespace, &*key.name, &*body);
        connection.execute(&sql, row).unwrap();
        (key, body)
    };
    for index in 0..RECORDS {
        let (key, body) = insert("record", index, "9,");
        digest.add(hasher.of(&key, &body));
    }
    if version == 2 {
        insert("local_record", RECORDS, "");
    }
    let state = (EPOCH, REVISION.cast_signed(), digest.to_bytes());
    let sql = "UPDATE sync_state SET epoch = ?1, revision = ?2, digest = ?3";
    connection.execute(sql, state).unwrap();
}

fn assert_served(loaded: &Loaded, version: usize, case: &str) {
    assert_eq!((loaded.epoch, loaded.revision), (EPOCH, REVISION), "{version} {case}");
    assert_eq!(loaded.records.len() as u64, RECORDS, "{version} {case}");
    assert_eq!(loaded.local.len(), version - 1, "{version} {case}");
    assert_ne!(loaded.counter, [0; 16], "{version} {case}");
}

/// Another program holds it while the agent starts; when it lets go, the step is made.
#[tokio::test]
async fn locked() {
    for version in 1..=STEPS.len() {
        let folder = folder();
        let meta = folder.path().join("meta.db");
        write(&meta, version);
        let other = Connection::open(&meta).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (store, loaded, repairs) = Store::open(folder.path()).unwrap();
        assert_served(&loaded, version, "locked");
        assert!(matches!(&repairs[..], [Repair::ReadOnly { .. }]), "{version}: {repairs:?}");
        other.execute_batch("ROLLBACK").unwrap();
        drop(other);
        store.commit(change(REVISION + 1)).await.unwrap();
        store.close().await;
        let (store, later, repairs) = Store::open(folder.path()).unwrap();
        store.close().await;
        assert_eq!((later.revision, repairs), (REVISION + 1, vec![]));
        // The cloud was told this one's counts.
        assert_eq!(later.counter, loaded.counter);
    }
}

/// The good copy is of the release before, until the next one is made.
#[tokio::test]
async fn good_copy() {
    for version in 1..=STEPS.len() {
        for damage in ["", "hello"] {
            let folder = folder();
            Store::open(folder.path()).unwrap().0.close().await;
            fs::write(folder.path().join("meta.db"), damage).unwrap();
            write(&folder.path().join("meta.db.good"), version);
            let (store, loaded, repairs) = Store::open(folder.path()).unwrap();
            assert_served(&loaded, version, "good copy");
            let restored = |repair: &Repair| matches!(repair, Repair::Restored { .. });
            assert!(repairs.iter().any(restored), "{version}: {repairs:?}");
            store.commit(change(REVISION + 1)).await.unwrap();
            store.close().await;
        }
    }
}

/// Runs a hidden test below in namespaces of its own.
fn in_namespace(name: &str) {
    let folder = folder();
    let name = format!("store::tests::earlier::{name}");
    let output = hidden_in_namespace(&name, folder.path()).output().expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn read_only_folder() {
    in_namespace("in_namespace_read_only_folder");
}

#[test]
fn full_disk() {
    in_namespace("in_namespace_full_disk");
}

/// A folder with what a release of that `version` left: the metastore, or the good copy of one that is
/// damaged now.
async fn left(place: &Path, version: usize, is_copy: bool) {
    fs::create_dir(place).unwrap();
    // It was used before, so that what is at the metastore's place is the agent's own.
    Store::open(place).unwrap().0.close().await;
    fs::remove_file(place.join("meta.db")).unwrap();
    if is_copy {
        fs::write(place.join("meta.db"), "hello").unwrap();
    }
    write(&place.join(if is_copy { "meta.db.good" } else { "meta.db" }), version);
}

async fn assert_read(place: &Path, version: usize) {
    let (store, loaded, repairs) = Store::open(place).unwrap();
    assert_served(&loaded, version, &place.display().to_string());
    assert!(matches!(&repairs[0], Repair::ReadOnly { .. }), "{}: {repairs:?}", place.display());
    store.close().await;
}

#[tokio::test]
#[ignore = "runs in the namespaces of read_only_folder"]
async fn in_namespace_read_only_folder() {
    let Some(folder) = given_folder() else { return };
    mount(&["-t", "tmpfs", "none"], &folder);
    let place = |version, is_copy| folder.join(format!("{version}-{is_copy}"));
    for version in 1..=STEPS.len() {
        left(&place(version, false), version, false).await;
        left(&place(version, true), version, true).await;
    }
    mount(&["-o", "remount,ro"], &folder);
    for version in 1..=STEPS.len() {
        assert_read(&place(version, false), version).await;
        assert_read(&place(version, true), version).await;
    }
}

#[tokio::test]
#[ignore = "runs in the namespaces of full_disk"]
async fn in_namespace_full_disk() {
    let Some(folder) = given_folder() else { return };
    mount(&["-t", "tmpfs", "-o", "size=2m", "none"], &folder);
    let place = |version: usize| folder.join(version.to_string());
    for version in 1..=STEPS.len() {
        left(&place(version), version, false).await;
    }
    fill(&folder);
    for version in 1..=STEPS.len() {
        assert_read(&place(version), version).await;
    }
    // With space the step is made.
    fs::remove_file(folder.join("ballast")).unwrap();
    for version in 1..=STEPS.len() {
        let (store, loaded, repairs) = Store::open(&place(version)).unwrap();
        assert_eq!((loaded.revision, repairs), (REVISION, vec![]));
        store.commit(change(REVISION + 1)).await.unwrap();
        store.close().await;
    }
}
