//! A Backend's side of a connection of bytes: its socket, or an exchange with the agent of its node.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::link::Duplex;

/// See the module.
#[derive(Debug)]
pub enum Reached {
    /// Dialled by this process.
    Socket(TcpStream),
    /// Asked for over a Link. Boxed, since most connections have none.
    Link(Box<Duplex>),
}

/// The most that is read at once of a server that is waited for.
const GREETING: usize = 1024;

impl Reached {
    /// Waits for what it says first: nothing, if it closes without a word. Holds no buffer while it
    /// waits.
    ///
    /// # Errors
    /// When it breaks.
    pub async fn first_words(&mut self) -> io::Result<Bytes> {
        match self {
            Self::Socket(socket) => loop {
                socket.readable().await?;
                let mut words = Vec::with_capacity(GREETING);
                match socket.try_read_buf(&mut words) {
                    Ok(_) => return Ok(words.into()),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            },
            Self::Link(link) => {
                let words = std::future::poll_fn(|cx| link.poll_bytes(cx)).await?;
                Ok(words.unwrap_or_default())
            }
        }
    }
}

/// Nobody takes more at the far end of a Link. As with a socket whose other side ended in order, what
/// was said there is still to be read, and whether it was a reset comes after it.
fn deaf(_: io::Error) -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

impl AsyncRead for Reached {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Link(link) => Pin::new(&mut **link).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Reached {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Link(link) => Pin::new(&mut **link).poll_write(cx, buf).map_err(deaf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Link(link) => Pin::new(&mut **link).poll_write_vectored(cx, bufs).map_err(deaf),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.is_write_vectored(),
            Self::Link(link) => link.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_flush(cx),
            Self::Link(link) => Pin::new(&mut **link).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Socket(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Link(link) => Pin::new(&mut **link).poll_shutdown(cx),
        }
    }
}
