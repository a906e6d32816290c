//! Carries bytes between a socket and an exchange on a Link, at either end of it.
//!
//! What comes over the Link is written as it came, without a copy; what the socket says is read
//! into a buffer that is handed over whole. As between two sockets, nothing is held while nothing
//! is said, a half-close stays one, and so does a reset.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::forward::bytes::{Carriage, GROWTH, SMALL, Side, Traffic, half_close};
use crate::link::{Duplex, Inbound, Writer};
use crate::listen::reset_on_close;

/// Most that is read at once: a frame of HTTP/2, and half of what waits in an exchange.
const LARGE: usize = 64 * 1024;

/// Bytes that were read of each side before it began.
#[derive(Debug, Default)]
pub struct Before {
    /// Of the socket, for the other node.
    pub of_socket: Bytes,
    /// Of the other node, for the socket.
    pub of_link: Bytes,
}

/// Carries everything in both directions until both are done or one side breaks. `socket_is` says
/// which side of the connection the socket is; the other one is at the far end of the Link.
pub async fn bridge(
    socket: TcpStream,
    link: Duplex,
    before: Before,
    socket_is: Side,
    traffic: &Traffic,
) -> Carriage {
    let (writer, piece, inbound) = link.into_parts();
    let (sent, came) = match socket_is {
        Side::Client => (&traffic.up, &traffic.down),
        Side::Backend => (&traffic.down, &traffic.up),
    };
    let mut out = Out {
        writer,
        piece: before.of_socket,
        size: SMALL,
        carried: sent,
        state: State::Open,
        is_deaf: false,
    };
    let mut into = Into {
        inbound,
        piece: before.of_link,
        next: piece,
        carried: came,
        is_done: false,
        is_deaf: false,
    };
    let broken = poll_fn(|cx| {
        let out_done = match out.poll(cx, &socket) {
            Poll::Ready(Err(end)) => return Poll::Ready(Some(end)),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        match into.poll(cx, &socket) {
            Poll::Ready(Err(end)) => Poll::Ready(Some(end)),
            // A Backend may be done before it heard everything. A client that does not take all of
            // the answer is gone, also where it had said all that it had to say.
            Poll::Ready(Ok(())) if out_done => Poll::Ready(match socket_is {
                Side::Client if into.is_deaf => Some(End::Socket),
                Side::Backend if out.is_deaf => Some(End::Link),
                Side::Client | Side::Backend => None,
            }),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    })
    .await;
    let broken = broken.map(|end| match (end, socket_is) {
        (End::Socket, side) => side,
        (End::Link, Side::Client) => Side::Backend,
        (End::Link, Side::Backend) => Side::Client,
    });
    if broken.is_some_and(|side| side != socket_is) {
        reset_on_close(&socket);
    }
    // An exchange that was not finished is reset as it is dropped.
    traffic.ended(broken)
}

/// Which end broke.
enum End {
    Socket,
    Link,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The socket is done; what is pending goes out, then the half-close.
    Closing,
    Done,
}

/// From the socket to the other node.
struct Out<'t> {
    writer: Writer,
    piece: Bytes,
    size: usize,
    carried: &'t AtomicU64,
    state: State,
    /// The other node took not all of it.
    is_deaf: bool,
}

impl Out<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, socket: &TcpStream) -> Poll<Result<(), End>> {
        loop {
            if self.state == State::Done {
                return Poll::Ready(Ok(()));
            }
            if ready!(self.writer.poll_room(cx)).is_err() {
                // Nobody takes more. Whether that is a reset, what comes from there says.
                (self.state, self.is_deaf) = (State::Done, true);
                continue;
            }
            if !self.piece.is_empty() {
                self.carried.fetch_add(self.piece.len() as u64, Relaxed);
                self.writer.send(std::mem::take(&mut self.piece));
                continue;
            }
            if self.state == State::Closing {
                self.writer.finish();
                self.state = State::Done;
                continue;
            }
            ready!(socket.poll_read_ready(cx)).map_err(|_| End::Socket)?;
            self.read(socket)?;
        }
    }

    fn read(&mut self, socket: &TcpStream) -> Result<(), End> {
        let mut buffer = BytesMut::with_capacity(self.size);
        match socket.try_read_buf(&mut buffer) {
            Ok(0) => self.state = State::Closing,
            Ok(n) => {
                if n >= self.size {
                    self.size = (self.size * GROWTH).min(LARGE);
                }
                self.piece = buffer.freeze();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(End::Socket),
        }
        Ok(())
    }
}

/// From the other node to the socket.
struct Into<'t> {
    inbound: Inbound,
    piece: Bytes,
    /// Was read of the exchange already, and comes after `piece`.
    next: Bytes,
    carried: &'t AtomicU64,
    is_done: bool,
    /// The socket took not all of it.
    is_deaf: bool,
}

impl Into<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, socket: &TcpStream) -> Poll<Result<(), End>> {
        loop {
            if self.is_done {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_flush(cx, socket))?;
            if self.is_done {
                continue;
            }
            if !self.next.is_empty() {
                self.piece = std::mem::take(&mut self.next);
                continue;
            }
            match ready!(self.inbound.poll_bytes(cx)) {
                Some(Ok(bytes)) => self.piece = bytes,
                Some(Err(_)) => return Poll::Ready(Err(End::Link)),
                None => {
                    self.is_done = true;
                    half_close(socket);
                }
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, socket: &TcpStream) -> Poll<Result<(), End>> {
        while !self.piece.is_empty() {
            match socket.try_write(&self.piece) {
                Ok(n) => {
                    self.carried.fetch_add(n as u64, Relaxed);
                    self.piece.advance(n);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(socket.poll_write_ready(cx)).map_err(|_| End::Socket)?;
                }
                // It ended in order and takes no more; what it said is still to be passed on.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    (self.piece, self.is_done, self.is_deaf) = (Bytes::new(), true, true);
                }
                Err(_) => return Poll::Ready(Err(End::Socket)),
            }
        }
        self.piece = Bytes::new(); // lets go of the frame that it was a part of
        Poll::Ready(Ok(()))
    }
}
