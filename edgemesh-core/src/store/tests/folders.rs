//! Folders that are in use, foreign, newer, read-only or full.

use std::error::Error as _;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use super::world::{given_folder, hidden_in_namespace};
use super::{assert_whole, change, filled, folder, reopened};
use crate::store::{CommitError, OpenError, Repair, Store};

#[tokio::test]
async fn two_agents_in_one_folder() {
    let folder = folder();
    let place = folder.path().join("made/on/the/way");
    let (store, ..) = Store::open(&place).unwrap();
    assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
    let error = Store::open(&place).unwrap_err();
    let OpenError::Locked { pid, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*pid, Some(std::process::id()));
    assert!(error.to_string().contains(&format!("pid {}", std::process::id())), "{error}");
    store.commit(change(1)).await.unwrap();
    store.close().await;
    assert_eq!(reopened(&place).await.0.revision, 1);
}

#[tokio::test]
async fn files_of_others_are_left_alone() {
    let with = |file: &Path, sql: &str| Connection::open(file).unwrap().execute_batch(sql).unwrap();
    type Make<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Make<'_>); 5] = [
        ("text", &|file| fs::write(file, "my notes").unwrap()),
        ("empty text", &|file| fs::write(file, "").unwrap()),
        ("a marked database", &|file| with(file, "PRAGMA application_id = 7; CREATE TABLE t (a)")),
        ("an unmarked database", &|file| with(file, "CREATE TABLE record (a)")),
        ("a database in WAL mode", &|file| {
            with(file, "PRAGMA journal_mode = WAL; CREATE TABLE t (a)")
        }),
    ];
    for (what, make) in cases {
        let folder = folder();
        let meta = folder.path().join("meta.db");
        make(&meta);
        let before = fs::read(&meta).unwrap();
        // Also the second time: an attempt leaves no trace that makes the file ours.
        for _ in 0..2 {
            let error = Store::open(folder.path()).unwrap_err();
            assert!(matches!(error, OpenError::Foreign { .. }), "{what}: {error:?}");
            assert!(error.to_string().contains(meta.to_str().unwrap()), "{what}: {error}");
            assert_eq!(fs::read(&meta).unwrap(), before, "{what}");
        }
    }
}

#[tokio::test]
async fn a_database_of_others_in_a_used_folder_is_left_alone_too() {
    let folder = folder();
    filled(folder.path(), 3).await;
    let meta = folder.path().join("meta.db");
    fs::remove_file(&meta).unwrap();
    Connection::open(&meta).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error:?}");
}

#[tokio::test]
async fn a_newer_schema_is_named() {
    let folder = folder();
    filled(folder.path(), 3).await;
    let meta = folder.path().join("meta.db");
    Connection::open(&meta).unwrap().pragma_update(None, "user_version", 9).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Newer { found: 9, known: 3, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("schema 9") && text.contains("up to 3"), "{text}");
}

#[tokio::test]
async fn another_program_holds_the_database() {
    let folder = folder();
    filled(folder.path(), 3).await;
    let (store, ..) = Store::open(folder.path()).unwrap();
    let other = Connection::open(folder.path().join("meta.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = store.commit(change(4)).await.unwrap_err();
    assert!(matches!(error, CommitError::Busy { .. }), "{error:?}");
    other.execute_batch("ROLLBACK").unwrap();
    store.commit(change(4)).await.unwrap();
    // A reader disturbs nothing, and sees what was committed.
    let sql = "SELECT revision FROM sync_state";
    assert_eq!(other.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap(), 4);
    drop(other);
    store.close().await;
    assert_whole(&reopened(folder.path()).await.0);
}

#[tokio::test]
async fn folders_that_cannot_be() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Store::open(&file).unwrap_err();
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");
    assert!(error.source().is_some());
    fs::create_dir_all(folder.path().join("odd/meta.db")).unwrap();
    let error = Store::open(&folder.path().join("odd")).unwrap_err();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

/// Runs a hidden test below in namespaces of its own.
fn in_namespace(name: &str) {
    let folder = folder();
    let name = format!("store::tests::folders::{name}");
    let output = hidden_in_namespace(&name, folder.path()).output().expect("unshare runs");
    let text = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "(no namespaces? `sysctl kernel.apparmor_restrict_unprivileged_userns=0`)\n{text}"
    );
}

#[test]
fn full_disk() {
    in_namespace("in_namespace_full_disk");
}

#[test]
fn read_only_folder() {
    in_namespace("in_namespace_read_only_folder");
}

pub(super) fn mount(arguments: &[&str], folder: &Path) {
    let status = Command::new("mount").args(arguments).arg(folder).status().unwrap();
    assert!(status.success(), "mount {arguments:?} {}", folder.display());
}

/// Takes all space that is left.
pub(super) fn fill(folder: &Path) {
    let mut file = File::create(folder.join("ballast")).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
}

#[tokio::test]
#[ignore = "runs in the namespaces of full_disk"]
async fn in_namespace_full_disk() {
    let Some(folder) = given_folder() else { return };
    mount(&["-t", "tmpfs", "-o", "size=2m", "none"], &folder);
    filled(&folder, 20).await;
    let (store, ..) = Store::open(&folder).unwrap();
    fill(&folder);
    let mut number = 20;
    let error = loop {
        match store.commit(change(number + 1)).await {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, CommitError::Full { .. }), "{error:?}");
    assert!(error.store_read_only());
    assert!(error.to_string().contains("meta.db"), "{error}");
    // It keeps answering.
    assert!(store.commit(change(number + 1)).await.is_err());
    assert!(store.keep_good_copy().await.is_err());
    store.close().await;
    // A start on the full disk serves what is there.
    let (store, loaded, repairs) = Store::open(&folder).unwrap();
    assert_eq!(loaded.revision, number, "{repairs:?}");
    assert_whole(&loaded);
    let _ = store.commit(change(number + 1)).await.map(|()| number += 1);
    // With space it stores again, without a new start.
    fs::remove_file(folder.join("ballast")).unwrap();
    for _ in 0..20 {
        store.commit(change(number + 1)).await.unwrap();
        number += 1;
    }
    store.keep_good_copy().await.unwrap();
    store.close().await;
    let (loaded, repairs) = reopened(&folder).await;
    assert_eq!((loaded.revision, repairs), (number, vec![]));
    assert_whole(&loaded);
}

#[tokio::test]
#[ignore = "runs in the namespaces of read_only_folder"]
async fn in_namespace_read_only_folder() {
    let Some(folder) = given_folder() else { return };
    mount(&["-t", "tmpfs", "none"], &folder);
    // Closed: no log. Crashed: a log, with or without its index.
    for (place, keep) in
        [("closed", ""), ("crashed", "meta.db-wal meta.db-shm"), ("log", "meta.db-wal")]
    {
        let place = folder.join(place);
        filled(&place, 20).await;
        let (store, ..) = Store::open(&place).unwrap();
        for number in 21..=30 {
            store.commit(change(number)).await.unwrap();
        }
        let copy: Vec<_> = keep
            .split_whitespace()
            .map(|name| (name, fs::read(place.join(name)).unwrap()))
            .collect();
        let before = fs::read(place.join("meta.db")).unwrap();
        store.close().await;
        if !copy.is_empty() {
            fs::write(place.join("meta.db"), before).unwrap();
            copy.iter().for_each(|(name, bytes)| fs::write(place.join(name), bytes).unwrap());
        }
    }
    fs::create_dir(folder.join("nothing")).unwrap();
    mount(&["-o", "remount,ro"], &folder);
    for place in ["closed", "crashed", "log"] {
        let (store, loaded, repairs) = Store::open(&folder.join(place)).unwrap();
        assert_eq!(loaded.revision, 30, "{place}");
        assert_whole(&loaded);
        assert!(matches!(&repairs[..], [Repair::ReadOnly { .. }]), "{place}: {repairs:?}");
        let error = store.commit(change(31)).await.unwrap_err();
        assert!(matches!(error, CommitError::ReadOnly { .. }), "{place}: {error:?}");
        assert!(error.store_read_only());
        store.close().await;
    }
    let error = Store::open(&folder.join("nothing")).unwrap_err();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
    let error = Store::open(&folder.join("nothing/below")).unwrap_err();
    assert!(matches!(error, OpenError::Folder { .. }), "{error:?}");
}
