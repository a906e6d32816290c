//! Small things at the borders of I/O: the one clock, sniffed bytes put back in front of their
//! stream, identifiers for requests, and small files that are replaced whole.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use socket2::SockRef;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::net::TcpStream;

/// The clock of the outer layers. What decides takes the time as an argument.
pub fn now() -> Instant {
    // Through tokio, so that tests with a paused clock see one time everywhere.
    tokio::time::Instant::now().into_std()
}

/// Reads a small file, if it is there and has no more than `most` bytes.
pub(crate) fn read_small_file(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(file) if file.len() > most => Err(io::Error::other("it is too long")),
        Ok(_) => fs::read(path).map(Some),
    }
}

/// Writes a small file, of which a reader sees the old or the new, whatever happens meanwhile.
pub(crate) fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let next = path.with_extension("json.next");
    let mut file = File::create(&next)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A stream whose first bytes were read already; they are read again first.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// Puts `prefix` in front of what `inner` has still to give.
    pub const fn new(prefix: Bytes, inner: S) -> Self {
        Self { prefix, inner }
    }

    /// The stream.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// What of the first bytes was not read, and the stream.
    pub fn into_parts(self) -> (Bytes, S) {
        (self.prefix, self.inner)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let n = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..n]);
        self.prefix.advance(n);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new(); // gives the sniff buffer back
        }
        Poll::Ready(Ok(()))
    }
}

/// Implements `AsyncWrite` for a type that only reads in its own way: what is written goes to its field
/// `inner`, whose type is the parameter, where there is one.
macro_rules! writes_to_inner {
    ($type:ty $(, $inner:ident)?) => {
        impl$(<$inner: tokio::io::AsyncWrite + Unpin>)? tokio::io::AsyncWrite for $type {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.inner).poll_write(cx, buf)
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.inner).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.inner).poll_shutdown(cx)
            }

            fn poll_write_vectored(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.inner.is_write_vectored()
            }
        }
    };
}
pub(crate) use writes_to_inner;

writes_to_inner!(Prefixed<S>, S);

/// Read at once while nobody knows what it will be: most requests and hellos fit.
const PIECE: usize = 2 * 1024;

/// Appends what the other side says next; false when there is nothing more.
pub async fn read_more(stream: &TcpStream, into: &mut Vec<u8>) -> bool {
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        match read_once(stream, into) {
            Ok(n) => return n > 0,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
    }
}

/// Reads what there is, and notes that this was all where it was less than was asked for: whoever
/// goes on would ask the kernel once more, for nothing.
fn read_once(stream: &TcpStream, into: &mut Vec<u8>) -> io::Result<usize> {
    let before = into.len();
    into.resize(before + PIECE, 0);
    let mut read = Err(io::ErrorKind::WouldBlock.into());
    // tokio takes that there is nothing to read from what this says.
    let _ = stream.try_io(Interest::READABLE, || {
        read = (&*SockRef::from(stream)).read(&mut into[before..]);
        match read {
            Ok(n) if n == PIECE || n == 0 => Ok(()),
            Ok(_) | Err(_) => Err(io::Error::from(io::ErrorKind::WouldBlock)),
        }
    });
    into.truncate(before + read.as_ref().map_or(0, |n| *n));
    read
}

/// 128 bits that no other call of any process is likely to give: 64 from a random start of this
/// process, 64 from a counter spread by a keyed hash. Not secret; for logs and traces only.
pub fn unique_id() -> u128 {
    static START: OnceLock<(RandomState, u64)> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (keys, start) = START.get_or_init(|| {
        let keys = RandomState::new();
        let start = keys.hash_one("start of this process");
        (keys, start)
    });
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    (u128::from(start ^ n.rotate_left(32)) << 64) | u128::from(keys.hash_one(n))
}

/// The addresses of this machine's interfaces.
///
/// # Errors
/// When the kernel does not list them.
pub fn own_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    Ok(nix::ifaddrs::getifaddrs()?.filter_map(address).collect())
}

/// Both ends of a connection on this machine: who dialled, and who accepted.
#[cfg(test)]
pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (dialled, listener.accept().await.unwrap().0)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn prefixed_reads_in_order_whatever_the_buffer() {
        for size in [1, 2, 3, 64] {
            let (mut far, near) = tokio::io::duplex(64);
            far.write_all(b"world").await.unwrap();
            drop(far);
            let mut stream = Prefixed::new(Bytes::from_static(b"hello "), near);
            let (mut all, mut buf) = (Vec::new(), vec![0; size]);
            loop {
                match stream.read(&mut buf).await.unwrap() {
                    0 => break,
                    n => all.extend_from_slice(&buf[..n]),
                }
            }
            assert_eq!(all, b"hello world");
        }
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<u128> = (0..1000).map(|_| unique_id()).collect();
        assert_eq!(ids.len(), 1000);
    }
}
