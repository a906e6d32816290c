//! What the other side says after its first Message: bytes as they came, then trailers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::link::REFUSAL_TRAILER;
use crate::link::error::{Failure, LinkError};
use crate::link::exchange::Exchange;
use crate::link::received::Received;
use crate::link::unread::Stream;

/// Bytes after the first Message, then trailers. Dropped before its end, an answer is given up: the
/// other side sees CANCEL. A question can be dropped, and its answer goes on.
#[derive(Debug)]
pub struct Inbound {
    /// What was here with the first Message.
    ahead: Option<Result<Frame<Bytes>, h2::Error>>,
    source: Source,
    /// Where it is an answer.
    answers: Option<Arc<Exchange>>,
    ended: bool,
}

#[derive(Debug)]
enum Source {
    /// All of it is here, or as good as here.
    Here(Received),
    /// It goes on, and may be reset where nobody reads it.
    Coming(Arc<Stream>),
}

impl Inbound {
    /// What follows the Message of an answer.
    pub(super) fn of_answer(first: Bytes, received: Received, exchange: Arc<Exchange>) -> Self {
        let mut inbound = Self::of_question(first, received, &exchange);
        inbound.answers = Some(exchange);
        inbound
    }

    /// What follows the Message that opened an exchange.
    pub(super) fn of_question(
        first: Bytes,
        mut received: Received,
        exchange: &Arc<Exchange>,
    ) -> Self {
        // A small body is in the next piece, and that is here too.
        let ahead = match first.is_empty() {
            false => Some(Ok(Frame::data(first))),
            true => match received.poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(frame) => frame,
                Poll::Pending => None,
            },
        };
        let source = match received.is_end_stream() {
            true => Source::Here(received),
            false => Source::Coming(exchange.unread().stream(received, exchange.clone())),
        };
        Self { ahead, source, answers: None, ended: false }
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

    /// All that follows, where it is here already.
    pub fn whole(&self) -> Option<Bytes> {
        match &self.ahead {
            _ if !self.source.is_end_stream() => None,
            None => Some(Bytes::new()),
            Some(frame) => frame.as_ref().ok()?.data_ref().cloned(),
        }
    }

    fn checked(&mut self, frame: Option<Result<Frame<Bytes>, h2::Error>>) -> Next {
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
                Some(Err(match &self.answers {
                    Some(exchange) => exchange.broken(error),
                    None => LinkError::of_body(error),
                }))
            }
            None => {
                self.ended = true;
                None
            }
        }
    }
}

impl Source {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Here(received) => received.is_end_stream(),
            Self::Coming(stream) => stream.is_end_stream(),
        }
    }
}

type Next = Option<Result<Frame<Bytes>, LinkError>>;

impl Body for Inbound {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(frame) = self.ahead.take() {
            return Poll::Ready(self.checked(Some(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let next = match &mut self.source {
            Source::Here(received) => ready!(received.poll_frame(cx)),
            Source::Coming(stream) => match ready!(stream.poll_frame(cx)) {
                Some(next) => next,
                None => {
                    self.ended = true;
                    let what = "not read for so long that others had to wait";
                    return Poll::Ready(Some(Err(LinkError::new(Failure::Broken, what))));
                }
            },
        };
        Poll::Ready(self.checked(next))
    }

    fn is_end_stream(&self) -> bool {
        self.ahead.is_none() && (self.ended || self.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.ahead {
            _ if !self.source.is_end_stream() => SizeHint::default(),
            None => SizeHint::with_exact(0),
            // What is said to be of length 0 is not read, and trailers would be lost.
            Some(Ok(frame)) => frame
                .data_ref()
                .map_or_else(SizeHint::default, |data| SizeHint::with_exact(data.len() as u64)),
            Some(Err(_)) => SizeHint::default(),
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        if let Some(exchange) = self.answers.take()
            && !self.ended
            && !self.source.is_end_stream()
        {
            exchange.give_up();
        }
    }
}
