//! A request that may be sent again: handed back unsent, or copied before it was sent.

use std::sync::Arc;

use http::Request;
use http::request::Parts;
use hyper::client::conn::TrySendError;

use crate::forward::http::upload::{Upload, Uploaded};
use crate::plan::Head;

/// A request that may be sent again.
pub(in crate::forward::http) enum Again {
    /// No byte of it left.
    Unsent(Request<Upload>),
    /// It was sent; this would be once more.
    Spare(Spare),
}

/// A request once more: its head, and its body as far as that was kept.
pub(in crate::forward::http) struct Spare(Request<Arc<Uploaded>>);

/// A connection that broke before its answer's head.
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    pub(super) again: Option<Again>,
}

impl Again {
    /// Whether [`Again::request`] would give it.
    pub(in crate::forward::http) fn is_possible(&self) -> bool {
        match self {
            Self::Unsent(_) => true,
            Self::Spare(spare) => spare.is_possible(),
        }
    }

    /// Its head.
    pub(in crate::forward::http) fn head(&self) -> Head<'_> {
        match self {
            Self::Unsent(request) => Head::of(request),
            Self::Spare(Spare(spare)) => Head::of(spare),
        }
    }

    /// The request; whoever still sends the same one finds that it may no longer. `None` where
    /// some of its body is gone.
    pub(in crate::forward::http) fn request(self) -> Option<Request<Upload>> {
        match self {
            Self::Unsent(request) => Some(request),
            Self::Spare(spare) => spare.request(),
        }
    }
}

impl Spare {
    pub(super) fn of(request: &Request<Upload>) -> Self {
        let mut spare = Request::new(request.body().uploaded());
        *spare.method_mut() = request.method().clone();
        *spare.uri_mut() = request.uri().clone();
        *spare.version_mut() = request.version();
        *spare.headers_mut() = request.headers().clone();
        Self(spare)
    }

    /// The head, and what is known of the body that others hold.
    pub(super) fn from_parts(head: Parts, uploaded: Arc<Uploaded>) -> Self {
        Self(Request::from_parts(head, uploaded))
    }

    pub(super) fn is_possible(&self) -> bool {
        self.0.body().is_kept()
    }

    pub(super) fn request(self) -> Option<Request<Upload>> {
        let (head, uploaded) = self.0.into_parts();
        Some(Request::from_parts(head, Upload::again(uploaded)?))
    }
}

impl Unanswered {
    pub(super) fn new(mut error: TrySendError<Request<Upload>>, spare: Option<Spare>) -> Self {
        let unsent = error.take_message().map(Again::Unsent);
        Self { again: unsent.or_else(|| spare.map(Again::Spare)), error: error.into_error() }
    }
}
