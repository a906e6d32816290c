//! The kernel's table of connections, for UDP: a client that goes on sending keeps its Backend there
//! for ever, also one that is gone, until its entry is deleted.
//!
//! Netlink by hand (`linux/netfilter/nfnetlink_conntrack.h`): list and delete, four attributes deep.
//! The program `conntrack` would do it, but is rarely installed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// `AF_NETLINK`, `SOCK_RAW`, `NETLINK_NETFILTER`.
const NETLINK: (i32, i32, i32) = (16, 3, 12);
/// Message types: subsystem 1 (conntrack) and "get", "delete", and the answers "error", "done".
const GET: u16 = 0x101;
const DELETE: u16 = 0x102;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Flags: a request; that dumps a table; that is acknowledged.
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const ACK: u16 = 4;
/// Lengths of headers: of netlink, and of netfilter behind it.
const HEADER: usize = 16;
const FAMILY: usize = 4;
/// Attribute types, the same numbers on several levels.
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const IP: u16 = 1;
const PROTO: u16 = 2;
/// Flags in an attribute's type.
const TYPE_MASK: u16 = 0x3fff;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;
/// The kernel's messages in a dump are at most this long.
const BUFFER: usize = 64 << 10;
/// Longest wait for the kernel, which answers at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// A UDP flow as the kernel remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Where its client sends to.
    pub(super) to: SocketAddr,
    /// Who answers.
    pub(super) from: SocketAddr,
    /// Its identity, as the kernel wrote it.
    identity: Vec<u8>,
}

/// Deletes the entries of one family that are `stale`, and says how many.
///
/// # Errors
/// When the kernel does not let us look, or has no such table.
pub(super) fn forget(v4: bool, stale: impl Fn(&Entry) -> bool) -> io::Result<usize> {
    let (domain, kind, protocol) = NETLINK;
    let socket =
        Socket::new(Domain::from(domain), Type::from(kind), Some(Protocol::from(protocol)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut gone = 0;
    for entry in entries(&socket, v4)?.iter().filter(|entry| stale(entry)) {
        (&socket).write_all(&message(DELETE, REQUEST | ACK, v4, &entry.identity))?;
        let mut found = Ok(());
        receive(&socket, |message| {
            found = message.result;
            message.kind == ERROR
        })?;
        match found {
            Ok(()) => gone += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {} // it ended by itself
            Err(error) => return Err(error),
        }
    }
    Ok(gone)
}

fn entries(socket: &Socket, v4: bool) -> io::Result<Vec<Entry>> {
    (&*socket).write_all(&message(GET, REQUEST | DUMP, v4, &[]))?;
    let (mut entries, mut failed) = (Vec::new(), Ok(()));
    receive(socket, |message| {
        if message.kind == ERROR {
            failed = message.result;
            return true;
        }
        entries.extend(message.body.get(FAMILY..).and_then(entry));
        message.kind == DONE
    })?;
    failed.map(|()| entries)
}

/// One message of the kernel's.
struct Message<'b> {
    kind: u16,
    body: &'b [u8],
    /// What an "error" says, which may be that there is none.
    result: io::Result<()>,
}

/// Hands over messages until one is the `last`.
fn receive(mut socket: &Socket, mut last: impl FnMut(Message<'_>) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = socket.read(&mut buffer)?;
        let mut rest = &buffer[..length];
        while let Some((message, next)) = split(rest) {
            rest = next;
            if last(message) {
                return Ok(());
            }
        }
    }
}

fn split(bytes: &[u8]) -> Option<(Message<'_>, &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let body = bytes.get(HEADER..length)?; // a length below a header's ends it
    let code = body.first_chunk().filter(|_| kind == ERROR).map_or(0, |c| i32::from_ne_bytes(*c));
    let result = if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
    Some((Message { kind, body, result }, bytes.get(aligned(length)..).unwrap_or_default()))
}

fn message(kind: u16, flags: u16, v4: bool, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER + FAMILY + attributes.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]); // sequence and sender: one question at a time
    bytes.extend_from_slice(&[if v4 { 2 } else { 10 }, 0, 0, 0]);
    bytes.extend_from_slice(attributes);
    bytes
}

/// A UDP flow; `None` for any other.
fn entry(attributes: &[u8]) -> Option<Entry> {
    let (identity, original) = find(attributes, TUPLE_ORIG)?;
    let (_, reply) = find(attributes, TUPLE_REPLY)?;
    let ([_, to], [from, _]) = (ends(original)?, ends(reply)?);
    Some(Entry { to, from, identity: identity.to_vec() })
}

/// Source and destination of one direction.
fn ends(tuple: &[u8]) -> Option<[SocketAddr; 2]> {
    let ((_, ip), (_, proto)) = (find(tuple, IP)?, find(tuple, PROTO)?);
    let end = |v4: u16, port: u16| {
        let address = find(ip, v4).or_else(|| find(ip, v4 + 2))?.1;
        let address = match address.len() {
            4 => IpAddr::from(*address.first_chunk::<4>()?),
            16 => IpAddr::from(*address.first_chunk::<16>()?),
            _ => return None,
        };
        Some(SocketAddr::new(address, u16::from_be_bytes(*find(proto, port)?.1.first_chunk()?)))
    };
    if find(proto, 1)?.1 != [UDP] {
        return None;
    }
    Some([end(1, 2)?, end(2, 3)?])
}

/// The first attribute of a type: whole, and what it holds.
fn find(mut attributes: &[u8], wanted: u16) -> Option<(&[u8], &[u8])> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?) & TYPE_MASK;
        let value = attributes.get(4..length)?; // a length below 4 ends it
        if kind == wanted {
            return Some((attributes.get(..aligned(length)).unwrap_or(attributes), value));
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

const fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn tuple(kind: u16, protocol: u8, [from, to]: [&str; 2]) -> Vec<u8> {
        let ends = [from, to].map(|end| end.parse::<SocketAddr>().unwrap());
        let octets = |ip: IpAddr| match ip {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let six = if ends[0].is_ipv6() { 2 } else { 0 };
        let ip = [1, 2].map(|n| attribute(n + six, &octets(ends[usize::from(n) - 1].ip())));
        let mut proto = attribute(1, &[protocol]);
        proto.extend(attribute(2, &ends[0].port().to_be_bytes()));
        proto.extend(attribute(3, &ends[1].port().to_be_bytes()));
        let nested = 0x8000;
        attribute(
            kind | nested,
            &[attribute(1 | nested, &ip.concat()), attribute(2, &proto)].concat(),
        )
    }

    #[test]
    fn entries_are_read_whole_or_not_at_all() {
        let rows = [
            (UDP, ["10.1.0.2:4000", "10.96.0.1:53"], ["10.1.0.9:5353", "10.1.0.1:4000"], true),
            (UDP, ["[fd01::2]:1", "[fd96::1]:2"], ["[fd01::9]:3", "[fd01::1]:4"], true),
            (6, ["10.1.0.2:4000", "10.96.0.1:53"], ["10.1.0.9:5353", "10.1.0.1:4000"], false),
        ];
        for (protocol, original, reply, is_udp) in rows {
            let identity = tuple(TUPLE_ORIG, protocol, original);
            let whole = [&attribute(9, &[1]), &identity, &tuple(TUPLE_REPLY, protocol, reply)];
            let whole = whole.map(Vec::as_slice).concat();
            let want = is_udp.then(|| Entry {
                to: original[1].parse().unwrap(),
                from: reply[0].parse().unwrap(),
                identity,
            });
            assert_eq!(entry(&whole), want);
            for cut in 0..whole.len() {
                assert_eq!(entry(&whole[..cut]), None, "cut at {cut}");
            }
            // Damaged anywhere it is another one or none, and nothing worse.
            for at in 0..8 * whole.len() {
                let mut damaged = whole.clone();
                damaged[at / 8] ^= 1 << (at % 8);
                if let Some(entry) = entry(&damaged) {
                    assert!(entry.identity.len() <= whole.len());
                }
                let message = [message(GET, 0, true, &damaged), vec![0xff; at % 4]].concat();
                assert!(split(&message).is_some_and(|(_, rest)| rest.len() < HEADER));
            }
        }
    }

    #[test]
    fn garbage_ends() {
        for bytes in [&[][..], &[0; 3], &[0; 4], &[0; 64], &[0xff; 64], &[4, 0, 9, 0, 4, 0, 9, 0]] {
            assert_eq!(entry(bytes), None);
            assert!(split(bytes).is_none_or(|(_, rest)| rest.len() < bytes.len()));
        }
    }
}
