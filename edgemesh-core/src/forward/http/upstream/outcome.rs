//! What came of an attempt: a Backend's answer, or why there is none and whose fault that is.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use http::Response;

use crate::forward::http::pool::{Pools, StreamPlace};
use crate::forward::http::source::Source;
use crate::forward::http::upstream::{Again, Http1};
use crate::link::Writer;
use crate::refusal::Refusal;

/// A Backend's answer.
pub(in crate::forward::http) struct Answer {
    pub(in crate::forward::http) response: Response<Source>,
    /// What to do with the connection afterwards.
    pub(in crate::forward::http) keep: Keep,
    /// The request once more, where it was asked for and may be repeated.
    pub(in crate::forward::http) again: Option<Again>,
}

/// Why there is none.
pub(in crate::forward::http) struct Failure {
    pub(in crate::forward::http) refusal: Refusal,
    /// The request, where it may be sent again.
    pub(in crate::forward::http) again: Option<Again>,
    /// Whether a byte of it can have reached the Backend.
    pub(in crate::forward::http) sent: bool,
    pub(in crate::forward::http) backends_fault: bool,
}

/// A connection after its answer.
#[derive(Debug)]
pub(in crate::forward::http) enum Keep {
    /// Goes back to the pool when the exchange is over.
    Http1(Http1),
    /// Is shared; the place of the stream is given back.
    Http2(StreamPlace),
    /// An exchange of its own with another node, and the way there for what follows an upgrade.
    Link(Option<Writer>),
    /// There is none of ours.
    Nothing,
}

impl Keep {
    pub(in crate::forward::http) fn keep(self, pools: &Pools, address: SocketAddr, now: Instant) {
        match self {
            Self::Http1(connection) => pools.keep(address, connection, now),
            Self::Http2(place) => drop(place),
            Self::Link(_) | Self::Nothing => {}
        }
    }

    /// The way to another node, for what the connection became.
    pub(in crate::forward::http) fn take_writer(&mut self) -> Option<Writer> {
        match self {
            Self::Link(writer) => writer.take(),
            Self::Http1(_) | Self::Http2(_) | Self::Nothing => None,
        }
    }

    /// The connection stays what it is: nothing follows the request.
    pub(in crate::forward::http) fn is_no_upgrade(&mut self) {
        if let Some(writer) = self.take_writer() {
            writer.finish();
        }
    }
}

/// Whether a kept connection was closed in order, as servers do with idle ones: the request may
/// have crossed that close. Linux says EPIPE where a reset came after it.
pub(super) fn was_closed(error: &hyper::Error) -> bool {
    error.is_incomplete_message() || io_kind(error) == Some(io::ErrorKind::BrokenPipe)
}

pub(super) fn broken(error: &hyper::Error) -> Failure {
    // What a socket says of itself is never InvalidData: that is our own bound.
    let endless = io_kind(error) == Some(io::ErrorKind::InvalidData);
    let protocol = error.is_parse() && !error.is_incomplete_message() || endless;
    let refusal = if protocol { Refusal::BackendProtocol } else { Refusal::BackendReset };
    tracing::debug!(error = error as &dyn std::error::Error, "no answer from the backend");
    Failure { refusal, again: None, sent: true, backends_fault: true }
}

fn io_kind(error: &hyper::Error) -> Option<io::ErrorKind> {
    let source = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    Some(source.kind())
}

/// RFC 9113 §8.7: REFUSED_STREAM, and streams beyond the last that a graceful GOAWAY names,
/// were not processed.
pub(super) fn refused_by_peer(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
    })
}
