//! One timer for all the waits of a connection: what is due is written down, and the timer looks
//! from time to time, since to set it anew costs more than most requests have time for.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// Longest time between two looks; no wait is shorter.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(75);

/// See the module.
#[derive(Debug)]
pub(super) struct Alarm {
    next_look: Pin<Box<Sleep>>,
    due: Instant,
}

impl Alarm {
    /// Due once [`Alarm::set`] said when.
    pub(super) fn new() -> Self {
        let due = Instant::now() + LOOK_EVERY;
        Self { next_look: Box::pin(sleep_until(due)), due }
    }

    /// Makes it due so long after `now`: [`LOOK_EVERY`] at least.
    pub(super) fn set(&mut self, now: std::time::Instant, wait: Duration) {
        self.due = Instant::from_std(now) + wait.max(LOOK_EVERY);
    }

    /// Ready when it is due.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.next_look.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.due {
                return Poll::Ready(());
            }
            self.next_look.as_mut().reset(self.due.min(now + LOOK_EVERY));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::io::now;

    #[tokio::test(start_paused = true)]
    async fn it_is_due_when_it_was_last_said_to_be() {
        let (start, mut alarm) = (Instant::now(), Alarm::new());
        for _ in 0..10 {
            let soon = tokio::time::timeout(LOOK_EVERY / 2, poll_fn(|cx| alarm.poll(cx)));
            assert!(soon.await.is_err(), "not while somebody goes on saying so");
            alarm.set(now(), LOOK_EVERY);
        }
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), (LOOK_EVERY * 6).as_secs());
        alarm.set(now(), LOOK_EVERY * 4);
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(start.elapsed().as_secs(), (LOOK_EVERY * 10).as_secs());
    }
}
