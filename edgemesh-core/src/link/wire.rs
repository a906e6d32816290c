//! The connection below HTTP/2: notices that a peer is gone, and can be cut at any moment.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::identity::explain;
use crate::link::DEAD_AFTER;

/// What others may know of a connection, and do to it.
#[derive(Debug, Default)]
pub(super) struct Line {
    cut: AtomicBool,
    waker: AtomicWaker,
    /// Why it broke, in words.
    why: OnceLock<Box<str>>,
    /// Ends when the connection is gone.
    gone: CancellationToken,
}

impl Line {
    /// Ends the connection now; every exchange on it breaks.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Why it broke, where it did not end in order. HTTP/2 does not pass on what TLS says.
    pub(super) fn why(&self) -> Option<&str> {
        self.why.get().map(|why| &**why)
    }

    fn note<T>(&self, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &poll {
            let of_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            let why = if of_tls { explain(error) } else { error.to_string() };
            let _ = self.why.set(why.into()); // the first one tells
        }
        poll
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    pub(super) async fn gone(&self) {
        self.gone.cancelled().await;
    }
}

/// The connection. Any byte that comes is life; HTTP/2's pings see to it that some do. hyper's own
/// time-out is not used: it wants the answer to a ping, which waits behind whatever is under way,
/// and it ends bodies as if they were whole.
#[derive(Debug)]
pub(super) struct Wire<S> {
    inner: S,
    line: Arc<Line>,
    /// When something was heard last.
    heard: Instant,
    dead_at: Pin<Box<Sleep>>,
    /// A write waits for the other side to take what was written before.
    is_stuck: bool,
}

impl<S> Wire<S> {
    pub(super) fn new(inner: S) -> (Self, Arc<Line>) {
        let line = Arc::<Line>::default();
        let heard = Instant::now();
        let dead_at = Box::pin(sleep_until(heard + DEAD_AFTER));
        (Self { inner, line: line.clone(), heard, dead_at, is_stuck: false }, line)
    }

    fn check_cut(&self) -> io::Result<()> {
        match self.line.cut.load(Ordering::Acquire) {
            true => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the Link was cut")),
            false => Ok(()),
        }
    }

    /// Called where there is nothing to do but wait.
    fn poll_alive(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        self.line.waker.register(cx.waker());
        self.check_cut()?;
        while self.dead_at.as_mut().poll(cx).is_ready() {
            let dead_at = self.heard + DEAD_AFTER;
            if dead_at <= self.dead_at.deadline() {
                let what = format!("nothing was heard for {} s", DEAD_AFTER.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            self.dead_at.as_mut().reset(dead_at);
        }
        Ok(())
    }

    /// Notes what came of a write. One that goes on after it was stuck is a sign of life.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut poll = poll;
        match poll {
            Poll::Pending => {
                self.is_stuck = true;
                poll = or_dead(self.poll_alive(cx));
            }
            Poll::Ready(_) if self.is_stuck => {
                self.is_stuck = false;
                self.heard = Instant::now();
            }
            Poll::Ready(_) => {}
        }
        self.line.note(poll)
    }
}

fn or_dead<T>(alive: io::Result<()>) -> Poll<io::Result<T>> {
    alive.map_or_else(|dead| Poll::Ready(Err(dead)), |()| Poll::Pending)
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_cut()?;
        let mut poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        match poll {
            Poll::Ready(_) => self.heard = Instant::now(),
            Poll::Pending => poll = or_dead(self.poll_alive(cx)),
        }
        self.line.note(poll)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.written(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_flush(cx);
        self.written(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.written(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.written(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<S> Drop for Wire<S> {
    fn drop(&mut self) {
        self.line.gone.cancel();
    }
}
