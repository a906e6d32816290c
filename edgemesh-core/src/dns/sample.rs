//! Messages for the tests, written octet by octet so that they depend on no code under test.

use std::net::Ipv4Addr;

/// A query for a name (dots separate labels), recursion desired, class IN.
pub(super) fn query(id: u16, name: &str, qtype: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&qtype.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes
}

/// The same message with an OPT record behind it.
pub(super) fn edns(mut message: Vec<u8>, size: u16, version: u8, dnssec: bool) -> Vec<u8> {
    message[11] += 1;
    let [high, low] = size.to_be_bytes();
    let flags = if dnssec { 0x80 } else { 0 };
    message.extend_from_slice(&[0, 0, 41, high, low, 0, version, flags, 0, 0, 0]);
    message
}

/// A response to `query` (without OPT record): its id and question, a code, A records, and an SOA.
pub(super) fn respond(
    query: &[u8],
    code: u8,
    addresses: &[(u32, Ipv4Addr)],
    soa: Option<(u32, u32)>,
) -> Vec<u8> {
    let mut bytes = question(query);
    bytes[2] = 0x85;
    bytes[3] = 0x80 | code;
    bytes[7] = u8::try_from(addresses.len()).unwrap();
    for (ttl, address) in addresses {
        bytes.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        bytes.extend_from_slice(&ttl.to_be_bytes());
        bytes.extend_from_slice(&[0, 4]);
        bytes.extend_from_slice(&address.octets());
    }
    if let Some((ttl, minimum)) = soa {
        bytes[9] = 1;
        bytes.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1]);
        bytes.extend_from_slice(&ttl.to_be_bytes());
        bytes.extend_from_slice(&[0, 24, 0xc0, 12, 0xc0, 12]);
        bytes.extend_from_slice(&[0; 16]);
        bytes.extend_from_slice(&minimum.to_be_bytes());
    }
    bytes
}

/// Header (counting no other record) and question of a message.
pub(super) fn question(message: &[u8]) -> Vec<u8> {
    let mut end = 12;
    while message[end] != 0 {
        end += 1 + usize::from(message[end]);
    }
    let mut bytes = message[..end + 5].to_vec();
    bytes[6..12].fill(0);
    bytes
}
