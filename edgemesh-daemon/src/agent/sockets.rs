//! The agent's listening sockets: bound here, or taken over from the agent that served before.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use anyhow::Context;
use edgemesh_core::dial::Dial;
use edgemesh_core::dns;
use edgemesh_core::listen::Listener;

use crate::config::AgentConfig;
use crate::handover::{Inherited, Label, Role};

/// How the agent's own connections are made; `marked` where something is captured.
pub(super) fn dial(config: &AgentConfig, marked: bool) -> Dial {
    let private = [config.admin.listen.port(), config.service_bus.listen.port()];
    Dial { mark: marked.then_some(config.proxy.mark), private }
}

/// Sockets that wait to be asked for, and second handles to those that were.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    inherited: Inherited,
    held: Vec<(Label, OwnedFd)>,
}

impl Sockets {
    /// Sockets of the agent that served before are preferred to new ones.
    pub(super) const fn inheriting(inherited: Inherited) -> Self {
        Self { inherited, held: Vec::new() }
    }

    /// A listener of the proxy.
    pub(super) fn proxy(&mut self, address: SocketAddr) -> anyhow::Result<Listener> {
        self.listener(Role::Proxy, address)
    }

    /// The listener for other agents.
    pub(super) fn peer(&mut self, address: SocketAddr) -> anyhow::Result<Listener> {
        self.listener(Role::Peer, address)
    }

    fn listener(&mut self, role: Role, address: SocketAddr) -> anyhow::Result<Listener> {
        let listener = match self.take(role, address) {
            Some(fd) => Listener::from_std(fd.into())?,
            None => Listener::bind(address)?,
        };
        self.hold(role, listener.address(), listener.duplicate()?);
        Ok(listener)
    }

    /// The listener of a page.
    pub(super) fn page(&mut self, address: SocketAddr) -> anyhow::Result<TcpListener> {
        let listener = match self.take(Role::Page, address) {
            Some(fd) => fd.into(),
            None => TcpListener::bind(address).with_context(|| {
                format!(
                    "cannot listen on {address} (is another agent running? `ss -ltnp` names who \
                     holds it)"
                )
            })?,
        };
        listener.set_nonblocking(true)?;
        self.hold(Role::Page, address, listener.try_clone()?.into());
        Ok(listener)
    }

    /// The two sockets of a name server.
    pub(super) async fn dns(&mut self, address: SocketAddr) -> anyhow::Result<dns::bind::Sockets> {
        let (udp, tcp) = (self.take(Role::DnsUdp, address), self.take(Role::DnsTcp, address));
        let sockets = match udp.zip(tcp) {
            Some((udp, tcp)) => {
                dns::bind::Sockets::from_std(UdpSocket::from(udp), TcpListener::from(tcp))?
            }
            None => dns::bind::bind(address).await?,
        };
        let [udp, tcp] = sockets.duplicate()?;
        self.hold(Role::DnsUdp, address, udp);
        self.hold(Role::DnsTcp, address, tcp);
        Ok(sockets)
    }

    /// Second handles to all sockets, to be handed over.
    pub(super) fn held(&self) -> &[(Label, OwnedFd)] {
        &self.held
    }

    /// Sockets that the configuration no longer asks for; they are closed.
    pub(super) fn close_unclaimed(&mut self) {
        for (label, _) in self.inherited.drain(..) {
            tracing::info!(role = ?label.role, address = %label.address, "no longer listened on");
        }
    }

    fn take(&mut self, role: Role, address: SocketAddr) -> Option<OwnedFd> {
        let wanted = Label { role, address };
        let at = self.inherited.iter().position(|(label, _)| *label == wanted)?;
        Some(self.inherited.swap_remove(at).1)
    }

    fn hold(&mut self, role: Role, address: SocketAddr, fd: OwnedFd) {
        self.held.push((Label { role, address }, fd));
    }
}

/// Whether an error says that IPv6 is not to be had, rather than that somebody else listens.
pub(super) fn in_use(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|error| error.kind() == io::ErrorKind::AddrInUse)
}
