//! Keeps the beginning of a request's body while it streams through, so that it can be sent again.
//!
//! The client's body is read once. The attempt that may read it is the latest one: what an earlier
//! attempt read comes first, from what was kept, then the rest from the client. Nothing waits for
//! the copy, and a body past [`REPLAY_LIMIT`] passes as if it had never been kept.

use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

use crate::forward::http::payload::Payload;
use crate::forward::http::upload::{UploadError, Uploaded, read};

/// Longest body, in bytes, that is kept for a retry.
pub(super) const REPLAY_LIMIT: u64 = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Tape(Mutex<State>);

#[derive(Debug)]
struct State {
    /// `None` once all of it was read.
    inner: Option<Payload>,
    /// All that was read so far; `None` = too much, or nobody wants it.
    kept: Option<Vec<u8>>,
    /// What came at the end.
    trailers: Option<HeaderMap>,
    /// The latest attempt; earlier ones read no more.
    attempt: u8,
    /// What was kept before that attempt is still to come.
    behind: bool,
    /// No further attempt will follow it.
    last: bool,
    /// Of that attempt, while it waits.
    waiting: Option<Waker>,
}

/// How far one attempt has read.
#[derive(Debug, Default)]
pub(super) struct Reading {
    attempt: u8,
    /// The trailers were kept before it began, and are still to come.
    trailers: bool,
}

impl Tape {
    pub(super) fn new(inner: Payload) -> Self {
        Self(Mutex::new(State {
            inner: Some(inner),
            kept: Some(Vec::new()),
            trailers: None,
            attempt: 0,
            behind: false,
            last: false,
            waiting: None,
        }))
    }

    /// Whether [`Tape::rewind`] would succeed.
    pub(super) fn is_kept(&self) -> bool {
        let state = self.0.lock();
        state.kept.is_some() && !state.last
    }

    /// Keeps no more, and frees what was kept as soon as the latest attempt has it.
    pub(super) fn forget(&self) {
        let mut state = self.0.lock();
        state.last = true;
        if !state.behind {
            state.kept = None;
        }
    }

    /// From the beginning, for another attempt; `None` where not all was kept.
    pub(super) fn rewind(&self) -> Option<Reading> {
        let mut state = self.0.lock();
        if state.last {
            return None;
        }
        state.behind = !state.kept.as_ref()?.is_empty();
        state.attempt = state.attempt.wrapping_add(1);
        if let Some(waiting) = state.waiting.take() {
            waiting.wake(); // to find that it is superseded, and let go of its connection
        }
        Some(Reading { attempt: state.attempt, trailers: state.trailers.is_some() })
    }

    pub(super) fn poll(
        &self,
        reading: &mut Reading,
        uploaded: &Uploaded,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let state = &mut *self.0.lock();
        if state.attempt != reading.attempt {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        if std::mem::take(&mut state.behind) {
            let kept = if state.last { state.kept.take() } else { state.kept.clone() };
            return Poll::Ready(Some(Ok(Frame::data(kept.unwrap_or_default().into()))));
        }
        let Some(inner) = &mut state.inner else {
            let trailers = std::mem::take(&mut reading.trailers).then(|| state.trailers.clone());
            return Poll::Ready(trailers.flatten().map(|t| Ok(Frame::trailers(t))));
        };
        state.waiting = Some(cx.waker().clone());
        let frame = ready!(read(inner, uploaded, cx));
        let over = inner.is_end_stream();
        match &frame {
            Some(Ok(frame)) => state.keep(frame),
            Some(Err(_)) => state.kept = None,
            None => {}
        }
        if over || frame.is_none() {
            state.inner = None;
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end(&self, reading: &Reading) -> bool {
        let state = self.0.lock();
        let over = state.inner.as_ref().is_none_or(Payload::is_end_stream);
        state.attempt == reading.attempt && over && !state.behind && !reading.trailers
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        let state = self.0.lock();
        let rest = state.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Payload::size_hint);
        let behind = state.kept.as_ref().filter(|_| state.behind).map_or(0, Vec::len) as u64;
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + behind);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + behind);
        }
        hint
    }
}

impl State {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let Some(kept) = &mut self.kept else { return };
        if let Some(data) = frame.data_ref() {
            if kept.len() as u64 + data.len() as u64 > REPLAY_LIMIT {
                self.kept = None;
            } else {
                kept.extend_from_slice(data);
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }
}
