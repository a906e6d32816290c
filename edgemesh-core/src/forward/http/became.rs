//! The client's side of a connection that stopped being HTTP: a socket, TLS on one, or a stream of
//! HTTP/2.
//!
//! One that is dropped before its end is reset, so that half of what a Backend says is never taken
//! for all of it. hyper ends a stream of HTTP/2 in order in any case, and reads a reset as an end:
//! so what sends for such a stream is taken out of hyper's hands ([`Streams`]) and driven here.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;

use crate::forward::http::turn::Client;
use crate::io::Prefixed;
use crate::listen::reset_on_close;

/// What sends for a stream of HTTP/2.
type Sender = Pin<Box<dyn Future<Output = ()> + Send>>;

tokio::task_local! {
    /// Who wants what sends for the stream whose task this is.
    static WANTED: Cell<Option<oneshot::Sender<Sender>>>;
}

/// Runs hyper's tasks of an HTTP/2 connection: one a stream. The only task that such a task starts
/// is what sends once the stream is a tunnel, and whoever carries the tunnel drives that.
#[derive(Clone, Debug)]
pub(super) struct Streams(pub(super) TaskTracker);

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        match WANTED.try_with(Cell::take).ok().flatten() {
            // Nobody carries it any more: dropped, it is reset.
            Some(wanted) => drop(wanted.send(Box::pin(async { drop(future.await) }))),
            None => drop(self.0.spawn(WANTED.scope(Cell::new(None), future))),
        }
    }
}

/// The client's side, once its request was granted.
pub(super) struct Granted {
    upgraded: OnUpgrade,
    sender: Option<oneshot::Receiver<Sender>>,
}

/// The client's side.
pub(super) enum Became {
    /// A socket, and what it said already.
    Socket(TcpStream, Vec<u8>),
    /// TLS on a socket.
    Secured(Box<Secured>),
    /// A stream of HTTP/2, and what ends when its client resets it.
    Stream(Stream, Gone),
}

impl Granted {
    /// The side of `request`, whose answer grants what it wants. In the last moment before that
    /// answer: hyper hands over what sends as soon as it has it.
    pub(super) fn of(request: &mut Request<Incoming>) -> Self {
        let upgraded = hyper::upgrade::on(&mut *request);
        let sender = (request.version() == Version::HTTP_2).then(|| {
            let (wanted, sender) = oneshot::channel();
            // Without a task of its own a stream is hyper's: it ends, but is never reset.
            let _ = WANTED.try_with(|slot| slot.set(Some(wanted)));
            sender
        });
        Self { upgraded, sender }
    }

    /// Waits until the client's side is no HTTP any more. `None` = it is gone.
    pub(super) async fn became(self) -> Option<Became> {
        let upgraded = self.upgraded.await.ok()?;
        match self.sender {
            None => Some(Became::of(upgraded)),
            Some(sender) => Some(Became::stream(upgraded, sender.await.ok())),
        }
    }
}

impl Became {
    /// What an HTTP/1 connection became.
    pub(super) fn of(upgraded: Upgraded) -> Self {
        let upgraded = match upgraded.downcast::<TokioIo<Client>>() {
            Ok(Parts { io, read_buf, .. }) => {
                let (unread, socket) = io.into_inner().into_parts();
                return Self::Socket(socket, [&read_buf[..], &unread].concat());
            }
            Err(upgraded) => upgraded,
        };
        match upgraded.downcast::<TokioIo<Client<TlsStream<TcpStream>>>>() {
            Ok(Parts { io, read_buf, .. }) => {
                let (unread, stream) = io.into_inner().into_parts();
                let early = Bytes::from([&read_buf[..], &unread].concat());
                Self::Secured(Box::new(Secured {
                    inner: Prefixed::new(early, stream),
                    ended: false,
                }))
            }
            Err(upgraded) => Self::stream(upgraded, None),
        }
    }

    fn stream(upgraded: Upgraded, sender: Option<Sender>) -> Self {
        let sending = Arc::new(Mutex::new(Sending { sender, ended: false }));
        let gone = Gone(sending.clone());
        Self::Stream(Stream { inner: TokioIo::new(upgraded), sending }, gone)
    }
}

/// TLS on a client's socket.
pub(super) struct Secured {
    inner: Prefixed<TlsStream<TcpStream>>,
    /// Its last word is said.
    ended: bool,
}

impl Drop for Secured {
    fn drop(&mut self) {
        if !self.ended {
            reset_on_close(self.inner.get_ref().get_ref().0);
        }
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
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
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        self.ended = true;
        Poll::Ready(Ok(()))
    }
}

/// A stream of HTTP/2. Somebody has to await its [`Gone`] for as long as it is written to.
pub(super) struct Stream {
    inner: TokioIo<Upgraded>,
    sending: Arc<Mutex<Sending>>,
}

/// Drives what sends for a stream, and ends when the client resets it.
pub(super) struct Gone(Arc<Mutex<Sending>>);

/// Locked by the one task that carries the tunnel.
struct Sending {
    /// `None` = it is over.
    sender: Option<Sender>,
    /// Its last word was said: its end is no reset.
    ended: bool,
}

impl Sending {
    /// Sends on. True = the client has reset the stream.
    fn drive(&mut self, cx: &mut Context<'_>) -> bool {
        if let Some(sender) = &mut self.sender
            && sender.as_mut().poll(cx).is_ready()
        {
            self.sender = None;
            return !self.ended;
        }
        false
    }
}

impl Gone {
    /// Only ever ends by a reset.
    pub(super) async fn wait(self) {
        poll_fn(|cx| match self.0.lock().drive(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Before hyper's half, whose end it would take for an end in order.
        self.sending.lock().sender = None;
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let is_end = buf.filled().len() == before && buf.remaining() > 0;
        match is_end && self.sending.lock().drive(cx) {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            false => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.inner).poll_write(cx, buf));
        // Now, and not when the task is polled next: nobody else wakes it for this.
        match self.sending.lock().drive(cx) {
            true => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            false => Poll::Ready(written),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(())) // what was written is on its way
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sending.lock().ended = true;
        // Closes the way to what sends, which then says so, and is asked whether it could.
        let _ = Pin::new(&mut self.inner).poll_shutdown(cx)?;
        self.sending.lock().drive(cx);
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
