//! Incoming TCP: listeners with a deep queue, and where each connection wanted to go.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Connections that wait to be accepted: a burst of captured ones must not overflow the queue,
/// or clients wait seconds for the repeated SYN (the kernel caps it at `net.core.somaxconn`).
const BACKLOG: u32 = 4096;
/// Pause after an accept that failed for lack of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// A client that vanished without a word is noticed after this long.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// A listener of the mesh.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

/// How a connection came to the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Redirected by the kernel; this is where it wanted to go.
    Captured(SocketAddr),
    /// Dialled the listener itself.
    Direct,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", hint(.source))]
pub struct ListenError {
    /// Where.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// Whether `address` is one of this machine's own. Asks the kernel, which forgets nothing that came
/// or went: only what is local can be bound to.
pub fn is_local(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            ": the port is in use; stop what holds it (`ss -ltnp` names it) or choose another"
        }
        io::ErrorKind::PermissionDenied => {
            ": no permission; ports below 1024 need CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => ": this machine does not have the address",
        _ => "",
    }
}

impl Listener {
    /// Binds. What accepted connections inherit (no delay, keepalive) is set here, once.
    pub fn bind(address: SocketAddr) -> Result<Self, ListenError> {
        let bound = || {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            socket.set_reuseaddr(true)?;
            socket.set_nodelay(true)?;
            let raw = SockRef::from(&socket);
            raw.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
            if address.is_ipv6() {
                raw.set_only_v6(true)?;
            }
            socket.bind(address)?;
            let inner = socket.listen(BACKLOG)?;
            let address = inner.local_addr()?;
            Ok(Self { inner, address })
        };
        bound().map_err(|source| ListenError { address, source })
    }

    /// Takes a listener that another process has bound and opened for us.
    ///
    /// # Errors
    /// When it is no listener, or cannot be registered with the runtime.
    pub fn from_std(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Self { inner: TcpListener::from_std(listener)?, address })
    }

    /// A second handle to the same socket and its queue, for another process to accept from.
    ///
    /// # Errors
    /// When files have run out.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.inner.as_fd().try_clone_to_owned()
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection. Failures to accept are waited out: a listener that gives up because
    /// files ran out for a moment would take the whole node down. `make_room` is called when it
    /// fails, to give back what is only kept for later.
    pub async fn accept(&self, make_room: impl Fn()) -> (TcpStream, SocketAddr) {
        loop {
            match self.inner.accept().await {
                Ok(accepted) => return accepted,
                // The client gave up while it waited: nothing is wrong here.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(listener = %self.address, %error, "cannot accept; trying again");
                    make_room();
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// How `stream` came: by its original destination, or to the listener itself.
pub fn came(stream: &TcpStream, peer: SocketAddr) -> io::Result<Came> {
    let local = canonical(stream.local_addr()?);
    let socket = SockRef::from(stream);
    let original = match peer.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4(),
        IpAddr::V6(_) => socket.original_dst_v6(),
    };
    // Without a conntrack entry (no NAT rule in this namespace at all) there is none.
    let original = original.ok().and_then(|a| a.as_socket()).map_or(local, canonical);
    Ok(if original == local { Came::Direct } else { Came::Captured(original) })
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Makes the close of `stream` a reset, as its other side saw one.
pub fn reset_on_close(stream: &TcpStream) {
    // Fails only on a socket that is gone already.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
