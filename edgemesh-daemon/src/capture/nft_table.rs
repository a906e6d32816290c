//! Deletes the nat table of nft where it is empty: iptables makes it, and cannot take it away.
//!
//! The kernel does it in one step and refuses where anything is in the table (`NLM_F_NONREC`), so
//! that nobody's chain can be lost, whoever adds one at the same moment.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// `NFNL_SUBSYS_NFTABLES`
const NFTABLES: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN`
const BEGIN: u16 = 0x10;
/// `NFNL_MSG_BATCH_END`
const END: u16 = 0x11;
/// `NFT_MSG_DELTABLE` of nftables.
const DELETE_TABLE: u16 = NFTABLES << 8 | 2;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_NONREC`
const IF_EMPTY: u16 = REQUEST | 4 | 0x100;
/// Attribute `NFTA_TABLE_NAME`, eight bytes long with its head: `nat`.
const NAME: [u8; 4] = *b"nat\0";
/// The answer comes at once, from the kernel.
const PATIENCE_SECONDS: i64 = 2;

/// Deletes the table of one family, if it is there and empty.
///
/// # Errors
/// What the kernel said: not empty, not there, not allowed.
pub(super) fn delete_if_empty(v4: bool) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let line =
        socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
    setsockopt(&line, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_SECONDS))?;
    bind(line.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(line.as_raw_fd(), &batch(v4), MsgFlags::empty())?;
    let mut answer = [0; 128];
    let length = recv(line.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // The head of a message has 16 bytes; an error's number follows, negative, 0 for success.
    let code = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok());
    match code.map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn batch(v4: bool) -> Vec<u8> {
    let family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 } as u8;
    let mut name = [8_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat();
    name.extend(NAME);
    [
        message(BEGIN, REQUEST, [0, NFTABLES], &[]),
        message(DELETE_TABLE, IF_EMPTY, [family.into(), 0], &name),
        message(END, REQUEST, [0, NFTABLES], &[]),
    ]
    .concat()
}

/// A message of netfilter: its head, family and subsystem, then attributes.
fn message(kind: u16, flags: u16, [family, subsystem]: [u16; 2], attributes: &[u8]) -> Vec<u8> {
    let length = 20 + attributes.len() as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // sequence and port: there is one answer
    bytes.extend([family as u8, 0]);
    bytes.extend(subsystem.to_be_bytes());
    bytes.extend(attributes);
    bytes
}
