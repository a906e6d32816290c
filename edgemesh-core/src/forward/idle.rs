//! Notices that nothing is said on a connection of bytes for as long as its Policy allows.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::forward::bytes::Traffic;

/// How often within its time a connection is looked at: one that is busy is woken no more often
/// than this, and one that is not lives by so much longer at most.
const LOOKS: u32 = 4;

/// Watches one connection. Boxed by whoever holds it: most connections need none.
#[derive(Debug)]
pub(super) struct Idle {
    longest: Duration,
    next_look: Pin<Box<Sleep>>,
    /// Bytes that had gone through when it was last looked at.
    seen: (u64, u64),
    /// When they were last seen to grow.
    said: Instant,
}

impl Idle {
    /// Watches from `now` on; `longest` is the time without a word.
    pub(super) fn new(longest: Duration, now: Instant) -> Self {
        let next_look = Box::pin(sleep_until(now + longest / LOOKS));
        Self { longest, next_look, seen: (0, 0), said: now }
    }

    /// Ready when nothing was said for so long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<()> {
        while self.next_look.as_mut().poll(cx).is_ready() {
            let (now, so_far) = (self.next_look.deadline(), traffic.so_far());
            if (so_far.up, so_far.down) != self.seen {
                self.seen = (so_far.up, so_far.down);
                self.said = now;
            } else if now - self.said >= self.longest {
                return Poll::Ready(());
            }
            self.next_look.as_mut().reset(now + self.longest / LOOKS);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::forward::bytes::{Early, carry};
    use crate::io::pair;

    /// A word every second keeps it alive; then it is given up within five quarters of its time.
    #[tokio::test(start_paused = true)]
    async fn silence_is_noticed() {
        let ((near, mut client), (backend, mut server)) = (pair().await, pair().await);
        let traffic = Traffic::default();
        let start = Instant::now();
        let mut idle = Idle::new(Duration::from_secs(4), start);
        let carried = async {
            let mut carrying = std::pin::pin!(carry(near, backend, Early::default(), &traffic));
            poll_fn(|cx| match carrying.as_mut().poll(cx) {
                Poll::Pending => idle.poll(cx, &traffic),
                Poll::Ready(_) => panic!("nobody ended it"),
            })
            .await;
            Instant::now()
        };
        let talk = async {
            for _ in 0..10 {
                client.write_all(b"x").await.unwrap();
                server.read_exact(&mut [0]).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let (ended, ()) = tokio::join!(carried, talk);
        let silent = ended - start - Duration::from_secs(9);
        assert!((4..=5).contains(&silent.as_secs()), "given up after {silent:?}");
    }
}
