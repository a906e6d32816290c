//! What the other side says after its first Message: bytes as they came, then trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::link::REFUSAL_TRAILER;
use crate::link::error::{Failure, LinkError};
use crate::link::exchange::Exchange;

/// Bytes after the first Message, then trailers. Dropped before its end, it gives the exchange up:
/// the other side sees CANCEL (an answer that is under way against an unread request goes on).
#[derive(Debug)]
pub struct Inbound {
    /// What came in one piece with the first Message.
    first: Bytes,
    incoming: Incoming,
    /// Where we opened it.
    exchange: Option<Arc<Exchange>>,
    ended: bool,
}

impl Inbound {
    pub(super) const fn new(
        first: Bytes,
        incoming: Incoming,
        exchange: Option<Arc<Exchange>>,
    ) -> Self {
        Self { first, incoming, exchange, ended: false }
    }

    /// What came with the first Message.
    pub(super) fn prepend(&mut self, first: Bytes) {
        self.first = first;
    }

    /// The next bytes, never none; `None` = the end. Trailers are skipped.
    ///
    /// # Errors
    /// When the other side breaks off; that is never a clean end.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, LinkError>>> {
        loop {
            match ready!(Pin::new(&mut *self).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(bytes) => return Poll::Ready(Some(Ok(bytes))),
                    Err(_trailers) => {}
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }

    fn checked(&mut self, frame: Option<Result<Frame<Bytes>, hyper::Error>>) -> Next {
        match frame {
            Some(Ok(frame)) => {
                let Some(trailers) = frame.trailers_ref() else { return Some(Ok(frame)) };
                self.ended = true;
                let refusal = trailers.get(&REFUSAL_TRAILER).map(|label| label.as_bytes());
                match refusal.map(String::from_utf8_lossy) {
                    Some(label) => Some(Err(LinkError::refused(&label))),
                    None if trailers.is_empty() => None,
                    None => Some(Ok(frame)),
                }
            }
            Some(Err(error)) => {
                self.ended = true;
                Some(Err(match &self.exchange {
                    Some(exchange) => exchange.broken(error),
                    None => LinkError::of_hyper(error, false),
                }))
            }
            // hyper takes a reset, and a GOAWAY, with NO_ERROR for an end; h2 knows better.
            None => {
                self.ended = true;
                let what = "the other side broke the exchange off in silence";
                let cut = || LinkError::new(Failure::Broken, what);
                if self.incoming.is_end_stream() { None } else { Some(Err(cut())) }
            }
        }
    }
}

type Next = Option<Result<Frame<Bytes>, LinkError>>;

impl Body for Inbound {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        Poll::Ready(self.checked(frame))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && (self.ended || self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        if self.incoming.is_end_stream() {
            return SizeHint::with_exact(self.first.len() as u64);
        }
        SizeHint::default()
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take()
            && !self.ended
            && !self.incoming.is_end_stream()
        {
            exchange.give_up();
        }
    }
}
