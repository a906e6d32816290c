//! One flow from accept to its last byte: where it came from, what it speaks, where it goes.

mod connection;
mod first;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::forward::Shared;
use crate::forward::bytes::Early;
use crate::forward::http::{Origin, Towards, Version, serve as serve_http};
use crate::io::Prefixed;
use crate::listen::{Came, Listener, came, reset_on_close};
use crate::metrics::Carried;
use crate::plan::{Hop, Target, resolve};
use crate::proxy::connection::Connection;
use crate::proxy::first::{Asked, first_words};
use crate::refusal::Refusal;
use crate::sniff::{Declared, Protocol};

/// What the accept loops of one mesh share.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// What every flow uses.
    pub shared: Arc<Shared>,
    /// Room for connections; over it they are reset at once.
    pub room: Arc<Semaphore>,
    /// Cuts the connections that outlive a drain.
    pub cut: CancellationToken,
}

impl Proxy {
    /// Accepts until the mesh stops. Connections that cannot be served for lack of room are
    /// reset, so that their clients know at once.
    pub async fn run(self, listener: Listener) {
        let stop = self.shared.stop.clone();
        let make_room = || self.shared.pools.sweep_all();
        while let Some((stream, peer)) = stop.run_until_cancelled(listener.accept(make_room)).await
        {
            let Ok(permit) = self.room.clone().try_acquire_owned() else {
                self.shared
                    .metrics
                    .connections_shed
                    .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                reset_on_close(&stream);
                continue;
            };
            let flow = flow(self.shared.clone(), stream, peer, permit);
            let cut = self.cut.clone();
            self.shared.tasks.spawn(async move {
                cut.run_until_cancelled(flow).await;
            });
        }
    }
}

/// Serves one connection to its end.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps each argument twice, in every connection"
)]
fn flow(
    shared: Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    room: OwnedSemaphorePermit,
) -> impl Future<Output = ()> + Send {
    async move {
        let (_open, _room) = (shared.metrics.connection(), &room);
        match came(&stream, peer) {
            Ok(Came::Captured(to)) => captured(&shared, stream, peer, to).await,
            Ok(Came::Direct) => Box::pin(direct(&shared, stream, peer)).await,
            Err(_) => {} // gone before it was looked at
        }
    }
}

/// A connection that the kernel redirected.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps each argument twice, in every connection"
)]
fn captured(
    shared: &Arc<Shared>,
    stream: TcpStream,
    peer: SocketAddr,
    to: SocketAddr,
) -> impl Future<Output = ()> + Send {
    async move {
        let connection = Connection::new(shared, peer, Some(to));
        if shared.is_own(to) {
            return connection.refuse(&stream, Carried::Opaque, Refusal::Loop);
        }
        let (declared, port) = match resolve(&shared.live.load(), Target::Address(to)) {
            Ok(found) => {
                let port = &found.service.ports[found.port];
                (port.declared, port.live.clone())
            }
            Err(Refusal::NoService) => return connection.pass_through(stream, to).await,
            Err(refusal) => return connection.refuse(&stream, Carried::Opaque, refusal),
        };
        let asked = match declared {
            Declared::Opaque => Asked::Bytes(Box::default()),
            // Only which HTTP it is matters, and the client speaks first.
            Declared::Http | Declared::Http2 => Box::pin(first::http_version(&stream)).await,
            Declared::Tls => Box::pin(first::tls_name(&stream)).await,
            Declared::Unknown => Box::pin(first_words(shared, &stream, to, &port)).await,
        };
        match asked {
            Asked::Http(version, prefix) => {
                let towards = Towards::Address(to);
                let origin = Origin { shared: shared.clone(), client: peer, towards };
                // HTTP's state is large; a connection of bytes must not carry room for it.
                Box::pin(serve_http(
                    Arc::new(origin),
                    Prefixed::new(prefix.into(), stream),
                    version,
                ))
                .await;
            }
            Asked::Bytes(spoken) => connection.carry(stream, spoken).await,
            Asked::Nothing => connection.silent(),
        }
    }
}

/// A connection to the listener itself: the explicit proxy, from this machine only.
async fn direct(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    if !peer.ip().to_canonical().is_loopback() {
        let connection = Connection::new(shared, peer, None);
        return connection.refuse(&stream, Carried::Opaque, Refusal::Loop);
    }
    match first::http_version(&stream).await {
        Asked::Http(version, prefix) => {
            let origin = Origin { shared: shared.clone(), client: peer, towards: Towards::Named };
            serve_http(Arc::new(origin), Prefixed::new(prefix.into(), stream), version).await;
        }
        Asked::Bytes(_) => {
            let connection = Connection::new(shared, peer, None);
            connection.refuse(&stream, Carried::Opaque, Refusal::Loop);
        }
        Asked::Nothing => {}
    }
}

/// What was said before a connection of bytes was decided on, and the dial that raced it.
#[derive(Debug, Default)]
struct Spoken {
    early: Early,
    carried: Option<Carried>,
    server_name: Option<Box<str>>,
    raced: Option<(Hop, TcpStream)>,
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
mod tests {
    use super::*;

    fn size<A, B, C, D, F>(_: impl FnOnce(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// 5,000 idle connections are 5,000 of these: whatever is large and short-lived is boxed.
    #[test]
    fn an_idle_connection_is_small() {
        let size = size(flow);
        assert!(size <= 1024, "the future of a connection takes {size} bytes");
    }
}
