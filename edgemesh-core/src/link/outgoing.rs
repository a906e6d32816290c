//! What we say on an exchange: the first Message, then whatever follows it.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use h2::Reason;
use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
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
}

/// What follows, except what is written.
#[derive(Debug)]
enum Source {
    Body(UnsyncBoxBody<Bytes, BoxError>),
    Inbound(Inbound),
}

type Next = Option<Result<Frame<Bytes>, Cut>>;

impl Source {
    fn is_end(&self) -> bool {
        match self {
            Self::Body(body) => body.is_end_stream(),
            Self::Inbound(inbound) => inbound.is_end_stream(),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let frame = match self {
            Self::Body(body) => ready!(Pin::new(body).poll_frame(cx)).map(|f| f.or_else(ended_by)),
            Self::Inbound(inbound) => {
                let frame = ready!(Pin::new(inbound).poll_frame(cx));
                frame.map(|frame| frame.or_else(|error| ended(&error)))
            }
        };
        Poll::Ready(frame)
    }
}

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

/// Says the first Message, as it leaves, and of `rest` what is there; the [`Pump`] says what is not.
pub(super) fn say(exchange: &Arc<Exchange>, first: Vec<u8>, rest: Rest) -> Option<Pump> {
    let source = match rest {
        Rest::Nothing => {
            exchange.send(first.into(), true);
            return None;
        }
        Rest::Written(outlet) => {
            exchange.send(first.into(), false);
            outlet.goes_to(exchange);
            return None;
        }
        Rest::Body(body) => Source::Body(body),
        Rest::Inbound(inbound) => Source::Inbound(inbound),
    };
    let mut pump = Pump { exchange: exchange.clone(), source };
    pump.begin(first).then_some(pump)
}

/// Passes on what follows, as fast as the other side takes it.
#[derive(Debug)]
pub(super) struct Pump {
    exchange: Arc<Exchange>,
    source: Source,
}

/// Fields that say something of one connection of HTTP/1, and that HTTP/2 takes nowhere.
const OF_ONE_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// What is not longer than this goes out in one piece with the Message before it.
const JOINED: usize = 4 * 1024;

impl Pump {
    /// Whether there is more to say than the first Message and what is there already.
    fn begin(&mut self, mut first: Vec<u8>) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        let next = match self.source.is_end() {
            true => Poll::Ready(None),
            false => self.source.poll(cx),
        };
        let next = match next {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if data.len() <= JOINED => {
                    first.extend_from_slice(&data);
                    let is_end = self.source.is_end();
                    self.exchange.send(first.into(), is_end);
                    return !is_end && Pin::new(self).poll(cx).is_pending();
                }
                Ok(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(trailers) => Poll::Ready(Some(Ok(trailers))),
            },
            other => other,
        };
        self.exchange.send(first.into(), matches!(next, Poll::Ready(None)));
        match next {
            Poll::Ready(Some(next)) => !self.say(next) && Pin::new(self).poll(cx).is_pending(),
            Poll::Ready(None) => false,
            Poll::Pending => true,
        }
    }

    /// Whether that was all.
    fn say(&mut self, next: Result<Frame<Bytes>, Cut>) -> bool {
        match next.map(Frame::into_data) {
            Ok(Ok(data)) => {
                let is_end = self.source.is_end();
                self.exchange.send(data, is_end);
                is_end
            }
            Ok(Err(frame)) => {
                let mut trailers = frame.into_trailers().unwrap_or_default();
                for name in &OF_ONE_CONNECTION {
                    trailers.remove(name);
                }
                self.exchange.finish_with(trailers);
                true
            }
            Err(cut) => {
                tracing::debug!("an exchange is broken off: {}", cut.why);
                self.exchange.reset(cut.reason);
                true
            }
        }
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if ready!(self.exchange.poll_room(cx)).is_err() {
                return Poll::Ready(()); // nobody takes it any more
            }
            let Poll::Ready(next) = self.source.poll(cx) else {
                return self.exchange.poll_mute(cx);
            };
            match next {
                Some(next) => {
                    if self.say(next) {
                        return Poll::Ready(());
                    }
                }
                None => {
                    self.exchange.finish();
                    return Poll::Ready(());
                }
            }
        }
    }
}
