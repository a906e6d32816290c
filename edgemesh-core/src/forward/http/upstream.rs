//! Sends one request to one Backend, over a kept connection or a new one.

mod connect;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use tokio::time::sleep_until;

use crate::forward::Shared;
use crate::forward::http::body::{Upload, Uploaded};
use crate::forward::http::pool::{FRESH_FOR, Pools, StreamPlace};
use crate::forward::http::upstream::connect::{connect_http1, connect_http2};
use crate::io::now;
use crate::plan::Hop;
use crate::refusal::Refusal;

/// Longest wait for the head of an answer, after the whole request was sent, where no Policy
/// says otherwise.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Kept connections that may hand a request back unsent before a new one is made.
const STALE_TRIES: usize = 4;
/// How often one Backend may say that it did not process a stream before another is asked.
const REFUSED_TRIES: usize = 1;

/// One attempt at a call.
pub(super) struct Attempt<'a> {
    pub(super) shared: &'a Shared,
    pub(super) hop: &'a Hop,
    /// When the call as a whole must have its answer's head.
    pub(super) deadline: Option<tokio::time::Instant>,
    /// The caller may want to repeat the request after it was sent.
    pub(super) spare: bool,
}

/// A Backend's answer.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// What to do with the connection afterwards.
    pub(super) keep: Keep,
    /// The request once more, where it was asked for and may be repeated.
    pub(super) again: Option<Request<Upload>>,
}

/// Why there is none.
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    /// The request, where it may be sent again.
    pub(super) again: Option<Request<Upload>>,
    /// Whether a byte of it can have reached the Backend.
    pub(super) sent: bool,
    pub(super) backends_fault: bool,
}

/// A connection after its answer.
#[derive(Debug)]
pub(super) enum Keep {
    /// Goes back to the pool when the exchange is over.
    Http1(http1::SendRequest<Upload>),
    /// Is shared; the place of the stream is given back.
    Http2(StreamPlace),
}

impl Keep {
    pub(super) fn keep(self, pools: &Pools, address: SocketAddr, now: Instant) {
        match self {
            Self::Http1(sender) => pools.keep_http1(address, sender, now),
            Self::Http2(place) => drop(place),
        }
    }
}

impl Attempt<'_> {
    /// Sends `request` to the Hop's Backend and waits for the head of its answer.
    pub(super) async fn send(&self, request: Request<Upload>) -> Result<Answer, Failure> {
        match request.version() {
            Version::HTTP_2 => self.send_http2(request).await,
            _ => self.send_http1(request).await,
        }
    }

    async fn send_http1(&self, mut request: Request<Upload>) -> Result<Answer, Failure> {
        let (pools, address) = (&self.shared.pools, self.hop.address());
        let mut may_repeat = self.may_repeat(&request);
        for _ in 0..STALE_TRIES {
            let Some((mut sender, age)) = pools.take_http1(address, !may_repeat, now()) else {
                break;
            };
            if sender.ready().await.is_err() {
                continue;
            }
            // The Backend may be closing the connection at this very moment.
            let copy = may_repeat.then(|| copy(&request));
            let uploaded = request.body().uploaded();
            match self.head(&uploaded, sender.try_send_request(request)).await? {
                Ok(response) => {
                    return Ok(Answer { response, keep: Keep::Http1(sender), again: copy });
                }
                Err(mut error) => match (error.take_message(), copy) {
                    (Some(unsent), _) => request = unsent,
                    // Once: a request that breaks its Backend must not break several.
                    (None, Some(again)) if age >= FRESH_FOR || was_closed(error.error()) => {
                        request = again;
                        may_repeat = false;
                        break;
                    }
                    (None, _) => return Err(broken(error.error())),
                },
            }
        }
        let mut sender = match connect_http1(self).await {
            Ok(sender) => sender,
            Err(failure) => return Err(Failure { again: Some(request), ..failure }),
        };
        let copy = (may_repeat && self.spare).then(|| copy(&request));
        let uploaded = request.body().uploaded();
        match self.head(&uploaded, sender.try_send_request(request)).await? {
            Ok(response) => Ok(Answer { response, keep: Keep::Http1(sender), again: copy }),
            Err(mut error) => {
                let unsent = error.take_message();
                let sent = unsent.is_none();
                Err(Failure { again: unsent.or(copy), sent, ..broken(error.error()) })
            }
        }
    }

    /// What a Backend did not process is safe to send again, and to the same one: it may only have
    /// been done with the connection.
    async fn send_http2(&self, mut request: Request<Upload>) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            let stream = match self.stream().await {
                Ok(stream) => stream,
                Err(failure) => return Err(Failure { again: Some(request), ..failure }),
            };
            let connection = stream.1.connection();
            match self.send_stream(stream, request).await {
                Err(Failure { again: Some(again), sent: false, .. }) if tries < REFUSED_TRIES => {
                    // It may be ending and not know yet; what is under way on it goes on.
                    self.shared.pools.http2(self.hop.address()).forget(&connection);
                    (request, tries) = (again, tries + 1);
                }
                answered_or_not => return answered_or_not,
            }
        }
    }

    async fn send_stream(
        &self,
        (mut sender, place): (http2::SendRequest<Upload>, StreamPlace),
        request: Request<Upload>,
    ) -> Result<Answer, Failure> {
        // What a Backend says that it did not process may be sent again whatever it is, unless
        // its body is gone; what may have been processed only if repeating does no harm.
        let may_repeat = self.may_repeat(&request);
        let copy = request.body().is_empty().then(|| copy(&request));
        let uploaded = request.body().uploaded();
        match self.head(&uploaded, sender.try_send_request(request)).await? {
            Ok(response) => {
                let again = copy.filter(|_| may_repeat && self.spare);
                Ok(Answer { response, keep: Keep::Http2(place), again })
            }
            Err(mut error) => {
                let unsent = error.take_message();
                let sent = unsent.is_none() && !refused_by_peer(error.error());
                let again = unsent.or_else(|| copy.filter(|_| !sent || may_repeat));
                Err(Failure { again, sent, ..broken(error.error()) })
            }
        }
    }

    /// A place on a connection to the Backend; one caller dials, the others wait for it.
    async fn stream(&self) -> Result<(http2::SendRequest<Upload>, StreamPlace), Failure> {
        let all = self.shared.pools.http2(self.hop.address());
        if let Some(stream) = all.take(now()) {
            return Ok(stream);
        }
        let _one_dials = all.dialling.lock().await;
        if let Some(stream) = all.take(now()) {
            return Ok(stream);
        }
        all.add(connect_http2(self).await?, now());
        all.take(now()).ok_or(Failure {
            refusal: Refusal::BackendProtocol,
            again: None,
            sent: false,
            backends_fault: true,
        })
    }

    /// Waits for the head of an answer, but not for ever. Only a Backend that has the whole
    /// request is to blame for its silence.
    async fn head<A, E>(
        &self,
        uploaded: &Uploaded,
        answer: impl Future<Output = Result<A, E>>,
    ) -> Result<Result<A, E>, Failure> {
        let too_late = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => loop {
                    let whole = uploaded.is_whole();
                    tokio::time::sleep(HEAD_TIMEOUT).await;
                    if whole {
                        break;
                    }
                },
            }
        };
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            () = too_late => Err(Failure {
                refusal: Refusal::RequestTimeout,
                again: None,
                sent: true,
                backends_fault: uploaded.is_whole(),
            }),
        }
    }

    /// Whether repeating what may have been done does no harm: the body is still there (there is
    /// none), and the method, or the Policy, says so.
    fn may_repeat(&self, request: &Request<Upload>) -> bool {
        let policy = &self.hop.service().policy.retries;
        request.body().is_empty() && (is_idempotent(request.method()) || policy.non_idempotent)
    }
}

/// Whether a kept connection was closed in order, as servers do with idle ones: the request may
/// have crossed that close. Linux says EPIPE where a reset came after it.
fn was_closed(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<io::Error>());
    error.is_incomplete_message() || source.is_some_and(|s| s.kind() == io::ErrorKind::BrokenPipe)
}

fn broken(error: &hyper::Error) -> Failure {
    let protocol = error.is_parse() && !error.is_incomplete_message();
    let refusal = if protocol { Refusal::BackendProtocol } else { Refusal::BackendReset };
    tracing::debug!(error = error as &dyn std::error::Error, "no answer from the backend");
    Failure { refusal, again: None, sent: true, backends_fault: true }
}

/// RFC 9113 §8.7: REFUSED_STREAM, and streams beyond the last that a graceful GOAWAY names,
/// were not processed.
fn refused_by_peer(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|s| s.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        error.reason() == Some(h2::Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR))
    })
}

/// Whether repeating what may have been done does no harm (RFC 9110 §9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]
        .contains(method)
}

fn copy(request: &Request<Upload>) -> Request<Upload> {
    let mut copy = Request::new(Upload::again(request.body().uploaded()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}
