//! One request: decide, send, try again where that is safe, stream the answer back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::forward::Shared;
use crate::forward::http::body::Body;
use crate::forward::http::call::{Call, Unserved};
use crate::forward::http::check::fault;
use crate::forward::http::deadline::pass_on;
use crate::forward::http::ending::deliver;
use crate::forward::http::head::{introduce, strip_hop_by_hop, upgrade};
use crate::forward::http::rest;
use crate::forward::http::route;
use crate::forward::http::ruled::{self, ByRule, NOBODY};
use crate::forward::http::upgrade::{self, Wanted};
use crate::forward::http::upload::{BoxError, Fault, Upload, Uploaded};
use crate::forward::http::upstream::{Again, Answer, Attempt, Failure, is_idempotent};
use crate::forward::http::wire::{towards_backend, towards_node};
use crate::forward::http::{Origin, Towards};
use crate::io::now;
use crate::link::{Duplex, Inbound, Rest, pipe};
use crate::plan::{Head, Hop, Outcome, Purpose};
use crate::refusal::Refusal;
use crate::snapshot::Spot;

/// Answers one request of a client's connection.
pub(super) async fn exchange(
    origin: Arc<Origin>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let names = matches!(origin.towards, Towards::Named | Towards::Ingress);
    if request.method() == Method::CONNECT && names {
        return upgrade::connect(origin, request).await;
    }
    let wanted = Wanted::of(&mut request);
    let (parts, body) = request.into_parts();
    let (upload, uploaded) = Upload::new(body);
    let request = Request::from_parts(parts, upload);
    let answered = answer(origin, (request, uploaded), wanted, Vec::new()).await;
    answered.unwrap_or_else(|unserved| unserved.answer())
}

/// Answers one request of the embedding application, on a Backend that is none of `tried`. The
/// answer's extensions say [`By`](crate::forward::http::By) whom, unless a route redirects. Dropped,
/// the call is cancelled.
///
/// # Errors
/// The Refusal, and who was asked last.
pub async fn send<B>(
    origin: Arc<Origin>,
    request: Request<B>,
    tried: Vec<Spot>,
) -> Result<Response<Body>, Unserved>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let (upload, uploaded) = Upload::of_application(body);
    answer(origin, (Request::from_parts(parts, upload), uploaded), None, tried).await
}

/// Sends a message by a Rule, for whoever takes messages in that are no requests of a connection; as
/// [`send`].
///
/// # Errors
/// As [`send`].
pub async fn send_by_rule<B>(
    shared: Arc<Shared>,
    client: SocketAddr,
    by: ByRule,
    mut request: Request<B>,
) -> Result<Response<Body>, Unserved>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let towards = Towards::Library;
    let origin = Origin { shared, place: None, client, towards, dialled: None, passed: None };
    // Targets may be no friends of chunks; and whoever passes it on cannot tell how long it is.
    if let Some(length) = request.body().size_hint().exact() {
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    // Whom it is for, its Rule says.
    request.headers_mut().insert(HOST, HeaderValue::from_static(NOBODY));
    request.extensions_mut().insert(by);
    send(Arc::new(origin), request, Vec::new()).await
}

/// Answers one request that another node passes on, by a Backend of this one. With `upgrade`, what
/// follows the request is for what its connection becomes; then, what follows the answer is in the
/// second half, if that did.
///
/// # Errors
/// The Refusal.
pub async fn passed_on(
    origin: Arc<Origin>,
    request: Request<()>,
    body: Inbound,
    upgrade: bool,
) -> Result<(Response<Body>, Option<Rest>), Unserved> {
    if !upgrade {
        let (upload, uploaded) = Upload::of_link(body);
        let request = request.map(|()| upload);
        let answered = answer(origin, (request, uploaded), None, Vec::new()).await;
        return answered.map(|response| (response, None));
    }
    let (writer, rest) = pipe();
    let wanted = Wanted::passed_on(&request, Duplex::new(writer, body));
    let is_connect = request.method() == Method::CONNECT;
    let (upload, uploaded) = Upload::nothing();
    let request = request.map(|()| upload);
    let response = answer(origin, (request, uploaded), Some(wanted), Vec::new()).await?;
    let became = match is_connect {
        true => response.status().is_success(),
        false => response.status() == StatusCode::SWITCHING_PROTOCOLS,
    };
    Ok((response, became.then_some(rest)))
}

async fn answer(
    origin: Arc<Origin>,
    (mut request, uploaded): (Request<Upload>, Arc<Uploaded>),
    wanted: Option<Wanted>,
    tried: Vec<Spot>,
) -> Result<Response<Body>, Unserved> {
    let malformed = fault(&request);
    let asked = upgrade(request.headers(), request.version());
    strip_hop_by_hop(request.headers_mut(), asked.filter(|_| wanted.is_some()));
    if origin.towards != Towards::Link {
        introduce(request.headers_mut(), origin.caller());
    }
    let mut call = Call::new(origin, &mut request, uploaded);
    if let Some(refusal) = malformed {
        return Err(call.refused(refusal));
    }
    match attempt_until_answered(&mut call, request, tried).await {
        Ok((answer, hop)) => deliver(call, answer, hop, wanted),
        Err(refusal) => call.unanswered(refusal),
    }
}

/// Tries until a Backend answers, or nothing more may be tried.
async fn attempt_until_answered(
    call: &mut Call,
    mut request: Request<Upload>,
    mut tried: Vec<Spot>,
) -> Result<(Answer, Hop), Refusal> {
    let shared = call.origin.shared.clone();
    let purpose = if tried.is_empty() { Purpose::Call } else { Purpose::Retry(&tried) };
    let hop = route::edit(call.plan(purpose, Head::of(&request))?, &mut request)?;
    let mut hop = ruled::edit(hop, &mut request, call)?;
    loop {
        let is_linked = !hop.backend().is_dialled();
        if is_linked {
            towards_node(&mut request, call);
        } else if let Err(refusal) = towards_backend(&mut request, call, &hop) {
            hop.finish(Outcome::Neutral, now());
            return Err(refusal);
        }
        keep_for_retries(&mut request, &hop);
        let policy = hop.service().policy.retries;
        // Whoever passes a call on tries elsewhere by itself.
        let more = call.attempts <= policy.attempts && call.origin.towards != Towards::Link;
        let spare = more && (policy.on_503 || policy.on_reset);
        call.until = call.attempt_ends(&hop);
        let deadline = call.until;
        if let (Some(_), Some(deadline)) = (call.grpc_timeout, deadline) {
            pass_on(request.headers_mut(), deadline.left(tokio::time::Instant::from_std(now())));
        }
        let message = is_linked.then(|| call.passes_on());
        let caller = call.origin.caller();
        let attempt = Attempt { shared: &shared, hop: &hop, deadline, spare, caller, message };
        let went = Went { call, hop: &hop };
        let sent = attempt.send(request).await;
        drop(went);
        let answer = sent.as_ref().ok().map(|answer| &answer.response);
        let may_repeat = rest::heed(&mut hop, answer, call.grpc);
        let (failure, kept) = match sent {
            Ok(Answer { again: Some(again), response, keep })
                if may_repeat && policy.on_503 && more && is_unavailable(&response, call.grpc) =>
            {
                (Failure::unavailable(again), Some((response, keep)))
            }
            Ok(answer) => return Ok((answer, hop)),
            Err(failure) => {
                if let (true, Refusal::Unhealthy { retry_after }) = (is_linked, failure.refusal) {
                    hop.rest(retry_after, now()); // the agent of its node leaves it alone
                }
                let fault = call.uploaded.broken.get();
                (fault.map_or(failure, |fault| Failure::by_client(*fault)), None)
            }
        };
        let Failure { refusal, again, sent, backends_fault } = failure;
        let allowed = more
            && match (&kept, sent) {
                (Some(_), _) => hop.service().live.may_retry(),
                (None, false) => policy.on_connect,
                (None, true) => policy.on_reset && hop.service().live.may_retry(),
            };
        tried.push(hop.spot());
        // What was sent elsewhere cannot be sent here any more: only when it is certain to be.
        let next = again
            .filter(|again| again.is_possible() && allowed)
            .and_then(|again| Some((call.plan(Purpose::Retry(&tried), again.head()).ok()?, again)))
            .and_then(|(hop, again)| Some((again.request()?, hop)));
        let Some((again, next)) = next else {
            // Nobody else to ask: a Backend's own word is better than ours.
            return match kept {
                Some((response, keep)) => Ok((Answer { response, keep, again: None }, hop)),
                None => {
                    hop.finish(if backends_fault { Outcome::Bad } else { Outcome::Neutral }, now());
                    Err(refusal)
                }
            };
        };
        shared.metrics.retries.fetch_add(1, Ordering::Relaxed);
        let ill = std::mem::replace(&mut hop, next);
        ill.finish(if backends_fault { Outcome::Bad } else { Outcome::Neutral }, now());
        request = again;
    }
}

/// Notes which way an attempt went, also when its client leaves before it is answered.
pub(super) struct Went<'a> {
    pub(super) call: &'a mut Call,
    pub(super) hop: &'a Hop,
}

impl Drop for Went<'_> {
    fn drop(&mut self) {
        self.call.went(self.hop);
    }
}

impl Failure {
    /// What a failure is when it was the client who broke its request.
    const fn by_client(fault: Fault) -> Self {
        let refusal = match fault {
            Fault::Gone | Fault::Malformed => Refusal::BadRequest,
            Fault::TooLarge => Refusal::BodyTooLarge,
        };
        Self { refusal, again: None, sent: true, backends_fault: false }
    }

    /// An answer that says that the Backend cannot answer.
    const fn unavailable(again: Again) -> Self {
        let refusal = Refusal::Unhealthy { retry_after: Duration::ZERO };
        Self { refusal, again: Some(again), sent: true, backends_fault: true }
    }
}

/// Keeps the body as it passes where the Policy may want to send it again. Over HTTP/2 that is
/// every body: a Backend can say of each that it did not process it.
fn keep_for_retries(request: &mut Request<Upload>, hop: &Hop) {
    let policy = hop.service().policy.retries;
    let wanted = policy.attempts > 0 && (policy.on_reset || policy.on_503);
    let http2 = request.version() == Version::HTTP_2;
    if !hop.backend().is_dialled() {
        // The agent there may refuse, whatever it is, before anybody is called.
        request.body_mut().keep_while_unsent();
    } else if wanted && (http2 || policy.non_idempotent || is_idempotent(request.method())) {
        request.body_mut().keep();
    }
}

/// Whether a Backend says that it cannot answer now, in HTTP or in gRPC.
fn is_unavailable<B>(response: &Response<B>, grpc: bool) -> bool {
    let status = response.headers().get("grpc-status").filter(|_| grpc);
    response.status() == 503 || status.is_some_and(|status| status == "14")
}
