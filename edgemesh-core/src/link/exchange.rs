//! What the two directions of one exchange, and hyper's tasks for it, know of each other.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio_util::task::TaskTracker;

use crate::link::error::LinkError;
use crate::link::unread::Unread;
use crate::link::wire::Line;

/// Exchanges on one connection that are not over.
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
        Some(self.counted())
    }

    /// One more; HTTP/2 bounds how many the other side opens.
    pub(super) fn begin_another(self: &Arc<Self>) -> Arc<Exchange> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.counted()
    }

    fn counted(self: &Arc<Self>) -> Arc<Exchange> {
        Arc::new(Exchange {
            open: self.clone(),
            taken: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        })
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) const fn line(&self) -> &Arc<Line> {
        &self.line
    }
}

/// One of them; over when everybody who has to do with it dropped it.
#[derive(Debug)]
pub(super) struct Exchange {
    open: Arc<Open>,
    /// hyper took our first Message.
    taken: AtomicBool,
    /// Nobody cares for it any more on our side.
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

    /// What nobody reads on its connection.
    pub(super) fn unread(&self) -> &Arc<Unread> {
        self.open.line.unread()
    }

    /// What we still have to say is in vain.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready once it was given up.
    fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.given_up.load(Ordering::Acquire) {
            self.waker.register(cx.waker());
            if !self.given_up.load(Ordering::Acquire) {
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }

    /// The next task that hyper makes on this thread is for this exchange.
    pub(super) fn makes_a_task(self: &Arc<Self>) {
        NEXT.set(Some(self.clone()));
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}

thread_local! {
    /// See [`Exchange::makes_a_task`].
    static NEXT: RefCell<Option<Arc<Exchange>>> = const { RefCell::new(None) };
}

/// hyper's tasks, owned by the process so that a stop can wait for them.
///
/// hyper does not look at a body while the other side has no room for what it took of it, and so
/// would not hear that an exchange was given up as long as the other side does not read. So we
/// look, and drop the task; HTTP/2 then says CANCEL.
#[derive(Clone, Debug)]
pub(super) struct Tasks(pub(super) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        match NEXT.take() {
            Some(exchange) => self.0.spawn(Kept { future: Box::pin(future), exchange }),
            None => self.0.spawn(future),
        };
    }
}

/// A task that ends when its exchange is given up.
struct Kept<F> {
    future: Pin<Box<F>>,
    exchange: Arc<Exchange>,
}

impl<F: Future<Output = ()>> Future for Kept<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.future.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => self.exchange.poll_given_up(cx),
        }
    }
}
