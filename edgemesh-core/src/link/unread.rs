//! Streams that nobody reads: the oldest is reset before the rest of the connection has to wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::link::exchange::Exchange;
use crate::link::received::Received;

/// Who does not read for less is only slow.
const STALLED: Duration = Duration::from_secs(2);
/// Between two resets, in which the first may have helped.
const RELIEF_EVERY: Duration = Duration::from_millis(100);
/// Being read, or waiting for something to read.
const READ: u64 = 0;

/// What a connection receives and what of it is read.
#[derive(Debug)]
pub(super) struct Unread {
    began: Instant,
    /// Milliseconds since then, when something was heard last.
    heard: AtomicU64,
    is_short: AtomicBool,
    /// A task does something about it.
    relieves: AtomicBool,
    tasks: TaskTracker,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    all: Vec<Weak<Stream>>,
    /// Looked through for what is gone when there are so many.
    sweep_at: usize,
}

/// One that goes on after its first Message.
#[derive(Debug)]
pub(super) struct Stream {
    /// `None` once it was reset for the sake of others.
    received: Mutex<Option<Received>>,
    /// When it was read last, if nobody has asked for more since.
    since: AtomicU64,
    of: Arc<Unread>,
    exchange: Arc<Exchange>,
}

/// What comes; the inner `None` where the stream was reset by us.
pub(super) type Next = Option<Option<Result<Frame<Bytes>, h2::Error>>>;

impl Unread {
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self {
            began: Instant::now(),
            heard: AtomicU64::new(READ + 1),
            is_short: AtomicBool::new(false),
            relieves: AtomicBool::new(false),
            tasks,
            streams: Mutex::default(),
        }
    }

    /// One more stream.
    pub(super) fn stream(
        self: &Arc<Self>,
        received: Received,
        exchange: Arc<Exchange>,
    ) -> Arc<Stream> {
        let since = AtomicU64::new(self.heard.load(Ordering::Relaxed));
        let (received, of) = (Mutex::new(Some(received)), self.clone());
        let stream = Arc::new(Stream { received, since, of, exchange });
        let mut streams = self.streams.lock();
        if streams.all.len() >= streams.sweep_at {
            streams.all.retain(|stream| stream.strong_count() > 0);
            streams.sweep_at = 64.max(2 * streams.all.len());
        }
        streams.all.push(Arc::downgrade(&stream));
        stream
    }

    /// Something was heard.
    pub(super) fn hear(&self, now: Instant) {
        let since = now.saturating_duration_since(self.began).as_millis();
        let since = u64::try_from(since).unwrap_or(u64::MAX).max(READ + 1);
        self.heard.store(since, Ordering::Relaxed);
    }

    /// When that was last.
    pub(super) fn heard(&self) -> Instant {
        self.began + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// Whether the other side is about to have to wait for room. Then whoever was not read for
    /// longest is reset, until there is room again.
    pub(super) fn room(self: &Arc<Self>, is_short: bool) {
        let was_short = self.is_short.load(Ordering::Relaxed);
        if is_short == was_short {
            return;
        }
        self.is_short.store(is_short, Ordering::Release);
        if is_short && !self.relieves.swap(true, Ordering::AcqRel) {
            // In a task: HTTP/2 is busy with us now.
            self.tasks.spawn(self.clone().relieve());
        }
    }

    async fn relieve(self: Arc<Self>) {
        loop {
            while self.is_short.load(Ordering::Acquire) {
                if let Some(stream) = self.oldest() {
                    tracing::warn!("a stream that nobody reads is reset: others wait");
                    stream.reset();
                }
                tokio::time::sleep(RELIEF_EVERY).await;
            }
            self.relieves.store(false, Ordering::Release);
            // It may have become short in between.
            let again = self.is_short.load(Ordering::Acquire);
            if !again || self.relieves.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }

    fn oldest(&self) -> Option<Arc<Stream>> {
        let now = self.began.elapsed().as_millis();
        let streams: Vec<_> = self.streams.lock().all.iter().filter_map(Weak::upgrade).collect();
        let stalled = streams.into_iter().filter(|stream| {
            let since = stream.since.load(Ordering::Relaxed);
            since != READ && now.saturating_sub(since.into()) >= STALLED.as_millis()
        });
        stalled.min_by_key(|stream| stream.since.load(Ordering::Relaxed))
    }
}

impl Stream {
    pub(super) fn poll_frame(&self, cx: &mut Context<'_>) -> Poll<Next> {
        let mut received = self.received.lock();
        let Some(received) = received.as_mut() else { return Poll::Ready(None) };
        let next = received.poll_frame(cx);
        let since = match next {
            Poll::Ready(_) => self.of.heard.load(Ordering::Relaxed),
            Poll::Pending => READ,
        };
        self.since.store(since, Ordering::Relaxed);
        next.map(Some)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.received.lock().as_ref().is_some_and(Received::is_end_stream)
    }

    fn reset(&self) {
        let mut received = self.received.lock();
        if self.since.load(Ordering::Relaxed) == READ {
            return; // somebody came for it just now, and waits
        }
        // What was not read goes with it, and its room is given back.
        drop(received.take());
        drop(received);
        self.since.store(READ, Ordering::Relaxed);
        self.exchange.give_up();
    }
}
