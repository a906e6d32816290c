//! Damage anywhere in `meta.db`: no panic, and never a wrong record without a word.

use std::fs;
use std::path::Path;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::{assert_whole, change, expected, filled, folder, reopened};
use crate::store::{Loaded, OpenError, Repair, Store};

/// A store at revision 60 whose good copy is at 40.
async fn with_copy(folder: &Path) {
    filled(folder, 40).await;
    let (store, ..) = Store::open(folder).unwrap();
    store.keep_good_copy().await.unwrap();
    for number in 41..=60 {
        store.commit(change(number)).await.unwrap();
    }
    store.close().await;
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Overwrites the middle of every page but the first few bytes of the file.
fn wreck(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let from = bytes.len() / 2;
    bytes[from..].fill(0x5a);
    fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn damaged_then_good_then_empty() {
    let folder = folder();
    let meta = folder.path().join("meta.db");
    with_copy(folder.path()).await;
    let wrecked = |file: &Path| {
        wreck(file);
        fs::read(file).unwrap()
    };
    let kept = wrecked(&meta);
    let (loaded, repairs) = reopened(folder.path()).await;
    assert_whole(&loaded);
    assert_eq!(loaded.revision, 40);
    assert!(
        matches!(&repairs[..], [Repair::MovedAside { .. }, Repair::Restored { revision: 40, .. }]),
        "{repairs:?}"
    );
    assert_eq!(fs::read(folder.path().join("meta.db.damaged-1")).unwrap(), kept);
    // The next start is an ordinary one.
    assert_eq!(reopened(folder.path()).await.1, vec![]);

    wreck(&meta);
    wreck(&folder.path().join("meta.db.good"));
    let (loaded, repairs) = reopened(folder.path()).await;
    assert_eq!(loaded, expected(0));
    assert!(
        matches!(
            &repairs[..],
            [Repair::CopyUnusable { .. }, Repair::MovedAside { .. }, Repair::BeganEmpty { .. }]
        ),
        "{repairs:?}"
    );
    for repair in repairs {
        assert!(repair.to_string().contains(folder.path().to_str().unwrap()), "{repair}");
    }
}

#[tokio::test]
async fn the_newest_three_damaged_files_stay() {
    let folder = folder();
    filled(folder.path(), 20).await;
    for round in 1..=5_u64 {
        wreck(&folder.path().join("meta.db"));
        let (_, repairs) = reopened(folder.path()).await;
        let forgotten = repairs.iter().any(|repair| matches!(repair, Repair::Forgotten { .. }));
        assert_eq!(forgotten, round > 3, "{round}: {repairs:?}");
    }
    let damaged: Vec<String> =
        names(folder.path()).into_iter().filter(|name| name.contains("damaged")).collect();
    assert_eq!(damaged, ["meta.db.damaged-3", "meta.db.damaged-4", "meta.db.damaged-5"]);
}

#[tokio::test]
async fn altered_records_without_a_copy_are_served_and_compared() {
    let folder = folder();
    filled(folder.path(), 60).await;
    let meta = folder.path().join("meta.db");
    let mut bytes = fs::read(&meta).unwrap();
    // A label of a record that is there, changed to another valid one.
    let at = bytes.windows(12).position(|text| text == b"value-3-of-6").unwrap();
    bytes[at] = b'V';
    fs::write(&meta, bytes).unwrap();
    let (loaded, repairs) = reopened(folder.path()).await;
    assert!(matches!(&repairs[..], [Repair::Altered { .. }]), "{repairs:?}");
    assert_eq!((loaded.epoch, loaded.revision), ([0; 16], 0));
    assert_eq!(loaded.records.len(), expected(60).records.len());
    assert_eq!(reopened(folder.path()).await.1, vec![]);
}

#[tokio::test]
async fn lost_files() {
    // what is removed or written; then the revision and the kinds of repairs
    type Act = fn(&Path);
    let cases: [(&str, Act, u64, &str); 6] = [
        ("the database", |f| fs::remove_file(f.join("meta.db")).unwrap(), 40, "Restored"),
        (
            "database and copy",
            |f| {
                fs::remove_file(f.join("meta.db")).unwrap();
                fs::remove_file(f.join("meta.db.good")).unwrap();
            },
            0,
            "",
        ),
        ("emptied", |f| fs::write(f.join("meta.db"), "").unwrap(), 40, "MovedAside Restored"),
        ("zeroed", |f| fs::write(f.join("meta.db"), [0; 8192]).unwrap(), 40, "MovedAside Restored"),
        (
            "text in a used folder",
            |f| fs::write(f.join("meta.db"), "hello").unwrap(),
            40,
            "MovedAside Restored",
        ),
        ("a half-made file", |f| fs::write(f.join("meta.db.new"), "hello").unwrap(), 60, ""),
    ];
    for (what, act, revision, kinds) in cases {
        let folder = folder();
        with_copy(folder.path()).await;
        act(folder.path());
        let (loaded, repairs) = reopened(folder.path()).await;
        assert_whole(&loaded);
        assert_eq!(loaded.revision, revision, "{what}");
        assert_eq!(kinds_of(&repairs), kinds, "{what}");
        assert!(!folder.path().join("meta.db.new").exists(), "{what}");
    }
}

#[tokio::test]
async fn a_log_without_its_database_is_not_mixed_into_the_next() {
    let (source, folder) = (folder(), folder());
    filled(source.path(), 0).await;
    let (store, ..) = Store::open(source.path()).unwrap();
    store.commit(change(1)).await.unwrap();
    fs::copy(source.path().join("meta.db-wal"), folder.path().join("meta.db-wal")).unwrap();
    let (loaded, repairs) = reopened(folder.path()).await;
    assert_eq!(loaded, expected(0));
    assert_eq!(kinds_of(&repairs), "MovedAside BeganEmpty");
    assert!(folder.path().join("meta.db.damaged-1-wal").exists());
    // The same with the journal of a switch between modes.
    fs::remove_file(folder.path().join("meta.db")).unwrap();
    fs::write(folder.path().join("meta.db-journal"), [1; 600]).unwrap();
    assert_eq!(kinds_of(&reopened(folder.path()).await.1), "MovedAside BeganEmpty");
    assert!(folder.path().join("meta.db.damaged-2-journal").exists());
    store.close().await;
}

fn kinds_of(repairs: &[Repair]) -> String {
    let kinds: Vec<String> = repairs
        .iter()
        .map(|repair| format!("{repair:?}").split([' ', '{']).next().unwrap().to_owned())
        .collect();
    kinds.join(" ")
}

#[tokio::test]
async fn random_damage_is_never_silent() {
    let source = folder();
    filled(source.path(), 60).await;
    let sound = fs::read(source.path().join("meta.db")).unwrap();
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let (mut noticed, mut refused) = (0, 0);
    for round in 0..200_usize {
        let folder = folder();
        filled(folder.path(), 0).await;
        let mut bytes = sound.clone();
        // Single bytes, runs, and the header above all others.
        let span = if round % 4 == 0 { 100 } else { bytes.len() };
        for _ in 0..=round % 3 {
            let at = (random.next_u64() % span as u64) as usize;
            let end = (at + [1, 1, 700][round % 3]).min(bytes.len());
            random.fill_bytes(&mut bytes[at..end]);
        }
        if round % 10 == 9 {
            bytes.truncate((random.next_u64() % bytes.len() as u64) as usize);
        }
        fs::write(folder.path().join("meta.db"), bytes).unwrap();
        match Store::open(folder.path()) {
            Ok((store, loaded, repairs)) => {
                if repairs.is_empty() {
                    assert_whole_records(&loaded);
                }
                noticed += usize::from(!repairs.is_empty());
                // It takes changes, or says why not.
                if let Err(error) = store.commit(change(loaded.revision + 1)).await {
                    assert!(error.store_read_only(), "round {round}: {error:?}");
                }
                store.close().await;
            }
            Err(error) => {
                let named = matches!(error, OpenError::Newer { .. });
                assert!(named, "round {round}: {error:?}");
                refused += 1;
            }
        }
    }
    assert!(noticed > 60, "{noticed} noticed, {refused} refused");
    assert!(refused < 10, "{refused} refused");
}

/// The digest covers records; addresses are guarded by the structure check alone.
fn assert_whole_records(loaded: &Loaded) {
    let mut records = loaded.records.clone();
    records.sort_by_key(|(record, _)| record.key());
    let bodies = |records: Vec<(_, u64)>| records.into_iter().map(|(r, _)| r).collect::<Vec<_>>();
    assert_eq!(bodies(records), bodies(expected(60).records));
}
