//! The connection below HTTP/2: notices that a peer is gone, and can be cut at any moment.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::identity::explain;
use crate::link::DEAD_AFTER;
use crate::link::gather::Gather;
use crate::link::turn::Turn;
use crate::link::unread::Unread;
use crate::link::window::Window;

/// What others may know of a connection, and do to it.
#[derive(Debug)]
pub(super) struct Line {
    cut: AtomicBool,
    waker: AtomicWaker,
    /// Why it broke, in words.
    why: OnceLock<Box<str>>,
    /// Ends when the connection is gone.
    gone: CancellationToken,
    unread: Arc<Unread>,
}

impl Line {
    fn new(tasks: TaskTracker) -> Self {
        Self {
            cut: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            why: OnceLock::new(),
            gone: CancellationToken::new(),
            unread: Arc::new(Unread::new(tasks)),
        }
    }

    /// What nobody reads.
    pub(super) const fn unread(&self) -> &Arc<Unread> {
        &self.unread
    }

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

/// The connection. Any byte that comes is life; [`Keepalive`](crate::link::keepalive::Keepalive) sees
/// to it that some do.
#[derive(Debug)]
pub(super) struct Wire<S> {
    inner: Gather<S>,
    line: Arc<Line>,
    window: Window,
    /// When something was heard last.
    heard: Instant,
    dead_at: Pin<Box<Sleep>>,
    /// A write waits for the other side to take what was written before.
    is_stuck: bool,
    turn: Turn,
    /// Why nothing can be written any more.
    lost: Option<io::Error>,
}

impl<S> Wire<S> {
    /// `window` is for all that it receives.
    pub(super) fn new(inner: S, window: Window, tasks: TaskTracker) -> (Box<Self>, Arc<Line>) {
        let line = Arc::new(Line::new(tasks));
        let heard = Instant::now();
        let dead_at = Box::pin(sleep_until(heard + DEAD_AFTER));
        let wire = Self {
            inner: Gather::new(inner),
            line: line.clone(),
            window,
            heard,
            dead_at,
            is_stuck: false,
            turn: Turn::default(),
            lost: None,
        };
        (Box::new(wire), line) // it is moved from task to task, and large
    }

    /// Something came.
    fn hear(&mut self, bytes: &[u8]) {
        self.heard = Instant::now();
        self.line.unread.hear(self.heard);
        self.window.received(bytes);
        self.line.unread.room(self.window.is_short());
    }

    fn has_sent(&mut self, bytes: &[u8]) {
        self.window.sent(bytes);
        self.line.unread.room(self.window.is_short());
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
    fn progress(&mut self, is_stuck: bool) {
        if self.is_stuck && !is_stuck {
            self.heard = Instant::now();
        }
        self.is_stuck = is_stuck;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut Gather<S>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.lost.is_none() {
            match write(Pin::new(&mut self.inner), cx) {
                Poll::Ready(Ok(written)) => {
                    // What was gathered only says nothing of the other side.
                    if self.inner.has_written() || !self.inner.has_gathered() {
                        self.progress(false);
                    }
                    return Poll::Ready(Ok(written));
                }
                Poll::Ready(Err(error)) => self.lost = Some(error),
                Poll::Pending => {
                    self.inner.has_written(); // TLS took it, and is stuck itself
                    self.progress(true);
                    let poll = or_dead(self.poll_alive(cx));
                    return self.line.note(poll);
                }
            }
        }
        let lost = ready!(self.poll_last_words(cx));
        self.line.note(Poll::Ready(Err(lost)))
    }

    /// Why nothing can be written any more is often said in what was not read yet: TLS's alert.
    fn poll_last_words(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut scratch = [0; 1024];
        loop {
            let mut words = ReadBuf::new(&mut scratch);
            let said = match Pin::new(&mut self.inner).poll_read(cx, &mut words) {
                Poll::Ready(Ok(())) if words.filled().is_empty() => None,
                Poll::Ready(Ok(())) => continue,
                Poll::Ready(Err(error)) => Some(error),
                Poll::Pending => match self.poll_alive(cx) {
                    Ok(()) => return Poll::Pending,
                    Err(_) => None,
                },
            };
            let lost = self.lost.take();
            return Poll::Ready(said.or(lost).unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()));
        }
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
        let before = buf.filled().len();
        let mut poll = Pin::new(&mut self.inner).poll_read(cx, buf);
        match poll {
            Poll::Ready(_) => self.hear(&buf.filled()[before..]),
            Poll::Pending => poll = or_dead(self.poll_alive(cx)),
        }
        self.line.note(poll)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.write(cx, |inner, cx| inner.poll_write(cx, buf)))?;
        self.has_sent(&buf[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // HTTP/2 flushes before every larger frame, too, and goes on when that is done. What is
        // gathered by then leaves at the end of the turn: that wakes the connection, which flushes
        // whenever it is polled.
        if self.inner.has_gathered() && self.turn.poll(cx).is_pending() {
            return Poll::Ready(Ok(()));
        }
        ready!(self.write(cx, |inner, cx| inner.poll_flush(cx)))?;
        self.turn.begin_anew();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |inner, cx| inner.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(self.write(cx, |inner, cx| inner.poll_write_vectored(cx, bufs)))?;
        let mut left = written;
        for buf in bufs {
            let n = left.min(buf.len());
            self.has_sent(&buf[..n]);
            left -= n;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<S> Drop for Wire<S> {
    fn drop(&mut self) {
        self.line.unread.room(false);
        self.line.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::time::timeout;

    use super::*;

    /// Takes what is written, brings nothing on its way and hears nothing: TLS over a socket that is
    /// full.
    struct Stuck;

    impl AsyncRead for Stuck {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Stuck {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_to_be_sent_is_no_sign_of_life() {
        let (mut wire, line) = Wire::new(Stuck, Window::new(1 << 20, true), TaskTracker::new());
        let began = Instant::now();
        let ended = loop {
            wire.write_all(&[0; 10]).await.unwrap();
            let ends = poll_fn(|cx| {
                let flushed = Pin::new(&mut wire).poll_flush(cx);
                let mut scratch = [0; 8];
                let read = Pin::new(&mut wire).poll_read(cx, &mut ReadBuf::new(&mut scratch));
                match (flushed, read) {
                    (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                        Poll::Ready(error)
                    }
                    _ => Poll::Pending,
                }
            });
            if let Ok(ended) = timeout(Duration::from_secs(1), ends).await {
                break ended;
            }
            assert!(began.elapsed() < 2 * DEAD_AFTER, "it lives on what it says itself");
        };
        assert_eq!(ended.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() <= DEAD_AFTER * 101 / 100, "{:?}", began.elapsed());
        assert!(line.why().is_some());
    }
}
