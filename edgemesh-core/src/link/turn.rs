//! Waits until everybody on this thread who has something to do now has done it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// What leaves a connection together costs little more than one of its parts alone, and who has
/// something to say on it is mostly awake already. So a write waits one turn of the scheduler: until
/// the thread has nothing else to do, or did much else in between.
#[derive(Debug, Default)]
pub(super) struct Turn {
    state: State,
    ends: Arc<Ends>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Waits,
    Over,
}

#[derive(Debug, Default)]
struct Ends {
    is_over: AtomicBool,
    waker: AtomicWaker,
}

impl Wake for Ends {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_over.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Turn {
    /// Ready when the turn is over, and from then on until [`Turn::begin_anew`].
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.state {
            State::Over => return Poll::Ready(()),
            State::Waits => self.ends.waker.register(cx.waker()),
            State::Idle => {
                self.ends.is_over.store(false, Ordering::Release);
                self.ends.waker.register(cx.waker());
                self.state = State::Waits;
                // A waker of its own: whoever has something to say wakes the connection too, and
                // must not end the turn.
                let waker = Waker::from(self.ends.clone());
                let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
            }
        }
        if !self.ends.is_over.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.state = State::Over;
        Poll::Ready(())
    }

    /// The next write waits again.
    pub(super) fn begin_anew(&mut self) {
        self.state = State::Idle;
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn only_the_end_of_the_turn_ends_it() {
        let mut turn = Turn::default();
        for _ in 0..2 {
            poll_fn(|cx| {
                for _ in 0..3 {
                    assert!(turn.poll(cx).is_pending(), "others speak, and wake the connection");
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(())
            })
            .await;
            poll_fn(|cx| turn.poll(cx)).await;
            let again = poll_fn(|cx| Poll::Ready(turn.poll(cx).is_ready())).await;
            assert!(again, "a write in two parts");
            turn.begin_anew();
        }
    }
}
