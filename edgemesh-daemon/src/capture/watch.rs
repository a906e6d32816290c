//! Hears that others changed something: the kernel tells whoever listens about links, addresses,
//! routes, policy rules and nft tables. Of legacy tables it tells nothing: they are looked at.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Links; addresses, routes and policy rules of both families (`RTNLGRP_*`).
const NETWORK: &[u32] = &[1, 5, 7, 8, 9, 11, 19];
/// `NFNLGRP_NFTABLES`
const NFT: &[u32] = &[7];

/// A line to the kernel.
#[derive(Debug)]
pub struct Watch {
    network: AsyncFd<OwnedFd>,
    nft: AsyncFd<OwnedFd>,
}

impl Watch {
    /// Listens from now on.
    ///
    /// # Errors
    /// What the kernel refuses: listening to nft needs CAP_NET_ADMIN.
    pub fn open() -> io::Result<Self> {
        let network = listen(SockProtocol::NetlinkRoute, NETWORK)?;
        let nft = listen(SockProtocol::NetlinkNetFilter, NFT)?;
        Ok(Self { network: register(network)?, nft: register(nft)? })
    }

    /// Returns when something changed since the last call, by whomever. What it was is not read.
    ///
    /// # Errors
    /// What sockets fail with; the line is of no use then.
    pub async fn changed(&self) -> io::Result<()> {
        tokio::select! {
            heard = hear(&self.network) => heard,
            heard = hear(&self.nft) => heard,
        }
    }
}

/// A line to the kernel about the network alone, which needs no rights.
#[derive(Debug)]
pub(crate) struct Network(AsyncFd<OwnedFd>);

impl Network {
    /// Listens from now on.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self(register(listen(SockProtocol::NetlinkRoute, NETWORK)?)?))
    }

    /// Returns when a link, an address or a route changed since the last call.
    ///
    /// # Errors
    /// What sockets fail with; the line is of no use then.
    pub(crate) async fn changed(&self) -> io::Result<()> {
        hear(&self.0).await
    }
}

fn listen(protocol: SockProtocol, groups: &[u32]) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let line = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    let groups = groups.iter().fold(0, |mask, group| mask | 1 << (group - 1));
    bind(line.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(line)
}

#[expect(
    deprecated,
    reason = "its unsafe successor says only that the descriptor must be kept, which an OwnedFd is"
)]
fn register(line: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(line, Interest::READABLE)
}

async fn hear(line: &AsyncFd<OwnedFd>) -> io::Result<()> {
    loop {
        let mut ready = line.readable().await?;
        if let Ok(drained) = ready.try_io(|line| drain(line.get_ref())) {
            return drained;
        }
    }
}

/// Takes all that has come, at most a thousand messages at once: more come with the next call.
fn drain(line: &OwnedFd) -> io::Result<()> {
    let mut part = [0; 64]; // the rest of a message is cut off
    let mut any = false;
    for _ in 0..1000 {
        match recv(line.as_raw_fd(), &mut part, MsgFlags::empty()) {
            // Too many came: some are lost, which says the same.
            Ok(_) | Err(Errno::ENOBUFS) => any = true,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if any => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
