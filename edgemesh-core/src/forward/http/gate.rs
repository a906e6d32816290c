//! What stands before the requests of an ingress: it lets them in as requests that name their
//! Service, or turns them away in words of its own.

use std::fmt::Debug;
use std::sync::Arc;

use http::request::Parts;
use http::{Method, Request};
use hyper::body::Incoming;

use crate::forward::http::call::Call;
use crate::forward::http::check::fault;
use crate::forward::http::head::introduce;
use crate::forward::http::upload::Upload;
use crate::forward::http::{Body, Origin};
use crate::refusal::Refusal;

/// See the module. Asked once a request, before anything is decided.
pub trait Gate: Debug + Send + Sync + 'static {
    /// Lets a request in: from then on its authority or Host names its Service.
    ///
    /// # Errors
    /// Why it is turned away.
    fn admit(&self, request: &mut Parts) -> Result<(), Turned>;
}

/// A request that is turned away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    /// Why: status, label and culprit.
    pub refusal: Refusal,
    /// The same in one line for whoever asked.
    pub text: String,
    /// It asked for a Rule: it is told in JSON.
    pub in_json: bool,
}

/// Asks the gate, if there is one. What is malformed does not come so far; a CONNECT names nobody
/// beside its target.
pub(super) fn admit(
    gate: Option<&dyn Gate>,
    request: Request<Incoming>,
) -> Result<Request<Incoming>, Box<(Request<Incoming>, Turned)>> {
    let Some(gate) = gate else { return Ok(request) };
    if let Some(refusal) = fault(&request).filter(|_| request.method() != Method::CONNECT) {
        let turned = Turned { refusal, text: refusal.row().text.to_owned(), in_json: false };
        return Err(Box::new((request, turned)));
    }
    let (mut parts, body) = request.into_parts();
    let admitted = gate.admit(&mut parts);
    let request = Request::from_parts(parts, body);
    match admitted {
        Ok(()) => Ok(request),
        Err(turned) => Err(Box::new((request, turned))),
    }
}

/// Answers a request that was turned away, and writes its line.
pub(super) fn turn_away(
    origin: Arc<Origin>,
    (request, turned): (Request<Incoming>, Turned),
) -> http::Response<Body> {
    let (parts, body) = request.into_parts();
    let (upload, uploaded) = Upload::new(body);
    let mut request = Request::from_parts(parts, upload);
    introduce(request.headers_mut(), origin.caller());
    let call = Call::new(origin, &mut request, uploaded);
    call.refused(turned.refusal).answer_saying(&turned.text, turned.in_json)
}
