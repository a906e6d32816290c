//! What of a request's body comes later than its head: passed on piece by piece, while its Backend may
//! answer already. Watches whether the client is still there, too.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::forward::http::plain::Wire;
use crate::forward::http::plain::client::{Client, Gone};
use crate::forward::http::upload::Uploaded;

/// A client whose request is under way.
pub(super) struct Upload<'c> {
    pub(super) client: &'c mut Wire,
    /// Bytes of the body that the client has still to say.
    left: u64,
    /// What it said last; from `sent` on it is still to be passed on.
    piece: Vec<u8>,
    sent: usize,
    /// The Backend takes no more.
    is_refused: bool,
    uploaded: Arc<Uploaded>,
}

impl<'c> Upload<'c> {
    /// `left` bytes are to come.
    pub(super) fn new(client: &'c mut Wire, left: u64, uploaded: Arc<Uploaded>) -> Self {
        uploaded.whole.store(left == 0, Ordering::Release);
        client.expect(left);
        Self { client, left, piece: Vec::new(), sent: 0, is_refused: false, uploaded }
    }

    fn passed(&mut self) {
        self.uploaded.bytes.fetch_add(self.sent as u64, Ordering::Relaxed);
        self.piece.clear();
        self.sent = 0;
        self.uploaded.whole.store(self.left == 0, Ordering::Release);
    }

    /// Takes the body's part of what the client said.
    fn take(&mut self) {
        let unread = &mut self.client.unread;
        let bytes = unread.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if bytes == unread.len() {
            std::mem::swap(unread, &mut self.piece);
        } else {
            self.piece.extend(unread.drain(..bytes));
        }
        self.left -= bytes as u64;
    }
}

impl Client for Upload<'_> {
    fn has_left(&mut self, cx: &mut Context<'_>) -> bool {
        self.client.has_left(cx)
    }

    fn is_whole(&self) -> bool {
        self.left == 0 && self.piece.is_empty()
    }

    fn poll(&mut self, cx: &mut Context<'_>, backend: &mut Wire) -> Result<(), Gone> {
        loop {
            if self.is_whole() || self.is_refused {
                return if self.client.has_left(cx) { Err(Gone) } else { Ok(()) };
            }
            match backend.poll_write(cx, &self.piece, &mut self.sent) {
                Poll::Ready(Ok(())) => self.passed(),
                // What it has said before may be an answer.
                Poll::Ready(Err(_)) => self.is_refused = true,
                // It is slow; a client that leaves meanwhile is noticed when it is not any more.
                Poll::Pending => return Ok(()),
            }
            if self.left == 0 || self.is_refused {
                continue;
            }
            if self.client.unread.is_empty() {
                match self.client.poll_read(cx) {
                    Poll::Ready(Ok(read)) if read > 0 => {}
                    Poll::Ready(Ok(_) | Err(_)) => return Err(Gone),
                    Poll::Pending => return Ok(()),
                }
            }
            self.take();
        }
    }
}
