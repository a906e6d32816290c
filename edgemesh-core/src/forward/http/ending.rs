//! An answer on its way to the client, and what is due when its body ends.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::Context;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use tokio::time::Sleep;

use crate::forward::http::Towards;
use crate::forward::http::answer::late_trailers;
use crate::forward::http::body::Body;
use crate::forward::http::call::{By, Call, Unserved};
use crate::forward::http::deadline::Deadline;
use crate::forward::http::head::strip_hop_by_hop;
use crate::forward::http::rest;
use crate::forward::http::upgrade::{Theirs, Wanted};
use crate::forward::http::upstream::{Answer, Keep};
use crate::io::now;
use crate::metrics::Ended;
use crate::plan::{Hop, Outcome};
use crate::refusal::Refusal;

/// How a Backend's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// All of it was passed on.
    Whole,
    /// The Backend broke off.
    Broken,
    /// The way to the node of the Backend broke.
    Severed,
    /// The client went away.
    Dropped,
    /// The time of the Policy or of the client ran out.
    TimedOut,
}

/// What is due when an answer's body ends.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) call: Call,
    pub(super) hop: Hop,
    keep: Keep,
    /// Of the answer.
    pub(super) status: u16,
    grpc_failed: bool,
    deadline: Option<(Deadline, Pin<Box<Sleep>>)>,
}

/// Hands the answer to the client.
pub(super) fn deliver(
    call: Call,
    answer: Answer,
    mut hop: Hop,
    wanted: Option<Wanted>,
) -> Result<Response<Body>, Unserved> {
    let Answer { mut response, mut keep, .. } = answer;
    call.uploaded.forget();
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
    let protocol = became.as_ref().and_then(|_| response.headers().get(UPGRADE).cloned());
    if let Some(became) = became {
        let (theirs, mut response) = Theirs::of(response, keep.take_writer());
        call.origin.shared.clone().tasks.spawn(became.carry(theirs, call, hop, status));
        strip_hop_by_hop(response.headers_mut(), protocol);
        return Ok(response);
    }
    keep.is_no_upgrade();
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
    let deadline = call.until.map(|d| (d, Box::pin(tokio::time::sleep_until(d.at))));
    let length = length(&call.method, &response);
    let ending = Ending { call, hop, keep, status, grpc_failed, deadline };
    Ok(response.map(|body| Body::download(body, length, ending)))
}

impl Ending {
    /// Of a plain request, whose answer is still to come. Boxed, since it passes through many hands.
    pub(super) fn plain(call: Call, hop: Hop) -> Box<Self> {
        let keep = Keep::Nothing; // ours is no connection of hyper's
        Box::new(Self { call, hop, keep, status: 0, grpc_failed: false, deadline: None })
    }

    /// There is no answer.
    pub(super) fn unanswered(self, refusal: Refusal, backends_fault: bool) -> Unserved {
        self.hop.finish(if backends_fault { Outcome::Bad } else { Outcome::Neutral }, now());
        self.call.refused(refusal)
    }
}

/// How long the body of an answer is, where its head says so (RFC 9112 §6.3).
fn length<B>(method: &Method, response: &Response<B>) -> Option<u64> {
    let none = *method == Method::HEAD
        || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let said = response.headers().get(CONTENT_LENGTH).and_then(|said| said.to_str().ok());
    if none { Some(0) } else { said?.parse().ok() }
}

/// Statuses by which a server says that it is not well.
pub(super) const fn is_unwell(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// gRPC statuses by which a server says that it is not well: UNKNOWN (a handler that failed),
/// INTERNAL, UNAVAILABLE, DATA_LOSS.
fn failed_grpc(headers: &HeaderMap) -> bool {
    headers.get("grpc-status").is_some_and(|s| matches!(s.as_bytes(), b"2" | b"13" | b"14" | b"15"))
}

impl Ending {
    /// Whether its time is over.
    pub(super) fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready())
    }

    /// What a client reads when its time is over, where its protocol has words for that at the end.
    pub(super) fn late_trailers(&self) -> Option<HeaderMap> {
        let told = self.call.grpc && self.call.version == Version::HTTP_2;
        told.then(|| late_trailers(Refusal::RequestTimeout))
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
        let Self { mut call, hop, keep, status, grpc_failed, deadline } = self;
        let now = now();
        let how = match (how, call.uploaded.broken.get()) {
            (How::Broken | How::Severed, Some(_)) => How::Dropped,
            (how, _) => how,
        };
        let unwell = grpc_failed || is_unwell(status);
        let (outcome, ended) = match how {
            How::Whole if unwell => (Outcome::Bad, Ended::Failed),
            How::Whole => (Outcome::Good, Ended::Ok),
            How::Broken => (Outcome::Bad, Ended::Failed),
            How::Severed => (Outcome::Neutral, Ended::Failed),
            How::Dropped => (Outcome::Neutral, call.origin.shared.dropped()),
            How::TimedOut => {
                let excused = deadline.is_some_and(|(deadline, _)| deadline.by_client);
                let outcome = if excused { Outcome::Neutral } else { Outcome::Bad };
                (outcome, Ended::Refused(Refusal::RequestTimeout))
            }
        };
        let shared = call.origin.shared.clone();
        // A connection over which the client is still sending cannot take the next request.
        let reusable = how == How::Whole && call.uploaded.whole.load(Ordering::Acquire);
        if reusable && !matches!(keep, Keep::Nothing) && !shared.stop.is_cancelled() {
            keep.keep(&shared.pools, hop.address(), now);
        }
        hop.finish(outcome, now);
        call.answered = how == How::Whole;
        call.end(&shared, ended, Some(status), down, None);
    }
}
