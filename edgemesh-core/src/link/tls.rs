//! How the connection of a Link comes to be: TCP, a handshake, and who is there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, CommonState, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::dial::Dial;
use crate::identity::{explain, proved};
use crate::link::error::{Failure, LinkError};
use crate::link::{ALPN_BULK, ALPN_H2, ALPN_REVERSE, Ahead, Dialled, Peer, Role, Secured};

/// Longest wait for the handshake of who dials us.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for who was refused to read why, and to stop speaking.
const TELL_WITHIN: Duration = Duration::from_secs(1);
/// Most that it may say until then.
const TELL_BYTES: u64 = 64 * 1024;
/// On a connection without pings of HTTP/2 the kernel asks whether the other side is still there.
const PROBE_EVERY: Duration = Duration::from_secs(3);
/// Unanswered, so many of those are its end.
const PROBES: u32 = 3;

/// Connects and shakes hands, within `timeout`. What is said first tells whether the other side
/// takes our certificate: in TLS 1.3 that is not known before.
///
/// # Errors
/// [`Failure::NotSent`] and [`Failure::TimedOut`] where there is no connection, and
/// [`Failure::Protocol`] where the handshake fails; the text is for people.
pub async fn dial(
    dial: &Dial,
    address: SocketAddr,
    timeout: Duration,
    tls: Arc<ClientConfig>,
    name: ServerName<'static>,
) -> Result<Dialled, LinkError> {
    let deadline = Instant::now() + timeout;
    let stream = dial.tcp(address, timeout).await.map_err(|error| {
        LinkError::new(Failure::NotSent, format!("no connection to {address}")).because(error)
    })?;
    let shaking = TlsConnector::from(tls).connect(name, Ahead::new(stream));
    let stream = match timeout_at(deadline, shaking).await {
        Ok(shaken) => shaken.map_err(|error| unshaken(address, error))?,
        Err(_) => return Err(slow(address, timeout)),
    };
    made(stream.into(), address, true)
}

/// Shakes hands with who dialled us.
///
/// # Errors
/// As [`dial`].
pub async fn accept(
    stream: TcpStream,
    address: SocketAddr,
    tls: Arc<ServerConfig>,
) -> Result<Dialled, LinkError> {
    let broken = |error| LinkError::new(Failure::Broken, "the connection broke").because(error);
    stream.set_nodelay(true).map_err(broken)?;
    let shaking = TlsAcceptor::from(tls).accept(Ahead::new(stream)).into_fallible();
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            let _ = tokio::time::timeout(TELL_WITHIN, tell(stream)).await;
            return Err(unshaken(address, error));
        }
        Err(_) => return Err(slow(address, HANDSHAKE_TIMEOUT)),
    };
    made(stream.into(), address, false)
}

/// Waits until the other side has read why it was refused. It speaks before it knows that it was;
/// closed with its bytes unread, the connection would end in a reset, which its next write meets
/// before it reads our alert.
async fn tell(mut stream: Ahead) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut heard = stream.take(TELL_BYTES);
    tokio::io::copy(&mut heard, &mut tokio::io::sink()).await.map(|_| ())
}

fn unshaken(address: SocketAddr, error: std::io::Error) -> LinkError {
    let what = format!("no Link with {address}: {}", explain(&error));
    LinkError::new(Failure::Protocol, what).because(error)
}

fn slow(address: SocketAddr, after: Duration) -> LinkError {
    let what = format!("{address} did not finish the handshake within {} ms", after.as_millis());
    LinkError::new(Failure::TimedOut, what)
}

/// What was agreed on in the handshake.
fn made(stream: Secured, address: SocketAddr, we_dialled: bool) -> Result<Dialled, LinkError> {
    let (socket, session): (&Ahead, &CommonState) = match &stream {
        TlsStream::Client(stream) => (stream.get_ref().0, stream.get_ref().1),
        TlsStream::Server(stream) => (stream.get_ref().0, stream.get_ref().1),
    };
    let role = match (session.alpn_protocol(), we_dialled) {
        (Some(ALPN_H2), true) | (Some(ALPN_REVERSE), false) => Role::Opens,
        (Some(ALPN_H2), false) | (Some(ALPN_REVERSE), true) => Role::Serves,
        (Some(ALPN_BULK), _) => Role::Bulk,
        (Some(_) | None, _) => {
            let what = format!("{address} shakes hands, but names no protocol of a Link");
            return Err(LinkError::new(Failure::Protocol, what));
        }
    };
    if role == Role::Bulk {
        let probes = TcpKeepalive::new().with_time(PROBE_EVERY).with_interval(PROBE_EVERY);
        // Without them a peer that vanished is noticed later.
        let _ = SockRef::from(socket.get_ref()).set_tcp_keepalive(&probes.with_retries(PROBES));
    }
    let proved = match session.peer_certificates() {
        Some(chain) => Some(proved(chain).map_err(|error| {
            let what = format!("the certificate of {address} is none of a node");
            LinkError::new(Failure::Protocol, what).because(error)
        })?),
        None => None,
    };
    Ok(Dialled { stream, peer: Arc::new(Peer { proved, address }), role })
}

#[cfg(test)]
mod tests {
    use edgemesh_proto::record::NodeName;
    use tokio::net::TcpListener;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::identity::authority::LIFETIME;
    use crate::identity::{self, Authority, Clock, Expect, OFFLINE_GRACE, Tls};

    /// Some of them lose the race; without [`tell`] about a tenth.
    const CALLS: usize = 300;

    /// Who dials learns only after its handshake that it was refused, while it speaks already; also
    /// then it reads why, and not that a pipe broke.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_refused_hears_why() {
        let cloud = Authority::new(0).unwrap();
        let (node, now) = (NodeName("edge-1".into()), 33 * 86_400);
        let clock = Arc::new(Clock::with(None, move || now));
        let edge = cloud.node(&node, 0, LIFETIME).unwrap();
        let edge = Tls::new(edge, clock.clone(), OFFLINE_GRACE);
        let hub = Tls::new(cloud.hub(&[], now, LIFETIME).unwrap(), clock, Duration::ZERO);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // On a thread of its own, so that both ends move at once.
        let (server, tasks) = (hub.server(identity::Role::Hub, &[ALPN_H2]), TaskTracker::new());
        let hearing = tasks.spawn(async move {
            for _ in 0..CALLS {
                let (stream, from) = listener.accept().await.unwrap();
                let heard = accept(stream, from, server.clone()).await;
                let why = heard.map(|_| ()).unwrap_err().to_string();
                assert!(why.contains("its certificate expired"), "{why}");
            }
        });
        for call in 0..CALLS {
            let (tls, name) = (edge.client(Expect::Hub, ALPN_H2), Expect::Hub.server_name());
            let patience = Duration::from_secs(5);
            let mut dialled = dial(&Dial::default(), address, patience, tls, name).await.unwrap();
            let mut speaking = async || {
                for _ in 0..call % 5 {
                    dialled.stream.write_all(&[0; 100]).await?;
                    dialled.stream.flush().await?;
                    tokio::task::yield_now().await;
                }
                dialled.stream.read_u8().await
            };
            let told = explain(&speaking().await.unwrap_err());
            assert!(told.contains("our certificate expired"), "{call}: {told}");
        }
        hearing.await.unwrap();
    }
}
