//! What HTTP/2 receives on one stream.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;

/// Up to so many bytes at the end of a stream their room is given back with the stream itself.
const SMALL: usize = 1024;

/// Data, then trailers; their room is given back as they are taken.
#[derive(Debug)]
pub(super) struct Received {
    stream: RecvStream,
    /// There is no more data.
    data_is_done: bool,
    /// There is nothing more at all.
    is_done: bool,
}

impl Received {
    pub(super) const fn new(stream: RecvStream) -> Self {
        Self { stream, data_is_done: false, is_done: false }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.is_done {
            return Poll::Ready(None);
        }
        if !self.data_is_done {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(bytes)) => return Poll::Ready(Some(self.took(bytes).map(Frame::data))),
                Some(Err(error)) => {
                    self.is_done = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.data_is_done = true,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        self.is_done = true;
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }

    fn took(&mut self, bytes: Bytes) -> Result<Bytes, h2::Error> {
        self.is_done = self.stream.is_end_stream();
        if !self.is_done || bytes.len() > SMALL {
            self.stream.flow_control().release_capacity(bytes.len())?;
        }
        Ok(bytes)
    }

    /// Whether nothing more comes: all of it was taken, or it broke and that was told.
    pub(super) fn is_end_stream(&self) -> bool {
        self.is_done || self.stream.is_end_stream()
    }
}
