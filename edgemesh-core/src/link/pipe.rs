//! What is written to an exchange, from before it is opened.

use std::io;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;
use parking_lot::Mutex;

use crate::link::exchange::{Exchange, Mute};
use crate::link::outgoing::Rest;

/// Bytes that wait to be sent before a writer has to: enough for a few TLS records.
pub const PIPE: usize = 128 * 1024;

/// Makes a pipe: what is written to the one follows the Message that the other is given with.
pub fn pipe() -> (Writer, Rest) {
    let pipe = Arc::new(Pipe::default());
    (Writer(pipe.clone()), Rest::Written(Outlet(pipe)))
}

#[derive(Debug, Default)]
struct Pipe {
    /// Where it was given to a Link.
    exchange: OnceLock<Arc<Exchange>>,
    early: Mutex<Early>,
}

/// What was written before that.
#[derive(Debug, Default)]
struct Early {
    pieces: Vec<Bytes>,
    /// Their bytes.
    waiting: usize,
    state: State,
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

impl Early {
    fn poll_room(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        match self.state {
            State::Open if self.waiting < PIPE => Poll::Ready(Ok(())),
            State::Open => {
                self.writer = Some(cx.waker().clone());
                Poll::Pending
            }
            State::Done | State::Dropped => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            State::Deaf => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }

    fn end(&mut self, state: State) {
        if self.state == State::Open {
            self.state = state;
        }
    }
}

/// The end that is written to. Dropped before [`Writer::finish`], it resets the exchange.
#[derive(Debug)]
pub struct Writer(Arc<Pipe>);

impl Writer {
    /// Where it goes; else what waits until that is known.
    fn target(&self) -> Result<&Arc<Exchange>, parking_lot::MutexGuard<'_, Early>> {
        if let Some(exchange) = self.0.exchange.get() {
            return Ok(exchange);
        }
        let early = self.0.early.lock();
        // It is set under this lock.
        self.0.exchange.get().ok_or(early)
    }

    /// Ready when something may be written.
    ///
    /// # Errors
    /// When nobody takes it: `ConnectionReset` where the exchange broke, `BrokenPipe` after
    /// [`Writer::finish`] and where the other side said all it had to say and needs no more.
    pub fn poll_room(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.target() {
            Ok(exchange) => exchange.poll_room(cx).map_err(|mute| match mute {
                Mute::Done => io::ErrorKind::BrokenPipe.into(),
                Mute::Broken => io::ErrorKind::ConnectionReset.into(),
            }),
            Err(mut early) => early.poll_room(cx),
        }
    }

    /// Hands a piece over without copying it, where there is room: call it after
    /// [`Writer::poll_room`] said so.
    pub fn send(&self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        match self.target() {
            Ok(exchange) => exchange.send(bytes, false),
            Err(mut early) => {
                early.waiting += bytes.len();
                early.pieces.push(bytes);
            }
        }
    }

    /// Copies as much of `bytes` as fits a few TLS records.
    ///
    /// # Errors
    /// As [`Writer::poll_room`].
    pub fn poll_write(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_room(cx))?;
        let n = bytes.len().min(PIPE / 2);
        self.send(Bytes::copy_from_slice(&bytes[..n]));
        Poll::Ready(Ok(n))
    }

    /// That was all: the other side sees the end.
    pub fn finish(&self) {
        match self.target() {
            Ok(exchange) => exchange.finish(),
            Err(mut early) => early.end(State::Done),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        match self.target() {
            Ok(exchange) => exchange.leave(),
            Err(mut early) => early.end(State::Dropped),
        }
    }
}

/// The end that is given to a Link.
#[derive(Debug)]
pub struct Outlet(Arc<Pipe>);

impl Outlet {
    /// What is written goes there, now that its first Message was said.
    pub(super) fn goes_to(self, exchange: &Arc<Exchange>) {
        let mut early = self.0.early.lock();
        for piece in std::mem::take(&mut early.pieces) {
            exchange.send(piece, false);
        }
        match early.state {
            State::Done => exchange.finish(),
            State::Dropped => exchange.reset(Reason::CANCEL),
            State::Open | State::Deaf => {}
        }
        let _ = self.0.exchange.set(exchange.clone()); // nobody else does
        let writer = early.writer.take();
        drop(early);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}

impl Drop for Outlet {
    fn drop(&mut self) {
        if self.0.exchange.get().is_some() {
            return;
        }
        let mut early = self.0.early.lock();
        early.end(State::Deaf);
        (early.pieces, early.waiting) = (Vec::new(), 0);
        let writer = early.writer.take();
        drop(early);
        if let Some(writer) = writer {
            writer.wake();
        }
    }
}
