//! Many requests at once, their answers in the order of the requests, also while Backends die.

use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt as _};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};

use crate::forward::http::{Body, BodyError, By, is_idempotent};
use crate::mesh::client::Http;
use crate::mesh::doors::Refused;
use crate::refusal::Refusal;

/// Longest body of an answer, which is held whole, in bytes.
pub const MAX_ANSWER: usize = 16 << 20;

/// Why one of many requests has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The mesh refused it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The answer broke off, and the call could not be repeated.
    #[error("the answer of {backend} broke off")]
    Broken {
        /// Who began to answer.
        backend: SocketAddr,
        /// What happened.
        source: BodyError,
    },
    /// The answer is longer than [`MAX_ANSWER`].
    #[error("the answer of {backend} is longer than {MAX_ANSWER} bytes")]
    TooLong {
        /// Who answered.
        backend: SocketAddr,
    },
}

impl Http {
    /// Sends `requests`, at most `width` (at least one) at once, and gives their answers, whole, in
    /// the order of the requests. One that fails is an `Err` in its place; the others go on.
    ///
    /// A call whose Backend dies is moved to another one: always when no byte of it was sent; when
    /// its answer did not come, or not whole, only if its method is idempotent (RFC 9110 §9.2.2) or
    /// the Policy says `nonIdempotent: true`. Nobody has seen anything of such an answer. At most
    /// `retries.attempts` moves a call, within the Policy's retry budget, each on a Backend that was
    /// not tried, and none takes a token of the client-side limit. A status, 503 among them, is an
    /// answer.
    ///
    /// Nothing happens unless the stream is polled: a slow reader slows the calls down, and dropping
    /// the stream cancels those under way. Requests are taken from the iterator one by one, as they
    /// are sent. Trailers are dropped.
    pub fn map_ordered<I>(
        &self,
        requests: I,
        width: usize,
    ) -> impl Stream<Item = Result<Response<Bytes>, CallError>> + Send + Unpin + use<I>
    where
        I: IntoIterator<Item = Request<Bytes>, IntoIter: Send>,
    {
        let http = self.clone();
        stream::iter(requests)
            .map(move |request| Box::pin(whole(http.clone(), request)))
            .buffered(width.max(1))
    }
}

/// One call to its last byte.
async fn whole(http: Http, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
    let (mut tried, mut failed) = (Vec::new(), None);
    loop {
        let copy = request.clone().map(Full::new);
        let (error, by) = match http.attempt(copy, tried.clone()).await {
            Ok(response) => {
                let Some(by) = response.extensions().get::<By>().cloned() else {
                    // A route's redirect: the mesh answers by itself, in a head alone.
                    return Ok(response.map(|_| Bytes::new()));
                };
                match collect(response, by.backend.address).await {
                    Ok(response) => return Ok(response),
                    Err(error) => (error, Some(by)),
                }
            }
            Err((refused, unserved)) => (refused.into(), unserved.and_then(|u| u.by)),
        };
        // Nobody was asked: what the Backend before did says more.
        let Some(by) = by else { return Err(failed.unwrap_or(error)) };
        let retries = by.service.policy.retries;
        let harmless = is_idempotent(request.method()) || retries.non_idempotent;
        let may = match verdict(&error) {
            Verdict::NotSent => true,
            Verdict::Died => harmless && by.service.live.may_retry(),
            Verdict::Final => false,
        };
        if !may || tried.len() >= usize::from(retries.attempts) {
            return Err(error);
        }
        tried.push(by.backend);
        failed = Some(error);
        http.repeated();
    }
}

/// What a failure says of a repeat.
enum Verdict {
    /// No byte of the call was sent.
    NotSent,
    /// The Backend died over it.
    Died,
    /// It would end the same way, or nobody would wait for it.
    Final,
}

fn verdict(error: &CallError) -> Verdict {
    match error {
        CallError::Broken {
            source: BodyError::Backend(_) | BodyError::Link(_) | BodyError::Inbox(_),
            ..
        } => Verdict::Died,
        CallError::Broken { source: BodyError::TimedOut, .. } | CallError::TooLong { .. } => {
            Verdict::Final
        }
        CallError::Refused(refused) => match refused.refusal {
            Refusal::ConnectFailed | Refusal::ConnectTimeout | Refusal::NoPath => Verdict::NotSent,
            Refusal::BackendReset => Verdict::Died,
            _ => Verdict::Final,
        },
    }
}

async fn collect(
    response: Response<Body>,
    backend: SocketAddr,
) -> Result<Response<Bytes>, CallError> {
    let (parts, mut body) = response.into_parts();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| CallError::Broken { backend, source })?;
        let Ok(data) = frame.into_data() else { continue };
        if all.len() + data.len() > MAX_ANSWER {
            return Err(CallError::TooLong { backend });
        }
        all.extend_from_slice(&data);
    }
    Ok(Response::from_parts(parts, all.freeze()))
}
