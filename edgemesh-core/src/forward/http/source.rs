//! Where the body of an answer comes from: a Backend's connection, or the agent of its node.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::forward::http::ending::How;
use crate::forward::http::upload::BoxError;
use crate::forward::inbox::{AnswerBody, AnswerError};
use crate::link::{Failure, Inbound, LinkError};
use crate::refusal::Refusal;

/// See the module.
pub(super) enum Source {
    /// A Backend's connection.
    Backend(Incoming),
    /// An exchange with the agent of its node.
    Link(Inbound),
    /// The Router of this process.
    Inbox(AnswerBody),
}

/// Why the body of an answer ends before its end; the client's connection or stream is cut, so that
/// half of a body is never taken for a whole one.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The Backend broke it.
    #[error("the backend's answer broke off")]
    Backend(#[source] BoxError),
    /// The Backend of another node, or the way there, broke it.
    #[error("the answer of another node broke off")]
    Link(#[source] LinkError),
    /// The target of a Rule broke it.
    #[error("the answer of the Rule's target broke off")]
    Inbox(#[source] AnswerError),
    /// The request time-out of the Policy ran out.
    #[error("the backend's answer did not end in time")]
    TimedOut,
}

impl Source {
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Backend(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::of_backend),
            Self::Inbox(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::Inbox),
            Self::Link(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::of_link),
        }
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match self {
            Self::Backend(body) => body.is_end_stream(),
            Self::Link(body) => body.is_end_stream(),
            Self::Inbox(body) => body.is_end_stream(),
        }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Backend(body) => body.size_hint(),
            Self::Link(body) => body.size_hint(),
            Self::Inbox(body) => body.size_hint(),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backend(_) => "Backend",
            Self::Link(_) => "Link",
            Self::Inbox(_) => "Inbox",
        })
    }
}

impl BodyError {
    /// What a Backend's answer broke off with.
    pub(super) fn of_backend(error: impl Into<BoxError>) -> Self {
        Self::Backend(error.into())
    }

    /// What the answer of another node broke off with.
    pub(super) fn of_link(error: LinkError) -> Self {
        match error.refusal() == Some(Refusal::RequestTimeout.row().label) {
            true => Self::TimedOut,
            false => Self::Link(error),
        }
    }

    /// How its call has ended.
    pub(super) fn how(&self) -> How {
        match self {
            Self::TimedOut => How::TimedOut,
            error if error.is_of_the_way() => How::Severed,
            Self::Backend(_) | Self::Link(_) | Self::Inbox(_) => How::Broken,
        }
    }

    /// Whether the way to another node broke, or its agent stopped: its Backend knows nothing of it.
    fn is_of_the_way(&self) -> bool {
        let broke = |error: &LinkError| match error.refusal() {
            Some(label) => label == Refusal::Draining.row().label,
            None => error.kind() != Failure::Cancelled,
        };
        matches!(self, Self::Link(error) if broke(error))
    }

    /// The same for whoever passed the call on to this node.
    pub fn passed_on(self) -> LinkError {
        match self {
            Self::TimedOut => LinkError::refused(Refusal::RequestTimeout.row().label),
            Self::Backend(_) | Self::Link(_) | Self::Inbox(_) => {
                LinkError::refused(Refusal::BackendReset.row().label)
            }
        }
    }
}
