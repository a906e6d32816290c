//! Binds the name server's sockets, and says how to get there when that fails.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use tokio::net::{TcpListener, UdpSocket};

/// How often a free port is drawn anew when it is free for TCP but not for UDP (port 0 only).
const DRAWS: usize = 8;

/// One address to serve, by UDP and TCP.
///
/// It must be a specific address: a reply leaves from the address that its socket is bound to, so
/// only then does it come from where the client asked.
#[derive(Debug)]
pub struct Sockets {
    pub(super) udp: UdpSocket,
    pub(super) tcp: TcpListener,
}

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A reply from a socket bound to every address may leave from another one than was asked.
    #[error("cannot serve DNS on {0}: name each address in dns.listen, not the wildcard")]
    Wildcard(SocketAddr),
    /// The operating system refuses.
    #[error("cannot serve DNS on {protocol} {address}: {}", fix(source))]
    Os {
        /// `UDP` or `TCP`.
        protocol: &'static str,
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

impl Sockets {
    /// Takes sockets that the caller has bound (to one specific address), blocking or not.
    ///
    /// # Errors
    /// When they cannot be registered with the runtime.
    pub fn from_std(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp: UdpSocket::from_std(udp)?, tcp: TcpListener::from_std(tcp)? })
    }

    /// Second handles to the same sockets (UDP, TCP), for another process to serve.
    ///
    /// # Errors
    /// When files have run out.
    pub fn duplicate(&self) -> io::Result<[OwnedFd; 2]> {
        Ok([self.udp.as_fd().try_clone_to_owned()?, self.tcp.as_fd().try_clone_to_owned()?])
    }

    /// The address served.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }
}

/// Binds an address for UDP and TCP; port 0 draws one that is free for both.
///
/// # Errors
/// [`BindError`], which names the address and what to do about it.
pub async fn bind(address: SocketAddr) -> Result<Sockets, BindError> {
    if address.ip().is_unspecified() {
        return Err(BindError::Wildcard(address));
    }
    let mut draws = if address.port() == 0 { DRAWS } else { 1 };
    loop {
        let failed = |protocol| move |source| BindError::Os { protocol, address, source };
        let tcp = TcpListener::bind(address).await.map_err(failed("TCP"))?;
        let same = tcp.local_addr().map_err(failed("TCP"))?;
        draws -= 1;
        match UdpSocket::bind(same).await {
            Ok(udp) => return Ok(Sockets { udp, tcp }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && draws > 0 => {}
            Err(error) => return Err(failed("UDP")(error)),
        }
    }
}

fn fix(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another name server holds the port; `ss -lnp` names it: stop it, or set dns.listen to \
             another address or port"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: grant it, or set dns.listen to a higher port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this host has the address: correct dns.listen, or let proxy.address \
             put it on edgemesh0 first"
        }
        _ => "the system refuses (the cause follows)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_names_the_address_and_the_fix() {
        let taken = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let taken = taken.address().map(|address| (taken, address)).unwrap();
        let rows = [
            (taken.1, vec!["another name server", "dns.listen"]),
            ("0.0.0.0:0".parse().unwrap(), vec!["wildcard"]),
            ("192.0.2.1:0".parse().unwrap(), vec!["no interface"]),
        ];
        for (address, words) in rows {
            let text = bind(address).await.unwrap_err().to_string();
            for word in words.into_iter().map(str::to_owned).chain([address.to_string()]) {
                assert!(text.contains(&word), "{text}");
            }
        }
    }
}
