//! The end of a Link that opens exchanges.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_proto::message::Message;
use http::{Method, Request, StatusCode, Uri};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::task::TaskTracker;

use crate::link::error::{Failure, LinkError};
use crate::link::exchange::{Exchange, Open, Tasks};
use crate::link::opening;
use crate::link::outgoing::Outgoing;
use crate::link::window::Window;
use crate::link::wire::{Line, Wire};
use crate::link::{
    Dialled, Inbound, Limits, MAX_FRAME, MAX_HEADERS, MAX_MISTAKES, MAX_OPENING, MAX_RESETS_AHEAD,
    Operation, PING_EVERY, Peer, REMEMBERED_RESETS, Reply, Rest,
};

/// hyper's own time-out of a ping: never. See [`Wire`].
pub(super) const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// An open connection on which we open exchanges. Dropping every clone of it drains it, as
/// [`Link::close`] does.
#[derive(Clone)]
pub struct Link(Arc<Shared>);

struct Shared {
    peer: Arc<Peer>,
    /// `None` once no more exchanges are to be opened.
    sender: Mutex<Option<http2::SendRequest<Outgoing>>>,
    open: Arc<Open>,
    most: usize,
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
    let (sender, connection) = builder(limits, tasks.clone())
        .handshake(TokioIo::new(wire))
        .await
        .map_err(|error| LinkError::of_hyper(error, true))?;
    let from = peer.clone();
    tasks.spawn(async move {
        if let Err(error) = connection.await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(peer = %from, error, "a Link to a peer ended");
        }
    });
    Ok(Link(Arc::new(Shared {
        peer,
        sender: Mutex::new(Some(sender)),
        open: Arc::new(Open::new(line)),
        most: limits.exchanges as usize,
    })))
}

fn builder(limits: Limits, tasks: TaskTracker) -> http2::Builder<Tasks> {
    let mut builder = http2::Builder::new(Tasks(tasks));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.window)
        .initial_connection_window_size(limits.window_of_all)
        .max_send_buf_size(limits.window as usize)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(0) // nothing is pushed to us
        .max_pending_accept_reset_streams(MAX_RESETS_AHEAD)
        .max_local_error_reset_streams(MAX_MISTAKES)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(NEVER)
        .keep_alive_while_idle(true);
    builder
}

impl Link {
    /// Who is at the other end.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.0.peer
    }

    /// Whether exchanges can be opened, as far as is known.
    pub fn is_open(&self) -> bool {
        !self.line().is_gone() && self.0.sender.lock().as_ref().is_some_and(|s| !s.is_closed())
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
        let sending = {
            let mut sender = self.0.sender.lock();
            let closed = || LinkError::new(Failure::NotSent, "the Link is closed");
            let sender = sender.as_mut().ok_or_else(closed)?;
            let rest = rest.take().unwrap_or_default();
            sender.try_send_request(request(operation, first, rest, &exchange))
        };
        let response = match sending.await {
            Ok(response) => response,
            Err(mut error) => {
                *rest = error.take_message().map(|unsent| unsent.into_body().into_rest());
                return Err(exchange.broken(error.into_error()));
            }
        };
        if response.status() != StatusCode::OK {
            let what = format!("the other side answers with status {}", response.status());
            return Err(LinkError::new(Failure::Protocol, what));
        }
        let mut incoming = response.into_body();
        let read = opening::read(&mut incoming, MAX_OPENING).await;
        let (opening, first) = read.map_err(|none| {
            exchange.give_up();
            none.into_error()
        })?;
        let body = Inbound::of_answer(first, incoming, exchange);
        opening::show("answers an exchange", &opening);
        Ok(Reply { opening, body })
    }
}

fn request(
    operation: Operation,
    first: bytes::Bytes,
    rest: Rest,
    exchange: &Arc<Exchange>,
) -> Request<Outgoing> {
    let mut request = Request::new(Outgoing::opens(first, rest, exchange));
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
