//! What the two directions of one exchange know of each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

use crate::link::error::LinkError;
use crate::link::wire::Line;

/// Exchanges that we opened on one Link and that are not over.
#[derive(Debug)]
pub(super) struct Open {
    count: AtomicUsize,
    line: Arc<Line>,
}

impl Open {
    pub(super) const fn new(line: Arc<Line>) -> Self {
        Self { count: AtomicUsize::new(0), line }
    }

    /// One more, unless there are `most` already.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Option<Arc<Exchange>> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= most {
            self.count.fetch_sub(1, Ordering::Relaxed);
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
        self.count.load(Ordering::Relaxed)
    }

    pub(super) const fn line(&self) -> &Arc<Line> {
        &self.line
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

    fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    /// What hyper says of it, in the words of the connection where that is what broke.
    pub(super) fn broken(&self, error: hyper::Error) -> LinkError {
        LinkError::of_hyper(error, !self.is_taken()).or_of_line(&self.open.line)
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
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}
