//! The end of a Link that opens exchanges.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll::Ready;
use std::task::{Context, Waker};

use bytes::Bytes;
use edgemesh_proto::message::Message;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{Method, Request, StatusCode, Uri};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::link::error::{Failure, LinkError};
use crate::link::exchange::{Exchange, Open};
use crate::link::keepalive::Keepalive;
use crate::link::opening;
use crate::link::outgoing::say;
use crate::link::pipe::PIPE;
use crate::link::received::Received;
use crate::link::window::Window;
use crate::link::wire::{Line, Wire};
use crate::link::{
    Dialled, Inbound, Limits, MAX_FRAME, MAX_HEADERS, MAX_MISTAKES, MAX_OPENING, MAX_RESETS_AHEAD,
    Operation, Peer, REMEMBERED_RESETS, Reply, Rest,
};

/// An open connection on which we open exchanges. Dropping every clone of it drains it, as
/// [`Link::close`] does.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    peer: Arc<Peer>,
    /// `None` once no more exchanges are to be opened.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    open: Arc<Open>,
    most: usize,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// Makes a Link of a connection whose other side serves. Its tasks end when it does.
///
/// # Errors
/// When the connection is broken already.
pub async fn client<S>(
    dialled: Dialled<S>,
    limits: Limits,
    tasks: TaskTracker,
) -> Result<Link, LinkError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Dialled { stream, peer, .. } = dialled;
    let (wire, line) = Wire::new(stream, Window::new(limits.window_of_all, true), tasks.clone());
    let (sender, mut connection) =
        builder(limits).handshake(wire).await.map_err(|error| LinkError::of_http2(error, true))?;
    let (from, on) = (peer.clone(), line.clone());
    tasks.spawn(async move {
        let mut keepalive = Keepalive::new(connection.ping_pong(), on);
        let ended = poll_fn(|cx| {
            keepalive.poll(cx);
            Pin::new(&mut connection).poll(cx)
        });
        if let Err(error) = ended.await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(peer = %from, error, "a Link to a peer ended");
        }
    });
    Ok(Link(Arc::new(Shared {
        peer,
        sender: Mutex::new(Some(sender)),
        open: Arc::new(Open::new(line)),
        most: limits.exchanges as usize,
        tasks,
        closing: CancellationToken::new(),
    })))
}

fn builder(limits: Limits) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits.window)
        .initial_connection_window_size(limits.window_of_all)
        .data_frame_budget(limits.framing())
        .max_send_buffer_size(PIPE)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(0) // nothing is pushed to us
        .max_pending_accept_reset_streams(MAX_RESETS_AHEAD)
        .max_local_error_reset_streams(Some(MAX_MISTAKES))
        .max_concurrent_reset_streams(REMEMBERED_RESETS);
    builder
}

impl Link {
    /// Who is at the other end.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.0.peer
    }

    /// Whether exchanges can be opened, as far as is known.
    pub fn is_open(&self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        let takes = |sender: &mut SendRequest<_>| !matches!(sender.poll_ready(cx), Ready(Err(_)));
        !self.line().is_gone() && self.0.sender.lock().as_mut().is_some_and(takes)
    }

    /// Exchanges that are not over.
    pub fn exchanges(&self) -> usize {
        self.0.open.count()
    }

    /// Resolves when the connection is gone.
    pub async fn closed(&self) {
        self.line().gone().await;
    }

    /// Why the connection broke, where it did not end in order.
    pub fn why(&self) -> Option<&str> {
        self.line().why()
    }

    fn line(&self) -> &Line {
        self.0.open.line()
    }

    /// Opens no more exchanges; those under way go on, and then the connection ends.
    pub fn close(&self) {
        drop(self.0.sender.lock().take());
        self.0.closing.cancel();
    }

    /// Resolves when no more exchanges are opened on our side: what lives as long as the Link is used,
    /// and not as long as it drains, ends then.
    pub async fn closing(&self) {
        tokio::select! {
            () = self.0.closing.cancelled() => {}
            () = self.closed() => {}
        }
    }

    /// Ends the connection now, and breaks what is under way.
    pub fn cut(&self) {
        self.close();
        self.line().cut();
    }

    /// Opens an exchange: `opening`, then `rest`. Resolves with the first Message of the answer.
    /// Dropped before, it gives the exchange up.
    ///
    /// # Errors
    /// [`LinkError::kind`] says whether it may be tried elsewhere. An answer that refuses is none.
    pub async fn open(
        &self,
        operation: Operation,
        opening: &Message,
        rest: Rest,
    ) -> Result<Reply, LinkError> {
        self.open_with(operation, opening, &mut Some(rest)).await
    }

    /// As [`Link::open`]; where nothing left, `rest` is still there afterwards.
    ///
    /// # Errors
    /// As [`Link::open`].
    pub async fn open_with(
        &self,
        operation: Operation,
        opening: &Message,
        rest: &mut Option<Rest>,
    ) -> Result<Reply, LinkError> {
        let first = opening::encode(opening, MAX_OPENING)?;
        opening::show("opens an exchange", opening);
        let busy = || LinkError::new(Failure::NotSent, "too many exchanges on the Link");
        let exchange = self.0.open.begin(self.0.most).ok_or_else(busy)?;
        let mut asked = Asked(Some(exchange.clone()));
        let response = self.send(operation, &exchange, first, rest)?;
        let response = response.await.map_err(|error| exchange.broken(error))?;
        if response.status() != StatusCode::OK {
            let what = format!("the other side answers with status {}", response.status());
            return Err(LinkError::new(Failure::Protocol, what));
        }
        let mut received = Received::new(response.into_body());
        let read = opening::read(&mut received, MAX_OPENING).await;
        let (opening, first) = read.map_err(|none| none.into_error())?;
        asked.0 = None;
        let body = Inbound::of_answer(first, received, exchange);
        opening::show("answers an exchange", &opening);
        Ok(Reply { opening, body })
    }

    /// Sends the first Message, and begins with the rest.
    fn send(
        &self,
        operation: Operation,
        exchange: &Arc<Exchange>,
        first: Vec<u8>,
        rest: &mut Option<Rest>,
    ) -> Result<ResponseFuture, LinkError> {
        // A sender waits for one exchange at a time; each has its own, so that none waits for another.
        let sender = self.0.sender.lock().clone();
        let closed = || LinkError::new(Failure::NotSent, "the Link is closed");
        let sent = sender.ok_or_else(closed)?.send_request(request(operation), false);
        let untouched = |error| LinkError::of_http2(error, true).or_of_line(self.line());
        let (response, stream) = sent.map_err(untouched)?;
        exchange.speak(stream);
        if let Some(pump) = say(exchange, first, rest.take().unwrap_or_default()) {
            self.0.tasks.spawn(pump);
        }
        Ok(response)
    }
}

/// An exchange that was asked and not answered yet. Dropped, it is given up.
struct Asked(Option<Arc<Exchange>>);

impl Drop for Asked {
    fn drop(&mut self) {
        if let Some(exchange) = &self.0 {
            exchange.give_up();
        }
    }
}

fn request(operation: Operation) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri(operation);
    request
}

/// HTTP/2 wants a host; TLS has proved who it is.
fn uri(operation: Operation) -> Uri {
    Uri::from_static(match operation {
        Operation::Control => "https://link/edgemesh.v1.Link/Control",
        Operation::Request => "https://link/edgemesh.v1.Link/Request",
        Operation::Stream => "https://link/edgemesh.v1.Link/Stream",
        Operation::Join => "https://link/edgemesh.v1.Link/Join",
    })
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("peer", &self.0.peer)
            .field("exchanges", &self.exchanges())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.node() {
            Some(node) => write!(f, "{} ({})", node.0, self.address),
            None => self.address.fmt(f),
        }
    }
}
