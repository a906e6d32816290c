//! The end of a Link that answers exchanges.

use std::sync::Arc;

use edgemesh_proto::message::{Body, Message};
use h2::Reason;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::client::NEVER;
use crate::link::error::Cut;
use crate::link::exchange::{Exchange, Open, Tasks};
use crate::link::opening::{self, NoMessage};
use crate::link::outgoing::Outgoing;
use crate::link::window::Window;
use crate::link::wire::{Line, Wire};
use crate::link::{
    Answering, Called, Dialled, Inbound, Limits, MAX_FRAME, MAX_HEADERS, MAX_MISTAKES, MAX_OPENING,
    MAX_RESETS_AHEAD, OPENING_TIMEOUT, Operation, PING_EVERY, Peer, Rest, Serve,
};

/// A connection on which the other side opens exchanges.
#[derive(Clone, Debug)]
pub struct ServedLink {
    peer: Arc<Peer>,
    open: Arc<Open>,
    closing: CancellationToken,
}

impl ServedLink {
    /// Who is at the other end.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Whether the connection is there and not about to end.
    pub fn is_open(&self) -> bool {
        !self.line().is_gone() && !self.closing.is_cancelled()
    }

    /// Resolves when the connection is gone.
    pub async fn closed(&self) {
        self.line().gone().await;
    }

    /// Why the connection broke, where it did not end in order.
    pub fn why(&self) -> Option<&str> {
        self.line().why()
    }

    /// Exchanges that are not over.
    pub fn exchanges(&self) -> usize {
        self.open.count()
    }

    fn line(&self) -> &Line {
        self.open.line()
    }

    /// Takes no more exchanges (GOAWAY); those under way go on, and then the connection ends.
    pub fn close(&self) {
        self.closing.cancel();
    }

    /// Ends the connection now, and breaks what is under way.
    pub fn cut(&self) {
        self.close();
        self.line().cut();
    }
}

/// Answers what the other side of a connection asks, in tasks of `tasks`, until the connection ends.
pub fn serve<S>(
    dialled: Dialled<S>,
    handler: Arc<dyn Serve>,
    limits: Limits,
    tasks: &TaskTracker,
) -> ServedLink
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Dialled { stream, peer, .. } = dialled;
    let (wire, line) = Wire::new(stream, Window::new(limits.window_of_all, false), tasks.clone());
    let link =
        ServedLink { peer, open: Arc::new(Open::new(line)), closing: CancellationToken::new() };
    let (served, builder) = (link.clone(), builder(limits, tasks.clone()));
    tasks.spawn(async move {
        let (peer, closing) = (&served.peer, &served.closing);
        let service = service_fn(|request| {
            let exchange = served.open.begin_another();
            exchange.makes_a_task();
            let (handler, peer) = (handler.clone(), peer.clone());
            Call { handler, peer, exchange, closing: closing.clone() }.answer(request)
        });
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(wire), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(%peer, error, "a Link of a peer ended");
        }
    });
    link
}

fn builder(limits: Limits, tasks: TaskTracker) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(Tasks(tasks));
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(limits.window)
        .initial_connection_window_size(limits.window_of_all)
        .max_send_buf_size(limits.window as usize)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(limits.exchanges)
        .max_pending_accept_reset_streams(MAX_RESETS_AHEAD)
        .max_local_error_reset_streams(MAX_MISTAKES)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(NEVER);
    builder
}

/// One exchange.
struct Call {
    handler: Arc<dyn Serve>,
    peer: Arc<Peer>,
    exchange: Arc<Exchange>,
    closing: CancellationToken,
}

impl Call {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Outgoing>, Cut> {
        let answering = self.answering(request).await?;
        opening::show("answers an exchange", &answering.opening);
        let first = match opening::encode(&answering.opening, MAX_OPENING) {
            Ok(first) => first,
            Err(error) => return Err(Cut::new(Reason::INTERNAL_ERROR, error.to_string())),
        };
        Ok(Response::new(Outgoing::answers(first, answering.rest, &self.exchange)))
    }

    async fn answering(&self, request: Request<Incoming>) -> Result<Answering, Cut> {
        let operation = match *request.method() {
            Method::POST => Operation::of_path(request.uri().path()),
            _ => None,
        };
        let Some(operation) = operation else {
            let what = format!("{} {}", request.method(), request.uri().path());
            return Ok(self.refuse(&Message::default(), "unknownOperation", &what));
        };
        let mut incoming = request.into_body();
        let read = opening::read(&mut incoming, MAX_OPENING);
        let (opening, first) = match tokio::time::timeout(OPENING_TIMEOUT, read).await {
            Ok(Ok(opening)) => opening,
            Ok(Err(NoMessage::Broken(error))) => {
                return Err(Cut::new(Reason::CANCEL, error.to_string()));
            }
            Ok(Err(NoMessage::Malformed(why))) => {
                return Ok(self.refuse(&Message::default(), "malformed", &why));
            }
            Ok(Err(NoMessage::TooLong(why))) => {
                // Nobody of ours sends these: the peer is out of its mind.
                self.closing.cancel();
                return Ok(self.refuse(&Message::default(), "tooLarge", &why));
            }
            Err(_) => {
                let what = format!("no Message within {} s", OPENING_TIMEOUT.as_secs());
                return Ok(self.refuse(&Message::default(), "malformed", &what));
            }
        };
        if let Err((label, what)) = check(&self.peer, operation, &opening) {
            return Ok(self.refuse(&opening, label, &what));
        }
        opening::show("opens an exchange", &opening);
        let body = Inbound::of_question(first, incoming, &self.exchange);
        let called = Called { operation, opening, body, from: self.peer.clone() };
        Ok(self.handler.clone().serve(called).await)
    }

    fn refuse(&self, to: &Message, label: &str, why: &str) -> Answering {
        tracing::warn!(peer = %self.peer, label, "an exchange was refused: {why}");
        Answering { opening: opening::refusal(to, label, why), rest: Rest::Nothing }
    }
}

/// Whether the Message is one that this peer may open such an exchange with; else a label and words.
pub(super) fn check(
    peer: &Peer,
    operation: Operation,
    opening: &Message,
) -> Result<(), (&'static str, String)> {
    let (header, route) = (&opening.header, &opening.route);
    if header.id.is_empty() || route.operation.is_empty() {
        return Err(("malformed", "a Message without header or route".into()));
    }
    let fits = match (operation, opening.body.as_deref()) {
        (_, None) => return Err(("malformed", "a Message without a body".into())),
        (Operation::Request, Some(body)) => matches!(body, Body::Request(_)),
        (Operation::Stream, Some(body)) => matches!(body, Body::Connect(_)),
        (Operation::Join, Some(body)) => matches!(body, Body::Join(_)),
        (Operation::Control, Some(_)) => true,
    };
    if !fits {
        let what = format!("`{}` opens no {operation:?}", route.operation);
        return Err(("unknownOperation", what));
    }
    match peer.node() {
        None if operation == Operation::Join => Ok(()),
        None => Err(("notAllowed", "without a certificate a node may only join".into())),
        Some(node) if peer.is_hub() || *node.0 == *route.source => Ok(()),
        Some(node) => Err(("notAllowed", format!("`{node}` speaks as `{}`", route.source))),
    }
}
