//! How the connection of a Link comes to be: TCP, a handshake, and who is there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, CommonState, ServerConfig};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::dial::Dial;
use crate::identity::{explain, proved};
use crate::link::error::{Failure, LinkError};
use crate::link::{ALPN_BULK, ALPN_H2, ALPN_REVERSE, Dialled, Peer, Role};

/// Longest wait for the handshake of who dials us.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
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
) -> Result<Dialled<TlsStream<TcpStream>>, LinkError> {
    let deadline = Instant::now() + timeout;
    let stream = dial.tcp(address, timeout).await.map_err(|error| {
        LinkError::new(Failure::NotSent, format!("no connection to {address}")).because(error)
    })?;
    let shaking = TlsConnector::from(tls).connect(name, stream);
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
) -> Result<Dialled<TlsStream<TcpStream>>, LinkError> {
    let broken = |error| LinkError::new(Failure::Broken, "the connection broke").because(error);
    stream.set_nodelay(true).map_err(broken)?;
    let shaking = TlsAcceptor::from(tls).accept(stream);
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, shaking).await {
        Ok(shaken) => shaken.map_err(|error| unshaken(address, error))?,
        Err(_) => return Err(slow(address, HANDSHAKE_TIMEOUT)),
    };
    made(stream.into(), address, false)
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
fn made(
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
    we_dialled: bool,
) -> Result<Dialled<TlsStream<TcpStream>>, LinkError> {
    let (socket, session): (&TcpStream, &CommonState) = match &stream {
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
        let _ = SockRef::from(socket).set_tcp_keepalive(&probes.with_retries(PROBES));
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
