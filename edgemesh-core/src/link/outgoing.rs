//! What we say on an exchange: the first Message, then whatever follows it.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::Reason;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;

use crate::link::error::{Cut, LinkError};
use crate::link::exchange::Exchange;
use crate::link::pipe::Outlet;
use crate::link::{BoxError, Inbound, REFUSAL_TRAILER};

/// What follows the opening Message, or the answer to it.
#[derive(Debug, Default)]
pub enum Rest {
    /// Nothing: the Message is the end.
    #[default]
    Nothing,
    /// A body. An error of it resets the exchange with CANCEL, unless it is a [`LinkError`].
    Body(UnsyncBoxBody<Bytes, BoxError>),
    /// What came on another exchange, passed on as it came.
    Inbound(Inbound),
    /// What is written to a [`Writer`](crate::link::Writer).
    Written(Outlet),
}

impl Rest {
    /// Any body.
    pub fn of<B>(body: B) -> Self
    where
        B: Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        if body.is_end_stream() {
            return Self::Nothing;
        }
        let body = body.map_err(Into::into).map_frame(|frame| {
            frame.map_data(|mut data| data.copy_to_bytes(data.remaining())) // free for `Bytes`
        });
        Self::Body(body.boxed_unsync())
    }

    /// Whether nothing more comes.
    pub fn is_end(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Body(body) => body.is_end_stream(),
            Self::Inbound(inbound) => inbound.is_end_stream(),
            Self::Written(outlet) => outlet.is_end(),
        }
    }

    fn belongs_to(&self, exchange: &Arc<Exchange>) {
        match self {
            Self::Written(outlet) => outlet.belongs_to(exchange),
            Self::Nothing | Self::Body(_) | Self::Inbound(_) => {}
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let frame = match self {
            Self::Nothing => return Poll::Ready(None),
            Self::Body(body) => ready!(Pin::new(body).poll_frame(cx)).map(|f| f.or_else(ended_by)),
            Self::Inbound(inbound) => {
                let frame = ready!(Pin::new(inbound).poll_frame(cx));
                frame.map(|frame| frame.or_else(|error| ended(&error)))
            }
            Self::Written(outlet) => {
                return outlet.poll(cx).map(|bytes| bytes.map(|bytes| bytes.map(Frame::data)));
            }
        };
        Poll::Ready(frame)
    }
}

type Next = Option<Result<Frame<Bytes>, Cut>>;

/// How a body of the application that broke ends the exchange.
fn ended_by(error: BoxError) -> Result<Frame<Bytes>, Cut> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<LinkError>() {
            return ended(error);
        }
        cause = error.source();
    }
    Err(Cut::new(Reason::CANCEL, error.to_string()))
}

/// How a broken exchange ends the one that it is passed on to: with the label in trailers where
/// there is one, else reset.
fn ended(error: &LinkError) -> Result<Frame<Bytes>, Cut> {
    match error.refusal().map(HeaderValue::from_str) {
        Some(Ok(label)) => {
            Ok(Frame::trailers(HeaderMap::from_iter([(REFUSAL_TRAILER.clone(), label)])))
        }
        Some(Err(_)) | None => Err(Cut::new(error.reason(), error.to_string())),
    }
}

/// A body for hyper.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Until hyper took it.
    opening: Option<Bytes>,
    rest: Rest,
    /// Where we open the exchange.
    opens: Option<Arc<Exchange>>,
}

impl Outgoing {
    /// Of an exchange that we open.
    pub(super) fn opens(opening: Bytes, rest: Rest, exchange: &Arc<Exchange>) -> Self {
        rest.belongs_to(exchange);
        Self { opening: Some(opening), rest, opens: Some(exchange.clone()) }
    }

    /// Of one that the other side opened.
    pub(super) fn answers(opening: Bytes, rest: Rest, exchange: &Arc<Exchange>) -> Self {
        rest.belongs_to(exchange);
        Self { opening: Some(opening), rest, opens: None }
    }

    /// What was to follow, where nothing left.
    pub(super) fn into_rest(self) -> Rest {
        self.rest
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Next> {
        if let Some(opening) = self.opening.take() {
            if let Some(exchange) = &self.opens {
                exchange.take();
                exchange.makes_a_task();
            }
            return Poll::Ready(Some(Ok(Frame::data(opening))));
        }
        self.rest.poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.opening.is_none() && self.rest.is_end()
    }

    /// Never exact: hyper would make a header of it that nobody reads.
    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
