//! The body of a request on its way to a Backend: counted, and kept only where a retry may want it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::forward::http::payload::Payload;
use crate::forward::http::replay::{REPLAY_LIMIT, Reading, Tape};
use crate::link::Inbound;

pub(super) use crate::forward::http::payload::{BoxError, Fault};

/// What is known of a client's body while others hold it.
#[derive(Debug, Default)]
pub(super) struct Uploaded {
    pub(super) bytes: AtomicU64,
    /// All of it was passed on.
    pub(super) whole: AtomicBool,
    /// Why the client broke it, if it did. A Backend is not to blame for what follows from that.
    pub(super) broken: OnceLock<Fault>,
    /// Most bytes that may pass.
    limit: OnceLock<u64>,
    /// Where it is kept for a retry.
    tape: OnceLock<Box<Tape>>,
}

impl Uploaded {
    /// A body of so many bytes that was passed on as a whole.
    pub(super) fn of_bytes(bytes: u64) -> Self {
        Self { bytes: bytes.into(), whole: true.into(), ..Self::default() }
    }

    /// Whether all of it was passed on.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// Whether it could be sent from its beginning: it is empty, or all of it was kept so far.
    pub(super) fn is_kept(&self) -> bool {
        self.tape.get().is_none_or(|tape| tape.is_kept())
    }

    /// Gives back what was kept: nobody will send it again.
    pub(super) fn forget(&self) {
        if let Some(tape) = self.tape.get() {
            tape.forget();
        }
    }
}

/// Why a request's body ends before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    /// The client broke it.
    #[error("the client's body broke off")]
    Client(#[source] BoxError),
    /// It is larger than may be.
    #[error("the body is too large")]
    TooLarge,
    /// Another attempt sends it now.
    #[error("the request is sent elsewhere")]
    Superseded,
}

/// The body of a request to a Backend.
pub(super) struct Upload {
    source: Source,
    uploaded: Arc<Uploaded>,
    /// Holds the body back until the Backend asks for it (`Expect: 100-continue`).
    gate: Option<Gate>,
}

#[derive(Debug)]
enum Source {
    /// Nothing is to be sent.
    Nothing,
    /// Passes through and is gone.
    Passing(Payload),
    /// Passes through, and is kept in [`Uploaded::tape`].
    Tape(Reading),
}

/// Resolves when the body may be read.
pub(super) type Gate = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Upload {
    /// Streams `inner`, which may be empty.
    pub(super) fn new(inner: Incoming) -> (Self, Arc<Uploaded>) {
        let empty = inner.is_end_stream();
        Self::of(Payload::Client(inner), empty)
    }

    /// The same, of another node that passes the request on.
    pub(super) fn of_link(inner: Inbound) -> (Self, Arc<Uploaded>) {
        let empty = inner.is_end_stream();
        Self::of(Payload::Link(inner), empty)
    }

    /// Nothing is to be sent.
    pub(super) fn nothing() -> (Self, Arc<Uploaded>) {
        let uploaded = Arc::new(Uploaded::of_bytes(0));
        (Self { source: Source::Nothing, uploaded: uploaded.clone(), gate: None }, uploaded)
    }

    /// The same, of the embedding application.
    pub(super) fn of_application<B>(inner: B) -> (Self, Arc<Uploaded>)
    where
        B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
    {
        let empty = inner.is_end_stream();
        Self::of(Payload::of_application(inner), empty)
    }

    fn of(inner: Payload, empty: bool) -> (Self, Arc<Uploaded>) {
        let uploaded = Arc::new(Uploaded::default());
        uploaded.whole.store(empty, Ordering::Relaxed);
        let source = if empty { Source::Nothing } else { Source::Passing(inner) };
        (Self { source, uploaded: uploaded.clone(), gate: None }, uploaded)
    }

    /// Lets at most so many bytes pass. False where it says itself that it is longer: then nothing
    /// is to be sent at all.
    #[must_use]
    pub(super) fn limit(&self, bytes: u64) -> bool {
        let _ = self.uploaded.limit.set(bytes); // once a call
        self.size_hint().lower() <= bytes
    }

    /// Keeps what passes, up to [`REPLAY_LIMIT`], so that it can be sent again. A body that says
    /// that it is longer is not kept at all.
    pub(super) fn keep(&mut self) {
        if matches!(&self.source, Source::Passing(inner) if inner.size_hint().lower() <= REPLAY_LIMIT)
        {
            self.keep_while_unsent();
        }
    }

    /// The same of a body of any length: one that is longer can be sent again as long as nothing of
    /// it was taken.
    pub(super) fn keep_while_unsent(&mut self) {
        if !matches!(self.source, Source::Passing(_)) {
            return;
        }
        if let Source::Passing(inner) = std::mem::replace(&mut self.source, Source::Nothing)
            && self.uploaded.tape.set(Box::new(Tape::new(inner))).is_ok()
        {
            self.source = Source::Tape(Reading::default());
        }
    }

    /// The same body once more, and from now on only this one; `None` where that is not to be had,
    /// since some of it was sent and not kept.
    pub(super) fn again(uploaded: Arc<Uploaded>) -> Option<Self> {
        let source = match uploaded.tape.get() {
            Some(tape) => Source::Tape(tape.rewind()?),
            None => Source::Nothing,
        };
        let empty = matches!(source, Source::Nothing);
        uploaded.whole.store(empty, Ordering::Release);
        Some(Self { source, uploaded, gate: None })
    }

    /// Whether there is nothing to send.
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self.source, Source::Nothing)
    }

    /// Whether it can be sent again, as far as is known now.
    pub(super) const fn is_repeatable(&self) -> bool {
        matches!(self.source, Source::Nothing | Source::Tape(_))
    }

    /// Whether part of it was read from the client.
    pub(super) fn is_begun(&self) -> bool {
        self.uploaded.bytes.load(Ordering::Relaxed) > 0
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
        f.debug_struct("Upload").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Reads the next frame of a client's body and counts it.
pub(super) fn read(
    inner: &mut Payload,
    uploaded: &Uploaded,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
    let frame = ready!(inner.poll_frame(cx));
    Poll::Ready(match frame {
        Some(Ok(frame)) => {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            let so_far = uploaded.bytes.fetch_add(length, Ordering::Relaxed) + length;
            match uploaded.limit.get().is_some_and(|limit| so_far > *limit) {
                true => {
                    let _ = uploaded.broken.set(Fault::TooLarge); // the first tells
                    Some(Err(UploadError::TooLarge))
                }
                false => Some(Ok(frame)),
            }
        }
        Some(Err((fault, error))) => {
            let _ = uploaded.broken.set(fault); // the first tells
            Some(Err(UploadError::Client(error)))
        }
        None => None,
    })
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.gate = None;
        }
        let Self { source, uploaded, .. } = &mut *self;
        let frame = ready!(match (source, uploaded.tape.get()) {
            (Source::Nothing, _) | (Source::Tape(_), None) => return Poll::Ready(None),
            (Source::Passing(inner), _) => read(inner, uploaded, cx),
            (Source::Tape(reading), Some(tape)) => tape.poll(reading, uploaded, cx),
        });
        let broken = matches!(frame, Some(Err(_)));
        if !broken && (frame.is_none() || self.is_end_stream()) {
            self.uploaded.whole.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match (&self.source, self.uploaded.tape.get()) {
            (Source::Nothing, _) | (Source::Tape(_), None) => true,
            (Source::Passing(inner), _) => inner.is_end_stream(),
            (Source::Tape(reading), Some(tape)) => tape.is_end(reading),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.source, self.uploaded.tape.get()) {
            (Source::Nothing, _) | (Source::Tape(_), None) => SizeHint::with_exact(0),
            (Source::Passing(inner), _) => inner.size_hint(),
            (Source::Tape(_), Some(tape)) => tape.size_hint(),
        }
    }
}

/// The body of a request for whoever delivers it outside of the mesh's own connections.
#[derive(Debug)]
pub struct Outgoing(pub(super) Upload);

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
