//! One exchange: our half of it, and who still cares.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use parking_lot::Mutex;

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

    /// One more that we open, unless there are `most` already.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Option<Arc<Exchange>> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= most {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(self.counted(true))
    }

    /// One more that the other side opened; HTTP/2 bounds how many.
    pub(super) fn begin_another(self: &Arc<Self>) -> Arc<Exchange> {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.counted(false)
    }

    fn counted(self: &Arc<Self>, is_ours: bool) -> Arc<Exchange> {
        let says = Says { stream: None, state: State::Before, waker: None };
        Arc::new(Exchange { open: self.clone(), is_ours, says: Mutex::new(says) })
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
    /// We opened it.
    is_ours: bool,
    says: Mutex<Says>,
}

/// Our half.
#[derive(Debug)]
struct Says {
    /// Kept beyond its end where we opened the exchange, so that it can be reset even then: HTTP/2
    /// resets what was merely dropped only when all that was said before could be sent.
    stream: Option<SendStream<Bytes>>,
    state: State,
    /// Who waits for room, or for somebody to give up.
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing was said yet.
    Before,
    Open,
    /// All was said.
    Done,
    /// Broken off by us: nobody cares for it any more.
    GivenUp,
}

/// Why nothing more can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mute {
    /// It was finished, or the other side says that it needs no more; whether what it says is whole is
    /// seen where that is read.
    Done,
    /// The exchange broke.
    Broken,
}

impl Exchange {
    /// What HTTP/2 says of it, in the words of the connection where that is what broke.
    pub(super) fn broken(&self, error: h2::Error) -> LinkError {
        LinkError::of_http2(error, false).or_of_line(&self.open.line)
    }

    /// What nobody reads on its connection.
    pub(super) fn unread(&self) -> &Arc<Unread> {
        self.open.line.unread()
    }

    /// From now on something can be said, there.
    pub(super) fn speak(&self, stream: SendStream<Bytes>) {
        let mut says = self.says.lock();
        match says.state {
            State::Before => (says.stream, says.state) = (Some(stream), State::Open),
            State::Open | State::Done | State::GivenUp => {
                let mut stream = stream;
                stream.send_reset(Reason::CANCEL);
            }
        }
    }

    /// Ready when something may be said.
    pub(super) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<(), Mute>> {
        let mut says = self.says.lock();
        match says.state {
            State::Open => {
                says.remember(cx);
                says.poll_room(cx)
            }
            State::Done => Poll::Ready(Err(Mute::Done)),
            State::Before | State::GivenUp => Poll::Ready(Err(Mute::Broken)),
        }
    }

    /// Ready when nothing more is heard there, for who has nothing to say yet.
    pub(super) fn poll_mute(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.says.lock().stream {
            Some(stream) => stream.poll_reset(cx).map(drop),
            None => Poll::Ready(()),
        }
    }

    /// Says this, whether there is room or not: call it after [`Exchange::poll_room`]. Where it goes
    /// nowhere, that says so the next time.
    pub(super) fn send(&self, bytes: Bytes, is_end: bool) {
        if bytes.is_empty() && !is_end {
            return; // h2 lets a connection have a hundred of these in its life
        }
        let mut says = self.says.lock();
        let sent = says.try_to(|stream| stream.send_data(bytes, is_end));
        if is_end {
            self.finished(&mut says, sent);
        }
    }

    /// That was all.
    pub(super) fn finish(&self) {
        self.send(Bytes::new(), true);
    }

    /// That was all, with these.
    pub(super) fn finish_with(&self, trailers: HeaderMap) {
        let mut says = self.says.lock();
        let sent = says.try_to(|stream| stream.send_trailers(trailers));
        self.finished(&mut says, sent);
    }

    fn finished(&self, says: &mut Says, sent: Result<(), h2::Error>) {
        if says.state != State::Open {
            return;
        }
        match sent {
            Ok(()) => {
                says.state = State::Done;
                if !self.is_ours {
                    says.stream = None; // an answer that was finished goes out whole
                }
            }
            // What has no end must not look as if it were still coming.
            Err(_) => {
                says.state = State::GivenUp;
                if let Some(mut stream) = says.stream.take() {
                    stream.send_reset(Reason::INTERNAL_ERROR);
                }
            }
        }
    }

    /// Breaks off what we say.
    pub(super) fn reset(&self, reason: Reason) {
        let mut says = self.says.lock();
        says.state = State::GivenUp;
        if let Some(mut stream) = says.stream.take() {
            stream.send_reset(reason);
        }
        let waker = says.waker.take();
        drop(says);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Nobody cares for it any more on our side. An answer that was finished is whole all the same.
    pub(super) fn give_up(&self) {
        if self.is_ours || self.says.lock().state != State::Done {
            self.reset(Reason::CANCEL);
        }
    }

    /// Whoever was to say the rest is gone.
    pub(super) fn leave(&self) {
        if self.says.lock().state != State::Done {
            self.reset(Reason::CANCEL);
        }
    }

    /// Ready once it was given up.
    pub(super) fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut says = self.says.lock();
        if says.state == State::GivenUp {
            return Poll::Ready(());
        }
        says.remember(cx);
        Poll::Pending
    }
}

impl Says {
    fn remember(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    fn try_to(
        &mut self,
        say: impl FnOnce(&mut SendStream<Bytes>) -> Result<(), h2::Error>,
    ) -> Result<(), h2::Error> {
        let said = match (self.state, &mut self.stream) {
            (State::Open, Some(stream)) => say(stream),
            _ => Ok(()),
        };
        said.inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::debug!(error, "said to nobody");
        })
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Mute>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(Mute::Broken)) };
        if stream.capacity() == 0 {
            stream.reserve_capacity(1);
        }
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(why_mute(stream, cx))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn why_mute(stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Mute {
    match stream.poll_reset(cx) {
        Poll::Ready(Ok(Reason::NO_ERROR)) => Mute::Done,
        Poll::Ready(_) | Poll::Pending => Mute::Broken,
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}
