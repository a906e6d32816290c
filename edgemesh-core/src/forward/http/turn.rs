//! Whose turn it is on a client's HTTP/1 connection: tells a request that was begun and never
//! finished, which is a flow, from a connection that is merely idle.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
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
pub struct Turn(AtomicU8);

impl Turn {
    /// Something was read.
    pub fn heard(&self) {
        let _ = self.0.compare_exchange(IDLE, HEAD, Relaxed, Relaxed); // in a call it is its body
    }

    /// It is no HTTP/1 connection: something may be under way for as long as it is open.
    pub fn busy(&self) {
        self.0.store(CALL, Relaxed);
    }

    /// Whether nothing was said since the last answer, or ever.
    pub fn is_idle(&self) -> bool {
        self.0.load(Relaxed) == IDLE
    }

    /// Whether part of a head was read.
    pub fn is_partial(&self) -> bool {
        self.0.load(Relaxed) == HEAD
    }

    /// A head is whole; the call lasts until what this gives is dropped.
    pub(super) fn call(self: &Arc<Self>) -> InCall {
        self.0.store(CALL, Relaxed);
        InCall(self.clone())
    }

    /// Whether part of a head was read. Forgets it.
    pub(super) fn take_partial(&self) -> bool {
        self.0.compare_exchange(HEAD, IDLE, Relaxed, Relaxed).is_ok()
    }
}

/// See [`Turn::call`].
#[derive(Debug)]
pub(super) struct InCall(Arc<Turn>);

impl Drop for InCall {
    fn drop(&mut self) {
        self.0.0.store(IDLE, Relaxed);
    }
}

/// A client's socket with the bytes that were sniffed; notes what it hears.
#[derive(Debug)]
pub(super) struct Client {
    inner: Prefixed<TcpStream>,
    turn: Arc<Turn>,
}

impl Client {
    pub(super) const fn new(inner: Prefixed<TcpStream>, turn: Arc<Turn>) -> Self {
        Self { inner, turn }
    }

    /// The socket, and what was not read of the bytes in front of it.
    pub(super) fn into_parts(self) -> (bytes::Bytes, TcpStream) {
        self.inner.into_parts()
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.turn.heard();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
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
        let call = turn.call();
        far.write_all(b"body").await.unwrap();
        client.read_exact(&mut [0; 4]).await.unwrap();
        assert!(!turn.take_partial(), "it belongs to a call");
        drop(call);
        assert!(!turn.take_partial(), "idle after its answer");
        far.write_all(b"G").await.unwrap();
        client.read_exact(&mut [0; 1]).await.unwrap();
        assert!(turn.take_partial());
    }
}
