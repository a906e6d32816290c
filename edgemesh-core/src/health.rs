//! Active health checks: a list of addresses is probed again and again, and each change of mind is told.
//!
//! ```no_run
//! # use edgemesh_core::config::Check;
//! # use edgemesh_core::dial::Dial;
//! # use edgemesh_core::health::{Checker, Health, Pace, Target};
//! # async fn example(tasks: tokio_util::task::TaskTracker, stop: tokio_util::sync::CancellationToken) {
//! let checker = Checker::new(Dial::default(), Pace::default(), tasks, stop);
//! let target = Target::new("127.0.0.1:8000".parse().unwrap(), Check::parse("http:/healthz").unwrap());
//! let mut changes = checker.changes();
//! checker.watch([target.clone()].into());
//! while changes.changed().await.is_ok() {
//!     let takes_calls = matches!(checker.health(&target), Some(Health::Healthy));
//! }
//! # }
//! ```

mod probe;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::Check;
use crate::dial::Dial;
use crate::health::probe::probe;

/// Pause between two probes of a Backend that is well.
pub const EVERY: Duration = Duration::from_secs(5);
/// Pause between two probes of a Backend that is not, or not known to be: one that has just been
/// started is used soon.
pub const EVERY_WHILE_DOWN: Duration = Duration::from_millis(500);
/// Longest probe, from dialling to the answer.
pub const TIMEOUT: Duration = Duration::from_secs(2);
/// Probes that must fail in a row until a healthy Backend counts as unhealthy.
pub const UNHEALTHY_AFTER: u32 = 2;
/// Probes that must succeed in a row until a Backend counts as healthy.
pub const HEALTHY_AFTER: u32 = 1;
/// Probes under way at once; more wait their turn.
pub const AT_ONCE: usize = 64;
/// Most targets of one checker; those beyond it are not probed and stay unknown.
pub const MAX_TARGETS: usize = 4096;

/// Who is probed, and how.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it must do.
    pub check: Check,
}

/// What the last probes say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// No probe has ended yet.
    #[default]
    Unknown,
    /// It is well.
    Healthy,
    /// It is not, for this reason.
    Unhealthy(Arc<str>),
}

/// How often is probed, and how many probes make a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// See [`EVERY`].
    pub every: Duration,
    /// See [`EVERY_WHILE_DOWN`].
    pub every_while_down: Duration,
    /// See [`TIMEOUT`].
    pub timeout: Duration,
    /// See [`UNHEALTHY_AFTER`].
    pub unhealthy_after: u32,
    /// See [`HEALTHY_AFTER`].
    pub healthy_after: u32,
}

/// Probes a list of targets. Clones share it; the probes end with the last of them, or by `stop`.
#[derive(Clone, Debug)]
pub struct Checker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    targets: Mutex<BTreeMap<Target, Entry>>,
    sight: Arc<Sight>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the tasks of all targets share.
#[derive(Debug)]
struct Sight {
    dial: Dial,
    pace: Pace,
    room: Semaphore,
    changed: watch::Sender<u64>,
}

/// One target; its task ends when this is dropped.
#[derive(Debug)]
struct Entry {
    health: Arc<Mutex<Health>>,
    pace: Pace,
    _end: DropGuard,
}

impl Checker {
    /// A checker that watches nobody yet. Its tasks run on `tasks` until `stop`.
    pub fn new(dial: Dial, pace: Pace, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let (room, changed) = (Semaphore::new(AT_ONCE), watch::Sender::new(0));
        let sight = Arc::new(Sight { dial, pace, room, changed });
        Self(Arc::new(Shared { targets: Mutex::default(), sight, tasks, stop }))
    }

    /// Probes exactly these from now on. Those that were watched before keep their state.
    pub fn watch(&self, targets: BTreeSet<Target>) {
        let pace = self.0.sight.pace;
        self.watch_each(targets.into_iter().map(|target| (target, pace)).collect());
    }

    /// As [`Checker::watch`], each at a pace of its own; one whose pace changed begins anew.
    pub fn watch_each(&self, targets: BTreeMap<Target, Pace>) {
        let mut known = self.0.targets.lock();
        known.retain(|target, entry| targets.get(target) == Some(&entry.pace));
        if targets.len() > MAX_TARGETS {
            let left_out = targets.len() - MAX_TARGETS;
            tracing::warn!(left_out, "too many health checks: the last are not made");
        }
        for (target, pace) in targets.into_iter().take(MAX_TARGETS) {
            let begin = || self.begin(target.clone(), pace);
            known.entry(target.clone()).or_insert_with(begin);
        }
    }

    /// What is known of a target; `None` for one that is not watched.
    pub fn health(&self, target: &Target) -> Option<Health> {
        self.0.targets.lock().get(target).map(|entry| entry.health.lock().clone())
    }

    /// Counts changes between healthy and not; wakes whoever waits.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.sight.changed.subscribe()
    }

    fn begin(&self, target: Target, pace: Pace) -> Entry {
        let health = Arc::<Mutex<Health>>::default();
        let end = self.0.stop.child_token();
        let follow = self.0.sight.clone().follow(target, pace, health.clone());
        self.0.tasks.spawn(end.clone().run_until_cancelled_owned(follow));
        Entry { health, pace, _end: end.drop_guard() }
    }
}

impl Sight {
    async fn follow(self: Arc<Self>, target: Target, pace: Pace, told: Arc<Mutex<Health>>) {
        let mut streak = Streak::default();
        loop {
            let outcome = match self.room.acquire().await {
                Ok(_room) => probe(&self.dial, &target, pace.timeout).await,
                Err(_) => return, // never closed
            };
            let was_well = matches!(streak.health, Health::Healthy);
            let failed = outcome.is_err();
            streak.note(outcome, &pace);
            let is_well = matches!(streak.health, Health::Healthy);
            let first = std::mem::replace(&mut *told.lock(), streak.health.clone());
            if was_well != is_well || first == Health::Unknown {
                self.changed.send_modify(|n| *n += 1);
            }
            let down = failed || !is_well;
            let pause = if down { pace.every_while_down } else { pace.every };
            tokio::time::sleep(pause).await;
        }
    }
}

/// The verdict over a row of probes.
#[derive(Debug, Default)]
struct Streak {
    health: Health,
    /// Probes in a row that speak against `health`.
    against: u32,
}

impl Streak {
    fn note(&mut self, outcome: Result<(), String>, pace: &Pace) {
        let healthy = matches!(self.health, Health::Healthy);
        let enough = match (&self.health, outcome.is_ok()) {
            (Health::Healthy, true) | (Health::Unhealthy(_), false) => {
                self.against = 0;
                !healthy // the newest reason is the one to show
            }
            // Who was never well is not well.
            (Health::Unknown, false) => true,
            (Health::Unknown | Health::Unhealthy(_), true) => self.counts(pace.healthy_after),
            (Health::Healthy, false) => self.counts(pace.unhealthy_after),
        };
        if enough {
            self.against = 0;
            self.health = match outcome {
                Ok(()) => Health::Healthy,
                Err(reason) => Health::Unhealthy(reason.into()),
            };
        }
    }

    fn counts(&mut self, after: u32) -> bool {
        self.against += 1;
        self.against >= after
    }
}

impl Target {
    /// `check` at `address`.
    pub const fn new(address: SocketAddr, check: Check) -> Self {
        Self { address, check }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            every: EVERY,
            every_while_down: EVERY_WHILE_DOWN,
            timeout: TIMEOUT,
            unhealthy_after: UNHEALTHY_AFTER,
            healthy_after: HEALTHY_AFTER,
        }
    }
}

#[cfg(test)]
mod tests;
