//! Decides about a query without waiting: answer it, refuse it, forward it or drop it.

use std::fmt;
use std::net::IpAddr;

use crate::dns::names::{Named, Names, OwnName, Place, PortName};
use crate::dns::reply::{self, Code, Found, Target, Transport};
use crate::dns::reverse;
use crate::dns::wire::{self, Query, flag, kind};

/// Longest query, in octets. A question with every EDNS option in use has a few hundred.
pub const QUERY_MAX: usize = 4096;
const CLASS_IN: u16 = 1;
const CLASS_ANY: u16 = 255;

/// What becomes of a query.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// This is the answer; it fits the client.
    Reply(Vec<u8>),
    /// This says why there is none.
    Refuse(Vec<u8>),
    /// Not a mesh name: ask an upstream.
    Forward(Query<'a>),
    /// A mesh name that stands for one of the outside: ask an upstream for that, then
    /// [`alias`](crate::dns::alias) makes the reply.
    Alias(Query<'a>, Box<str>),
    /// Not worth a reply: shorter than an id, or itself a response (answering could make a loop).
    Drop,
}

/// The cluster domain, checked, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    labels: Vec<Vec<u8>>,
}

/// A cluster domain that cannot be one.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is no DNS domain: labels of 1 to 63 letters, digits, `-` or `_`, 200 in all")]
pub struct BadDomain(String);

/// Longest domain, in octets: leaves room for a Service and a namespace in front of it.
const DOMAIN_MAX: usize = 200;

impl Domain {
    /// Checks a domain such as `cluster.local`; a trailing dot and the case of letters are ignored.
    ///
    /// # Errors
    /// [`BadDomain`] when no name could end in it.
    pub fn new(text: &str) -> Result<Self, BadDomain> {
        let trimmed = text.strip_suffix('.').unwrap_or(text);
        let labels: Vec<Vec<u8>> =
            trimmed.split('.').map(|label| label.to_ascii_lowercase().into_bytes()).collect();
        let fine = trimmed.len() <= DOMAIN_MAX && labels.iter().all(|label| plain(label).is_some());
        if fine { Ok(Self { labels }) } else { Err(BadDomain(text.into())) }
    }

    /// The labels in front of the domain, if the name is in it.
    fn strip<'n, 'a>(&self, name: &'n [&'a [u8]]) -> Option<&'n [&'a [u8]]> {
        let split = name.len().checked_sub(self.labels.len())?;
        let (front, back) = name.split_at(split);
        let same = back.iter().zip(&self.labels).all(|(a, b)| a.eq_ignore_ascii_case(b));
        same.then_some(front)
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, label) in self.labels.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { "." } else { "" }, String::from_utf8_lossy(label))?;
        }
        Ok(())
    }
}

/// Decides about one message. Any bytes are fine; a reply is never longer than the client and
/// `transport` take.
pub fn answer<'a>(
    bytes: &'a [u8],
    transport: Transport,
    names: &dyn Names,
    domain: &Domain,
) -> Outcome<'a> {
    let flags = match bytes {
        [] | [_] => return Outcome::Drop,
        // Byte 2 holds QR and the opcode; what ends before the flags word is still FORMERR.
        [_, _] => 0,
        [_, _, high, rest @ ..] => u16::from_be_bytes([*high, rest.first().copied().unwrap_or(0)]),
    };
    if flags & flag::QR != 0 {
        return Outcome::Drop;
    }
    let blind = |code| reply::blind_refusal(bytes, code).map_or(Outcome::Drop, Outcome::Refuse);
    if flags & flag::OPCODE != 0 {
        return blind(Code::NotImp);
    }
    if bytes.len() > QUERY_MAX {
        return blind(Code::FormErr);
    }
    let Ok(query) = wire::query(bytes) else { return blind(Code::FormErr) };
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Outcome::Refuse(reply::refusal(&query, Code::BadVers));
    }
    // A transfer is many messages; neither we nor a forwarder of single messages can do it.
    if matches!(query.qtype, kind::AXFR | kind::IXFR) {
        return Outcome::Refuse(reply::refusal(&query, Code::Refused));
    }
    decide(query, transport, names, domain)
}

fn decide<'a>(
    query: Query<'a>,
    transport: Transport,
    names: &dyn Names,
    domain: &Domain,
) -> Outcome<'a> {
    let owned = ours(&query.labels, domain);
    if !matches!(query.qclass, CLASS_IN | CLASS_ANY) {
        return match owned {
            Some(_) => Outcome::Refuse(reply::refusal(&query, Code::Refused)),
            None => Outcome::Forward(query),
        };
    }
    let (zone, front, bare) = match owned {
        Some(Owned { zone, front }) => (zone, front, false),
        None => (&query.labels[..], &query.labels[..], true),
    };
    let known = if bare { known_anywhere(names, front) } else { known(names, front) };
    let reply = |found| Outcome::Reply(reply::authoritative(&query, found, zone, transport));
    match known {
        Some(Known::Addresses(all)) => reply(Found::Addresses(&of_type(all, query.qtype))),
        Some(Known::Alias(other)) => {
            let other = follow(names, domain, other);
            match other {
                Followed::Outside(other) if matches!(query.qtype, kind::A | kind::AAAA) => {
                    Outcome::Alias(query, other)
                }
                Followed::Outside(other) => reply(Found::Alias(&other, &[])),
                Followed::Here(other, all) => {
                    reply(Found::Alias(&other, &of_type(all, query.qtype)))
                }
                Followed::Nowhere(other) => reply(Found::LostAlias(&other)),
            }
        }
        Some(Known::Places(places)) if matches!(query.qtype, kind::SRV | kind::ANY) => {
            let target = |place: Place| Target {
                name: full_name(&place.owner, domain),
                port: place.port,
                addresses: place.addresses,
            };
            reply(Found::Places(&places.into_iter().map(target).collect::<Vec<_>>()))
        }
        Some(Known::Owners(owners)) if matches!(query.qtype, kind::PTR | kind::ANY) => {
            let names: Vec<_> = owners.iter().map(|owner| full_name(owner, domain)).collect();
            reply(Found::Pointers(&names))
        }
        Some(Known::Places(_) | Known::Owners(_)) => reply(Found::Addresses(&[])),
        None if bare => Outcome::Forward(query),
        None if front.is_empty() => reply(Found::Addresses(&[])),
        None => reply(Found::Nothing),
    }
}

/// What is behind a name.
enum Known {
    Addresses(Vec<IpAddr>),
    Alias(Box<str>),
    Places(Vec<Place>),
    Owners(Vec<OwnName>),
}

/// What stands in front of the zone: `svc.ns`, `host.svc.ns`, `_port._proto.svc.ns`.
fn known(names: &dyn Names, front: &[&[u8]]) -> Option<Known> {
    let (front, [service, namespace]) = front.split_last_chunk::<2>()?;
    let (namespace, service) = (plain(namespace)?, plain(service)?);
    match front {
        [] => Some(match names.service(&namespace, &service)? {
            Named::Addresses(addresses) => Known::Addresses(addresses),
            Named::Alias(other) => Known::Alias(other),
        }),
        // `_tcp` exists where a port below it may.
        [transport] if matches!(&plain(transport)?[..], "_tcp" | "_udp" | "_sctp") => {
            names.service(&namespace, &service).map(|_| Known::Addresses(Vec::new()))
        }
        [host] => names.host(&namespace, &service, &plain(host)?).map(Known::Addresses),
        [port, transport] => {
            let (port, transport) = (plain(port)?, plain(transport)?);
            let name = port.strip_prefix('_')?;
            let wanted = PortName { name, transport: transport.strip_prefix('_')? };
            names.port(&namespace, &service, wanted).map(Known::Places)
        }
        _ => None,
    }
}

/// As [`known`], and the reverse names of addresses.
fn known_anywhere(names: &dyn Names, name: &[&[u8]]) -> Option<Known> {
    match reverse::address(name) {
        Some(address) => {
            let owners = names.owners(address);
            (!owners.is_empty()).then_some(Known::Owners(owners))
        }
        None => known(names, name),
    }
}

/// Where an alias leads in the end.
enum Followed {
    Here(Box<str>, Vec<IpAddr>),
    Outside(Box<str>),
    Nowhere(Box<str>),
}

/// Most aliases that lead to one another; more is a circle.
const ALIASES_MAX: usize = 8;

fn follow(names: &dyn Names, domain: &Domain, mut alias: Box<str>) -> Followed {
    for _ in 0..ALIASES_MAX {
        let labels: Vec<&[u8]> = alias.split('.').map(str::as_bytes).collect();
        let owned = ours(&labels, domain);
        let front = owned.as_ref().map_or(&labels[..], |owned| owned.front);
        match known(names, front) {
            Some(Known::Addresses(addresses)) => return Followed::Here(alias, addresses),
            Some(Known::Alias(next)) => alias = next,
            Some(Known::Places(_) | Known::Owners(_)) => return Followed::Here(alias, Vec::new()),
            None if owned.is_some() => return Followed::Nowhere(alias),
            None => return Followed::Outside(alias),
        }
    }
    Followed::Nowhere(alias)
}

fn full_name(owner: &OwnName, domain: &Domain) -> String {
    let OwnName { host, service, namespace } = owner;
    let host = host.as_ref().map(|host| format!("{host}.")).unwrap_or_default();
    format!("{host}{service}.{namespace}.svc.{domain}")
}

/// A name that nobody but us answers.
struct Owned<'n, 'a> {
    /// The zone that it is in: the domain, or `svc`.
    zone: &'n [&'a [u8]],
    /// What stands in front of `svc[.domain]`; empty for the zone's own names.
    front: &'n [&'a [u8]],
}

/// `….svc.<domain>`, `….<domain>` and `….svc` are ours whether they exist or not, so that the
/// misses of a search list never leave the node.
///
/// `namespace.svc.<domain>` does not exist here even where names below it do: "exists, no data"
/// would make musl end its walk through the search list.
fn ours<'n, 'a>(name: &'n [&'a [u8]], domain: &Domain) -> Option<Owned<'n, 'a>> {
    let is_svc = |label: &[u8]| label.eq_ignore_ascii_case(b"svc");
    if let Some(inside) = domain.strip(name) {
        let zone = &name[inside.len()..];
        return Some(match inside.split_last() {
            Some((last, front)) if is_svc(last) => Owned { zone, front },
            // Below the domain but not below svc (`pod`, `example.com.cluster.local`): one label
            // alone cannot be taken for a Service in a namespace.
            Some((_, _)) => Owned { zone, front: &name[..1] },
            None => Owned { zone, front: &[] },
        });
    }
    match name.split_last() {
        Some((last, front)) if is_svc(last) => Some(Owned { zone: &name[front.len()..], front }),
        Some(_) | None => None,
    }
}

fn of_type(all: Vec<IpAddr>, qtype: u16) -> Vec<IpAddr> {
    all.into_iter().filter(|address| asked(qtype, address)).collect()
}

fn asked(qtype: u16, address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(_) => matches!(qtype, kind::A | kind::ANY),
        IpAddr::V6(_) => matches!(qtype, kind::AAAA | kind::ANY),
    }
}

/// A label in lower case, if it has only what host names are made of: a dot or a zero inside a
/// label must not reach a look-up by text.
fn plain(label: &[u8]) -> Option<String> {
    let fine = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    if label.is_empty() || label.len() > 63 || !label.iter().all(fine) {
        return None;
    }
    String::from_utf8(label.to_ascii_lowercase()).ok()
}

#[cfg(test)]
mod tests;
