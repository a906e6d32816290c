//! Carries bytes between two TCP sockets ([`carry`]), or a socket and a Link ([`bridge`]), as one
//! task that holds no buffer while it is idle.
//!
//! A half-close is passed on as a half-close, a reset as a reset. A buffer exists only while
//! bytes are under way; it starts small and grows when a flow fills it.

mod bridge;
mod reached;
mod splice;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio_util::io::poll_read_buf;

use crate::forward::spare;
use crate::listen::reset_on_close;

pub use bridge::{Before, bridge};
pub use reached::Reached;
pub use splice::splice;

/// First buffer of a direction: a request or an answer of an interactive flow fits.
const SMALL: usize = 8 * 1024;
/// Largest: 256 KiB takes less than half of the processor time a GiB that 8 KiB takes.
const LARGE: usize = 256 * 1024;
/// Each read that fills its buffer earns one that is this much larger.
const GROWTH: usize = 4;

/// How a connection of bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carriage {
    /// Bytes from the client to the Backend.
    pub up: u64,
    /// Bytes from the Backend to the client.
    pub down: u64,
    /// Who broke it before its end, if anybody did.
    pub broken: Option<Side>,
}

/// Bytes that went through so far; read by whoever ends a flow that was cut.
#[derive(Debug, Default)]
pub struct Traffic {
    up: AtomicU64,
    down: AtomicU64,
}

impl Traffic {
    /// What was carried until now.
    pub fn so_far(&self) -> Carriage {
        self.ended(None)
    }

    /// Counts bytes to the Backend.
    pub fn went_up(&self, bytes: usize) {
        self.up.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes from the Backend.
    pub fn came_down(&self, bytes: usize) {
        self.down.fetch_add(bytes as u64, Relaxed);
    }

    /// Whether the Backend's side has said anything.
    pub fn has_answered(&self) -> bool {
        self.down.load(Relaxed) > 0
    }

    /// What was carried, and who broke it.
    pub fn ended(&self, broken: Option<Side>) -> Carriage {
        Carriage { up: self.up.load(Relaxed), down: self.down.load(Relaxed), broken }
    }
}

/// One side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that dialled.
    Client,
    /// The one that was dialled.
    Backend,
}

/// Bytes that were read while the flow was being decided.
#[derive(Debug, Default)]
pub struct Early {
    /// From the client, not yet sent to the Backend.
    pub up: Vec<u8>,
    /// From the Backend, not yet sent to the client.
    pub down: Vec<u8>,
}

/// Carries everything in both directions until both are done or one side breaks.
///
/// No `async fn`: that would keep each argument twice, in every idle connection.
pub fn carry(
    mut client: TcpStream,
    mut backend: TcpStream,
    early: Early,
    traffic: &Traffic,
) -> impl Future<Output = Carriage> + Send {
    let mut up = Direction::new(early.up, &traffic.up);
    let mut down = Direction::new(early.down, &traffic.down);
    async move {
        let (mut from_client, to_client) = client.split();
        let (mut from_backend, to_backend) = backend.split();
        let broken = poll_fn(|cx| {
            let up_done = match up.poll(cx, &mut from_client, to_backend.as_ref()) {
                // All that it said is still to be passed on: an answer that came early, or the
                // whole of it when the client's last word (TLS's close_notify) came too late.
                Poll::Ready(Err(Break::Deaf)) => {
                    up.give_up();
                    true
                }
                Poll::Ready(Err(end)) => return Poll::Ready(Some(end.side(Side::Client))),
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            match down.poll(cx, &mut from_backend, to_client.as_ref()) {
                Poll::Ready(Err(end)) => Poll::Ready(Some(end.side(Side::Backend))),
                Poll::Ready(Ok(())) if up_done => Poll::Ready(None),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            }
        })
        .await;
        match broken {
            Some(Side::Client) => reset_on_close(&backend),
            Some(Side::Backend) => reset_on_close(&client),
            None => {}
        }
        traffic.ended(broken)
    }
}

/// One direction.
struct Direction<'t> {
    /// Bytes that were read; those from `sent` on are still to be written. Unallocated when idle.
    buffer: Vec<u8>,
    sent: usize,
    next_size: usize,
    carried: &'t AtomicU64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The source is done; what is pending goes out, then the half-close.
    Closing,
    Done,
}

/// Which end of a direction broke.
enum Break {
    Source,
    Target,
    /// The target ended in order and takes no more.
    Deaf,
}

impl Break {
    /// The side that broke, in a direction whose source is `source`.
    const fn side(&self, source: Side) -> Side {
        match (self, source) {
            (Self::Source, Side::Client) | (Self::Target | Self::Deaf, Side::Backend) => {
                Side::Client
            }
            (Self::Source, Side::Backend) | (Self::Target | Self::Deaf, Side::Client) => {
                Side::Backend
            }
        }
    }
}

impl<'t> Direction<'t> {
    const fn new(early: Vec<u8>, carried: &'t AtomicU64) -> Self {
        Self { buffer: early, sent: 0, next_size: SMALL, carried, state: State::Open }
    }

    /// Ends the direction: nobody takes what is left of it.
    fn give_up(&mut self) {
        (self.buffer, self.sent, self.state) = (Vec::new(), 0, State::Done);
    }

    /// Moves what can be moved. Fair to other tasks through tokio's budget, which the readiness
    /// calls spend.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
        to: &TcpStream,
    ) -> Poll<Result<(), Break>> {
        loop {
            ready!(self.poll_flush(cx, to))?;
            match self.state {
                State::Open => {}
                State::Closing => {
                    self.state = State::Done;
                    half_close(to);
                    return Poll::Ready(Ok(()));
                }
                State::Done => return Poll::Ready(Ok(())),
            }
            // Asked first, so that who waits has no buffer.
            let ready = from.as_ref().poll_read_ready(cx).map_err(|_| Break::Source)?;
            if ready.is_pending() || self.poll_read(cx, from)?.is_pending() {
                spare::give_back(&mut self.buffer);
                self.sent = 0;
                return Poll::Pending;
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<Result<(), Break>> {
        while self.sent < self.buffer.len() {
            match to.try_write(&self.buffer[self.sent..]) {
                Ok(n) => {
                    self.carried.fetch_add(n as u64, Relaxed);
                    self.sent += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(to.poll_write_ready(cx)).map_err(|_| Break::Target)?;
                }
                // Linux says EPIPE where the peer's FIN came before its reset, else ECONNRESET.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return Poll::Ready(Err(Break::Deaf));
                }
                Err(_) => return Poll::Ready(Err(Break::Target)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads through tokio's own way, which knows that a short read has taken all there is: to ask
    /// the kernel once more costs as much as the read.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut ReadHalf<'_>,
    ) -> Poll<Result<(), Break>> {
        self.buffer.clear();
        self.sent = 0;
        spare::reserve(&mut self.buffer, self.next_size);
        let read = ready!(poll_read_buf(Pin::new(from), cx, &mut self.buffer));
        match read.map_err(|_| Break::Source)? {
            0 => self.state = State::Closing,
            n if n >= self.next_size => self.next_size = (self.next_size * GROWTH).min(LARGE),
            _ => {}
        }
        Poll::Ready(Ok(()))
    }
}

fn half_close(to: &TcpStream) {
    // Fails when the other side is gone, which its own direction reports.
    let _ = socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::io::pair;

    /// client <-> (near, far) <-> backend, with `carry` in the middle.
    async fn world(early: Early) -> (TcpStream, TcpStream, impl Future<Output = Carriage>) {
        let traffic: &'static Traffic = Box::leak(Box::default());
        let (client, near) = pair().await;
        let (far, backend) = pair().await;
        (client, backend, carry(near, far, early, traffic))
    }

    #[tokio::test]
    async fn half_close_keeps_the_other_direction() {
        let early = Early { up: "GET ".into(), down: "hello ".into() };
        let (mut client, mut backend, carriage) = world(early).await;
        let talk = async {
            client.write_all(b"x").await.unwrap();
            client.shutdown().await.unwrap();
            let mut got = String::new();
            backend.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "GET x");
            backend.write_all(b"world").await.unwrap();
            drop(backend);
            let mut got = String::new();
            client.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "hello world");
        };
        let (carriage, ()) = tokio::join!(carriage, talk);
        assert_eq!(carriage, Carriage { up: 5, down: 11, broken: None });
    }

    #[tokio::test]
    async fn a_farewell_that_comes_too_late_breaks_nothing() {
        let (mut client, mut backend, carriage) = world(Early::default()).await;
        backend.write_all(b"all of it").await.unwrap();
        drop(backend);
        // Both writes are there before the answer is read; the first of them is met by a reset.
        client.write_all(b"bye").await.unwrap();
        let talk = async {
            let mut got = String::new();
            client.read_to_string(&mut got).await.unwrap();
            client.write_all(b"bye").await.ok();
            drop(client);
            got
        };
        let (carriage, got) = tokio::join!(carriage, talk);
        assert_eq!((got.as_str(), carriage.broken), ("all of it", None));
    }

    #[tokio::test]
    async fn a_reset_stays_a_reset_on_both_sides() {
        for from in [Side::Client, Side::Backend] {
            let (client, backend, carriage) = world(Early::default()).await;
            let (breaker, mut witness) = match from {
                Side::Client => (client, backend),
                Side::Backend => (backend, client),
            };
            reset_on_close(&breaker);
            drop(breaker);
            assert_eq!(carriage.await.broken, Some(from));
            let error = witness.read(&mut [0]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{from:?}");
        }
    }

    #[tokio::test]
    async fn bulk_in_both_directions_arrives_whole() {
        const N: usize = 20 << 20;
        let (client, backend, carriage) = world(Early::default()).await;
        let drive = |stream: TcpStream, seed: u8| async move {
            let (mut read, mut write) = stream.into_split();
            let send = async move {
                for i in 0..N / 65536 {
                    write.write_all(&[seed ^ i as u8; 65536]).await.unwrap();
                }
            };
            let receive = async move {
                let mut sum = 0;
                let mut buf = vec![0; 65536];
                for i in 0..N / 65536 {
                    read.read_exact(&mut buf).await.unwrap();
                    assert!(buf.iter().all(|b| *b == seed ^ 0xff ^ i as u8));
                    sum += buf.len();
                }
                (sum, read.read(&mut buf).await.unwrap())
            };
            tokio::join!(send, receive).1
        };
        let ((a, b), carriage) = tokio::join!(
            async { tokio::join!(drive(client, 7), drive(backend, 7 ^ 0xff)) },
            carriage
        );
        assert_eq!((a, b), ((N, 0), (N, 0)));
        assert_eq!(carriage, Carriage { up: N as u64, down: N as u64, broken: None });
    }
}
