//! One agent captures in a network namespace: a second one would take the first one's traffic.
//!
//! The place is held by a socket in the kernel's abstract namespace: that is as wide as the rules
//! are (one network namespace, whatever containers share it), and goes with the process.

use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use anyhow::Context;
use nix::sys::socket::{UnixCredentials, getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;

/// The socket's name; capture's own chains and device have fixed names too.
const NAME: &str = "edgemesh/capture";

/// The place of the one agent that captures; held until dropped.
#[derive(Debug)]
pub(super) struct Alone {
    _held: Option<UnixListener>,
}

impl Alone {
    /// Takes the place.
    ///
    /// # Errors
    /// When another agent has it.
    pub(super) fn take() -> anyhow::Result<Self> {
        let address = SocketAddr::from_abstract_name(NAME)?;
        match UnixListener::bind_addr(&address) {
            Ok(held) => Ok(Self { _held: Some(held) }),
            Err(error) if error.kind() == ErrorKind::AddrInUse => occupied(&address),
            Err(error) => Err(error).context("cannot tell whether another agent captures here"),
        }
    }
}

/// The process that captures in this network namespace, if one does.
pub(crate) fn captures_here() -> Option<i32> {
    let address = SocketAddr::from_abstract_name(NAME).ok()?;
    let holder = holder(&address).ok()?;
    may_capture(&holder).then(|| holder.pid())
}

fn holder(address: &SocketAddr) -> io::Result<UnixCredentials> {
    let stream = UnixStream::connect_addr(address)?;
    getsockopt(&stream, PeerCredentials).map_err(io::Error::from)
}

/// Anybody may take a name. Only somebody who could capture counts as an agent.
fn may_capture(holder: &UnixCredentials) -> bool {
    holder.uid() == geteuid().as_raw() || holder.uid() == 0
}

fn occupied(address: &SocketAddr) -> anyhow::Result<Alone> {
    let holder =
        holder(address).context("another agent is starting or ending here; start again")?;
    if may_capture(&holder) {
        anyhow::bail!(
            "another agent (pid {}) captures in this network namespace already: stop it, or set \
             proxy.intercept: none for this one",
            holder.pid()
        );
    }
    tracing::warn!(
        pid = holder.pid(),
        uid = holder.uid(),
        "somebody holds the socket @{NAME} of agents"
    );
    Ok(Alone { _held: None })
}
