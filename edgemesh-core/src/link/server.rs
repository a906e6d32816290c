//! The end of a Link that answers exchanges.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use edgemesh_proto::message::{Body, Message};
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::error::Cut;
use crate::link::exchange::{Exchange, Open};
use crate::link::keepalive::Keepalive;
use crate::link::opening::{self, NoMessage};
use crate::link::outgoing::say;
use crate::link::pipe::PIPE;
use crate::link::received::Received;
use crate::link::window::Window;
use crate::link::wire::{Line, Wire};
use crate::link::{
    Answering, Called, Dialled, Inbound, Limits, MAX_FRAME, MAX_HEADERS, MAX_MISTAKES, MAX_OPENING,
    MAX_RESETS_AHEAD, OPENING_TIMEOUT, Operation, Peer, REMEMBERED_RESETS, Rest, Serve,
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
    let (served, of) = (link.clone(), tasks.clone());
    tasks.spawn(async move {
        if let Err(error) = answer_all(&served, wire, handler, limits, of).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(peer = %served.peer, error, "a Link of a peer ended");
        }
    });
    link
}

/// Until the connection ends.
async fn answer_all<S>(
    link: &ServedLink,
    wire: Box<Wire<S>>,
    handler: Arc<dyn Serve>,
    limits: Limits,
    tasks: TaskTracker,
) -> Result<(), h2::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut closing = pin!(link.closing.cancelled());
    let mut connection: Connection<_, Bytes> = tokio::select! {
        made = builder(limits).handshake(wire) => made?,
        () = closing.as_mut() => return Ok(()),
    };
    let mut keepalive = Keepalive::new(connection.ping_pong(), link.open.line().clone());
    let mut is_closing = false;
    loop {
        let next = poll_fn(|cx| {
            keepalive.poll(cx);
            if !is_closing && closing.as_mut().poll(cx).is_ready() {
                is_closing = true;
                connection.graceful_shutdown();
            }
            connection.poll_accept(cx)
        });
        let Some(next) = next.await else { return Ok(()) };
        let (request, respond) = next?;
        let call = Call {
            handler: handler.clone(),
            peer: link.peer.clone(),
            exchange: link.open.begin_another(),
            closing: link.closing.clone(),
        };
        tasks.spawn(call.answer(request, respond));
    }
}

fn builder(limits: Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(limits.window)
        .initial_connection_window_size(limits.window_of_all)
        .data_frame_budget(limits.framing())
        .max_send_buffer_size(PIPE)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(limits.exchanges)
        .max_pending_accept_reset_streams(MAX_RESETS_AHEAD)
        .max_local_error_reset_streams(Some(MAX_MISTAKES))
        .max_concurrent_reset_streams(REMEMBERED_RESETS);
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
    async fn answer(self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        match self.answered(request, &mut respond).await {
            // What is written goes on by itself.
            Ok(answering) => self.say(answering, respond).await,
            Err(cut) => {
                tracing::debug!(peer = %self.peer, "an exchange is broken off: {}", cut.why);
                respond.send_reset(cut.reason);
            }
        }
    }

    /// The answer, unless the exchange ends before.
    async fn answered(
        &self,
        request: Request<RecvStream>,
        respond: &mut SendResponse<Bytes>,
    ) -> Result<Answering, Cut> {
        let mut answering = pin!(self.answering(request));
        poll_fn(|cx| {
            if let Poll::Ready(answering) = answering.as_mut().poll(cx) {
                return Poll::Ready(answering);
            }
            if respond.poll_reset(cx).is_ready() || self.exchange.poll_given_up(cx).is_ready() {
                return Poll::Ready(Err(Cut::new(Reason::CANCEL, "nobody waits for its answer")));
            }
            Poll::Pending
        })
        .await
    }

    async fn say(self, answering: Answering, mut respond: SendResponse<Bytes>) {
        opening::show("answers an exchange", &answering.opening);
        let first = match opening::encode(&answering.opening, MAX_OPENING) {
            Ok(first) => first,
            Err(error) => {
                tracing::warn!(peer = %self.peer, "an exchange is not answered: {error}");
                return respond.send_reset(Reason::INTERNAL_ERROR);
            }
        };
        let Ok(stream) = respond.send_response(Response::new(()), false) else {
            return; // it was given up
        };
        self.exchange.speak(stream);
        if let Some(pump) = say(&self.exchange, first, answering.rest) {
            pump.await;
        }
    }

    async fn answering(&self, request: Request<RecvStream>) -> Result<Answering, Cut> {
        let operation = match *request.method() {
            Method::POST => Operation::of_path(request.uri().path()),
            _ => None,
        };
        let Some(operation) = operation else {
            let what = format!("{} {}", request.method(), request.uri().path());
            return Ok(self.refuse(&Message::default(), "unknownOperation", &what));
        };
        let mut received = Received::new(request.into_body());
        let read = opening::read(&mut received, MAX_OPENING);
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
        let body = Inbound::of_question(first, received, &self.exchange);
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
