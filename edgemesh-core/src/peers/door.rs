//! The door for other agents: accepts their Links.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::identity::{Role, Tls};
use crate::lanes::Seats;
use crate::link::{self, ALPN_BULK, ALPN_H2, ALPN_REVERSE, Dialled, Limits};
use crate::listen::{Accepted, Listener};
use crate::peers::agents::Peers;
use crate::peers::answers::Answers;
use crate::peers::{Standing, while_welcome};

/// Handshakes at once; the others wait in the listener's queue. Many, since who says nothing holds one
/// for as long as a handshake may take.
const HANDSHAKES: usize = 512;

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Door(Arc<Parts>);

/// What a [`Door`] is made of.
pub struct Parts {
    /// Proves who this node is.
    pub tls: Arc<Tls>,
    /// Answers who came in.
    pub answers: Arc<Answers>,
    /// The Links that stand.
    pub standing: Standing,
    /// Takes Links on which we may open exchanges.
    pub peers: Peers,
    /// Where Links are served, each in one thread.
    pub seats: Seats,
    /// Owns the tasks.
    pub tasks: TaskTracker,
    /// Ends the listener.
    pub accepting: CancellationToken,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}

impl Door {
    /// Nobody has come yet.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Accepts until told to stop; Links that stand live on.
    pub async fn run(self, listener: Listener) {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        let accepting = self.0.accepting.clone();
        while let Some(accepted) = accepting.run_until_cancelled(listener.accept(|| {})).await {
            let (stream, from) = match accepted {
                Accepted::Served(stream, from) => (stream, from),
                Accepted::NoFiles(_, peer) => {
                    tracing::warn!(%peer, "no files are left for a Link");
                    continue;
                }
            };
            let Ok(place) = handshakes.clone().acquire_owned().await else { return };
            self.begin(stream, from, place);
        }
    }

    fn begin(&self, stream: TcpStream, from: SocketAddr, place: OwnedSemaphorePermit) {
        let this = self.clone();
        // Told of what comes by the thread that serves it.
        let moving = stream.into_std();
        // Boxed, as below: the state of a task stays as large as the largest thing that it ever does.
        let serving = Box::pin(async move {
            match moving.and_then(TcpStream::from_std) {
                Ok(stream) => this.shake_hands(stream, from, place).await,
                Err(error) => tracing::warn!(%from, %error, "no way for a Link to its thread"),
            }
        });
        let stop = self.0.stop.clone();
        self.0.seats.spawn(&self.0.tasks, stop.run_until_cancelled_owned(serving));
    }

    async fn shake_hands(&self, stream: TcpStream, from: SocketAddr, place: OwnedSemaphorePermit) {
        let parts = &self.0;
        let tls = parts.tls.server(Role::Peer, &[ALPN_H2, ALPN_REVERSE, ALPN_BULK]);
        let accepted = Box::pin(link::accept(stream, from, tls)).await;
        drop(place);
        match accepted {
            Ok(dialled) => self.linked(dialled, from).await,
            Err(error) => tracing::warn!("{error}"),
        }
    }

    async fn linked(&self, dialled: Dialled, from: SocketAddr) {
        let parts = &self.0;
        if dialled.role == link::Role::Opens {
            return match Box::pin(link::client(dialled, Limits::REQUESTS, parts.tasks.clone()))
                .await
            {
                Ok(link) if !parts.standing.is_revoked(link.peer()) => parts.peers.arrived(link),
                Ok(link) => link.cut(),
                Err(error) => tracing::debug!(%from, "no Link: {error}"),
            };
        }
        // Who reaches us is there, and may be reached.
        if let Some(node) = dialled.peer.node().filter(|_| !dialled.peer.is_hub()) {
            parts.peers.seen(node);
        }
        let handler = parts.answers.clone();
        let stay = match parts.standing.enter(&dialled.peer, dialled.role) {
            Ok(stay) => stay,
            Err(error) => return tracing::warn!(%from, "a Link was refused: {error}"),
        };
        if dialled.role == link::Role::Bulk {
            return tokio::select! {
                () = stay.over() => {}
                served = Box::pin(link::serve_bulk(dialled, handler)) => if let Err(error) = served {
                    tracing::debug!(%from, "no bulk flow: {error}");
                },
            };
        }
        while_welcome(link::serve(dialled, handler, Limits::REQUESTS, &parts.tasks), stay).await;
    }
}
