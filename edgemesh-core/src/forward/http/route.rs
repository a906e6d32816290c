//! Routes on the way of a request: what its rule edits, how long it may take, redirects of ours.

use http::header::LOCATION;
use http::{HeaderValue, Request, Response, StatusCode};

use crate::forward::http::Body;
use crate::forward::http::call::{Call, Unserved};
use crate::forward::http::deadline::Deadline;
use crate::io::now;
use crate::metrics::Ended;
use crate::plan::{Destination, Hop, Outcome, Redirection, Routed, redirection};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;

/// What a call found out about the Routes of its Service, kept over its attempts.
#[derive(Debug, Default)]
pub(super) struct Routing {
    routed: Option<Routed>,
    redirection: Option<Redirection>,
}

impl Routing {
    /// What an attempt before fitted.
    pub(super) const fn routed(&self) -> Option<&Routed> {
        self.routed.as_ref()
    }

    /// What is to be kept of a decision.
    pub(super) fn after(
        snapshot: &Snapshot,
        destination: &Destination<'_>,
        planned: &Result<Hop, Refusal>,
    ) -> Self {
        match planned {
            Ok(hop) => Self { routed: hop.route().cloned(), redirection: None },
            Err(Refusal::Redirected) => {
                Self { routed: None, redirection: redirection(snapshot, destination) }
            }
            // A further attempt that nobody takes: the answer at hand still is this rule's.
            Err(_) => Self { routed: destination.routed.cloned(), redirection: None },
        }
    }
}

/// Edits a request as the rule wants it, once, before its first attempt.
pub(super) fn edit<B>(hop: Hop, request: &mut Request<B>) -> Result<Hop, Refusal> {
    let edited = hop.route().map_or(Ok(()), |routed| routed.edit_request(request));
    match edited {
        Ok(()) => Ok(hop),
        Err(refusal) => {
            hop.finish(Outcome::Neutral, now());
            Err(refusal)
        }
    }
}

impl Call {
    /// When the attempt that `hop` is for is over: with the call, or before by its own time.
    pub(super) fn attempt_ends(&self, hop: &Hop) -> Option<Deadline> {
        let call = Deadline::of(self.began, hop.request_timeout(), self.patience);
        let attempt = hop.attempt_timeout().and_then(|time| Deadline::of(now(), Some(time), None));
        call.into_iter().chain(attempt).min_by_key(|deadline| deadline.at)
    }

    /// Ends a call that no Backend answers: with a redirect where its rule says so.
    pub(super) fn unanswered(mut self, refusal: Refusal) -> Result<Response<Body>, Unserved> {
        let redirection = self.routing.redirection.take().filter(|_| !self.grpc);
        let Some(Redirection { status, location }) = redirection else {
            return Err(self.refused(refusal));
        };
        let status = StatusCode::from_u16(status);
        let (Ok(status), Ok(location)) = (status, HeaderValue::from_str(&location)) else {
            return Err(self.refused(Refusal::RouteFault));
        };
        let mut response = Response::new(Body::empty());
        *response.version_mut() = self.version;
        *response.status_mut() = status;
        response.headers_mut().insert(LOCATION, location);
        let shared = self.origin.shared.clone();
        let service = self.service_of_target();
        self.end(&shared, Ended::Ok, Some(status.as_u16()), 0, service.as_ref());
        Ok(response)
    }
}
