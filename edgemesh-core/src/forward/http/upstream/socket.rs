//! A Backend's HTTP/1 socket, with a bound on what it may say before its answer begins.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

use crate::io::writes_to_inner;

/// Most, in bytes, that a Backend may say between a request and the end of its answer's head:
/// interim answers (1xx), of which hyper takes any number. Far above what it reads at once, since
/// the beginning of a body may come with the head.
pub(in crate::forward::http) const INTERIM_LIMIT: usize = 2 * 1024 * 1024;
/// From here up nothing is counted.
const ANSWERED: usize = usize::MAX / 2;

/// What a Backend said since it was asked.
#[derive(Debug)]
pub(in crate::forward::http) struct Heard(AtomicUsize);

impl Heard {
    /// A request is about to be sent.
    pub(super) fn asked(&self) {
        self.0.store(0, Relaxed);
    }

    /// The head of its answer is here.
    pub(super) fn answered(&self) {
        self.0.store(ANSWERED, Relaxed);
    }

    fn is_too_much(&self) -> bool {
        (INTERIM_LIMIT..ANSWERED).contains(&self.0.load(Relaxed))
    }
}

/// See the module.
#[derive(Debug)]
pub(in crate::forward::http) struct Socket {
    inner: TcpStream,
    heard: Arc<Heard>,
}

impl Socket {
    pub(super) fn new(inner: TcpStream) -> (Self, Arc<Heard>) {
        let heard = Arc::new(Heard(AtomicUsize::new(0)));
        (Self { inner, heard: heard.clone() }, heard)
    }

    pub(in crate::forward::http) fn into_inner(self) -> TcpStream {
        self.inner
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.heard.is_too_much() {
            let why = "the backend goes on with interim answers";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        self.heard.0.fetch_add(buf.filled().len() - before, Relaxed);
        Poll::Ready(Ok(()))
    }
}

writes_to_inner!(Socket);
