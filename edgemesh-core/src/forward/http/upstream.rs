//! Sends one request to one Backend, over a kept connection or a new one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::forward::Shared;
use crate::forward::http::body::Upload;
use crate::forward::http::pool::{Pools, StreamPlace};
use crate::forward::http::serve::{Tracked, WINDOW_CONNECTION, WINDOW_STREAM};
use crate::io::now;
use crate::plan::Hop;
use crate::refusal::Refusal;

/// Longest wait for the head of an answer where no Policy says otherwise.
const HEAD_TIMEOUT: Duration = Duration::from_secs(300);
/// Kept connections that may turn out dead before a new one is made.
const STALE_TRIES: usize = 4;
/// How often one Backend may say that it did not process a stream before another is asked.
const REFUSED_TRIES: usize = 1;

/// A Backend's answer.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    /// What to do with the connection afterwards.
    pub(super) keep: Keep,
    /// The request once more, where it was asked for and can be repeated.
    pub(super) again: Option<Request<Upload>>,
}

/// Why there is none.
pub(super) struct Failure {
    pub(super) refusal: Refusal,
    /// The request, where it can be sent again.
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

/// Sends `request` to the Hop's Backend and waits for the head of its answer. With `spare`, a
/// copy is kept so that the caller may repeat it.
pub(super) async fn send(
    shared: &Shared,
    hop: &Hop,
    request: Request<Upload>,
    spare: bool,
) -> Result<Answer, Failure> {
    let timeout = hop.service().policy.request_timeout.unwrap_or(HEAD_TIMEOUT);
    let sent = async {
        match request.version() {
            Version::HTTP_2 => send_http2(shared, hop, request, spare).await,
            _ => send_http1(shared, hop, request, spare).await,
        }
    };
    tokio::time::timeout(timeout, sent).await.unwrap_or(Err(Failure {
        refusal: Refusal::RequestTimeout,
        again: None,
        sent: true,
        backends_fault: true,
    }))
}

async fn send_http1(
    shared: &Shared,
    hop: &Hop,
    mut request: Request<Upload>,
    spare: bool,
) -> Result<Answer, Failure> {
    let address = hop.address();
    let repeatable = is_repeatable(&request);
    for _ in 0..STALE_TRIES {
        let Some(mut sender) = shared.pools.take_http1(address, !repeatable, now()) else { break };
        if sender.ready().await.is_err() {
            continue;
        }
        // The Backend may be closing the connection at this very moment.
        let copy = repeatable.then(|| copy(&request));
        match sender.try_send_request(request).await {
            Ok(response) => {
                return Ok(Answer { response, keep: Keep::Http1(sender), again: copy });
            }
            Err(mut error) => match (error.take_message(), copy) {
                (Some(unsent), _) => request = unsent,
                // Once only: if it was not the close, it was this request.
                (None, Some(copy)) if !is_nonsense(error.error()) => {
                    request = copy;
                    break;
                }
                (None, _) => return Err(broken(error.error())),
            },
        }
    }
    let mut sender = connect_http1(shared, hop).await.map_err(|f| f.with(&mut request))?;
    let copy = (repeatable && spare).then(|| copy(&request));
    match sender.try_send_request(request).await {
        Ok(response) => Ok(Answer { response, keep: Keep::Http1(sender), again: copy }),
        Err(mut error) => {
            let sent = error.message().is_none();
            let again = error.take_message().or(copy);
            Err(Failure { again, sent, ..broken(error.error()) })
        }
    }
}

/// Whether what came was no HTTP, in which case it was no close either.
fn is_nonsense(error: &hyper::Error) -> bool {
    error.is_parse() && !error.is_incomplete_message()
}

fn broken(error: &hyper::Error) -> Failure {
    let refusal = if is_nonsense(error) { Refusal::BackendProtocol } else { Refusal::BackendReset };
    tracing::debug!(error = error as &dyn std::error::Error, "no answer from the backend");
    Failure { refusal, again: None, sent: true, backends_fault: true }
}

/// What a Backend did not process is safe to send again, whatever it is, and to the same one: it
/// may only have been done with the connection.
async fn send_http2(
    shared: &Shared,
    hop: &Hop,
    mut request: Request<Upload>,
    spare: bool,
) -> Result<Answer, Failure> {
    for _ in 0..REFUSED_TRIES {
        let place = place_http2(shared, hop).await.map_err(|f| f.with(&mut request))?;
        let connection = place.1.connection();
        match stream_http2(place, request, spare).await {
            Err(Failure { again: Some(again), sent: false, .. }) => {
                // It may be ending and not know yet; what is under way on it goes on.
                shared.pools.http2(hop.address()).forget(&connection);
                request = again;
            }
            answered_or_not => return answered_or_not,
        }
    }
    let place = place_http2(shared, hop).await.map_err(|f| f.with(&mut request))?;
    stream_http2(place, request, spare).await
}

/// Room for a stream, on a connection that is there or a new one.
async fn place_http2(shared: &Shared, hop: &Hop) -> Result<Place, Failure> {
    let all = shared.pools.http2(hop.address());
    if let Some(place) = all.take(now()) {
        return Ok(place);
    }
    let _one_dials = all.dialling.lock().await;
    if let Some(place) = all.take(now()) {
        return Ok(place);
    }
    all.add(connect_http2(shared, hop).await?, now());
    let refusal = Refusal::BackendProtocol;
    all.take(now()).ok_or(Failure { refusal, again: None, sent: false, backends_fault: true })
}

/// A sender, and its place among the streams of its connection.
type Place = (http2::SendRequest<Upload>, StreamPlace);

async fn stream_http2(
    (mut sender, place): Place,
    request: Request<Upload>,
    spare: bool,
) -> Result<Answer, Failure> {
    // A body that is still to come cannot be sent twice; without one, what was refused can, and
    // what may have been served only where that is the same as once.
    let copy = request.body().is_empty().then(|| copy(&request));
    let repeatable = spare && is_repeatable(&request);
    match sender.try_send_request(request).await {
        Ok(response) => {
            let again = copy.filter(|_| repeatable);
            Ok(Answer { response, keep: Keep::Http2(place), again })
        }
        Err(mut error) => {
            let unsent = error.take_message();
            let sent = unsent.is_none() && !refused_by_peer(error.error());
            let again = unsent.or_else(|| copy.filter(|_| repeatable || !sent));
            Err(Failure { again, sent, ..broken(error.error()) })
        }
    }
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

fn is_repeatable(request: &Request<Upload>) -> bool {
    request.body().is_empty() && is_idempotent(request.method())
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
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

impl Failure {
    fn with(mut self, request: &mut Request<Upload>) -> Self {
        let empty = Request::new(Upload::again(request.body().uploaded()));
        self.again = Some(std::mem::replace(request, empty));
        self
    }

    fn dial(error: &crate::dial::DialError) -> Self {
        tracing::debug!(error = error as &dyn std::error::Error, "no connection to the backend");
        let backends_fault = error.blames_backend();
        Self { refusal: error.refusal(), again: None, sent: false, backends_fault }
    }
}

async fn connect_http1(shared: &Shared, hop: &Hop) -> Result<http1::SendRequest<Upload>, Failure> {
    let stream = dial(shared, hop).await?;
    let (sender, connection) = http1::Builder::new()
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure { sent: false, ..broken(&error) })?;
    shared.tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "upstream connection ended");
        }
    });
    Ok(sender)
}

async fn connect_http2(shared: &Shared, hop: &Hop) -> Result<http2::SendRequest<Upload>, Failure> {
    let stream = dial(shared, hop).await?;
    let (sender, connection) = http2::Builder::new(Tracked(shared.tasks.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_STREAM)
        .initial_connection_window_size(WINDOW_CONNECTION)
        .keep_alive_interval(crate::forward::http::serve::PING_EVERY)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure { sent: false, ..broken(&error) })?;
    shared.tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = &error as &dyn std::error::Error, "upstream connection ended");
        }
    });
    Ok(sender)
}

async fn dial(shared: &Shared, hop: &Hop) -> Result<tokio::net::TcpStream, Failure> {
    if shared.is_own(hop.address()) {
        let refusal = Refusal::Loop;
        return Err(Failure { refusal, again: None, sent: false, backends_fault: false });
    }
    let timeout = hop.service().policy.connect_timeout;
    shared.connect(hop.address(), timeout).await.map_err(|error| Failure::dial(&error))
}
