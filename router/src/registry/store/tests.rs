//! What is kept is there again, whole: after a stop, a kill, damage, a full disk, or from an old copy.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use edgemesh_proto::record::{Kind, NodeName};
use tempfile::TempDir;

use super::*;

mod counts;
mod unreachable;

/// Kills; the moment moves from the opening on.
const KILLS: u64 = 50;
/// Records that each numbered change touches.
const TOUCHED: u64 = 5;

/// The change that leads from state `number - 1` to `number`.
fn change(number: u64) -> Vec<Write> {
    let owners = [
        Owner::Manifests,
        Owner::Cloud,
        Owner::Node(NodeName("a".into())),
        Owner::Node(NodeName("a/b".into())),
    ];
    let write = |step: u64| {
        let n = number * TOUCHED + step;
        let owner = owners[(n % 4) as usize].clone();
        let name = format!("s{}", n % 23).into();
        let key = Key { kind: Kind::ALL[(n % 9) as usize], namespace: "default".into(), name };
        let body = (!(number + step).is_multiple_of(7)).then(|| format!("{number}").into());
        Write { owner, key, body }
    };
    (0..TOUCHED).map(write).chain([counter(number)]).collect()
}

fn counter(number: u64) -> Write {
    let key = Key { kind: Kind::Service, namespace: "".into(), name: "counter".into() };
    Write { owner: Owner::Manifests, key, body: Some(number.to_string().into()) }
}

type Content = BTreeMap<(Owner, Key), Bytes>;

fn content(kept: Kept) -> Content {
    kept.records.into_iter().map(|(owner, put)| ((owner, put.key), put.body)).collect()
}

/// The state that a store says it is in; it must be exactly that.
fn assert_whole(kept: Kept) -> u64 {
    let content = content(kept);
    let Write { owner, key, .. } = counter(0);
    let number = content
        .get(&(owner, key))
        .map_or(0, |body| std::str::from_utf8(body).unwrap().parse().unwrap());
    let mut expected = Content::new();
    for Write { owner, key, body } in (1..=number).flat_map(change) {
        match body {
            Some(body) => drop(expected.insert((owner, key), body)),
            None => drop(expected.remove(&(owner, key))),
        }
    }
    assert_eq!(content, expected, "state {number}");
    number
}

async fn keep(store: &Store, number: u64) -> Outcome {
    store.room().await.unwrap().keep(change(number), Vec::new()).await.unwrap()
}

async fn filled(folder: &Path, number: u64) {
    let (store, kept, repairs) = Store::open(folder).unwrap();
    assert_eq!((kept, repairs), (Kept::default(), vec![]));
    for number in 1..=number {
        keep(&store, number).await.unwrap();
    }
    store.close().await;
}

async fn reopened(folder: &Path) -> (Kept, Vec<Repair>) {
    let (store, kept, repairs) = Store::open(folder).unwrap();
    store.close().await;
    (kept, repairs)
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn what_was_kept_is_there_again() {
    for number in [0, 1, 60] {
        let folder = folder();
        filled(folder.path(), number).await;
        let (kept, repairs) = reopened(folder.path()).await;
        assert_eq!((assert_whole(kept), repairs), (number, vec![]));
    }
}

#[tokio::test]
async fn of_two_processes_one_has_it() {
    let folder = folder();
    let (store, ..) = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    // A metastore in the same folder is another matter.
    let (meta, ..) = edgemesh_core::store::Store::open(folder.path()).unwrap();
    meta.close().await;
    store.close().await;
    assert!(Store::open(folder.path()).is_ok());
}

#[tokio::test]
async fn damage_is_moved_aside_and_told() {
    let folder = folder();
    filled(folder.path(), 60).await;
    let file = folder.path().join("registry.db");
    let mut bytes = fs::read(&file).unwrap();
    let half = bytes.len() / 2;
    bytes[half..].fill(0x5a);
    fs::write(&file, &bytes).unwrap();
    let (kept, repairs) = reopened(folder.path()).await;
    assert_eq!(kept, Kept::default());
    assert!(matches!(&repairs[..], [Repair::Folder(_), Repair::BeganEmpty { .. }]), "{repairs:?}");
    assert_eq!(fs::read(folder.path().join("registry.db.damaged-1")).unwrap(), bytes);
    assert_eq!(reopened(folder.path()).await.1, vec![], "the next start is an ordinary one");
    // What is no database, in a folder of ours and in another's.
    fs::write(&file, "hello").unwrap();
    assert!(matches!(&reopened(folder.path()).await.1[..], [Repair::Folder(_), ..]));
    let other = self::folder();
    fs::write(other.path().join("registry.db"), "hello").unwrap();
    let error = Store::open(other.path()).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
}

#[tokio::test]
async fn an_altered_record_is_told() {
    let folder = folder();
    filled(folder.path(), 10).await;
    let sql = "UPDATE owned SET body = x'00' WHERE name = 'counter'";
    let connection = rusqlite::Connection::open(folder.path().join("registry.db")).unwrap();
    connection.execute(sql, []).unwrap();
    drop(connection);
    let (kept, repairs) = reopened(folder.path()).await;
    assert!(matches!(&repairs[..], [Repair::Altered { .. }]), "{repairs:?}");
    assert!(!kept.records.is_empty());
    assert_eq!(reopened(folder.path()).await.1, vec![]);
}

#[tokio::test]
async fn old_copies_open_as_what_they_were() {
    let folder = folder();
    let copy = self::folder();
    let (store, ..) = Store::open(folder.path()).unwrap();
    for number in 1..=40 {
        keep(&store, number).await.unwrap();
        if number == 25 {
            // As a backup does that knows nothing of SQLite: while it is open, log and all.
            for name in ["registry.db", "registry.db-wal"] {
                fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
            }
        }
    }
    store.close().await;
    let (kept, repairs) = reopened(copy.path()).await;
    assert_eq!((assert_whole(kept), repairs), (25, vec![]));
}

#[tokio::test]
async fn what_the_disk_refuses_is_kept_with_the_next_change() {
    let folder = folder();
    filled(folder.path(), 3).await;
    let (mut keeper, ..) = open(Folder::new(folder.path(), &PLACE)).unwrap();
    let connection = rusqlite::Connection::open(folder.path().join("registry.db")).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    for number in [4, 5] {
        let write = |Write { owner, key, body }| ((owner, key), body);
        keeper.pending.records.extend(change(number).into_iter().map(write));
        let error = keeper.keep().unwrap_err();
        assert!(matches!(error, CommitError::Busy { .. }), "{error}");
    }
    connection.execute_batch("ROLLBACK").unwrap();
    drop(connection);
    keeper.keep().unwrap();
    drop(keeper);
    assert_eq!(assert_whole(reopened(folder.path()).await.0), 5);
}

#[tokio::test]
async fn fifty_kills() {
    let folder = folder();
    let mut reached = 0;
    for kill in 0..KILLS {
        let acknowledged = run_and_kill(folder.path(), (kill * kill) % 61).unwrap_or(reached);
        let (kept, repairs) = reopened(folder.path()).await;
        assert_eq!(repairs, vec![], "kill {kill}");
        let number = assert_whole(kept);
        assert!(number >= acknowledged, "kill {kill}: {acknowledged} was kept, {number} is there");
        reached = number;
    }
    assert!(reached > KILLS * 10, "only {reached} changes were kept");
}

/// Prefix of the argument that carries the folder; to the test harness it is one more filter.
const FOLDER: &str = "folder=";

/// Starts the child, reads `lines` answers, kills it, and returns the last one read.
fn run_and_kill(folder: &Path, lines: u64) -> Option<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .args([
            "registry::store::tests::child_keeps_changes",
            &format!("{FOLDER}{}", folder.display()),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stderr.take().unwrap());
    let (mut last, mut line) = (None, String::new());
    for _ in 0..lines {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the child ended by itself");
        last = Some(line.trim().parse().unwrap_or_else(|_| panic!("the child said: {line}")));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    last
}

#[tokio::test]
#[ignore = "runs as the child of fifty_kills"]
async fn child_keeps_changes() {
    let given = std::env::args().find_map(|a| a.strip_prefix(FOLDER).map(PathBuf::from));
    let Some(folder) = given else { return };
    let (store, kept, _) = Store::open(&folder).unwrap();
    let mut output = std::io::stderr().lock();
    for number in assert_whole(kept) + 1.. {
        keep(&store, number).await.unwrap();
        writeln!(output, "{number}").unwrap();
    }
}
