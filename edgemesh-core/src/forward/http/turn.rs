//! Whose turn it is on a client's HTTP/1 connection: tells a request that was begun and never
//! finished, which is a flow, from a connection that is merely idle.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::io::Prefixed;

/// Nothing was said since the last answer.
const IDLE: u8 = 0;
/// Part of a head was read.
const HEAD: u8 = 1;
/// A call is under way, with an account of its own.
const CALL: u8 = 2;

/// See the module.
#[derive(Debug, Default)]
pub struct Turn {
    now: AtomicU8,
    /// The last four bytes that were read.
    tail: AtomicU32,
    /// An answer is made, and part of it may still wait for its client to read on.
    unsent: AtomicBool,
}

impl Turn {
    /// Something was read.
    pub fn heard(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let last = &bytes[bytes.len().saturating_sub(4)..];
        let tail = last.iter().fold(self.tail.load(Relaxed), |t, b| t << 8 | u32::from(*b));
        self.tail.store(tail, Relaxed);
        let _ = self.now.compare_exchange(IDLE, HEAD, Relaxed, Relaxed); // in a call it is its body
    }

    /// It is no HTTP/1 connection: something may be under way for as long as it is open.
    pub fn busy(&self) {
        self.now.store(CALL, Relaxed);
    }

    /// An answer is on its way as a whole; `begun`: part of the next head is here.
    pub(super) fn answered(&self, begun: bool) {
        self.unsent.store(false, Relaxed);
        self.now.store(if begun { HEAD } else { IDLE }, Relaxed);
    }

    /// Whether nothing was said since the last answer, or ever.
    pub fn is_idle(&self) -> bool {
        self.now.load(Relaxed) == IDLE && !self.unsent.load(Relaxed)
    }

    /// Whether part of a head was read.
    pub fn is_partial(&self) -> bool {
        self.now.load(Relaxed) == HEAD && !self.unsent.load(Relaxed)
    }

    /// All that was written so far is on its way.
    fn flushed(&self) {
        if self.now.load(Relaxed) != CALL && self.unsent.load(Relaxed) {
            self.unsent.store(false, Relaxed);
        }
    }

    /// A head is whole; the call lasts until what this gives is dropped. What comes in a call that
    /// has no body belongs to the next one.
    pub(super) fn call(self: &Arc<Self>, has_body: bool) -> InCall {
        self.now.store(CALL, Relaxed);
        self.unsent.store(true, Relaxed);
        InCall { turn: self.clone(), has_body }
    }

    /// Whether part of a head was read. Forgets it.
    pub(super) fn take_partial(&self) -> bool {
        self.now.compare_exchange(HEAD, IDLE, Relaxed, Relaxed).is_ok()
    }

    /// Whether what was read ends with a head: with an empty line.
    fn ends_a_head(&self) -> bool {
        let tail = self.tail.load(Relaxed);
        tail & 0x00ff_ffff == 0x000a_0d0a || tail & 0xffff == 0x0a0a
    }
}

/// See [`Turn::call`].
#[derive(Debug)]
pub(super) struct InCall {
    turn: Arc<Turn>,
    has_body: bool,
}

impl Drop for InCall {
    fn drop(&mut self) {
        let next = !self.has_body && !self.turn.ends_a_head();
        self.turn.now.store(if next { HEAD } else { IDLE }, Relaxed);
    }
}

/// A client's stream with the bytes that were sniffed; notes what it hears.
#[derive(Debug)]
pub(super) struct Client<S = TcpStream> {
    inner: Prefixed<S>,
    turn: Arc<Turn>,
}

impl<S> Client<S> {
    pub(super) const fn new(inner: Prefixed<S>, turn: Arc<Turn>) -> Self {
        Self { inner, turn }
    }

    /// The stream, and what was not read of the bytes in front of it.
    pub(super) fn into_parts(self) -> (bytes::Bytes, S) {
        self.inner.into_parts()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Client<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.turn.heard(&buf.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Client<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.turn.flushed(); // hyper asks when it has handed over all that it holds
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_partial_head_is_no_idle_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let near = listener.accept().await.unwrap().0;
        let turn = Arc::<Turn>::default();
        let sniffed = Prefixed::new(bytes::Bytes::from_static(b"GET"), near);
        let mut client = Client::new(sniffed, turn.clone());
        assert!(!turn.take_partial(), "nobody said anything");
        client.read_exact(&mut [0; 3]).await.unwrap();
        assert!(turn.take_partial() && !turn.take_partial(), "once");
        let call = turn.call(true);
        far.write_all(b"body").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        assert!(!turn.take_partial(), "it belongs to a call");
        drop(call);
        assert!(!turn.take_partial(), "idle after its answer");
        far.write_all(b"G").await.unwrap();
        client.read_exact(&mut [0; 1]).await.unwrap();
        assert!(turn.take_partial());
    }

    #[tokio::test]
    async fn an_answer_that_waits_for_its_client_is_no_idle_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let near = listener.accept().await.unwrap().0;
        let turn = Arc::<Turn>::default();
        let mut client = Client::new(Prefixed::new(bytes::Bytes::new(), near), turn.clone());
        turn.heard(b"GET / HTTP/1.1\r\n\r\n");
        let call = turn.call(false);
        client.flush().await.unwrap();
        drop(call);
        assert!(!turn.is_idle(), "the end of the answer may not have been written yet");
        client.flush().await.unwrap();
        assert!(turn.is_idle());
        let call = turn.call(false);
        turn.heard(b"G");
        drop(call);
        assert!(!turn.is_partial(), "nor is one that began its next request meanwhile");
        client.flush().await.unwrap();
        assert!(turn.is_partial());
    }

    #[test]
    fn half_a_head_may_come_with_the_one_before() {
        for (reads, has_body, want) in [
            (&["GET / HTTP/1.1\r\n\r\n"][..], false, false),
            (&["GET / HTTP/1.1\r\n\r", "\n"], false, false),
            (&["GET / HTTP/1.1\n\n"], false, false),
            (&["GET / HTTP/1.1\r\n\r\nGET /"], false, true),
            (&["GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\n"], false, true),
            (&["GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n"], false, false),
            (&["POST / HTTP/1.1\r\n\r\nbody"], true, false),
        ] {
            let turn = Arc::<Turn>::default();
            turn.heard(reads[0].as_bytes());
            let call = turn.call(has_body);
            reads[1..].iter().for_each(|read| turn.heard(read.as_bytes()));
            drop(call);
            assert_eq!(turn.take_partial(), want, "{reads:?}");
        }
    }
}
