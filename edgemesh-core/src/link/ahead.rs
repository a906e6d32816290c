//! Reads ahead below TLS. rustls asks for 4 KiB at a time, which are five system calls a record
//! while much comes; while little comes it gets what there is, and nothing is held.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::io::writes_to_inner;

/// Bytes read at once while much comes: four records.
const AHEAD: usize = 64 * 1024;

/// A socket whose reader asks for little at a time.
#[derive(Debug)]
pub struct Ahead {
    inner: TcpStream,
    /// What was read ahead; without memory while little comes.
    buffer: BytesMut,
    /// The last read filled all the room that it was given: more is likely to be there.
    is_flooded: bool,
}

impl Ahead {
    /// Nothing was read yet.
    pub(super) fn new(inner: TcpStream) -> Self {
        Self { inner, buffer: BytesMut::new(), is_flooded: false }
    }

    /// The socket.
    pub(super) const fn get_ref(&self) -> &TcpStream {
        &self.inner
    }

    /// Reads as much as may be there; what it leaves empty is the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.buffer.reserve(AHEAD); // takes the memory up again that was read
        let filled = poll_read_buf(Pin::new(&mut self.inner), cx, &mut self.buffer);
        self.is_flooded = matches!(filled, Poll::Ready(Ok(n)) if n >= AHEAD);
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new(); // nobody knows for how long
        }
        filled.map_ok(|_| ())
    }
}

impl AsyncRead for Ahead {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.buffer.is_empty() && !this.is_flooded {
            this.buffer = BytesMut::new();
            let read = Pin::new(&mut this.inner).poll_read(cx, buf);
            this.is_flooded = read.is_ready() && buf.remaining() == 0;
            return read;
        }
        if this.buffer.is_empty() {
            ready!(this.poll_fill(cx))?;
        }
        let n = this.buffer.len().min(buf.remaining());
        buf.put_slice(&this.buffer[..n]);
        this.buffer.advance(n);
        Poll::Ready(Ok(()))
    }
}

writes_to_inner!(Ahead);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn all_is_read_in_order_and_nothing_is_held_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut near = Ahead::new(listener.accept().await.unwrap().0);
        let said: Vec<u8> = (0..1_000_000u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
        let (mut all, mut piece, mut most) = (Vec::new(), [0; 4096], 0);
        let hear = async {
            while all.len() < said.len() {
                let n = near.read(&mut piece).await.unwrap();
                all.extend_from_slice(&piece[..n]);
                most = most.max(near.buffer.capacity());
            }
        };
        let (wrote, ()) = tokio::join!(far.write_all(&said), hear);
        wrote.unwrap();
        assert!(all == said, "{} bytes", all.len());
        assert!(most > 4096, "it never read ahead");
        // One word at a time: the first may still find the memory, the second finds none.
        for _ in 0..2 {
            far.write_all(b"x").await.unwrap();
            assert_eq!(near.read(&mut piece).await.unwrap(), 1);
        }
        assert_eq!(near.buffer.capacity(), 0);
        far.shutdown().await.unwrap();
        assert_eq!(near.read(&mut piece).await.unwrap(), 0);
    }
}
