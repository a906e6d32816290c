//! The hub: the conversations with agents, and the relay between nodes that cannot reach each other.
//!
//! Every connection is dialled by a node. On those with ALPN `h2` the node opens exchanges: Control
//! for as long as it lives, Requests and Streams that are passed on by their first Message, Join. On
//! those with ALPN `edgemesh-reverse/1`, for which the hub asks on Control, the hub opens them. What
//! is passed on is never looked into beyond its first Message, and never held.

mod door;
mod node;
mod relay;
mod roster;
mod session;
mod strangers;

use std::fmt;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::backends::Way;
use edgemesh_core::identity::{Proved, Role, Tls};
use edgemesh_core::io::now;
use edgemesh_core::link::{
    self, ALPN_BULK, ALPN_H2, ALPN_REVERSE, Dialled, Limits, Link, Serve, ServedLink,
};
use edgemesh_core::listen::{Accepted, Listener};
use edgemesh_core::peers::{Finding, NoWay, Ways, while_served};
use edgemesh_proto::record::NodeName;
use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::Authority;
use crate::hub::roster::Roster;
use crate::hub::strangers::{Strangers, Visit};
use crate::registry::shared::{Revoked, Shared as Registry};

pub use node::Node;

/// Handshakes at once; the others wait in the listener's queue. Many, since who says nothing holds one
/// for as long as a handshake may take.
const HANDSHAKES: usize = 512;

/// Longest wait for a node to hear why it is cut off.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a hub is made of.
pub struct Parts {
    /// The records.
    pub registry: Registry,
    /// Who may join.
    pub authority: Arc<Authority>,
    /// Proves that this is the hub.
    pub tls: Arc<Tls>,
    /// Random, of this process.
    pub instance: [u8; 16],
    /// Nodes whose Backends the cloud's own process calls.
    pub own_nodes: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// Owns the tasks.
    pub tasks: TaskTracker,
    /// Ends everything.
    pub stop: CancellationToken,
}

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

struct Inner {
    parts: Parts,
    /// Who is linked: one lock for who may come and who is there.
    seats: RwLock<Roster<Arc<Node>>>,
    /// Serves what is for the cloud itself.
    own: RwLock<Option<Arc<dyn Serve>>>,
    handshakes: Arc<Semaphore>,
    strangers: Strangers,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("nodes", &self.0.seats.read().all().len())
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Nobody is linked yet.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            seats: RwLock::default(),
            own: RwLock::default(),
            handshakes: Arc::new(Semaphore::new(HANDSHAKES)),
            strangers: Strangers::new(),
        }))
    }

    /// From now on `own` serves what is for the cloud itself.
    pub fn serve_own(&self, own: Arc<dyn Serve>) {
        *self.0.own.write() = Some(own);
    }

    /// The nodes that are linked, by name.
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        self.0.seats.read().all().cloned().collect()
    }

    /// A node, if it is linked.
    pub fn node(&self, name: &NodeName) -> Option<Arc<Node>> {
        self.0.seats.read().get(name).cloned()
    }

    /// Whether a node is linked by a certificate that is not older than `since`.
    pub fn is_linked_since(&self, name: &NodeName, since: i64) -> bool {
        self.node(name).is_some_and(|node| node.issued >= since)
    }

    /// Accepts until the stop.
    pub async fn run(self, listener: Listener) {
        let stop = self.0.parts.stop.clone();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept(|| {})).await {
            match accepted {
                Accepted::Served(stream, from) => self.begin(stream, from).await,
                Accepted::NoFiles(_, peer) => tracing::warn!(%peer, "no files left for a Link"),
            }
        }
        self.nodes().iter().for_each(|node| node.left());
    }

    async fn begin(&self, stream: TcpStream, from: SocketAddr) {
        let handshakes = self.0.handshakes.clone().acquire_owned().await;
        let (this, stop) = (self.clone(), self.0.parts.stop.clone());
        // Boxed, as below: the state of a task stays as large as the largest thing that it ever does,
        // and there is one for each node.
        self.0.parts.tasks.spawn(stop.run_until_cancelled_owned(Box::pin(async move {
            let tls = this.0.parts.tls.server(Role::Hub, &[ALPN_H2, ALPN_REVERSE, ALPN_BULK]);
            let accepted = Box::pin(link::accept(stream, from, tls)).await;
            drop(handshakes);
            match accepted {
                Ok(dialled) => this.linked(dialled).await,
                Err(error) => this.refused(false, format_args!("{error}")),
            }
        })));
    }

    /// Logs that somebody was refused, unless that was said often enough. Whoever reaches the port
    /// can be refused as often as he likes.
    fn refused(&self, is_node: bool, what: fmt::Arguments<'_>) {
        match self.0.strangers.may_say(is_node, now()) {
            Some(0) => tracing::warn!("{what}"),
            Some(left_out) => tracing::warn!(left_out, "{what}"),
            None => tracing::debug!("{what}"),
        }
    }

    async fn linked(&self, dialled: Dialled) {
        let Some(proved) = dialled.peer.proved.clone() else { return self.visited(dialled).await };
        let tasks = &self.0.parts.tasks;
        let door = Arc::new(door::Door(self.clone()));
        match dialled.role {
            link::Role::Opens => {
                match Box::pin(link::client(dialled, Limits::REQUESTS, tasks.clone())).await {
                    Ok(link) => self.reversed(link, &proved).await,
                    Err(error) => tracing::warn!("no reversed Link: {error}"),
                }
            }
            link::Role::Serves => {
                let link = link::serve(dialled, door, Limits::REQUESTS, tasks);
                tokio::select! {
                    () = while_served(link.clone()) => {}
                    () = self.until_cut(&proved) => link.cut(),
                }
            }
            link::Role::Bulk => tokio::select! {
                served = Box::pin(link::serve_bulk(dialled, door)) => {
                    if let Err(error) = served {
                        tracing::debug!("no bulk flow: {error}");
                    }
                }
                () = self.until_cut(&proved) => {}
            },
        }
    }

    /// Somebody without a certificate, which may be asked for.
    async fn visited(&self, dialled: Dialled) {
        let peer = dialled.peer.clone();
        if dialled.role != link::Role::Serves {
            return self
                .refused(false, format_args!("{peer}: who has no certificate may only join"));
        }
        let why = match self.0.strangers.visit(self.visit(dialled)).await {
            Visit::Over => return,
            Visit::TooLong => "joining took too long",
            Visit::NoPlace => "too many want to join at once",
        };
        self.refused(false, format_args!("{peer}: {why}"));
    }

    /// Dropped before its end, it ends the connection with all that is under way.
    async fn visit(&self, dialled: Dialled) {
        struct Cuts(ServedLink);
        impl Drop for Cuts {
            fn drop(&mut self) {
                self.0.cut();
            }
        }
        let door = Arc::new(door::Door(self.clone()));
        let link = link::serve(dialled, door, Limits::CONTROL, &self.0.parts.tasks);
        Cuts(link).0.closed().await;
    }

    /// A node dialled back.
    async fn reversed(&self, link: Link, proved: &Proved) {
        match self.node(&proved.node) {
            Some(node) if !self.is_void(proved) => node.arrived(link.clone()),
            Some(_) | None => return link.close(),
        }
        tokio::select! {
            () = link.closed() => {}
            () = self.until_cut(proved) => link.cut(),
        }
    }

    /// Whether the node was removed since that certificate was issued.
    fn is_void(&self, proved: &Proved) -> bool {
        let before = self.0.parts.registry.revoked(&proved.node);
        before.is_some_and(|before| proved.issued < before)
    }

    /// Resolves when it is void.
    async fn until_void(&self, proved: &Proved) {
        let mut revocations = self.0.parts.registry.revocations();
        let is_void = |revoked: &Arc<Revoked>| {
            revoked.get(&proved.node).is_some_and(|before| proved.issued < *before)
        };
        // An error means that the registry is gone, and then so is everything else.
        let _ = revocations.wait_for(is_void).await;
    }

    /// Resolves when a connection that was made by it is to be cut: the node has heard why.
    async fn until_cut(&self, proved: &Proved) {
        self.until_void(proved).await;
        tokio::time::sleep(LAST_WORDS).await;
    }

    /// Whether what runs on that node is called by the cloud's own process.
    fn is_own(&self, node: &str) -> bool {
        (self.0.parts.own_nodes)(node)
    }
}

/// The ways of the cloud's own process: every node that is linked.
impl Ways for Hub {
    fn ready(&self, node: &NodeName) -> Option<(Link, Way)> {
        let link = self.node(node)?.ready()?;
        Some((link, Way::Direct))
    }

    fn find<'a>(&'a self, name: &'a NodeName) -> Finding<'a> {
        let Some(node) = self.node(name) else {
            let why = format!("node {} is not linked to the hub", name.0);
            return Box::pin(ready(Err(NoWay::new(why))));
        };
        Box::pin(async move { node.link().await.map(|link| (link, Way::Direct)) })
    }

    fn close_idle(&self) {
        self.nodes().iter().filter_map(|node| node.ready()).for_each(|link| {
            if link.exchanges() == 0 {
                link.close();
            }
        });
    }
}
