//! The registry and its agents under thousands of random schedules: whatever was lost, doubled, slow, restarted
//! or restored, in the end everybody holds what the registry has for it.
//!
//! The state machines are those that run in production; the world around them, with its links,
//! disks and clocks, is made of values. A seed is one schedule; a failing one is printed with the
//! line that replays it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agent;
mod chance;
mod link;
mod records;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::World;

/// Schedules: without optimisation a part of them, so that `make test` stays quick; all of them with
/// `cargo test --release -p edgemesh-router --test simulation`.
const SEEDS: u64 = if cfg!(debug_assertions) { 4_000 } else { 10_000 };
/// Messages of the registry that arrive in a schedule, on average: a world whose links are mostly
/// down shows nothing.
const TALK: u64 = 10;

#[test]
fn everybody_converges() {
    if let Some(seed) = given_seed() {
        let _ = World::new(seed, true).run();
        return;
    }
    let (next, talk) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= SEEDS || !failed.lock().unwrap().is_empty() {
                return;
            }
            match catch_unwind(AssertUnwindSafe(|| World::new(seed, false).run())) {
                Ok(heard) => drop(talk.fetch_add(heard as u64, Ordering::Relaxed)),
                Err(_) => failed.lock().unwrap().push(seed),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let failed = failed.into_inner().unwrap();
    let replay = |seed: &u64| {
        format!(
            "EDGEMESH_SEED={seed} cargo test -p edgemesh-router --test simulation -- --nocapture"
        )
    };
    let replays: Vec<String> = failed.iter().map(replay).collect();
    assert!(failed.is_empty(), "seed {failed:?} failed; replay it with\n{}", replays.join("\n"));
    let talk = talk.into_inner() / SEEDS;
    assert!(talk >= TALK, "schedules hardly talk: {talk} Messages arrive in one");
}

#[expect(clippy::disallowed_methods, reason = "how a person replays a seed")]
fn given_seed() -> Option<u64> {
    std::env::var("EDGEMESH_SEED").ok()?.parse().ok()
}
