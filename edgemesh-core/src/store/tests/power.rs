//! A file system that drops unsynced writes: every state that a power cut can leave behind opens at
//! a revision that existed, whole.
//!
//! SQLite promises order only at its syncs: the log is synced before its pages go to the database,
//! and the database before the log is begun anew. Between two syncs a disk may keep any part of
//! what was written. The tests copy the files at known moments and make such states by hand.

use std::fs;
use std::path::Path;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::{assert_whole, change, filled, folder, reopened};
use crate::store::database::Database;

/// What a disk writes at once.
const SECTOR: usize = 512;

const LOG_HEADER: usize = 32;
const FRAME: usize = 24 + 4096;

fn rng() -> TestRng {
    TestRng::deterministic_rng(RngAlgorithm::ChaCha)
}

fn below(rng: &mut TestRng, bound: usize) -> usize {
    (rng.next_u64() % bound as u64) as usize
}

/// Database and log at one moment.
struct Files {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            database: fs::read(folder.join("meta.db")).unwrap(),
            log: fs::read(folder.join("meta.db-wal")).unwrap(),
        }
    }
}

/// A folder whose last changes are in the log only: revisions `from` (in the database) to `to`.
async fn logged(folder: &Path, from: u64, to: u64) -> Files {
    filled(folder, from).await;
    let mut database = Database::open(&folder.join("meta.db")).unwrap();
    for number in from + 1..=to {
        database.apply(&change(number)).unwrap();
    }
    Files::of(folder)
}

/// Opens the state and says at which revision it is.
async fn revision_after(database: &[u8], log: &[u8], why: &str) -> u64 {
    let folder = folder();
    fs::write(folder.path().join("meta.db"), database).unwrap();
    fs::write(folder.path().join("meta.db-wal"), log).unwrap();
    let (loaded, repairs) = reopened(folder.path()).await;
    assert_eq!(repairs, vec![], "{why}");
    assert_whole(&loaded);
    loaded.revision
}

#[tokio::test]
async fn the_log_cut_anywhere() {
    let folder = folder();
    let Files { database, log } = logged(folder.path(), 40, 60).await;
    let mut random = rng();
    let frames = (LOG_HEADER..=log.len()).step_by(FRAME);
    let cuts: Vec<usize> =
        frames.chain([0, 1, 31]).chain((0..60).map(|_| below(&mut random, log.len()))).collect();
    let mut seen = Vec::new();
    for cut in cuts {
        let why = format!("log cut at {cut}");
        let revision = revision_after(&database, &log[..cut], &why).await;
        assert!((40..=60).contains(&revision), "{why}: {revision}");
        seen.push((cut, revision));
    }
    seen.sort_unstable();
    assert!(seen.is_sorted_by_key(|(_, revision)| *revision), "longer logs know more: {seen:?}");
    assert_eq!((seen[0].1, seen[seen.len() - 1].1), (40, 60));
}

#[tokio::test]
async fn sectors_of_the_log_lost_or_torn() {
    let folder = folder();
    let Files { database, log } = logged(folder.path(), 40, 60).await;
    let mut random = rng();
    for round in 0..60 {
        let mut torn = log.clone();
        for _ in 0..=below(&mut random, 4) {
            let sector = below(&mut random, log.len().div_ceil(SECTOR)) * SECTOR;
            let end = (sector + SECTOR).min(log.len());
            if round % 2 == 0 {
                torn[sector..end].fill(0);
            } else {
                random.fill_bytes(&mut torn[sector..end]);
            }
        }
        let revision = revision_after(&database, &torn, &format!("round {round}")).await;
        assert!((40..=60).contains(&revision), "round {round}: {revision}");
    }
}

#[tokio::test]
async fn a_cut_while_the_log_is_transferred() {
    let folder = folder();
    let before = logged(folder.path(), 40, 60).await;
    let database = Database::open(&folder.path().join("meta.db")).unwrap();
    database.close().unwrap();
    let after = fs::read(folder.path().join("meta.db")).unwrap();
    assert_ne!(before.database, after);
    let mut random = rng();
    for round in 0..60 {
        // The log is synced; of the database any sectors are new, the others old or missing.
        let mut mixed = after.clone();
        for (number, sector) in mixed.chunks_mut(SECTOR).enumerate() {
            if random.next_u32().is_multiple_of(2) {
                let old = before.database.get(number * SECTOR..).unwrap_or_default();
                let length = sector.len().min(old.len());
                sector[..length].copy_from_slice(&old[..length]);
                sector[length..].fill(0);
            }
        }
        let revision = revision_after(&mixed, &before.log, &format!("round {round}")).await;
        assert_eq!(revision, 60, "round {round}");
    }
}

#[tokio::test]
async fn a_cut_while_the_log_begins_anew() {
    let folder = folder();
    let before = logged(folder.path(), 40, 60).await;
    let mut database = Database::open(&folder.path().join("meta.db")).unwrap();
    // PASSIVE leaves the file as it is, as the automatic transfer does: new frames overwrite it.
    database.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    for number in 61..=70 {
        database.apply(&change(number)).unwrap();
    }
    let after = Files::of(folder.path());
    assert_eq!(after.log.len(), before.log.len(), "the log was not begun anew");
    let mut random = rng();
    for round in 0..60 {
        let mut mixed = after.log.clone();
        for (number, sector) in mixed.chunks_mut(SECTOR).enumerate() {
            if random.next_u32().is_multiple_of(1 + round % 8) {
                let start = number * SECTOR;
                sector.copy_from_slice(&before.log[start..start + sector.len()]);
            }
        }
        let revision = revision_after(&after.database, &mixed, &format!("round {round}")).await;
        assert!((60..=70).contains(&revision), "round {round}: {revision}");
    }
}
