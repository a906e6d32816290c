//! One request: decide, send, try again where that is safe, stream the answer back.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use edgemesh_proto::record::ServiceName;
use http::header::{EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Sleep;

use crate::forward::http::answer::{is_grpc, refuse};
use crate::forward::http::body::{Body, Fault, Upload, Uploaded};
use crate::forward::http::head::{
    REQUEST_ID, introduce, names_one_host, split_host, strip_hop_by_hop, upgrade, without_userinfo,
};
use crate::forward::http::upgrade::{self, Wanted};
use crate::forward::http::upstream::{Answer, Failure, Keep, send};
use crate::forward::http::{Origin, Towards};
use crate::forward::{Access, What};
use crate::io::now;
use crate::metrics::{Carried, Ended};
use crate::plan::{Destination, Hop, Outcome, Purpose, Via, plan};
use crate::refusal::Refusal;
use crate::snapshot::Service;

/// A request under way: what its one line in the access log will say. Dropped before its end,
/// it was cancelled by the client.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) origin: Arc<Origin>,
    carried: Carried,
    began: Instant,
    pub(super) method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    id: Option<HeaderValue>,
    version: Version,
    grpc: bool,
    attempts: u8,
    hop: Option<(Arc<Service>, std::net::SocketAddr, Via)>,
    uploaded: Arc<Uploaded>,
    over: bool,
}

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
    let one_host = names_one_host(&request);
    let wanted = Wanted::of(&mut request);
    let (parts, body) = request.into_parts();
    let (upload, uploaded) = Upload::new(body);
    let mut request = Request::from_parts(parts, upload);
    let asked = upgrade(request.headers(), request.version());
    strip_hop_by_hop(request.headers_mut(), asked.filter(|_| wanted.is_some()));
    introduce(request.headers_mut(), origin.client.ip());
    let mut call = Call::new(origin, &request, uploaded);
    if !one_host {
        return call.refused(Refusal::BadRequest);
    }
    towards_backend(&mut request, &call);
    match attempt_until_answered(&mut call, request).await {
        Ok((answer, hop)) => deliver(call, answer, hop, wanted),
        Err(refusal) => call.refused(refusal),
    }
}

/// What a failure is when it was the client who broke its request.
const fn clients_fault() -> Failure {
    Failure { refusal: Refusal::BadRequest, again: None, sent: true, backends_fault: false }
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
    if request.method() == Method::CONNECT {
        return;
    }
    let Some(authority) = request.uri().authority().cloned() else { return };
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
) -> Result<(Answer, Hop), Refusal> {
    let (mut tried, mut failed) = (Vec::new(), None);
    loop {
        let purpose = if failed.is_none() { Purpose::Call } else { Purpose::Retry(&tried) };
        let hop = call.plan(purpose).map_err(|refusal| failed.unwrap_or(refusal))?;
        let shared = call.origin.shared.clone();
        if call.attempts > 1 {
            shared.metrics.retries.fetch_add(1, Ordering::Relaxed);
        }
        let policy = hop.service().policy.retries;
        let more = call.attempts <= policy.attempts;
        let Failure { refusal, again, sent, backends_fault } =
            match send(&shared, &hop, request, more && (policy.on_503 || policy.on_reset)).await {
                Ok(Answer { again: Some(again), response, keep })
                    if response.status() == 503
                        && policy.on_503
                        && more
                        && hop.service().live.may_retry() =>
                {
                    drop((response, keep)); // the body is of no interest, nor is its connection
                    Failure {
                        refusal: Refusal::Unhealthy { retry_after: std::time::Duration::ZERO },
                        again: Some(again),
                        sent: false,
                        backends_fault: true,
                    }
                }
                Ok(answer) => return Ok((answer, hop)),
                Err(failure) => call.uploaded.broken.get().map_or(failure, |_| clients_fault()),
            };
        tried.push(hop.address());
        let service = hop.service().clone();
        hop.finish(if backends_fault { Outcome::Bad } else { Outcome::Neutral }, now());
        failed = Some(refusal);
        let allowed = more
            && match sent {
                false => policy.on_connect,
                true => policy.on_reset && service.live.may_retry(),
            };
        match again {
            Some(again) if allowed => request = again,
            _ => return Err(refusal),
        }
    }
}

/// Hands the answer to the client.
fn deliver(mut call: Call, answer: Answer, hop: Hop, wanted: Option<Wanted>) -> Response<Body> {
    let Answer { mut response, keep, .. } = answer;
    let status = response.status().as_u16();
    let became = wanted.filter(|wanted| wanted.granted(&response));
    if became.is_none() && status == StatusCode::SWITCHING_PROTOCOLS.as_u16() {
        hop.finish(Outcome::Bad, now()); // nobody asked for it
        return call.refused(Refusal::BackendProtocol);
    }
    let protocol =
        became.as_ref().and_then(|_| response.headers().get(http::header::UPGRADE).cloned());
    if let Some(became) = became {
        let theirs = hyper::upgrade::on(&mut response);
        call.origin.shared.clone().tasks.spawn(became.carry(theirs, call, hop, status));
        strip_hop_by_hop(response.headers_mut(), protocol);
        return response.map(|_| Body::empty());
    }
    strip_hop_by_hop(response.headers_mut(), None);
    // The client's side is framed by the client's version.
    *response.version_mut() = call.version;
    let grpc_failed = call.grpc && failed_grpc(response.headers());
    let deadline = hop.service().policy.request_timeout.map(|timeout| {
        let at = tokio::time::Instant::from_std(call.began) + timeout;
        Box::pin(tokio::time::sleep_until(at))
    });
    call.attempts = call.attempts.max(1);
    let ending = Ending { call, hop, keep, status, grpc_failed, deadline };
    response.map(|body| Body::download(body, ending))
}

/// gRPC statuses by which a server says that it is not well: UNKNOWN (a handler that failed),
/// INTERNAL, UNAVAILABLE, DATA_LOSS.
fn failed_grpc(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|s| matches!(s.as_bytes(), b"2" | b"13" | b"14" | b"15"))
}

impl Call {
    fn new(origin: Arc<Origin>, request: &Request<Upload>, uploaded: Arc<Uploaded>) -> Self {
        let version = request.version();
        let http2 = version == Version::HTTP_2;
        Self {
            origin,
            carried: if http2 { Carried::Http2 } else { Carried::Http1 },
            began: now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            host: request.headers().get(HOST).cloned(),
            id: request.headers().get(REQUEST_ID).cloned(),
            version,
            grpc: is_grpc(request.headers()),
            attempts: 0,
            hop: None,
            uploaded,
            over: false,
        }
    }

    fn plan(&mut self, purpose: Purpose<'_>) -> Result<Hop, Refusal> {
        self.attempts = self.attempts.saturating_add(1);
        let shared = &self.origin.shared;
        let (host, port) = match self.origin.towards {
            Towards::Address(_) => ("", None),
            Towards::Named => self.named(),
        };
        let arrival = self.origin.arrival();
        let destination = Destination { to: self.origin.target(host, port), arrival, purpose };
        let hop = plan(&shared.live.load(), &destination, now())?;
        self.hop = Some((hop.service().clone(), hop.address(), hop.via()));
        Ok(hop)
    }

    fn named(&self) -> (&str, Option<u16>) {
        match self.uri.authority() {
            Some(authority) => (authority.host(), authority.port_u16()),
            None => self.host.as_ref().map_or(("", None), split_host),
        }
    }

    /// Ends as refused, and says so to the client.
    fn refused(mut self, refusal: Refusal) -> Response<Body> {
        let shared = self.origin.shared.clone();
        let found = self.hop.as_ref().map(|(service, ..)| service.name.clone());
        let found = found.or_else(|| self.service_of_target());
        let response = refuse(refusal, found.as_ref(), self.grpc, self.version);
        let (ended, status) = match self.uploaded.broken.get() {
            Some(Fault::Gone) => (Ended::Cancelled, None), // nobody reads the answer
            Some(Fault::Malformed) | None => {
                (Ended::Refused(refusal), Some(response.status().as_u16()))
            }
        };
        self.end(&shared, ended, status, 0, found.as_ref());
        response
    }

    fn service_of_target(&self) -> Option<ServiceName> {
        let shared = &self.origin.shared;
        let (host, port) = match self.origin.towards {
            Towards::Address(_) => ("", None),
            Towards::Named => self.named(),
        };
        let snapshot = shared.live.load();
        let found = crate::plan::resolve(&snapshot, self.origin.target(host, port)).ok()?;
        Some(found.service.name.clone())
    }

    /// Counts bytes that went up after the connection stopped being HTTP.
    pub(super) fn add_upload(&self, bytes: u64) {
        self.uploaded.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes the one line, once.
    pub(super) fn end(
        &mut self,
        shared: &crate::forward::Shared,
        ended: Ended,
        status: Option<u16>,
        down: u64,
        service: Option<&ServiceName>,
    ) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let up = self.uploaded.bytes.load(Ordering::Relaxed);
        shared.metrics.bytes_up.fetch_add(up, Ordering::Relaxed);
        shared.metrics.bytes_down.fetch_add(down, Ordering::Relaxed);
        let text = |value: &Option<HeaderValue>| -> Option<String> {
            value.as_ref().and_then(|v| v.to_str().ok()).map(str::to_owned)
        };
        let host = match self.uri.authority() {
            Some(authority) => without_userinfo(authority).to_owned(),
            None => text(&self.host).unwrap_or_default(),
        };
        let id = text(&self.id).unwrap_or_default();
        let hop_name = self.hop.as_ref().map(|(s, ..)| &s.name);
        shared.ended(&Access {
            carried: self.carried,
            client: self.origin.client,
            destination: match self.origin.towards {
                Towards::Address(address) => Some(address),
                Towards::Named => None,
            },
            service: service.or(hop_name),
            backend: self.hop.as_ref().map(|(_, address, via)| (*address, *via)),
            what: What::Request {
                method: self.method.as_str(),
                host: &host,
                path: self.uri.path(),
                id: &id,
            },
            status,
            ended,
            attempts: self.attempts,
            up,
            down,
            took: now().saturating_duration_since(self.began),
        });
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            let shared = self.origin.shared.clone();
            self.end(&shared, Ended::Cancelled, None, 0, None);
        }
    }
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
    }

    /// Reports the outcome, keeps the connection where it can serve again, writes the line.
    pub(super) fn settle(self, how: How, down: u64) {
        let Self { mut call, hop, keep, status, grpc_failed, .. } = self;
        let now = now();
        let how = match (how, call.uploaded.broken.get()) {
            (How::Broken, Some(_)) => How::Dropped,
            (how, _) => how,
        };
        let unwell = grpc_failed || matches!(status, 500 | 502 | 503 | 504);
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
