//! What the two directions of one exchange know of each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// Exchanges that we opened on one Link and that are not over.
#[derive(Debug, Default)]
pub(super) struct Open(AtomicUsize);

impl Open {
    /// One more, unless there are `most` already.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Option<Arc<Exchange>> {
        if self.0.fetch_add(1, Ordering::Relaxed) >= most {
            self.0.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Arc::new(Exchange {
            open: self.clone(),
            taken: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }))
    }

    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that we opened; over when both of its directions are dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    open: Arc<Open>,
    /// hyper took the opening Message.
    taken: AtomicBool,
    /// Nobody reads the answer any more.
    given_up: AtomicBool,
    waker: AtomicWaker,
}

impl Exchange {
    pub(super) fn take(&self) {
        self.taken.store(true, Ordering::Release);
    }

    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// The answer was dropped before its end: what we still send is in vain.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready once it was given up.
    pub(super) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.given_up.load(Ordering::Acquire) {
            self.waker.register(cx.waker());
            if !self.given_up.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.open.0.fetch_sub(1, Ordering::Relaxed);
    }
}
