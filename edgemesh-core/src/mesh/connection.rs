//! A connection of bytes between the embedding application and a Backend.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::forward::bytes::{Reached, Side};
use crate::forward::flow::Flow;

/// A connection to a Backend, made by [`Mesh::connect`](crate::mesh::Mesh::connect).
///
/// It is one call: it ends well when the Backend's last byte was read before it is dropped,
/// as failed when the Backend broke it, and as cancelled when it is dropped before.
#[derive(Debug)]
pub struct Connection {
    stream: Reached,
    /// `None` once the call has ended.
    flow: Option<Box<Flow>>,
    /// Whose fault it would be if it were dropped now.
    broken: Option<Side>,
}

impl Connection {
    pub(super) const fn new(stream: Reached, flow: Box<Flow>) -> Self {
        Self { stream, flow: Some(flow), broken: Some(Side::Client) }
    }

    /// Address of the Backend.
    pub fn backend(&self) -> Option<SocketAddr> {
        self.flow.as_ref()?.backend()
    }

    fn heard(&mut self, bytes: usize) {
        let Some(flow) = &mut self.flow else { return };
        if bytes == 0 {
            self.broken = None;
        } else {
            flow.traffic.came_down(bytes);
            flow.answered();
        }
    }

    fn judge<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() && self.broken.is_some() {
            self.broken = Some(Side::Backend);
        }
        result
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(flow) = self.flow.take() {
            let carriage = flow.traffic.ended(self.broken);
            flow.carried(carriage);
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.judge(read)?;
        if room > 0 {
            self.heard(buf.filled().len() - before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, buf));
        Poll::Ready(self.wrote(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs));
        Poll::Ready(self.wrote(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connection {
    fn wrote(&mut self, written: io::Result<usize>) -> io::Result<usize> {
        let written = self.judge(written)?;
        if let Some(flow) = &self.flow {
            flow.traffic.went_up(written);
        }
        Ok(written)
    }
}
