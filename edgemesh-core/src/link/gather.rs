//! Gathers what is written in small pieces, so that frames of many exchanges leave as one TLS record
//! and one write.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is larger is not copied.
const SMALL: usize = 4 * 1024;
/// Most that is gathered: a TLS record.
const MOST: usize = 16 * 1024;
/// Slices that go on with what was gathered before them: a frame has two.
const SLICES: usize = 4;

/// A stream whose small writes are kept until it is flushed, or something large follows them.
#[derive(Debug)]
pub(super) struct Gather<S> {
    inner: S,
    gathered: BytesMut,
    /// Something was written below.
    wrote: bool,
}

impl<S> Gather<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, gathered: BytesMut::new(), wrote: false }
    }

    /// Whether something waits for a flush.
    pub(super) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Whether anything was written below since this was asked last.
    pub(super) fn has_written(&mut self) -> bool {
        std::mem::take(&mut self.wrote)
    }
}

impl<S: AsyncWrite + Unpin> Gather<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.has_gathered() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
            self.wrote = true;
        }
        self.gathered = BytesMut::new(); // an idle Link holds nothing
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gather<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        if length <= SMALL && self.gathered.len() + length <= MOST {
            bufs.iter().for_each(|buf| self.gathered.extend_from_slice(buf));
            return Poll::Ready(Ok(length));
        }
        let this = &mut *self;
        while this.has_gathered() {
            let mut all = [IoSlice::new(&[]); SLICES];
            all[0] = IoSlice::new(&this.gathered);
            all[1..].iter_mut().zip(bufs).for_each(|(one, buf)| *one = *buf);
            let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, &all))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            this.wrote = true;
            let before = written.min(this.gathered.len());
            this.gathered.advance(before);
            if written > before {
                return Poll::Ready(Ok(written - before));
            }
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        this.wrote = true;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gather<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Counts what reaches it, and takes it by halves.
    #[derive(Default)]
    struct Seen {
        bytes: Vec<u8>,
        writes: usize,
        halves: bool,
    }

    impl AsyncWrite for Seen {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let n = if self.halves { buf.len().div_ceil(2) } else { buf.len() };
            self.bytes.extend_from_slice(&buf[..n]);
            self.writes += 1;
            Poll::Ready(Ok(n))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            self.poll_write(cx, &all)
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_pieces_leave_together_and_in_order_with_what_follows_them() {
        for halves in [false, true] {
            let mut gather = Gather::new(Seen { halves, ..Seen::default() });
            let mut wanted = Vec::new();
            for (round, large) in [0, SMALL + 1, MOST, 100_000].into_iter().enumerate() {
                for piece in 0..20 {
                    let piece = vec![piece ^ round as u8; 100];
                    gather.write_all(&piece).await.unwrap();
                    wanted.extend_from_slice(&piece);
                }
                let before = gather.inner.writes;
                let (head, body) = (vec![1; 9], vec![round as u8; large]);
                let mut said = 0;
                while said < head.len() + large {
                    let bufs = [
                        IoSlice::new(&head[said.min(head.len())..]),
                        IoSlice::new(&body[said.saturating_sub(head.len())..]),
                    ];
                    let write = poll_fn(|cx| Pin::new(&mut gather).poll_write_vectored(cx, &bufs));
                    said += write.await.unwrap();
                }
                wanted.extend_from_slice(&head);
                wanted.extend_from_slice(&body);
                gather.flush().await.unwrap();
                assert!(halves || gather.inner.writes == before + 1, "{large}");
                assert!(!gather.has_gathered() && gather.gathered.capacity() == 0);
            }
            assert!(gather.inner.bytes == wanted);
        }
    }

    #[tokio::test]
    async fn what_is_read_comes_as_it_is_there() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Gather::new(near);
        far.write_all(b"x").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'x');
    }
}
