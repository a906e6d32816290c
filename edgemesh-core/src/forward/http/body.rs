//! Bodies of answers on their way through: counted, watched for their end, never held.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::forward::http::ending::{Ending, How};
use crate::forward::http::source::{BodyError, Source};

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
    inner: Source,
    /// `None` once the exchange is settled.
    ending: Option<Ending>,
    bytes: u64,
    /// As the head says: who has so much asks for no more, and the end may still be on its way.
    length: Option<u64>,
    /// It was ended before its end; nothing more comes.
    cut: bool,
    /// Nothing comes after trailers.
    trailed: bool,
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

    /// The mesh's own words; none where a Backend answers.
    pub(super) fn words(&self) -> &[u8] {
        match &self.0 {
            Kind::Text(text) => text.as_deref().unwrap_or_default(),
            Kind::Download(_) => &[],
        }
    }

    /// Streams `inner`; `ending` is settled when it ends, breaks or is dropped.
    pub(super) fn download(inner: Source, length: Option<u64>, ending: Ending) -> Self {
        Self(Kind::Download(Box::new(Download {
            inner,
            ending: Some(ending),
            bytes: 0,
            length,
            cut: false,
            trailed: false,
        })))
    }
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
            Kind::Download(download) => download.cut || download.is_whole(),
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
        if self.cut {
            return Poll::Ready(None);
        }
        if let Some(ending) = &mut self.ending
            && ending.is_over(cx)
        {
            let trailers = ending.late_trailers();
            self.settle(How::TimedOut);
            self.cut = true;
            return Poll::Ready(Some(trailers.map(Frame::trailers).ok_or(BodyError::TimedOut)));
        }
        let frame = ready!(self.inner.poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                } else if let (Some(trailers), Some(ending)) =
                    (frame.trailers_ref(), &mut self.ending)
                {
                    ending.saw_trailers(trailers);
                    self.trailed = true;
                }
            }
            Some(Err(BodyError::TimedOut)) => self.settle(How::TimedOut),
            Some(Err(error)) if error.is_of_the_way() => self.settle(How::Severed),
            Some(Err(_)) => self.settle(How::Broken),
            None => self.settle(How::Whole),
        }
        Poll::Ready(frame)
    }

    /// Whether all of it was passed on.
    fn is_whole(&self) -> bool {
        self.trailed || self.inner.is_end_stream()
    }

    fn settle(&mut self, how: How) {
        if let Some(ending) = self.ending.take() {
            ending.settle(how, self.bytes);
        }
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // hyper does not ask again after the last frame of a body of known length, or after trailers.
        let whole = self.is_whole() || self.length == Some(self.bytes);
        let how = if whole { How::Whole } else { How::Dropped };
        self.settle(how);
    }
}
