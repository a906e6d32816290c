//! Writes replies: addresses and absences of mesh names, refusals, and what is too long for UDP.

use std::net::IpAddr;

use simple_dns::rdata::{CNAME, PTR, RData, SOA, SRV};
use simple_dns::{CLASS, Label, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE};
use simple_dns::{ResourceRecord, TYPE};

use crate::dns::wire::{self, Query, flag, put_u16};

/// Seconds that clients may keep an answer about a mesh name, and its absence. Short, since a
/// Service that was just deployed or moved must be found; long enough that the repeated queries of
/// one connection attempt (both families, search list) cost the client nothing.
pub const TTL: u32 = 5;
/// Largest reply by UDP, in octets: fits every link's MTU unfragmented (DNS flag day 2020).
pub const UDP_MAX: usize = 1232;
/// Largest reply by UDP to a client without EDNS, in octets (RFC 1035 §4.2.1).
pub const UDP_PLAIN: usize = 512;
/// Largest reply by TCP, in octets: its length has two octets.
pub const TCP_MAX: usize = 65_535;
/// Most addresses in one reply, so that even IPv6 ones with a long name stay below [`TCP_MAX`].
pub const ADDRESSES_MAX: usize = 1000;
/// Most targets of an SRV or PTR reply, for the same reason: each has a long name of its own.
pub const TARGETS_MAX: usize = 100;

/// What a query came by, which bounds the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each way.
    Udp,
    /// Framed by a length of two octets.
    Tcp,
}

/// Response codes that we make ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The query cannot be read.
    FormErr,
    /// No upstream answered, or too many queries are under way.
    ServFail,
    /// Not an operation that we know.
    NotImp,
    /// We do not do this: zone transfers, other classes of mesh names.
    Refused,
    /// An EDNS version that nobody has defined.
    BadVers,
}

impl Code {
    fn number(self) -> u16 {
        match self {
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }
}

/// What is known about a mesh name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// These addresses of the asked type. None: NOERROR without data.
    Addresses(&'a [IpAddr]),
    /// Another name stands for it, with these addresses of the asked type.
    Alias(&'a str, &'a [IpAddr]),
    /// Another name stands for it, which does not exist.
    LostAlias(&'a str),
    /// A port is served at these places.
    Places(&'a [Target]),
    /// These are the names of an address.
    Pointers(&'a [String]),
    /// The name does not exist.
    Nothing,
}

/// Where a port is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Full name of the host.
    pub name: String,
    /// The port there.
    pub port: u16,
    /// Its addresses, which spare the client a question.
    pub addresses: Vec<IpAddr>,
}

/// Largest reply that the client takes, in octets.
pub fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match transport {
        Transport::Tcp => TCP_MAX,
        Transport::Udp => {
            query.edns.map_or(UDP_PLAIN, |edns| usize::from(edns.size).clamp(UDP_PLAIN, UDP_MAX))
        }
    }
}

/// The authoritative reply about a mesh name; `zone` (labels) owns the SOA that stands in for
/// missing data.
pub fn authoritative(
    query: &Query<'_>,
    found: Found<'_>,
    zone: &[&[u8]],
    transport: Transport,
) -> Vec<u8> {
    let built = packet(query, found, zone).and_then(|p| p.build_bytes_vec_compressed().ok());
    let Some(mut bytes) = built else { return refusal(query, Code::ServFail) };
    append_opt(&mut bytes, query, 0);
    fit(bytes, query, transport)
}

/// A reply that says only why there is none.
pub fn refusal(query: &Query<'_>, code: Code) -> Vec<u8> {
    let mut bytes = head(query, flag::RA | (code.number() & flag::RCODE));
    append_opt(&mut bytes, query, code.number() >> 4);
    bytes
}

/// A reply to something that is no readable query: its id, and its opcode if it came that far.
pub fn blind_refusal(bytes: &[u8], code: Code) -> Option<Vec<u8>> {
    let id = wire::u16_at(bytes, 0).ok()?;
    let theirs = wire::u16_at(bytes, 2).unwrap_or_default() & (flag::OPCODE | flag::RD);
    let mut reply = vec![0; wire::HEADER];
    put_u16(&mut reply, 0, id);
    put_u16(&mut reply, 2, flag::QR | theirs | code.number());
    Some(reply)
}

/// The reply itself if the client can take it, else one that sends the client to TCP.
pub fn fit(reply: Vec<u8>, query: &Query<'_>, transport: Transport) -> Vec<u8> {
    if reply.len() <= limit(query, transport) {
        return reply;
    }
    let kept = wire::u16_at(&reply, 2).unwrap_or_default();
    let mut cut = head(query, flag::TC | flag::RA | (kept & (flag::AA | flag::RCODE)));
    append_opt(&mut cut, query, 0);
    cut
}

/// Adds an OPT record if the client sent one: our UDP size, the client's DO bit, no options.
///
/// Written by hand: `simple-dns` 0.13 has no DO bit and puts the version in the wrong octet.
pub fn append_opt(reply: &mut Vec<u8>, query: &Query<'_>, extended: u16) {
    let Some(edns) = query.edns else { return };
    let size = u16::try_from(UDP_MAX).unwrap_or(u16::MAX).to_be_bytes();
    let high = u8::try_from(extended).unwrap_or_default();
    let dnssec = if edns.dnssec { 0x80 } else { 0 };
    reply.extend_from_slice(&[0, 0, 41, size[0], size[1], high, 0, dnssec, 0, 0, 0]);
    let count = wire::u16_at(reply, 10).unwrap_or_default();
    put_u16(reply, 10, count.saturating_add(1));
}

/// Header and question of a reply; RD and CD are the client's.
fn head(query: &Query<'_>, flags: u16) -> Vec<u8> {
    let mut bytes = vec![0; wire::HEADER];
    put_u16(&mut bytes, 0, query.id());
    let theirs = query.flags() & (flag::RD | flag::CD);
    put_u16(&mut bytes, 2, flag::QR | theirs | flags);
    put_u16(&mut bytes, 4, 1);
    bytes.extend_from_slice(query.question());
    bytes
}

fn packet<'a>(query: &Query<'a>, found: Found<'_>, zone: &[&'a [u8]]) -> Option<Packet<'a>> {
    let name = name(&query.labels)?;
    let mut packet = Packet::new_reply(query.id());
    packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    for (bit, mirrored) in
        [(flag::RD, PacketFlag::RECURSION_DESIRED), (flag::CD, PacketFlag::CHECKING_DISABLED)]
    {
        if query.flags() & bit != 0 {
            packet.set_flags(mirrored);
        }
    }
    let qtype = match query.qtype {
        kind if kind == wire::kind::ANY => QTYPE::ANY,
        other => QTYPE::TYPE(TYPE::from(other)),
    };
    let qclass = QCLASS::try_from(query.qclass).ok()?;
    packet.questions.push(Question::new(name.clone(), qtype, qclass, false));
    if matches!(found, Found::Nothing | Found::LostAlias(_)) {
        *packet.rcode_mut() = RCODE::NameError;
    }
    fill(&mut packet, name, found)?;
    if packet.answers.is_empty() {
        packet.name_servers.push(soa(zone)?);
    }
    Some(packet)
}

/// The records of what was found.
fn fill<'a>(packet: &mut Packet<'a>, name: Name<'a>, found: Found<'_>) -> Option<()> {
    let record = |name: &Name<'a>, data| ResourceRecord::new(name.clone(), CLASS::IN, TTL, data);
    match found {
        Found::Nothing => {}
        Found::Addresses(addresses) => {
            packet.answers.extend(addresses.iter().take(ADDRESSES_MAX).map(|a| host(&name, *a)));
        }
        Found::LostAlias(other) => {
            packet.answers.push(record(&name, RData::CNAME(CNAME(named(other)?))));
        }
        Found::Alias(other, addresses) => {
            let other = named(other)?;
            packet.answers.push(record(&name, RData::CNAME(CNAME(other.clone()))));
            packet.answers.extend(addresses.iter().take(ADDRESSES_MAX).map(|a| host(&other, *a)));
        }
        Found::Places(targets) => {
            for Target { name: target, port, addresses } in targets.iter().take(TARGETS_MAX) {
                let target = named(target)?;
                // All are as good as each other: the mesh balances behind them.
                let data = SRV { priority: 0, weight: 100, port: *port, target: target.clone() };
                packet.answers.push(record(&name, RData::SRV(data)));
                packet.additional_records.extend(addresses.iter().map(|a| host(&target, *a)));
            }
        }
        Found::Pointers(names) => {
            for owner in names.iter().take(TARGETS_MAX) {
                packet.answers.push(record(&name, RData::PTR(PTR(named(owner)?))));
            }
        }
    }
    Some(())
}

fn host<'a>(name: &Name<'a>, address: IpAddr) -> ResourceRecord<'a> {
    let data = match address {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    ResourceRecord::new(name.clone(), CLASS::IN, TTL, data)
}

/// A name that we made or that a checked record holds.
fn named(text: &str) -> Option<Name<'static>> {
    Name::new(text).ok().map(Name::into_owned)
}

/// The SOA of a zone of ours. Its minimum is how long an absence may be kept (RFC 2308 §4); the
/// other numbers are for zone transfers, which nobody does here.
fn soa<'a>(zone: &[&'a [u8]]) -> Option<ResourceRecord<'a>> {
    let under = |label: &'static [u8]| {
        let mut labels: Vec<&'a [u8]> = vec![label];
        labels.extend_from_slice(zone);
        // A zone of almost 255 octets leaves no room: then the zone itself stands in.
        name(&labels).or_else(|| name(zone))
    };
    let data = SOA {
        mname: under(b"dns")?,
        rname: under(b"hostmaster")?,
        serial: 1,
        refresh: 7200,
        retry: 1800,
        expire: 86_400,
        minimum: TTL,
    };
    Some(ResourceRecord::new(name(zone)?, CLASS::IN, TTL, RData::SOA(data)))
}

fn name<'a>(labels: &[&'a [u8]]) -> Option<Name<'a>> {
    let octets = labels.iter().map(|label| label.len() + 1).sum::<usize>() + 1;
    let labels: Vec<Label<'a>> = labels.iter().map(|label| Label::new_unchecked(*label)).collect();
    (octets <= 255).then(|| Name::new_with_labels(&labels))
}
