//! Bodies on their way through: counted, watched for their end, never held.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::forward::http::exchange::{Ending, How};

/// The body of an answer to the client.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    /// The mesh's own words; `None` once they were said.
    Text(Option<Bytes>),
    /// What the Backend answers.
    Download(Box<Download>),
}

/// A Backend's body, and what is due when it ends.
#[derive(Debug)]
pub(super) struct Download {
    inner: Incoming,
    /// `None` once the exchange is settled.
    ending: Option<Ending>,
    bytes: u64,
}

impl Body {
    /// Nothing.
    pub(super) const fn empty() -> Self {
        Self(Kind::Text(None))
    }

    /// One line of the mesh's own.
    pub(super) fn text(text: String) -> Self {
        Self(Kind::Text(Some(text.into())))
    }

    /// Streams `inner`; `ending` is settled when it ends, breaks or is dropped.
    pub(super) fn download(inner: Incoming, ending: Ending) -> Self {
        Self(Kind::Download(Box::new(Download { inner, ending: Some(ending), bytes: 0 })))
    }
}

/// Why a Backend's body ends before its end; the client's connection or stream is cut, so that
/// half of a body is never taken for a whole one.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The Backend broke it.
    #[error("the backend's answer broke off")]
    Backend(#[source] hyper::Error),
    /// The request time-out of the Policy ran out.
    #[error("the backend's answer did not end in time")]
    TimedOut,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Kind::Download(download) => download.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Text(text) => text.is_none(),
            Kind::Download(download) => download.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Text(None) => SizeHint::with_exact(0),
            Kind::Text(Some(text)) => SizeHint::with_exact(text.len() as u64),
            Kind::Download(download) => download.inner.size_hint(),
        }
    }
}

impl Download {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(ending) = &mut self.ending
            && ending.is_over(cx)
        {
            self.settle(How::TimedOut);
            return Poll::Ready(Some(Err(BodyError::TimedOut)));
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                } else if let (Some(trailers), Some(ending)) =
                    (frame.trailers_ref(), &mut self.ending)
                {
                    ending.saw_trailers(trailers);
                }
            }
            Some(Err(_)) => self.settle(How::Broken),
            None => self.settle(How::Whole),
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Backend)))
    }

    fn settle(&mut self, how: How) {
        if let Some(ending) = self.ending.take() {
            ending.settle(how, self.bytes);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // hyper does not ask again after the last frame of a body of known length.
        let whole = self.inner.is_end_stream();
        self.settle(if whole { How::Whole } else { How::Dropped });
    }
}

/// What is known of a client's body while others hold it.
#[derive(Debug, Default)]
pub(super) struct Uploaded {
    pub(super) bytes: AtomicU64,
    /// All of it was passed on.
    pub(super) whole: AtomicBool,
    /// Why the client broke it, if it did. A Backend is not to blame for what follows from that.
    pub(super) broken: OnceLock<Fault>,
}

/// How a client broke its own request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It went away in the middle.
    Gone,
    /// What it sent is no body.
    Malformed,
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

impl Uploaded {
    /// Whether all of it was passed on.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }
}

/// The body of a request to a Backend.
pub(super) struct Upload {
    inner: Option<Payload>,
    uploaded: Arc<Uploaded>,
    /// Holds the body back until the Backend asks for it (`Expect: 100-continue`).
    gate: Option<Gate>,
}

/// What a body of a request is read from.
enum Payload {
    /// A client's connection.
    Client(Incoming),
    /// The embedding application.
    Application(UnsyncBoxBody<Bytes, BoxError>),
}

/// The next piece of a payload, or whose fault it is that there is none.
type Piece = Result<Frame<Bytes>, (Fault, BoxError)>;

/// Any error, as hyper takes it.
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Resolves when the body may be read.
pub(super) type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Upload {
    /// Streams `inner`, which may be empty.
    pub(super) fn new(inner: Incoming) -> (Self, Arc<Uploaded>) {
        let empty = inner.is_end_stream();
        Self::of(Payload::Client(inner), empty)
    }

    /// The same, of the embedding application.
    pub(super) fn of_application<B>(inner: B) -> (Self, Arc<Uploaded>)
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let empty = inner.is_end_stream();
        let inner = inner.map_err(Into::into).map_frame(|frame| {
            frame.map_data(|mut data| data.copy_to_bytes(data.remaining())) // free for `Bytes`
        });
        Self::of(Payload::Application(inner.boxed_unsync()), empty)
    }

    fn of(inner: Payload, empty: bool) -> (Self, Arc<Uploaded>) {
        let uploaded = Arc::new(Uploaded::default());
        uploaded.whole.store(empty, Ordering::Relaxed);
        let inner = (!empty).then_some(inner);
        (Self { inner, uploaded: uploaded.clone(), gate: None }, uploaded)
    }

    /// An empty one, for a request that is sent again.
    pub(super) const fn again(uploaded: Arc<Uploaded>) -> Self {
        Self { inner: None, uploaded, gate: None }
    }

    /// Whether there is nothing to send, so that the request can be repeated.
    pub(super) const fn is_empty(&self) -> bool {
        self.inner.is_none()
    }

    /// What is known of it while others hold it.
    pub(super) fn uploaded(&self) -> Arc<Uploaded> {
        self.uploaded.clone()
    }

    /// Holds the body back until `gate` resolves.
    pub(super) fn wait_for(&mut self, gate: Gate) {
        self.gate = Some(gate);
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("uploaded", &self.uploaded).finish_non_exhaustive()
    }
}

impl Payload {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        match self {
            Self::Client(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(|error| (Fault::of(&error), BoxError::from(error))),
            Self::Application(body) => {
                Pin::new(body).poll_frame(cx).map_err(|error| (Fault::Gone, error))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(body) => body.is_end_stream(),
            Self::Application(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(body) => body.size_hint(),
            Self::Application(body) => body.size_hint(),
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let frame = match ready!(inner.poll_frame(cx)) {
            Some(Err((fault, error))) => {
                let _ = self.uploaded.broken.set(fault); // the first tells
                return Poll::Ready(Some(Err(error)));
            }
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                self.uploaded.bytes.fetch_add(length as u64, Ordering::Relaxed);
                Some(frame)
            }
            None => None,
        };
        if frame.is_none() || self.is_end_stream() {
            self.uploaded.whole.store(true, Ordering::Release);
        }
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Payload::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Some(inner) => inner.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
