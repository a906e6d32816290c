//! One flow from accept to its last byte: where it came from, what it speaks, where it goes.

mod accept;
mod crowd;
mod first;
mod linked;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpStream;
use uuid::Uuid;

use crate::forward::bytes::{Early, Reached};
use crate::forward::flow::{Flow, Said};
use crate::forward::http::{Origin, Towards, Version, serve_socket};
use crate::forward::{Place, Shared};
use crate::listen::{Came, came, is_local};
use crate::metrics::{Carried, Ended};
use crate::plan::{Arrival, Hop, Target, resolve};
use crate::proxy::first::{Ask, Asked, ask};
use crate::refusal::Refusal;
use crate::snapshot::{Port, Snapshot};
use crate::sniff::{Declared, Protocol};

pub use crate::proxy::accept::{Entrance, Newcomer, Proxy, Redirected};
pub use crate::proxy::linked::Linked;

/// Longest connect to a place that is no Service: what common clients wait for.
const PASS_THROUGH_CONNECT: Duration = Duration::from_secs(10);

/// Serves one connection to its end.
fn flow(newcomer: Newcomer) -> impl Future<Output = ()> + Send {
    // Out here: in there the connection would keep both what it was given and what came out of it.
    let Newcomer { shared, stream, peer, place } = newcomer;
    async move {
        let came = came(&stream, peer);
        let to = match came {
            Ok(Came::Captured(to)) => Some(to),
            Ok(Came::Direct) | Err(_) => None,
        };
        let flow = Flow::begin(&shared, peer, to);
        let client = Client { shared: &shared, place: &place, stream, peer };
        match came {
            Ok(Came::Captured(to)) => captured(client, flow, to).await,
            Ok(Came::Direct) => Box::pin(direct(client, flow)).await,
            Err(_) => flow.end(Ended::Cancelled), // gone before it was looked at
        }
    }
}

/// A client's connection.
struct Client<'p> {
    shared: &'p Arc<Shared>,
    place: &'p Arc<Place>,
    stream: TcpStream,
    peer: SocketAddr,
}

/// A connection that the kernel redirected.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps each argument twice, in every connection"
)]
fn captured(
    client: Client<'_>,
    flow: Box<Flow>,
    mut to: SocketAddr,
) -> impl Future<Output = ()> + Send {
    async move {
        let shared = client.shared;
        if shared.is_own(to) {
            return flow.refuse(&client.stream, Refusal::Loop);
        }
        let (declared, port) = match find(&shared.live.load(), to) {
            Ok((own, port)) => {
                to = own; // not a second address: every connection would keep both
                (port.declared, port.live.clone())
            }
            Err(Refusal::NoService) => {
                client.place.turn.busy();
                return pass_through(shared, flow, client.stream, to).await;
            }
            Err(refusal) => return flow.refuse(&client.stream, refusal),
        };
        let wanted = match declared {
            Declared::Opaque => None,
            // Only which HTTP it is matters, and the client speaks first.
            Declared::Http | Declared::Http2 => Some(Ask::Http),
            Declared::Tls => Some(Ask::Tls),
            Declared::Unknown => Some(Ask::Anything { to, port: &port }),
        };
        let asked = match wanted {
            None => Asked::Bytes(Box::default()),
            Some(wanted) => Box::pin(ask(shared, &client.stream, wanted)).await,
        };
        drop(port);
        match as_declared(asked, declared) {
            Asked::Http(version, prefix) => {
                let dialled = flow.became_http();
                // HTTP's state is large; a connection of bytes must not carry room for it.
                Box::pin(client.serve_http(Towards::Address(to), dialled, version, prefix)).await;
            }
            Asked::Bytes(spoken) => {
                client.place.turn.busy();
                carry(flow, client.stream, to, spoken).await;
            }
            Asked::Refused(refusal) => flow.refuse(&client.stream, refusal),
            Asked::Nothing => flow.end(Ended::Cancelled),
        }
    }
}

/// What is declared to be HTTP and begins as nothing that is known is HTTP that is malformed: as
/// bytes it would come past all that is decided by requests.
fn as_declared(asked: Asked, declared: Declared) -> Asked {
    let http = matches!(declared, Declared::Http | Declared::Http2);
    match asked {
        Asked::Bytes(spoken) if http && spoken.carried == Some(Carried::Opaque) => {
            Asked::Http(Version::Http1, spoken.early.up)
        }
        asked => asked,
    }
}

/// A connection to the listener itself: the explicit proxy, from this machine only.
async fn direct(client: Client<'_>, flow: Box<Flow>) {
    if !client.peer.ip().to_canonical().is_loopback() {
        return flow.refuse(&client.stream, Refusal::Loop);
    }
    match ask(client.shared, &client.stream, Ask::Http).await {
        Asked::Http(version, prefix) => {
            flow.became_http();
            client.serve_http(Towards::Named, None, version, prefix).await;
        }
        Asked::Bytes(_) => flow.refuse(&client.stream, Refusal::Loop),
        Asked::Refused(refusal) => flow.refuse(&client.stream, refusal),
        Asked::Nothing => flow.end(Ended::Cancelled),
    }
}

impl Client<'_> {
    /// From here on, each request has an account of its own.
    fn serve_http(
        self,
        towards: Towards,
        dialled: Option<SocketAddr>,
        version: Version,
        prefix: Vec<u8>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (shared, place) = (self.shared.clone(), Some(self.place.clone()));
        let client = self.peer;
        let origin = Arc::new(Origin { shared, place, client, towards, dialled, passed: None });
        serve_socket(origin, self.stream, version, prefix)
    }
}

/// The Service port that a client dialled, and its address: where that was a NodePort of this
/// node, the Service's own.
fn find(snapshot: &Snapshot, to: SocketAddr) -> Result<(SocketAddr, &Port), Refusal> {
    match resolve(snapshot, Target::Address(to)) {
        Ok(found) => Ok((to, found.port())),
        Err(Refusal::NoService) => node_port(snapshot, to).ok_or(Refusal::NoService),
        Err(refusal) => Err(refusal),
    }
}

fn node_port(snapshot: &Snapshot, to: SocketAddr) -> Option<(SocketAddr, &Port)> {
    let ip = to.ip().to_canonical();
    let found = snapshot.by_node_port(to.port()).filter(|_| is_local(ip))?;
    let addresses = &found.service.addresses;
    let like = addresses.iter().find(|own| own.is_ipv4() == ip.is_ipv4());
    let own = like.or_else(|| addresses.first())?;
    Some((SocketAddr::new(*own, found.port().port), found.port()))
}

/// Carries a destination that is no Service to where it was going.
async fn pass_through(shared: &Shared, flow: Box<Flow>, client: TcpStream, to: SocketAddr) {
    shared.metrics.passed_through.fetch_add(1, Relaxed);
    match Box::pin(shared.connect(to, PASS_THROUGH_CONNECT)).await {
        Ok(backend) => flow.carry(client, Reached::Socket(backend), Early::default()).await,
        Err(error) => flow.refuse(&client, error.refusal()),
    }
}

/// Carries a connection of bytes to a Backend of the Service at its address.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps each argument twice, in every connection"
)]
fn carry(
    mut flow: Box<Flow>,
    client: TcpStream,
    to: SocketAddr,
    mut spoken: Box<Spoken>,
) -> impl Future<Output = ()> + Send {
    async move {
        flow.carried = spoken.carried.unwrap_or(Carried::Opaque);
        flow.said = spoken.server_name.take().map_or(Said::Nothing, Said::ServerName);
        let reached = match spoken.raced.take() {
            Some(Raced { hop, backend, message }) => flow.adopt(hop, message).map(|()| backend),
            None => {
                let to = Target::Address(to);
                Box::pin(flow.reach(to, Arrival::Captured, &mut spoken.early)).await
            }
        };
        let early = spoken.early;
        match reached {
            Ok(backend) => flow.carry(client, backend, early).await,
            Err(refusal) => flow.refuse(&client, refusal),
        }
    }
}

/// What was said before a connection of bytes was decided on, and the dial that raced it.
#[derive(Debug, Default)]
struct Spoken {
    early: Early,
    carried: Option<Carried>,
    server_name: Option<Box<str>>,
    raced: Option<Raced>,
}

/// A dial that was raced against its client's silence.
#[derive(Debug)]
struct Raced {
    hop: Hop,
    backend: Reached,
    /// That asked another node for it.
    message: Option<Uuid>,
}

impl Spoken {
    fn client(protocol: Protocol, up: Vec<u8>) -> Self {
        let carried = match protocol {
            Protocol::Tls => Carried::Tls,
            Protocol::Http1 | Protocol::Http2 | Protocol::Opaque => Carried::Opaque,
        };
        let hello = crate::sniff::client_hello(&up).ok().flatten();
        Self {
            early: Early { up, down: Vec::new() },
            carried: Some(carried),
            server_name: hello.and_then(|hello| hello.server_name),
            raced: None,
        }
    }
}

const fn http(protocol: Protocol) -> Option<Version> {
    match protocol {
        Protocol::Http1 => Some(Version::Http1),
        Protocol::Http2 => Some(Version::Http2),
        Protocol::Tls | Protocol::Opaque => None,
    }
}

#[cfg(test)]
mod tests;
