//! Those who come without a certificate: they may ask for one, a few at a time, and not for long.
//!
//! Anybody who reaches the hub's port is one. Whatever they do, nodes are served: they have places,
//! time and threads of their own, and what they do wrong fills no log.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

/// Connections at once.
const PLACES: usize = 64;
/// How long one stays: to join takes two round trips and a disk, and the node waits 15 s for it.
const STAY: Duration = Duration::from_secs(30);
/// Certificates that are asked for at once, each of which waits for the disk on a thread.
const JOINS: usize = 2;
/// As many lines are logged in such a time of what is refused, and one that counts the others.
const LINES: (u32, Duration) = (10, Duration::from_secs(10));

/// See the module.
#[derive(Debug)]
pub(super) struct Strangers {
    places: Semaphore,
    joins: Semaphore,
    renewals: Semaphore,
    /// Of strangers, and of nodes: what the ones do hides nothing of the others.
    refused: [Mutex<Lines>; 2],
}

/// Why a visit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// By itself.
    Over,
    /// It was too long.
    TooLong,
    /// It did not begin.
    NoPlace,
}

impl Strangers {
    pub(super) const fn new() -> Self {
        Self {
            places: Semaphore::const_new(PLACES),
            joins: Semaphore::const_new(JOINS),
            renewals: Semaphore::const_new(JOINS),
            refused: [const { Mutex::new(Lines { since: None, said: 0, left_out: 0 }) }; 2],
        }
    }

    /// Lets one in, where there is a place.
    pub(super) async fn visit(&self, visit: impl Future<Output = ()>) -> Visit {
        let Ok(_place) = self.places.try_acquire() else { return Visit::NoPlace };
        match timeout(STAY, visit).await {
            Ok(()) => Visit::Over,
            Err(_) => Visit::TooLong,
        }
    }

    /// Waits for its turn at the disk. Nodes that renew do not wait for those who join.
    pub(super) async fn turn(&self, renews: bool) -> Option<SemaphorePermit<'_>> {
        let turns = if renews { &self.renewals } else { &self.joins };
        turns.acquire().await.ok()
    }

    /// Whether to log that somebody was refused, and how many times it was not said before.
    pub(super) fn may_say(&self, is_node: bool, now: Instant) -> Option<u64> {
        self.refused[usize::from(is_node)].lock().next(now)
    }
}

#[derive(Debug)]
struct Lines {
    since: Option<Instant>,
    said: u32,
    left_out: u64,
}

impl Lines {
    fn next(&mut self, now: Instant) -> Option<u64> {
        let (most, span) = LINES;
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= span) {
            (self.since, self.said) = (Some(now), 0);
        }
        if self.said == most {
            self.left_out += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::Arc;

    use edgemesh_core::io::now;
    use tokio_util::task::TaskTracker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn few_are_in_and_nobody_stays() {
        let (strangers, tasks) = (Arc::new(Strangers::new()), TaskTracker::new());
        let visits: Vec<_> = (0..PLACES)
            .map(|_| {
                let strangers = strangers.clone();
                tasks.spawn(async move { strangers.visit(pending()).await })
            })
            .collect();
        while strangers.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(strangers.visit(async {}).await, Visit::NoPlace);
        for visit in visits {
            assert_eq!(visit.await.unwrap(), Visit::TooLong);
        }
        assert_eq!(strangers.visit(async {}).await, Visit::Over);
    }

    #[tokio::test(start_paused = true)]
    async fn nodes_renew_while_everybody_joins() {
        let strangers = Strangers::new();
        let _first = (strangers.turn(false).await, strangers.turn(false).await);
        assert!(timeout(STAY, strangers.turn(false)).await.is_err());
        assert!(strangers.turn(true).await.is_some());
    }

    #[test]
    fn what_is_refused_fills_no_log() {
        let (strangers, t0) = (Strangers::new(), now());
        let says = |after: Duration| strangers.may_say(false, t0 + after);
        let first: Vec<_> = (0..1000).filter_map(|_| says(Duration::ZERO)).collect();
        assert_eq!(first, [0; LINES.0 as usize]);
        assert_eq!(strangers.may_say(true, t0), Some(0), "of nodes it is said");
        assert_eq!(says(LINES.1), Some(1000 - u64::from(LINES.0)));
        assert_eq!(says(LINES.1), Some(0));
    }
}
