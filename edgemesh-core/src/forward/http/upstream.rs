//! Sends one request to one Backend, over a kept connection, a new one, or a Link to its node.

mod again;
mod connect;
mod inbox;
mod link;
mod outcome;
mod socket;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Version};
use hyper::client::conn::{http1, http2};
use tokio::time::{sleep_until, timeout_at};
use uuid::Uuid;

use crate::forward::Shared;
use crate::forward::http::deadline::Deadline;
use crate::forward::http::pool::{FRESH_FOR, StreamPlace};
use crate::forward::http::source::Source;
use crate::forward::http::upload::{Upload, Uploaded};
use crate::forward::http::upstream::again::{Spare, Unanswered};
use crate::forward::http::upstream::connect::{connect_http1, connect_http2};
use crate::forward::http::upstream::outcome::{broken, refused_by_peer, was_closed};
use crate::io::now;
use crate::plan::Hop;
use crate::refusal::Refusal;
use crate::snapshot::Reach;

pub(super) use again::Again;
pub(super) use connect::dial;
pub(super) use outcome::{Answer, Failure, Keep};
pub(super) use socket::{Heard, INTERIM_LIMIT, Socket};

/// Longest wait for the head of an answer, after the whole request was sent, where no Policy
/// says otherwise.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Kept connections that may hand a request back unsent before a new one is made.
pub(super) const STALE_TRIES: usize = 4;
/// How often one Backend may say that it did not process a stream before another is asked.
const REFUSED_TRIES: usize = 1;

/// One attempt at a call.
pub(super) struct Attempt<'a> {
    pub(super) shared: &'a Shared,
    pub(super) hop: &'a Hop,
    /// When the call as a whole must have its answer's head.
    pub(super) deadline: Option<Deadline>,
    /// The caller may want to repeat the request after it was sent.
    pub(super) spare: bool,
    /// Who calls, as another node is told.
    pub(super) caller: Option<IpAddr>,
    /// Names the Message that tells it.
    pub(super) message: Option<Uuid>,
}

/// An HTTP/1 connection to a Backend.
#[derive(Debug)]
pub(super) struct Http1 {
    pub(super) sender: http1::SendRequest<Upload>,
    /// What the Backend said since the last request.
    pub(super) heard: Arc<Heard>,
}

impl Attempt<'_> {
    /// Sends `request` to the Hop's Backend and waits for the head of its answer.
    pub(super) async fn send(&self, request: Request<Upload>) -> Result<Answer, Failure> {
        if matches!(self.hop.backend().reach, Reach::Inbox) {
            return self.send_to_inbox(request).await;
        }
        match (self.message, request.version()) {
            (Some(message), _) => self.send_over_link(request, message).await,
            (None, Version::HTTP_2) => self.send_http2(request).await,
            (None, _) => self.send_http1(request).await,
        }
    }

    async fn send_http1(&self, mut request: Request<Upload>) -> Result<Answer, Failure> {
        let (pools, address) = (&self.shared.pools, self.hop.address());
        let mut may_repeat = self.is_harmless(&request) && request.body().is_repeatable();
        for _ in 0..STALE_TRIES {
            let Some((mut kept, age)) = pools.take::<Http1>(address, !may_repeat, now()) else {
                break;
            };
            if kept.sender.ready().await.is_err() {
                continue;
            }
            // The Backend may be closing the connection at this very moment.
            let spare = may_repeat.then(|| Spare::of(&request));
            let error = match self.ask(kept, request, spare).await? {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let closed = age >= FRESH_FOR || was_closed(&error.error);
            request = match error.again {
                Some(Again::Unsent(unsent)) => unsent,
                // Once: a request that breaks its Backend must not break several.
                Some(Again::Spare(spare)) if closed && spare.is_possible() => {
                    may_repeat = false;
                    match spare.request() {
                        Some(again) => again,
                        None => return Err(broken(&error.error)),
                    }
                }
                again => return Err(Failure { again, ..broken(&error.error) }),
            };
            if !may_repeat {
                break;
            }
        }
        let new = match connect_http1(self).await {
            Ok(new) => new,
            Err(failure) => return Err(Failure { again: Some(Again::Unsent(request)), ..failure }),
        };
        let spare = (may_repeat && self.spare).then(|| Spare::of(&request));
        self.ask(new, request, spare).await?.map_err(|error| {
            let sent = !matches!(error.again, Some(Again::Unsent(_)));
            Failure { again: error.again, sent, ..broken(&error.error) }
        })
    }

    /// Asks over one connection; the inner error is that of the connection.
    async fn ask(
        &self,
        mut over: Http1,
        request: Request<Upload>,
        spare: Option<Spare>,
    ) -> Result<Result<Answer, Unanswered>, Failure> {
        let uploaded = request.body().uploaded();
        over.heard.asked();
        let answer = self.head(&uploaded, over.sender.try_send_request(request)).await?;
        over.heard.answered();
        Ok(match answer {
            Ok(response) => {
                let (again, response) = (spare.map(Again::Spare), response.map(Source::Backend));
                Ok(Answer { response, keep: Keep::Http1(over), again })
            }
            Err(error) => Err(Unanswered::new(error, spare)),
        })
    }

    /// What a Backend did not process is safe to send again, and to the same one: it may only have
    /// been done with the connection.
    async fn send_http2(&self, mut request: Request<Upload>) -> Result<Answer, Failure> {
        let mut tries = 0;
        loop {
            let stream = match self.stream().await {
                Ok(stream) => stream,
                Err(failure) => {
                    return Err(Failure { again: Some(Again::Unsent(request)), ..failure });
                }
            };
            let connection = stream.1.connection();
            let failure = match self.send_stream(stream, request).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let same = !failure.sent && tries < REFUSED_TRIES;
            match failure.again {
                Some(again) if same && again.is_possible() => {
                    // It may be ending and not know yet; what is under way on it goes on.
                    self.shared.pools.http2(self.hop.address()).forget(&connection);
                    tries += 1;
                    let Some(again) = again.request() else {
                        return Err(Failure { again: None, ..failure });
                    };
                    request = again;
                }
                again => return Err(Failure { again, ..failure }),
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
        let harmless = self.is_harmless(&request);
        let spare = request.body().is_repeatable().then(|| Spare::of(&request));
        let uploaded = request.body().uploaded();
        match self.head(&uploaded, sender.try_send_request(request)).await? {
            Ok(response) => {
                let again = spare.filter(|_| harmless && self.spare).map(Again::Spare);
                let response = response.map(Source::Backend);
                Ok(Answer { response, keep: Keep::Http2(place), again })
            }
            Err(error) => {
                let Unanswered { error, again } = Unanswered::new(error, spare);
                let unsent = matches!(again, Some(Again::Unsent(_)));
                let sent = !unsent && !refused_by_peer(&error);
                let again = again.filter(|_| !sent || harmless);
                Err(Failure { again, sent, ..broken(&error) })
            }
        }
    }

    /// A place on a connection to the Backend; one caller dials, the others wait for it, and fail
    /// with it: one after the other, the last would wait for as many time-outs as there are calls.
    async fn stream(&self) -> Result<(http2::SendRequest<Upload>, StreamPlace), Failure> {
        let all = self.shared.pools.http2(self.hop.address());
        if let Some(stream) = all.take(now()) {
            return Ok(stream);
        }
        let failure =
            |refusal, backends_fault| Failure { refusal, again: None, sent: false, backends_fault };
        let failed = all.failed();
        let mut last = match self.deadline {
            None => all.dialling.lock().await,
            Some(deadline) => timeout_at(deadline.at, all.dialling.lock())
                .await
                .map_err(|_| failure(Refusal::RequestTimeout, false))?,
        };
        if let Some(stream) = all.take(now()) {
            return Ok(stream);
        }
        if let Some(refusal) = last.filter(|_| all.failed() != failed) {
            return Err(failure(refusal, true));
        }
        match connect_http2(self).await {
            Ok(new) => all.add(new, now()),
            Err(failure) => {
                if failure.backends_fault {
                    all.note_failed(&mut last, failure.refusal);
                }
                return Err(failure);
            }
        }
        all.take(now()).ok_or_else(|| failure(Refusal::BackendProtocol, true))
    }

    /// Waits for the head of an answer, but not for ever. Only a Backend that has the whole
    /// request, and the time that its Policy gives it, is to blame for its silence.
    async fn head<A, E>(
        &self,
        uploaded: &Uploaded,
        answer: impl Future<Output = Result<A, E>>,
    ) -> Result<Result<A, E>, Failure> {
        let too_late = async {
            match self.deadline {
                Some(deadline) => sleep_until(deadline.at).await,
                None => loop {
                    let whole = uploaded.is_whole();
                    tokio::time::sleep(HEAD_TIMEOUT).await;
                    if whole {
                        break;
                    }
                },
            }
        };
        let excused = self.deadline.is_some_and(|deadline| deadline.by_client);
        tokio::select! {
            biased;
            answer = answer => Ok(answer),
            () = too_late => Err(Failure {
                refusal: Refusal::RequestTimeout,
                again: None,
                sent: true,
                backends_fault: !excused && uploaded.is_whole(),
            }),
        }
    }

    /// Whether repeating what may have been done does no harm: the method, or the Policy, says so.
    fn is_harmless(&self, request: &Request<Upload>) -> bool {
        let policy = &self.hop.service().policy.retries;
        is_idempotent(request.method()) || policy.non_idempotent
    }
}

/// Whether repeating what may have been done does no harm (RFC 9110 §9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE]
        .contains(method)
}
