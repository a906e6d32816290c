//! Outgoing TCP: every connection of the mesh is made here, so that none misses the mark by
//! which the capture rules let it through, and none ends at what is only this machine's.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

use crate::refusal::Refusal;

/// Makes connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dial {
    /// fwmark of the sockets; `None` where nothing is captured (and no capability is needed).
    pub mark: Option<u32>,
    /// Ports of this process on loopback addresses that only programs of this machine may reach (0 =
    /// none): whoever writes a Service or a Rule is no such program.
    pub private: [u16; 2],
}

/// A peer that vanished without a word is noticed after this long.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

impl Dial {
    /// Connects within `timeout`.
    pub async fn tcp(&self, to: SocketAddr, timeout: Duration) -> Result<TcpStream, DialError> {
        let ip = to.ip().to_canonical();
        if (ip.is_loopback() || ip.is_unspecified()) && self.private.contains(&to.port()) {
            return Err(DialError::Private);
        }
        let socket = self.tcp_socket(to).map_err(DialError::Socket)?;
        match tokio::time::timeout(timeout, socket.connect(to)).await {
            Ok(connected) => connected.map_err(DialError::Connect),
            Err(_) => Err(DialError::Timeout(timeout)),
        }
    }

    /// A UDP socket of `to`'s family, bound to a port of the kernel's choice.
    pub fn udp_socket(&self, to: SocketAddr) -> io::Result<UdpSocket> {
        let any: SocketAddr = match to {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0u16; 8], 0).into(),
        };
        let socket = std::net::UdpSocket::bind(any)?;
        self.mark(SockRef::from(&socket))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    /// A TCP socket of `to`'s family, not yet connected.
    pub fn tcp_socket(&self, to: SocketAddr) -> io::Result<TcpSocket> {
        let socket = match to {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }?;
        socket.set_nodelay(true)?;
        let raw = SockRef::from(&socket);
        raw.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
        self.mark(raw)?;
        Ok(socket)
    }

    /// Fails where the mark cannot be set: with capture on, that would be a loop.
    pub fn check(&self) -> io::Result<()> {
        let socket = std::net::UdpSocket::bind(("127.0.0.1", 0))?;
        self.mark(SockRef::from(&socket))
    }

    fn mark(&self, socket: SockRef<'_>) -> io::Result<()> {
        self.mark.map_or(Ok(()), |mark| socket.set_mark(mark))
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No socket could be made: files or capabilities are missing.
    #[error("cannot make a socket")]
    Socket(#[source] io::Error),
    /// The other side refused, or there is no way to it.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// Nobody answered in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// See [`Dial::private`].
    #[error("this port of the mesh is only for programs of this machine")]
    Private,
}

impl DialError {
    /// The Refusal that it becomes when no attempt is left.
    pub const fn refusal(&self) -> Refusal {
        match self {
            Self::Socket(_) => Refusal::Overloaded,
            Self::Connect(_) => Refusal::ConnectFailed,
            Self::Timeout(_) => Refusal::ConnectTimeout,
            Self::Private => Refusal::Loop,
        }
    }

    /// Whether the Backend is to blame.
    pub fn blames_backend(&self) -> bool {
        match self {
            Self::Socket(_) | Self::Private => false,
            Self::Timeout(_) => true,
            // Ports that ran out, or an uplink that is down, are this machine's trouble: blaming
            // the Backend for it would eject everyone.
            Self::Connect(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::HostUnreachable
            ),
        }
    }
}
