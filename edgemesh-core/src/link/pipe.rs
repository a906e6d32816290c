//! A bounded pipe from whoever writes to hyper, which reads when the other side has room.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::Reason;
use parking_lot::Mutex;

use crate::link::error::Cut;
use crate::link::exchange::Exchange;
use crate::link::outgoing::Rest;

/// Bytes that wait in a pipe before its writer has to: enough for a few TLS records.
pub const PIPE: usize = 128 * 1024;
/// First buffer of what is written by copying.
const SMALL: usize = 1024;

/// Makes a pipe: what is written to the one follows the Message that the other is given with.
pub fn pipe() -> (Writer, Rest) {
    let pipe = Arc::new(Mutex::new(Pipe::default()));
    (Writer(pipe.clone()), Rest::Written(Outlet(pipe)))
}

#[derive(Debug, Default)]
struct Pipe {
    /// Pieces that were handed over whole; before what is in `copied`.
    whole: VecDeque<Bytes>,
    copied: BytesMut,
    /// Bytes of both.
    waiting: usize,
    state: State,
    /// Where it was given to a Link.
    exchange: Option<Arc<Exchange>>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The writer is done; what waits still goes out.
    Done,
    /// The writer went away before it was done.
    Dropped,
    /// Nobody takes what is written any more.
    Deaf,
}

impl Pipe {
    /// The next piece; empty where nothing waits.
    fn take(&mut self) -> Bytes {
        let piece = self.whole.pop_front().unwrap_or_else(|| self.copied.split().freeze());
        self.waiting -= piece.len();
        piece
    }

    /// Whether there is room; an error where nobody takes it.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.state {
            State::Open if self.waiting < PIPE => Poll::Ready(Ok(())),
            State::Open => {
                remember(&mut self.writer, cx);
                Poll::Pending
            }
            State::Done | State::Dropped => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            State::Deaf => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    /// Leaves `Open` for `state`.
    fn end(&mut self, state: State) -> Option<Waker> {
        if self.state == State::Open {
            self.state = state;
        }
        self.reader.take()
    }
}

fn remember(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The end that is written to. Dropped before [`Writer::finish`], it resets the exchange.
#[derive(Debug)]
pub struct Writer(Arc<Mutex<Pipe>>);

impl Writer {
    /// Ready when something may be written.
    ///
    /// # Errors
    /// When nobody takes it: `ConnectionReset` where the other side broke off, `BrokenPipe` after
    /// [`Writer::finish`].
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_room(cx)
    }

    /// As [`Writer::poll_room`], ready when nothing waits at all.
    pub(super) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.0.lock();
        std::task::ready!(pipe.poll_room(cx))?;
        if pipe.waiting > 0 {
            remember(&mut pipe.writer, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Hands a piece over without copying it, where there is room: call it after
    /// [`Writer::poll_room`] said so.
    pub fn send(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let mut pipe = self.0.lock();
        if !pipe.copied.is_empty() {
            let copied = pipe.copied.split().freeze();
            pipe.whole.push_back(copied);
        }
        pipe.waiting += bytes.len();
        pipe.whole.push_back(bytes);
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
    }

    /// Copies as much of `bytes` as there is room for.
    ///
    /// # Errors
    /// As [`Writer::poll_room`].
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.lock();
        std::task::ready!(pipe.poll_room(cx))?;
        let n = bytes.len().min(PIPE - pipe.waiting);
        if pipe.copied.capacity() < n {
            pipe.copied.reserve(n.max(SMALL));
        }
        pipe.copied.extend_from_slice(&bytes[..n]);
        pipe.waiting += n;
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
        Poll::Ready(Ok(n))
    }

    /// That was all: the other side sees the end.
    pub fn finish(&self) {
        let mut pipe = self.0.lock();
        let reader = pipe.end(State::Done);
        pipe.exchange = None;
        drop(pipe);
        wake(reader);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut pipe = self.0.lock();
        let reader = pipe.end(State::Dropped);
        let exchange = pipe.exchange.take();
        drop(pipe);
        wake(reader);
        if let Some(exchange) = exchange {
            exchange.give_up();
        }
    }
}

/// The end that hyper reads.
#[derive(Debug)]
pub struct Outlet(Arc<Mutex<Pipe>>);

impl Outlet {
    pub(super) fn belongs_to(&self, exchange: &Arc<Exchange>) {
        let mut pipe = self.0.lock();
        if pipe.state == State::Open {
            pipe.exchange = Some(exchange.clone());
        }
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Cut>>> {
        let mut pipe = self.0.lock();
        let bytes = pipe.take();
        if !bytes.is_empty() {
            let writer = pipe.writer.take();
            drop(pipe);
            wake(writer);
            return Poll::Ready(Some(Ok(bytes)));
        }
        match pipe.state {
            State::Open => {
                remember(&mut pipe.reader, cx);
                Poll::Pending
            }
            State::Done => Poll::Ready(None),
            State::Dropped | State::Deaf => {
                Poll::Ready(Some(Err(Cut::new(Reason::CANCEL, "the writer went away"))))
            }
        }
    }

    pub(super) fn is_end(&self) -> bool {
        let pipe = self.0.lock();
        pipe.state == State::Done && pipe.waiting == 0
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        let mut pipe = self.0.lock();
        if pipe.state == State::Open {
            pipe.state = State::Deaf;
        }
        (pipe.whole, pipe.copied, pipe.waiting) = (VecDeque::new(), BytesMut::new(), 0);
        pipe.exchange = None;
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
    }
}
