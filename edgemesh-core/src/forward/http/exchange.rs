//! One request: decide, send, try again where that is safe, stream the answer back.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::forward::http::body::{Body, BoxError, Upload, Uploaded};
use crate::forward::http::call::{By, Call, Unserved};
use crate::forward::http::head::{
    introduce, names_one_host, strip_hop_by_hop, upgrade, without_userinfo,
};
use crate::forward::http::rest;
use crate::forward::http::route;
use crate::forward::http::upgrade::{self, Wanted};
use crate::forward::http::upstream::{Answer, Attempt, Failure, Keep};
use crate::forward::http::{Origin, Towards};
use crate::io::now;
use crate::metrics::Ended;
use crate::plan::{Head, Hop, Outcome, Purpose};
use crate::refusal::Refusal;

/// How a Backend's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// All of it was passed on.
    Whole,
    /// The Backend broke off.
    Broken,
    /// The client went away.
    Dropped,
    /// The Policy's time ran out.
    TimedOut,
}

/// What is due when an answer's body ends.
#[derive(Debug)]
pub(super) struct Ending {
    call: Call,
    hop: Hop,
    keep: Keep,
    status: u16,
    grpc_failed: bool,
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Answers one request of a client's connection.
pub(super) async fn exchange(
    origin: Arc<Origin>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    if request.method() == Method::CONNECT && origin.towards == Towards::Named {
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
/// answer's extensions say [`By`] whom. Dropped, the call is cancelled.
///
/// # Errors
/// The Refusal, and who was asked last.
pub async fn send<B>(
    origin: Arc<Origin>,
    request: Request<B>,
    tried: Vec<SocketAddr>,
) -> Result<Response<Body>, Unserved>
where
    B: http_body::Body<Data: Send, Error: Into<BoxError>> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let (upload, uploaded) = Upload::of_application(body);
    answer(origin, (Request::from_parts(parts, upload), uploaded), None, tried).await
}

async fn answer(
    origin: Arc<Origin>,
    (mut request, uploaded): (Request<Upload>, Arc<Uploaded>),
    wanted: Option<Wanted>,
    tried: Vec<SocketAddr>,
) -> Result<Response<Body>, Unserved> {
    let one_host = names_one_host(&request);
    let asked = upgrade(request.headers(), request.version());
    strip_hop_by_hop(request.headers_mut(), asked.filter(|_| wanted.is_some()));
    introduce(request.headers_mut(), origin.caller());
    let mut call = Call::new(origin, &request, uploaded);
    if !one_host {
        return Err(call.refused(Refusal::BadRequest));
    }
    towards_backend(&mut request, &call);
    match attempt_until_answered(&mut call, request, tried).await {
        Ok((answer, hop)) => deliver(call, answer, hop, wanted),
        Err(refusal) => call.unanswered(refusal),
    }
}

/// Gives the request the form that a Backend expects.
fn towards_backend(request: &mut Request<Upload>, call: &Call) {
    if request.version() == Version::HTTP_2 {
        return; // keeps scheme and authority, which HTTP/2 carries beside the path
    }
    *request.version_mut() = Version::HTTP_11;
    if request
        .headers()
        .get(EXPECT)
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        upgrade::wait_for_continue(request);
    }
    // hyper frames a body of unknown length by itself, but for methods that seldom have one it
    // takes no header for no body.
    if !request.body().is_empty() && !request.headers().contains_key(CONTENT_LENGTH) {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if request.method() == Method::CONNECT {
        return;
    }
    let Some(authority) = request.uri().authority().cloned() else {
        // HTTP/1.0 may leave it out; what leaves here is HTTP/1.1, which may not.
        if let (false, Towards::Address(to)) =
            (request.headers().contains_key(HOST), call.origin.towards)
            && let Ok(host) = HeaderValue::from_str(&to.to_string())
        {
            request.headers_mut().insert(HOST, host);
        }
        return;
    };
    // RFC 9112 §3.2.2: the absolute form, as clients send it to a proxy, overrules Host.
    if let Ok(host) = HeaderValue::from_str(without_userinfo(&authority)) {
        request.headers_mut().insert(HOST, host);
    }
    let path = call.uri.path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| Uri::from_static("/"), Uri::from);
}

/// Tries until a Backend answers, or nothing more may be tried.
async fn attempt_until_answered(
    call: &mut Call,
    mut request: Request<Upload>,
    mut tried: Vec<SocketAddr>,
) -> Result<(Answer, Hop), Refusal> {
    let shared = call.origin.shared.clone();
    let purpose = if tried.is_empty() { Purpose::Call } else { Purpose::Retry(&tried) };
    let mut hop = route::edit(call.plan(purpose, Head::of(&request))?, &mut request)?;
    loop {
        let policy = hop.service().policy.retries;
        let more = call.attempts <= policy.attempts;
        let spare = more && (policy.on_503 || policy.on_reset);
        call.until = call.attempt_ends(&hop);
        let deadline = call.until;
        let attempt = Attempt { shared: &shared, hop: &hop, deadline, spare };
        let sent = attempt.send(request).await;
        let answer = sent.as_ref().ok().map(|answer| &answer.response);
        let may_repeat = rest::heed(&mut hop, answer, call.grpc);
        let (failure, kept) = match sent {
            Ok(Answer { again: Some(again), response, keep })
                if may_repeat && response.status() == 503 && policy.on_503 && more =>
            {
                (Failure::unavailable(again), Some((response, keep)))
            }
            Ok(answer) => return Ok((answer, hop)),
            Err(failure) => {
                (call.uploaded.broken.get().map_or(failure, |_| Failure::by_client()), None)
            }
        };
        let Failure { refusal, again, sent, backends_fault } = failure;
        let allowed = more
            && match (&kept, sent) {
                (Some(_), _) => hop.service().live.may_retry(),
                (None, false) => policy.on_connect,
                (None, true) => policy.on_reset && hop.service().live.may_retry(),
            };
        tried.push(hop.address());
        let next = match again {
            Some(again) if allowed => {
                call.plan(Purpose::Retry(&tried), Head::of(&again)).ok().map(|hop| (again, hop))
            }
            _ => None,
        };
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

impl Failure {
    /// What a failure is when it was the client who broke its request.
    const fn by_client() -> Self {
        Self { refusal: Refusal::BadRequest, again: None, sent: true, backends_fault: false }
    }

    /// An answer that says that the Backend cannot answer.
    const fn unavailable(again: Request<Upload>) -> Self {
        let refusal = Refusal::Unhealthy { retry_after: Duration::ZERO };
        Self { refusal, again: Some(again), sent: true, backends_fault: true }
    }
}

/// Hands the answer to the client.
fn deliver(
    call: Call,
    answer: Answer,
    mut hop: Hop,
    wanted: Option<Wanted>,
) -> Result<Response<Body>, Unserved> {
    let Answer { mut response, keep, .. } = answer;
    let status = response.status().as_u16();
    if !is_unwell(status) {
        hop.answered(now());
    }
    // RFC 9112 §6.3: chunked overrules a length; hyper read it so, and only one framing may leave.
    if response.headers().contains_key(TRANSFER_ENCODING) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    let became = wanted.filter(|wanted| wanted.granted(&response));
    if became.is_none() && status == StatusCode::SWITCHING_PROTOCOLS.as_u16() {
        hop.finish(Outcome::Bad, now()); // nobody asked for it
        return Err(call.refused(Refusal::BackendProtocol));
    }
    let protocol =
        became.as_ref().and_then(|_| response.headers().get(http::header::UPGRADE).cloned());
    if let Some(became) = became {
        let theirs = hyper::upgrade::on(&mut response);
        call.origin.shared.clone().tasks.spawn(became.carry(theirs, call, hop, status));
        strip_hop_by_hop(response.headers_mut(), protocol);
        return Ok(response.map(|_| Body::empty()));
    }
    strip_hop_by_hop(response.headers_mut(), None);
    // The client's side is framed by the client's version.
    *response.version_mut() = call.version;
    if call.origin.towards == Towards::Library {
        response.extensions_mut().insert(By::of(&hop));
    }
    let grpc_failed = call.grpc && failed_grpc(response.headers());
    if let Some(routed) = hop.route() {
        routed.edit_response(response.headers_mut());
    }
    let deadline = call.until.map(|until| Box::pin(tokio::time::sleep_until(until)));
    let ending = Ending { call, hop, keep, status, grpc_failed, deadline };
    Ok(response.map(|body| Body::download(body, ending)))
}

/// Statuses by which a server says that it is not well.
const fn is_unwell(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// gRPC statuses by which a server says that it is not well: UNKNOWN (a handler that failed),
/// INTERNAL, UNAVAILABLE, DATA_LOSS.
fn failed_grpc(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|s| matches!(s.as_bytes(), b"2" | b"13" | b"14" | b"15"))
}

impl Ending {
    /// Whether the Policy's time is over.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        let poll = |sleep: &mut Pin<Box<Sleep>>| sleep.as_mut().poll(cx) == Poll::Ready(());
        self.deadline.as_mut().is_some_and(poll)
    }

    /// gRPC says in its trailers how a call went.
    pub(super) fn saw_trailers(&mut self, trailers: &HeaderMap) {
        self.grpc_failed |= self.call.grpc && failed_grpc(trailers);
        if self.call.grpc {
            rest::heed_trailers(&mut self.hop, trailers);
        }
    }

    /// Reports the outcome, keeps the connection where it can serve again, writes the line.
    pub(super) fn settle(self, how: How, down: u64) {
        let Self { mut call, hop, keep, status, grpc_failed, .. } = self;
        let now = now();
        let how = match (how, call.uploaded.broken.get()) {
            (How::Broken, Some(_)) => How::Dropped,
            (how, _) => how,
        };
        let unwell = grpc_failed || is_unwell(status);
        let (outcome, ended) = match how {
            How::Whole if unwell => (Outcome::Bad, Ended::Failed),
            How::Whole => (Outcome::Good, Ended::Ok),
            How::Broken => (Outcome::Bad, Ended::Failed),
            How::Dropped => (Outcome::Neutral, Ended::Cancelled),
            How::TimedOut => (Outcome::Bad, Ended::Refused(Refusal::RequestTimeout)),
        };
        let shared = call.origin.shared.clone();
        // A connection over which the client is still sending cannot take the next request.
        let reusable = how == How::Whole && call.uploaded.whole.load(Ordering::Acquire);
        if reusable && !shared.stop.is_cancelled() {
            keep.keep(&shared.pools, hop.address(), now);
        }
        hop.finish(outcome, now);
        call.end(&shared, ended, Some(status), down, None);
    }
}
