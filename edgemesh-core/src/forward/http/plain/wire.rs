//! A socket with what was read of it and not used yet; nothing is held while nobody speaks.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

use crate::forward::http::serve::MAX_BUFFER;
use crate::forward::spare;
use crate::io::Prefixed;

/// Read for a start: most heads fit.
const SMALL: usize = 4 * 1024;
/// Largest piece of what a client says, which is requests.
const LARGE: usize = 16 * 1024;
/// Largest piece of an answer, and how fast it gets there; see `forward::bytes`.
pub(super) const LARGEST: usize = 256 * 1024;
const GROWTH: usize = 4;
/// How long what a client still says is read and thrown away.
const LINGER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub(in crate::forward::http) struct Wire {
    socket: TcpStream,
    /// What was read and not used.
    pub(super) unread: Vec<u8>,
    next_size: usize,
    largest: usize,
}

impl Wire {
    /// To a client, of whom so much was read.
    pub(super) const fn client(socket: TcpStream, unread: Vec<u8>) -> Self {
        Self { socket, unread, next_size: SMALL, largest: LARGE }
    }

    /// To a Backend.
    pub(super) const fn backend(socket: TcpStream) -> Self {
        Self { socket, unread: Vec::new(), next_size: SMALL, largest: LARGEST }
    }

    /// So many bytes of a body are to come from a client: long ones are read in pieces as large as
    /// those of answers.
    pub(super) const fn expect(&mut self, body: u64) {
        self.largest = if body > LARGE as u64 { LARGEST } else { LARGE };
        if self.next_size > self.largest {
            self.next_size = self.largest;
        }
    }

    /// Whoever goes on with it reads first what was not used.
    pub(super) fn into_prefixed(self) -> Prefixed<TcpStream> {
        Prefixed::new(Bytes::from(self.unread), self.socket)
    }

    /// Takes the first bytes off what was read.
    pub(super) fn used(&mut self, bytes: usize) {
        if bytes == self.unread.len() {
            self.unread.clear();
        } else {
            self.unread.drain(..bytes);
        }
    }

    /// Reads what there is, at most one piece of it. Gives how much; 0 = the other side has ended.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Asked first, so that who waits has no buffer.
        let mut read = Poll::Pending;
        if self.socket.poll_read_ready(cx)?.is_ready() {
            spare::reserve(&mut self.unread, self.next_size);
            read = poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.unread)?;
        }
        match read {
            Poll::Pending if self.unread.is_empty() => spare::give_back(&mut self.unread),
            Poll::Ready(read) if read >= self.next_size => {
                self.next_size = (self.next_size * GROWTH).min(self.largest);
            }
            Poll::Pending | Poll::Ready(_) => {}
        }
        read.map(Ok)
    }

    /// Writes from `sent` on what is not written yet.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        sent: &mut usize,
    ) -> Poll<io::Result<()>> {
        while *sent < bytes.len() {
            match ready!(Pin::new(&mut self.socket).poll_write(cx, &bytes[*sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                wrote => *sent += wrote,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the other side has ended, or broken. What it says meanwhile is read, up to a bound:
    /// it is the beginning of what comes next.
    pub(super) fn has_left(&mut self, cx: &mut Context<'_>) -> bool {
        while self.unread.len() < MAX_BUFFER {
            match self.poll_read(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(read)) if read > 0 => {}
                Poll::Ready(Ok(_) | Err(_)) => return true,
            }
        }
        false
    }

    /// Ends a connection whose other side is still saying what nobody will read: closed at once, it
    /// would be reset, and take what was answered with it.
    pub(super) async fn linger(&mut self) {
        let reading = poll_fn(|cx| {
            ready!(Pin::new(&mut self.socket).poll_shutdown(cx))?;
            loop {
                self.unread.clear();
                if ready!(self.poll_read(cx))? == 0 {
                    return Poll::Ready(Ok::<_, io::Error>(()));
                }
            }
        });
        let _ = timeout(LINGER, reading).await; // either way nobody waits any more
    }

    /// It waits for its next use: it holds nothing, and begins small again.
    pub(super) fn rests(&mut self) {
        spare::give_back(&mut self.unread);
        self.next_size = SMALL;
    }

    /// Whether one that was kept is of no use any more: its other side has ended it, or says what
    /// nobody asked for. Costs no system call unless something happened to it.
    pub(in crate::forward::http) fn is_spent(&self) -> bool {
        let asked = self.socket.try_read(&mut [0]);
        !matches!(asked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}
