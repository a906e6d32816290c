//! Client connections that are open, so that the oldest idle one can make room for a new one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::forward::Turn;

/// Who came within this time may have spoken and only not been heard yet: others go first.
const YOUNG: Duration = Duration::from_millis(200);

/// Everyone who is connected. Locked when a connection begins, when it ends, and when there is no
/// room for another; never while one is served.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    members: Mutex<Members>,
    /// Told when the last one has left.
    left: Notify,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    /// In the order in which they came.
    all: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    came: Instant,
    task: AbortHandle,
    turn: Arc<Turn>,
}

/// A connection's entry; taken back on drop.
#[derive(Debug)]
pub(super) struct Member {
    crowd: Arc<Crowd>,
    number: u64,
}

impl Crowd {
    /// Lists a connection of `now`, whose task `begin` starts; the task keeps what it is given to its end.
    pub(super) fn join(
        self: &Arc<Self>,
        turn: Arc<Turn>,
        now: Instant,
        begin: impl FnOnce(Member) -> AbortHandle,
    ) {
        // The task cannot leave before it is listed: it would wait for this lock.
        let mut members = self.members.lock();
        let number = members.next;
        members.next += 1;
        let task = begin(Member { crowd: self.clone(), number });
        members.all.insert(number, Entry { came: now, task, turn });
    }

    /// Waits until everyone has left.
    pub(super) async fn gone(&self) {
        loop {
            let left = self.left.notified();
            if self.members.lock().all.is_empty() {
                return;
            }
            left.await;
        }
    }

    /// Ends everyone.
    pub(super) fn end(&self) {
        self.members.lock().all.values().for_each(|entry| entry.task.abort());
    }

    /// Ends the connection that came first of those on which nothing is under way; failing that,
    /// the first that has begun a request and not finished its head. Those who have only just come
    /// are spared while there are others. False = all are at work.
    pub(super) fn shed_oldest_idle(&self, now: Instant) -> bool {
        let mut members = self.members.lock();
        let first = |wanted: fn(&Turn) -> bool, least: Duration| {
            let old = |entry: &Entry| now.saturating_duration_since(entry.came) >= least;
            let mut in_order = members.all.iter().take_while(|(_, entry)| old(entry));
            in_order.find(|(_, entry)| wanted(&entry.turn)).map(|(number, _)| *number)
        };
        let found = first(Turn::is_idle, YOUNG)
            .or_else(|| first(Turn::is_partial, YOUNG))
            .or_else(|| first(Turn::is_idle, Duration::ZERO))
            .or_else(|| first(Turn::is_partial, Duration::ZERO));
        let Some(Entry { task, .. }) = found.and_then(|number| members.all.remove(&number)) else {
            return false;
        };
        drop(members);
        task.abort();
        true
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut members = self.crowd.members.lock();
        members.all.remove(&self.number);
        if members.all.is_empty() {
            self.crowd.left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "the test is what waits for its tasks")]
    async fn the_oldest_idle_one_goes_first() {
        let crowd = Arc::<Crowd>::default();
        let turns: Vec<Arc<Turn>> = (0..5).map(|_| Arc::default()).collect();
        let mut tasks = Vec::new();
        let begun = crate::io::now();
        let at_last = begun + YOUNG;
        for (number, turn) in turns.iter().enumerate() {
            // The last one has only just come.
            let came = if number == 4 { at_last } else { begun };
            crowd.join(turn.clone(), came, |member| {
                let task = tokio::spawn(async move {
                    std::future::pending::<()>().await;
                    drop(member);
                });
                let handle = task.abort_handle();
                tasks.push(task);
                handle
            });
        }
        turns[0].busy();
        turns[1].heard(b"G");
        let mut gone = Vec::new();
        while crowd.shed_oldest_idle(at_last) {
            for (number, task) in tasks.iter_mut().enumerate() {
                if !gone.contains(&number) && task.is_finished() {
                    gone.push(number);
                }
            }
            tokio::task::yield_now().await;
        }
        for (number, task) in tasks.iter().enumerate() {
            if !gone.contains(&number) && task.is_finished() {
                gone.push(number);
            }
        }
        assert_eq!(gone, [2, 3, 1, 4], "the busy one stays");
    }
}
