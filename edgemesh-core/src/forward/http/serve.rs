//! A client's connection: hyper's server side, with the limits that every wait and size has.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::UPGRADE;
use http::{Method, Request};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::forward::http::became::Streams;
use crate::forward::http::exchange::exchange;
use crate::forward::http::gate::{Gate, admit, turn_away};
use crate::forward::http::turn::{Client, Turn};
use crate::forward::http::{Origin, Towards, plain};
use crate::forward::{Access, What};
use crate::io::Prefixed;
use crate::metrics::{Carried, Ended};
use crate::refusal::Refusal;

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0 and 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Longest wait for a whole request head, also between two requests of one connection.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// Largest head, and the largest piece of a body that is held at once.
pub(super) const MAX_BUFFER: usize = 64 * 1024;
/// Header fields of one head.
pub(super) const MAX_HEADERS: usize = 128;
/// Streams of one client connection at once.
const MAX_STREAMS: u32 = 256;
/// Streams that a client reset before they were so much as looked at; one more ends the connection
/// (a flood of rapid resets).
const MAX_RESETS_AHEAD: usize = 20;
/// Streams that the mesh reset for a client's mistakes; one more ends the connection.
const MAX_MISTAKES: usize = 128;
/// Bytes under way of one stream: enough for a gigabit at 2 ms.
pub(super) const WINDOW_STREAM: u32 = 256 * 1024;
/// Bytes under way of one connection.
pub(super) const WINDOW_CONNECTION: u32 = 1024 * 1024;
/// A silent peer is asked whether it is still there.
pub(super) const PING_EVERY: Duration = Duration::from_secs(30);

/// hyper's tasks, owned by the mesh so that a stop can wait for them.
#[derive(Clone, Debug)]
pub(super) struct Tracked(pub(super) TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

/// Serves the requests of a socket whose first bytes are `prefix`, as [`serve`] does; those that are
/// only to be passed on in a shorter way.
pub async fn serve_socket(
    origin: Arc<Origin>,
    stream: TcpStream,
    version: Version,
    prefix: Vec<u8>,
) {
    let stream = match (version, origin.towards) {
        (Version::Http1, Towards::Address(to)) => {
            plain::converse(&origin, to, stream, prefix).await
        }
        (Version::Http1 | Version::Http2, _) => Some(Prefixed::new(prefix.into(), stream)),
    };
    if let Some(stream) = stream {
        // Its state is large, and most connections never need it.
        Box::pin(serve(origin, stream, version, None)).await;
    }
}

/// Serves the requests of one connection until it ends, those that `gate` lets in where there is
/// one. A stop lets the request under way end.
pub async fn serve<S>(
    origin: Arc<Origin>,
    stream: Prefixed<S>,
    version: Version,
    gate: Option<Arc<dyn Gate>>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let turn = turn_of(&origin, version);
    let io = TokioIo::new(Client::new(stream, turn.clone()));
    let stop = origin.shared.stop.clone();
    // Before the connection, so that it is dropped after it.
    let begun = Begun::new(origin.clone(), version, turn.clone());
    let streams = Streams(origin.shared.tasks.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        // What follows the head of an upgrade is no head either.
        let bodiless = request.body().is_end_stream() && !request.headers().contains_key(UPGRADE);
        let has_body = !bodiless || request.method() == Method::CONNECT;
        let (origin, in_call) = (origin.clone(), turn.call(has_body));
        let admitted = admit(gate.as_deref(), request);
        async move {
            let response = match admitted {
                Ok(request) => exchange(origin, request).await,
                Err(turned) => turn_away(origin, *turned),
            };
            Ok::<_, Infallible>(response.map(|body| {
                body.map_err(move |error| {
                    let _until_the_body_is_dropped = &in_call;
                    error
                })
            }))
        }
    });
    let ended = match version {
        Version::Http1 => {
            let mut connection = pin!(http1().serve_connection(io, service).with_upgrades());
            tokio::select! {
                biased; // what was sniffed is read before a stop can find the connection idle
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
        Version::Http2 => {
            let mut connection = pin!(http2(streams).serve_connection(io, service));
            tokio::select! {
                biased; // what was sniffed is read before a stop can find the connection idle
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        }
    };
    if let Err(error) = ended {
        if error.is_parse() || error.is_parse_too_large() {
            begun.turn.take_partial();
            let refusal = match error.is_parse_too_large() {
                // Past hyper's own bound on targets, which only its words tell from the other.
                true if error.to_string().contains("URI") => Refusal::TargetTooLong,
                true => Refusal::HeadTooLarge,
                false => Refusal::BadRequest,
            };
            begun.end(Ended::Refused(refusal), Some(refusal.row().http));
        } else if error.is_timeout() {
            begun.late();
        }
        tracing::debug!(error = &error as &dyn std::error::Error, "client connection ended");
    }
}

/// Where the connection's turns are noted. On HTTP/2 they overlap, so that it always counts as one
/// on which something is under way.
pub(super) fn turn_of(origin: &Origin, version: Version) -> Arc<Turn> {
    match (&origin.place, version) {
        (Some(place), Version::Http1) => place.turn.clone(),
        (Some(place), Version::Http2) => {
            place.turn.busy();
            Arc::default()
        }
        (None, Version::Http1 | Version::Http2) => Arc::default(),
    }
}

/// hyper's side of an HTTP/1 client, with every wait and size bounded.
fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .max_headers(MAX_HEADERS)
        // A close of the client's side ends the request under way. hyper would otherwise not
        // look at the client again until the answer comes, and could tell neither a client
        // that is gone nor one that was reset.
        .half_close(false);
    builder
}

/// hyper's side of an HTTP/2 client, with every wait and size bounded.
fn http2(streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESETS_AHEAD)
        .max_local_error_reset_streams(MAX_MISTAKES)
        .initial_stream_window_size(WINDOW_STREAM)
        .initial_connection_window_size(WINDOW_CONNECTION)
        .max_header_list_size(MAX_BUFFER as u32)
        .max_send_buf_size(MAX_BUFFER)
        .keep_alive_interval(PING_EVERY);
    builder
}

/// A request that never became a call, and still is a flow: it is malformed, or its head never
/// became whole. Dropped with part of a head, the client left or the mesh stopped.
pub(super) struct Begun {
    origin: Arc<Origin>,
    version: Version,
    turn: Arc<Turn>,
}

impl Begun {
    pub(super) const fn new(origin: Arc<Origin>, version: Version, turn: Arc<Turn>) -> Self {
        Self { origin, version, turn }
    }

    /// Part of a head was all that came in its time.
    pub(super) fn late(&self) {
        if self.turn.take_partial() {
            self.end(Ended::Refused(Refusal::BadRequest), None); // nobody says anything
        }
    }

    fn end(&self, ended: Ended, status: Option<u16>) {
        self.origin.shared.ended(&Access {
            carried: match self.version {
                Version::Http1 => Carried::Http1,
                Version::Http2 => Carried::Http2,
            },
            client: self.origin.client,
            destination: self.origin.dialled,
            service: None,
            rule: None,
            backend: None,
            what: What::Bytes,
            status,
            ended,
            from: None,
            message: None,
            attempts: 0,
            up: 0,
            down: 0,
            took: Duration::ZERO,
        });
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // On HTTP/2 every call has a stream; a connection's own frames are no flow.
        if self.version == Version::Http1 && self.turn.take_partial() {
            self.end(self.origin.shared.dropped(), None);
        }
    }
}
