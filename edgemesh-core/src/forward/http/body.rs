//! Bodies of answers on their way through: counted, watched for their end, never held.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::forward::http::ending::{Ending, How};
use crate::forward::http::plain::Stream;
use crate::forward::http::source::{BodyError, Source};

/// The body of an answer to the client.
#[derive(Debug)]
pub struct Body(Kind);

#[derive(Debug)]
enum Kind {
    /// All of it is here; `None` once it was said.
    Whole(Option<Bytes>),
    /// What a Backend goes on to answer to a plain request of another node.
    Plain(Box<Stream>),
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
        Self(Kind::Whole(None))
    }

    /// One line of the mesh's own.
    pub(super) fn text(text: String) -> Self {
        Self::whole(text.into())
    }

    /// An answer whose end has come already.
    pub(super) fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// What a Backend goes on to answer.
    pub(super) fn plain(stream: Stream) -> Self {
        Self(Kind::Plain(Box::new(stream)))
    }

    /// What is here as a whole, such as the mesh's own words.
    pub(super) fn words(&self) -> &[u8] {
        match &self.0 {
            Kind::Whole(bytes) => bytes.as_deref().unwrap_or_default(),
            Kind::Download(_) | Kind::Plain(_) => &[],
        }
    }

    /// Whether all of it is here.
    pub const fn is_whole(&self) -> bool {
        matches!(self.0, Kind::Whole(_))
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
            Kind::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Download(download) => download.poll(cx),
            Kind::Plain(stream) => stream.poll(cx).map_ok(Frame::data),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Download(download) => download.cut || download.is_whole(),
            Kind::Plain(stream) => stream.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(None) => SizeHint::with_exact(0),
            Kind::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Download(download) => download.inner.size_hint(),
            Kind::Plain(_) => SizeHint::default(),
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
            Some(Err(error)) => self.settle(error.how()),
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
