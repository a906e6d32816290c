//! Connections to what is outside of the mesh: a name is resolved, TCP is dialled by the mesh's own
//! sockets, TLS verifies who answers.

mod opener;
mod roots;
mod words;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgemesh_core::dial::{Dial, DialError};
use edgemesh_core::io::now;
use edgemesh_core::refusal::Refusal;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

pub(crate) use opener::Opener;
pub use roots::Roots;

use crate::providers::connect::roots::Trust;

/// From the name to the end of the handshake.
pub(super) const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// Makes them. Clones share what they trust.
#[derive(Clone, Debug)]
pub struct Connect {
    dial: Dial,
    trust: Arc<Trust>,
}

/// Who is to be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// A name or an address, this without brackets.
    pub(super) host: Box<str>,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// Why somebody was not reached. Nothing was sent then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct Unreached {
    pub(super) refusal: Refusal,
    pub(super) reason: Box<str>,
}

/// A connection, with TLS or without.
pub(super) type Stream = Box<dyn Duplex>;

/// Bytes both ways.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Duplex for S {}

impl Connect {
    /// By sockets of `dial`; certificates must lead to one of `roots`.
    pub fn new(dial: Dial, roots: Roots) -> Self {
        Self { dial, trust: Arc::new(Trust::new(roots)) }
    }

    /// Connects.
    pub(super) async fn open(&self, place: &Place) -> Result<Stream, Unreached> {
        match timeout(CONNECT_WITHIN, self.reach(place)).await {
            Ok(reached) => reached,
            Err(_) => Err(place.silent()),
        }
    }

    async fn reach(&self, place: &Place) -> Result<Stream, Unreached> {
        let until = now() + CONNECT_WITHIN;
        let tcp = self.tcp(place, until).await?;
        if !place.tls {
            return Ok(Box::new(tcp));
        }
        let config = self.trust.config().await.map_err(|why| place.unreached(&why))?;
        let name = ServerName::try_from(place.host.to_string())
            .map_err(|_| place.unreached("no certificate can be for such a name"))?;
        let shaken = TlsConnector::from(config).connect(name, tcp).await;
        let shaken = shaken.map_err(|error| place.unreached(&words::of_handshake(&error)))?;
        Ok(Box::new(shaken))
    }

    /// Tries the addresses one after another, each for its part of the time that is left.
    async fn tcp(&self, place: &Place, until: Instant) -> Result<TcpStream, Unreached> {
        let found = lookup_host((&*place.host, place.port)).await;
        let found = found.map_err(|error| place.unreached(&words::of_look_up(&error)))?;
        let addresses: Vec<SocketAddr> = found.take(MAX_ADDRESSES).collect();
        let mut last = place.unreached("its name has no address");
        for (tried, address) in addresses.iter().enumerate() {
            let left = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let within = until.saturating_duration_since(now()) / left;
            last = match self.dial.tcp(*address, within).await {
                Ok(tcp) => return Ok(tcp),
                Err(DialError::Timeout(_)) => place.silent(),
                Err(error @ (DialError::Socket(_) | DialError::Private)) => {
                    Unreached { refusal: error.refusal(), reason: error.to_string().into() }
                }
                Err(DialError::Connect(error)) => place.unreached(&words::of_dial(&error)),
            };
        }
        Err(last)
    }
}

impl Place {
    fn unreached(&self, why: &str) -> Unreached {
        Unreached { refusal: Refusal::ConnectFailed, reason: format!("{self}: {why}").into() }
    }

    fn silent(&self) -> Unreached {
        let reason = format!("{self}: no answer within {} s", CONNECT_WITHIN.as_secs());
        Unreached { refusal: Refusal::ConnectTimeout, reason: reason.into() }
    }
}

impl Unreached {
    /// Of what has no name.
    pub(super) fn nameless() -> Self {
        Self { refusal: Refusal::BadRequest, reason: "no host is named".into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl From<Unreached> for io::Error {
    fn from(unreached: Unreached) -> Self {
        Self::other(unreached)
    }
}
