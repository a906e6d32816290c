//! What a request's body is read from: a client's connection, another node that passes it on, or the
//! embedding application.

use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::link::Inbound;

/// See the module.
pub(super) enum Payload {
    /// A client's connection.
    Client(Incoming),
    /// Another node.
    Link(Inbound),
    /// The embedding application.
    Application(UnsyncBoxBody<Bytes, BoxError>),
}

/// An application's body in one kind of pieces. It is as long as it was, which a mapped body would not
/// say any more.
struct Flat<B>(Pin<Box<B>>);

impl<B> http_body::Body for Flat<B>
where
    B: http_body::Body<Error: Into<BoxError>>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(self.0.as_mut().poll_frame(cx));
        let flat = |mut data: B::Data| data.copy_to_bytes(data.remaining()); // free for `Bytes`
        Poll::Ready(frame.map(|frame| frame.map(|f| f.map_data(flat)).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The next piece of a payload, or whose fault it is that there is none.
type Piece = Result<Frame<Bytes>, (Fault, BoxError)>;

/// Any error, as hyper takes it.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a client broke its own request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It went away in the middle.
    Gone,
    /// What it sent is no body.
    Malformed,
    /// It is larger than may be.
    TooLarge,
}

impl Fault {
    fn of(error: &hyper::Error) -> Self {
        let source = std::error::Error::source(error);
        let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
        match io.map(std::io::Error::kind) {
            Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => Self::Malformed,
            Some(_) | None => Self::Gone,
        }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client(_) => "Client",
            Self::Link(_) => "Link",
            Self::Application(_) => "Application",
        })
    }
}

impl Payload {
    pub(super) fn of_application<B>(inner: B) -> Self
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        Self::Application(Flat(Box::pin(inner)).boxed_unsync())
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self {
            Self::Client(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| (Fault::of(&error), BoxError::from(error))),
            // A client there that breaks its request, and a way that breaks, look alike.
            Self::Link(body) => {
                Pin::new(body).poll_frame(cx).map_err(|error| (Fault::Gone, error.into()))
            }
            Self::Application(body) => {
                Pin::new(body).poll_frame(cx).map_err(|error| (Fault::Gone, error))
            }
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Link(body) => body.is_end_stream(),
            Self::Application(body) => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Link(body) => body.size_hint(),
            Self::Application(body) => body.size_hint(),
        }
    }
}
