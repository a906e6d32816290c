//! A Link: HTTP/2 over mutual TLS between two nodes, or a node and the hub.
//!
//! Every exchange on it is a `POST` whose body begins with one length-delimited Message, and so
//! does the answer's; what follows is bytes that nobody here looks at, then trailers. Who opens
//! exchanges does not depend on who dialled: a node behind NAT dials and then serves.
//!
//! [`Link`] opens exchanges, [`serve`] answers them through a [`Serve`]. [`Rest`] is what follows
//! a Message of ours, [`Inbound`] what follows one of theirs; [`Duplex`] and [`Messages`] make a
//! two-way stream of a pair of them. A reset is never a clean end, whatever HTTP/2 calls it.

mod ahead;
mod bulk;
mod client;
mod duplex;
mod error;
mod exchange;
mod gather;
mod inbound;
mod keepalive;
mod messages;
mod opening;
mod outgoing;
mod pipe;
mod received;
#[cfg(test)]
pub(crate) mod sample;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod turn;
mod unread;
mod window;
mod wire;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_proto::message::Message;
use edgemesh_proto::record::NodeName;
use http::HeaderName;
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsStream;

use crate::identity::Proved;

pub use crate::link::ahead::Ahead;
pub use crate::link::bulk::{BulkStream, open_bulk, serve_bulk};
pub use crate::link::client::{Link, client};
pub use crate::link::duplex::Duplex;
pub use crate::link::error::{Failure, LinkError};
pub use crate::link::inbound::Inbound;
pub use crate::link::messages::{MAX_MESSAGE, MessageReader, MessageWriter, Messages};
pub use crate::link::outgoing::Rest;
pub use crate::link::pipe::{Outlet, PIPE, Writer, pipe};
pub use crate::link::server::{ServedLink, serve};
pub use crate::link::tls::{accept, dial};

/// Any error of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The dialler opens exchanges.
pub const ALPN_H2: &[u8] = b"h2";
/// The dialler answers them.
pub const ALPN_REVERSE: &[u8] = b"edgemesh-reverse/1";
/// One Message each way, then bytes.
pub const ALPN_BULK: &[u8] = b"edgemesh-bulk/1";

/// In trailers: the label of the Refusal for which an answer ends before its end.
pub static REFUSAL_TRAILER: HeaderName = HeaderName::from_static("edgemesh-refusal");

/// Largest first Message of a side; a head of HTTP has at most a quarter of it.
pub const MAX_OPENING: usize = 256 * 1024;
/// Longest wait for the first Message of an exchange that was opened.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent peer is asked whether it is still there.
const PING_EVERY: Duration = Duration::from_secs(3);
/// A peer of which nothing at all was heard for so long is dead.
const DEAD_AFTER: Duration = Duration::from_secs(9);
/// Largest HTTP/2 frame: few headers a MiB, and no stream holds the others up for long.
const MAX_FRAME: u32 = 64 * 1024;
/// HTTP/2 header fields of an exchange: those of HTTP are in its Message.
const MAX_HEADERS: u32 = 16 * 1024;
/// Streams that a peer reset before they were so much as looked at; one more ends the Link.
const MAX_RESETS_AHEAD: usize = 100;
/// Streams that we reset for a peer's mistakes, in the life of a Link, which may be months; one more
/// ends it. What comes late for a stream that was reset long ago is one, and nobody's fault.
const MAX_MISTAKES: usize = 64 * 1024;
/// Streams that we reset and still know, so that what comes late for them is no mistake.
const REMEMBERED_RESETS: usize = 1024;

/// What a Link is for decides how much may be under way on it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Exchanges at once, in each direction.
    pub exchanges: u32,
    /// Bytes under way of one exchange.
    pub window: u32,
    /// Bytes under way of all.
    pub window_of_all: u32,
}

impl Limits {
    /// Control alone: Messages, one exchange after the other.
    pub const CONTROL: Self =
        Self { exchanges: 32, window: 1024 * 1024, window_of_all: 2 * 1024 * 1024 };
    /// Requests and connections of applications.
    pub const REQUESTS: Self =
        Self { exchanges: 4096, window: 256 * 1024, window_of_all: 16 * 1024 * 1024 };

    /// h2's `data_frame_budget`: what a Link may spend on frames of few bytes that lie unread, up to
    /// 255 for each. Somebody who writes single bytes to somebody who does not read is no reason to
    /// end it. What comes late for a stream that is gone is never paid back, in the life of a Link.
    const fn framing(self) -> usize {
        8 * self.window_of_all as usize
    }
}

/// What an exchange is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// One long conversation of Messages.
    Control,
    /// One HTTP exchange.
    Request,
    /// One connection of bytes.
    Stream,
    /// Asks for a certificate.
    Join,
}

impl Operation {
    /// With their paths.
    const ALL: [(Self, &'static str); 4] = [
        (Self::Request, "/edgemesh.v1.Link/Request"),
        (Self::Stream, "/edgemesh.v1.Link/Stream"),
        (Self::Control, "/edgemesh.v1.Link/Control"),
        (Self::Join, "/edgemesh.v1.Link/Join"),
    ];

    fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(operation, of)| (of == path).then_some(operation))
    }
}

/// Whom TLS proved to be at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What its certificate proves; `None` = it has none, and may only Join.
    pub proved: Option<Proved>,
    /// Where it is.
    pub address: SocketAddr,
}

impl Peer {
    /// The node; `None` = it has no certificate.
    pub fn node(&self) -> Option<&NodeName> {
        self.proved.as_ref().map(|proved| &proved.node)
    }

    /// Whether it is the hub, which speaks for others too.
    pub fn is_hub(&self) -> bool {
        self.proved.as_ref().is_some_and(|proved| proved.is_hub)
    }
}

/// A connection after its handshake.
pub type Secured = TlsStream<Ahead>;

/// A connection that is about to become a Link.
#[derive(Debug)]
pub struct Dialled<S = Secured> {
    /// Its bytes, after TLS.
    pub stream: S,
    /// Who is there.
    pub peer: Arc<Peer>,
    /// What it is for.
    pub role: Role,
}

/// What each end of a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We open exchanges: [`client`].
    Opens,
    /// The other side does: [`serve`].
    Serves,
    /// One Message each way, then bytes.
    Bulk,
}

/// The answer to an exchange that we opened.
#[derive(Debug)]
pub struct Reply {
    /// Its first Message.
    pub opening: Message,
    /// What follows.
    pub body: Inbound,
}

/// An exchange that the other side opened.
#[derive(Debug)]
pub struct Called {
    /// What it is.
    pub operation: Operation,
    /// Its first Message; has a header id, a route and a body, and speaks for who sent it.
    pub opening: Message,
    /// What follows.
    pub body: Inbound,
    /// Who opened it.
    pub from: Arc<Peer>,
}

/// Our answer to [`Called`].
#[derive(Debug)]
pub struct Answering {
    /// The first Message.
    pub opening: Message,
    /// What follows it.
    pub rest: Rest,
}

/// Answers exchanges. Dropped before its end when the other side gives the exchange up.
pub trait Serve: Send + Sync + 'static {
    /// One exchange.
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>>;

    /// A flow on a connection of its own: answers with a first Message ([`BulkStream::say`]), and
    /// goes on. Where nobody cares it is refused.
    fn bulk(
        self: Arc<Self>,
        opening: Message,
        mut stream: BulkStream,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let why = "there is no bulk here";
            let _ = stream.say(&opening::refusal(&opening, "unknownOperation", why)).await;
            let _ = stream.shutdown().await; // the peer may be gone already
        })
    }
}
