//! Names of the mesh that stand for names outside: the question for an upstream, and the reply.

use std::net::IpAddr;

use crate::dns::reply::{self, Code, Found, Transport};
use crate::dns::wire::{self, Query, flag, kind, put_u16};

/// The question for what `query` really asks: the same type, of `name`. `None`: it is no name.
pub fn question(query: &Query<'_>, name: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; wire::HEADER];
    put_u16(&mut bytes, 0, query.id());
    // Whatever the client wants, the upstream has to look for it.
    put_u16(&mut bytes, 2, flag::RD | (query.flags() & flag::CD));
    put_u16(&mut bytes, 4, 1);
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        bytes.push(length);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&query.qtype.to_be_bytes());
    bytes.extend_from_slice(&query.qclass.to_be_bytes());
    wire::query(&bytes).is_ok().then_some(bytes)
}

/// The reply to `query`, whose name stands for `name`, from what an upstream said of that name.
/// Names in between are left out: who asks wants the addresses.
pub fn reply(query: &Query<'_>, name: &str, said: &[u8], transport: Transport) -> Vec<u8> {
    let code = wire::u16_at(said, 2).unwrap_or(flag::RCODE) & flag::RCODE;
    let zone = &query.labels[..];
    match code {
        0 => {
            let addresses = addresses(said, query.qtype);
            reply::authoritative(query, Found::Alias(name, &addresses), zone, transport)
        }
        3 => reply::authoritative(query, Found::LostAlias(name), zone, transport),
        _ => reply::refusal(query, Code::ServFail),
    }
}

/// All addresses of one type among the answers.
fn addresses(said: &[u8], qtype: u16) -> Vec<IpAddr> {
    let Ok(asked) = wire::query_end(said) else { return Vec::new() };
    let Ok(records) = wire::response(said, &said[wire::HEADER..asked]) else { return Vec::new() };
    let answers = records.iter().filter(|record| record.section == 0 && record.kind == qtype);
    let data = |record: &wire::Record| said.get(record.fixed + wire::RECORD..record.end);
    answers
        .filter_map(data)
        .filter_map(|data| match (qtype, data.len()) {
            (kind::A, 4) => Some(IpAddr::from(*data.first_chunk::<4>()?)),
            (kind::AAAA, 16) => Some(IpAddr::from(*data.first_chunk::<16>()?)),
            _ => None,
        })
        .collect()
}
