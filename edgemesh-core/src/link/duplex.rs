//! A two-way stream of bytes over an exchange, for whoever opened it and for whoever answered.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use crate::link::error::{Failure, LinkError};
use crate::link::{Inbound, Writer};

/// What is written follows our first Message, what is read came after theirs. A shutdown is a
/// half-close. Dropped without one, or by whoever opened it before the other side is done, the
/// exchange is reset, and what was written last may be lost. A reset of the other side is an error,
/// `ConnectionReset`, of reads and writes.
#[derive(Debug)]
pub struct Duplex {
    writer: Writer,
    inbound: Inbound,
    /// Read, and not yet taken.
    piece: Bytes,
}

impl Duplex {
    /// Of the two directions.
    pub const fn new(writer: Writer, inbound: Inbound) -> Self {
        Self { writer, inbound, piece: Bytes::new() }
    }

    /// The two directions, and what was read of the second and not taken.
    pub fn into_parts(self) -> (Writer, Bytes, Inbound) {
        (self.writer, self.piece, self.inbound)
    }

    /// Where to write without copying.
    pub const fn writer(&self) -> &Writer {
        &self.writer
    }

    /// The next bytes as they came; `None` = the other side is done.
    ///
    /// # Errors
    /// As reads.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if !self.piece.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.piece))));
        }
        self.inbound.poll_bytes(cx).map(|next| next.transpose().map_err(into_io))
    }
}

/// As an error of a socket.
pub(super) fn into_io(error: LinkError) -> io::Error {
    let kind = match error.kind() {
        Failure::TimedOut => io::ErrorKind::TimedOut,
        Failure::Protocol => io::ErrorKind::InvalidData,
        Failure::NotSent | Failure::Cancelled | Failure::Broken => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error)
}

impl AsyncBufRead for Duplex {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.piece.is_empty()
            && let Some(bytes) = ready!(this.poll_bytes(cx))?
        {
            this.piece = bytes;
        }
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(mut self: Pin<&mut Self>, n: usize) {
        self.piece.advance(n);
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let there = ready!(self.as_mut().poll_fill_buf(cx))?;
        let n = there.len().min(buf.remaining());
        buf.put_slice(&there[..n]);
        self.consume(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.writer.poll_write(cx, buf)
    }

    /// There is nothing to push: HTTP/2 takes what there is as soon as the other side has room.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.writer.finish();
        Poll::Ready(Ok(()))
    }
}
