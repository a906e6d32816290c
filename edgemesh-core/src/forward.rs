//! Drivers: carry the bytes ([`bytes`]) or the requests ([`http`]) of a flow to its Hop, also where
//! that is on another node ([`across`]).

pub mod across;
pub mod bytes;
mod counting;
pub mod flow;
pub mod http;
mod idle;
pub mod inbox;
mod proxy_protocol;
mod spare;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgemesh_proto::record::{NodeName, RuleName, ServiceName};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{AccessLog, AccessLogSwitch};
use crate::dial::{Dial, DialError};
use crate::forward::inbox::Inbox;
use crate::lanes::Seat;
use crate::metrics::{Carried, ConnectionOpen, Ended, Metrics};
use crate::peers::Ways;
use crate::plan::Via;
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;
use crate::snapshot::rules::STAND_IN;

pub use crate::forward::http::Turn;

/// How soon the tasks of connections that nobody keeps any more have closed them.
const ROOM_AFTER: Duration = Duration::from_millis(10);
/// How often room is made for one connection.
const ROOM_TRIES: usize = 5;

/// What every flow of one mesh uses.
#[derive(Debug)]
pub struct Shared {
    /// This node.
    pub node: NodeName,
    /// How other nodes are reached; until it is set, and in an application, none is.
    pub ways: OnceLock<Arc<dyn Ways>>,
    /// The Snapshot in force; read once a decision.
    pub live: Arc<ArcSwap<Snapshot>>,
    /// Makes connections.
    pub dial: Dial,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The cluster domain of names.
    pub domain: Box<str>,
    /// Which flows are logged.
    pub access_log: AccessLogSwitch,
    /// Owns every task that a flow starts.
    pub tasks: TaskTracker,
    /// Ends what is idle, lets the rest finish.
    pub stop: CancellationToken,
    /// Cuts what outlives a drain.
    pub cut: CancellationToken,
    /// The mesh's own listeners, once it has some: a Backend at one of them would be a loop.
    pub own: OnceLock<Box<[SocketAddr]>>,
    /// Who takes messages of Rules whose target is outside of the mesh; until it is set, nobody.
    pub inbox: OnceLock<Arc<dyn Inbox>>,
    /// Upstream connections that wait for their next request.
    pub pools: http::Pools,
}

/// A client connection's place among those that the mesh has room for. Whatever serves the
/// connection holds it to the end, also when it is no longer what it began as.
#[derive(Debug)]
pub struct Place {
    /// Gives the room back.
    pub room: OwnedSemaphorePermit,
    /// Counts the connection as open.
    pub open: ConnectionOpen,
    /// Whether something is under way on it.
    pub turn: Arc<Turn>,
    /// Counts it in its lane.
    pub seat: Option<Seat>,
}

/// One line of the access log.
#[derive(Debug)]
pub struct Access<'a> {
    /// What was carried.
    pub carried: Carried,
    /// Who called.
    pub client: SocketAddr,
    /// Where the client wanted to go.
    pub destination: Option<SocketAddr>,
    /// `namespace/name`, if a Service was found.
    pub service: Option<&'a ServiceName>,
    /// The Rule by which it went.
    pub rule: Option<&'a RuleName>,
    /// Who served it, and how it was reached.
    pub backend: Option<(SocketAddr, Via)>,
    /// Method, host and path (HTTP), or the server name (TLS).
    pub what: What<'a>,
    /// HTTP status.
    pub status: Option<u16>,
    /// The one outcome.
    pub ended: Ended,
    /// The node that passed it on to this one.
    pub from: Option<&'a NodeName>,
    /// The Message by which it was passed on, from there or to there: in the logs of both.
    pub message: Option<&'a str>,
    /// Attempts that were made.
    pub attempts: u8,
    /// Bytes from the client.
    pub up: u64,
    /// Bytes to the client.
    pub down: u64,
    /// From the head of a request, or from the accept of a connection, to the end.
    pub took: Duration,
}

/// What the flow asked for, as far as its protocol shows it.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// Bytes show nothing.
    Bytes,
    /// A TLS server name.
    ServerName(&'a str),
    /// A request; the path without its query, which may hold secrets.
    Request {
        /// Method.
        method: &'a str,
        /// Host.
        host: &'a str,
        /// Path.
        path: &'a str,
        /// `x-request-id`.
        id: &'a str,
    },
}

impl Shared {
    /// Whether `address` is one of the mesh's own listeners.
    pub fn is_own(&self, address: SocketAddr) -> bool {
        self.own.get().is_some_and(|own| own.contains(&address))
    }

    /// Who calls from `peer`. The address of a listener of ours is this machine: the kernel takes
    /// it for its own processes' where no other route leads to what is captured.
    pub fn caller(&self, peer: SocketAddr) -> IpAddr {
        let ip = peer.ip().to_canonical();
        let is_ours = self.own.get().is_some_and(|own| own.iter().any(|own| own.ip() == ip));
        if is_ours { Ipv4Addr::LOCALHOST.into() } else { ip }
    }

    /// Connects within `timeout`. Where files have run out, connections that are only kept for
    /// later make room.
    pub async fn connect(&self, to: SocketAddr, timeout: Duration) -> Result<TcpStream, DialError> {
        for _ in 0..ROOM_TRIES {
            match self.dial.tcp(to, timeout).await {
                Err(DialError::Socket(_)) => self.pools.sweep_all(),
                connected_or_not => return connected_or_not,
            }
            tokio::time::sleep(ROOM_AFTER).await;
        }
        self.dial.tcp(to, timeout).await
    }

    /// What a flow that is dropped before its end ended as.
    pub fn dropped(&self) -> Ended {
        match self.cut.is_cancelled() {
            true => Ended::Refused(Refusal::Draining),
            false => Ended::Cancelled,
        }
    }

    /// Ends a flow: its metrics and, where asked for, its line.
    pub fn ended(&self, access: &Access<'_>) {
        self.metrics.ended(access.carried, access.ended, access.took);
        if self.logs(access) {
            log(access);
        }
    }

    fn logs(&self, access: &Access<'_>) -> bool {
        let bad = !matches!(access.ended, Ended::Ok | Ended::Cancelled);
        match self.access_log.get() {
            AccessLog::All => true,
            AccessLog::Off => false,
            AccessLog::Errors => bad,
            AccessLog::OneIn(n) => bad || crate::io::unique_id().is_multiple_of(u128::from(n)),
        }
    }
}

fn log(access: &Access<'_>) {
    let (method, host, path, id) = match access.what {
        What::Bytes => (None, None, None, None),
        What::ServerName(name) => (None, Some(name), None, None),
        What::Request { method, host, path, id } => {
            (Some(method), Some(host), Some(path), Some(id))
        }
    };
    let culprit = match access.ended {
        Ended::Refused(refusal) => Some(match refusal.row().culprit {
            crate::refusal::Culprit::Client => "client",
            crate::refusal::Culprit::Backend => "backend",
            crate::refusal::Culprit::Mesh => "mesh",
        }),
        Ended::Failed => Some("backend"),
        Ended::Ok | Ended::Cancelled => None,
    };
    tracing::info!(
        target: "access",
        protocol = access.carried.label(),
        client = %access.client,
        destination = access.destination.map(tracing::field::display),
        service = access
            .service
            .filter(|service| !service.name.starts_with(STAND_IN))
            .map(tracing::field::display),
        rule = access.rule.map(tracing::field::display),
        backend = access
            .backend
            .filter(|(address, _)| address.port() > 0)
            .map(|(address, _)| tracing::field::display(address)),
        via = access.backend.map(|(_, via)| via.name()),
        method,
        host,
        path,
        id,
        status = access.status,
        outcome = access.ended.label(),
        culprit,
        from = access.from.map(tracing::field::display),
        message = access.message,
        attempts = access.attempts,
        up = access.up,
        down = access.down,
        ms = (access.took.as_micros() as f64) / 1e3,
    );
}
