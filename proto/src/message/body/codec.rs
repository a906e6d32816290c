//! Typed bodies to and from protobuf.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use bytes::Bytes;

use crate::message::Body;
use crate::message::body::{
    Accepted, Ack, BUCKETS, Connect, DialBack, HeaderField, Held, Hello, Join, Joined, MAX_FIELDS,
    Offer, Ping, Refused, Selector, Welcome,
};
use crate::pb;
use crate::pb::message::Body as Pb;
use crate::record::{Delta, Invalid, NodeName, fitting};

/// Most `host:port` of one node.
const MAX_LINKS: usize = 16;

impl From<&Body> for Pb {
    fn from(body: &Body) -> Self {
        match body {
            Body::Hello(hello) => Self::Hello(hello.into()),
            Body::Welcome(welcome) => Self::Welcome(welcome.into()),
            Body::Delta(delta) => Self::Delta(delta.into()),
            Body::Ack(Ack { epoch, revision }) => {
                Self::Ack(pb::Ack { epoch: copy(epoch), revision: *revision })
            }
            Body::Held(held) => Self::Digest(held.into()),
            Body::Offer(offer) => {
                Self::Offer(pb::Offer { records: offer.records.iter().map(Into::into).collect() })
            }
            Body::Request(request) => Self::Request(request.into()),
            Body::Answer(answer) => Self::Answer(answer.into()),
            Body::Connect(Connect { target, race }) => {
                Self::Connect(pb::Connect { target: Some(target.into()), race: *race })
            }
            Body::Accepted(Accepted { backend }) => Self::Accepted(pb::Accepted {
                backend: backend.map(|at| at.to_string()).unwrap_or_default(),
            }),
            Body::Refused(Refused { label, text, retry_after_ms }) => Self::Refused(pb::Refused {
                label: label.clone(),
                text: text.clone(),
                retry_after_ms: *retry_after_ms,
            }),
            Body::Join(Join { node, token, csr }) => Self::Join(pb::Join {
                node: node.0.to_string(),
                token: token.clone(),
                csr: csr.clone(),
            }),
            Body::Joined(Joined { chain }) => Self::Joined(pb::Joined { chain: chain.clone() }),
            Body::DialBack(DialBack { node, links }) => Self::DialBack(pb::DialBack {
                node: node.as_ref().map(|node| node.0.to_string()).unwrap_or_default(),
                links: links.iter().map(ToString::to_string).collect(),
            }),
            Body::Ping(Ping { number, answer }) => {
                Self::Ping(pb::Ping { number: *number, answer: *answer })
            }
            Body::Counts(counts) => Self::Counts(counts.into()),
            Body::Ranges(ranges) => Self::Ranges(ranges.into()),
        }
    }
}

impl TryFrom<Pb> for Body {
    type Error = Invalid;

    fn try_from(body: Pb) -> Result<Self, Invalid> {
        Ok(match body {
            Pb::Hello(hello) => Self::Hello(hello.try_into()?),
            Pb::Welcome(welcome) => Self::Welcome(welcome.try_into()?),
            Pb::Delta(delta) => Self::Delta(Delta::try_from(delta)?),
            Pb::Ack(ack) => {
                Self::Ack(Ack { epoch: exact("ack.epoch", &ack.epoch)?, revision: ack.revision })
            }
            Pb::Digest(digest) => Self::Held(digest.try_into()?),
            Pb::Offer(offer) => {
                // A record that only a newer version reads harms nothing but itself.
                let records = fitting("records", offer.records, &mut Vec::new());
                Self::Offer(Offer { records })
            }
            Pb::Request(request) => Self::Request(request.try_into()?),
            Pb::Answer(answer) => Self::Answer(answer.try_into()?),
            Pb::Connect(connect) => {
                let target = connect.target.ok_or_else(|| Invalid::new("target", "is missing"))?;
                Self::Connect(Connect { target: target.try_into()?, race: connect.race })
            }
            Pb::Accepted(accepted) => {
                Self::Accepted(Accepted { backend: socket("accepted.backend", &accepted.backend)? })
            }
            Pb::Refused(pb::Refused { label, text, retry_after_ms }) => {
                Self::Refused(Refused { label, text, retry_after_ms })
            }
            Pb::Join(join) => {
                let node = node("join.node", join.node)?;
                Self::Join(Join { node, token: join.token, csr: join.csr })
            }
            Pb::Joined(joined) => Self::Joined(Joined { chain: joined.chain }),
            Pb::DialBack(dial) => Self::DialBack(DialBack {
                node: match dial.node.is_empty() {
                    true => None,
                    false => Some(node("dial_back.node", dial.node)?),
                },
                links: links("dial_back.links", dial.links)?,
            }),
            Pb::Ping(ping) => Self::Ping(Ping { number: ping.number, answer: ping.answer }),
            Pb::Counts(counts) => Self::Counts(counts.try_into()?),
            Pb::Ranges(ranges) => Self::Ranges(ranges.into()),
        })
    }
}

impl From<&Hello> for pb::Hello {
    fn from(hello: &Hello) -> Self {
        Self {
            node: hello.node.0.to_string(),
            instance: copy(&hello.instance),
            generation: hello.generation,
            version: hello.version.clone(),
            epoch: copy(&hello.epoch),
            revision: hello.revision,
            digest: copy(&hello.digest),
            selector: Some((&hello.selector).into()),
            links: hello.links.iter().map(ToString::to_string).collect(),
            takes_over: hello.takes_over,
        }
    }
}

impl TryFrom<pb::Hello> for Hello {
    type Error = Invalid;

    fn try_from(hello: pb::Hello) -> Result<Self, Invalid> {
        Ok(Self {
            node: node("hello.node", hello.node)?,
            instance: exact("hello.instance", &hello.instance)?,
            generation: hello.generation,
            version: hello.version,
            epoch: or_zeros("hello.epoch", &hello.epoch)?,
            revision: hello.revision,
            digest: or_zeros("hello.digest", &hello.digest)?,
            selector: hello.selector.unwrap_or_default().into(),
            links: links("hello.links", hello.links)?,
            takes_over: hello.takes_over,
        })
    }
}

impl From<&Selector> for pb::Selector {
    fn from(selector: &Selector) -> Self {
        Self {
            zones: selector.zones.iter().map(ToString::to_string).collect(),
            labels: selector.labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        }
    }
}

impl From<pb::Selector> for Selector {
    fn from(selector: pb::Selector) -> Self {
        let label = |(key, value): (String, String)| (key.into(), value.into());
        Self {
            zones: selector.zones.into_iter().map(Into::into).collect(),
            labels: selector.labels.into_iter().map(label).collect(),
        }
    }
}

impl From<&Welcome> for pb::Welcome {
    fn from(welcome: &Welcome) -> Self {
        Self {
            node: welcome.node.0.to_string(),
            instance: copy(&welcome.instance),
            epoch: copy(&welcome.epoch),
            revision: welcome.revision,
            renew: welcome.renew,
        }
    }
}

impl TryFrom<pb::Welcome> for Welcome {
    type Error = Invalid;

    fn try_from(welcome: pb::Welcome) -> Result<Self, Invalid> {
        Ok(Self {
            node: node("welcome.node", welcome.node)?,
            instance: exact("welcome.instance", &welcome.instance)?,
            epoch: or_zeros("welcome.epoch", &welcome.epoch)?,
            revision: welcome.revision,
            renew: welcome.renew,
        })
    }
}

impl From<&Held> for pb::Digest {
    fn from(held: &Held) -> Self {
        Self {
            epoch: copy(&held.epoch),
            revision: held.revision,
            digest: copy(&held.digest),
            buckets: held.buckets.concat().into(),
        }
    }
}

impl TryFrom<pb::Digest> for Held {
    type Error = Invalid;

    fn try_from(digest: pb::Digest) -> Result<Self, Invalid> {
        let (buckets, rest) = digest.buckets.as_chunks::<32>();
        if !rest.is_empty() || ![0, BUCKETS].contains(&buckets.len()) {
            let reason = format!("{} bytes: none, or {BUCKETS} times 32", digest.buckets.len());
            return Err(Invalid::new("digest.buckets", reason));
        }
        Ok(Self {
            epoch: exact("digest.epoch", &digest.epoch)?,
            revision: digest.revision,
            digest: exact("digest.digest", &digest.digest)?,
            buckets: buckets.to_vec(),
        })
    }
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(crate) fn exact<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Invalid> {
    let wrong = |_| Invalid::new(field, format!("{} bytes: {N}", bytes.len()));
    bytes.try_into().map_err(wrong)
}

/// As [`exact`]; absent is zeros.
pub(crate) fn or_zeros<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Invalid> {
    if bytes.is_empty() { Ok([0; N]) } else { exact(field, bytes) }
}

fn node(field: &str, name: String) -> Result<NodeName, Invalid> {
    let fits = !name.is_empty() && name.len() <= crate::record::MAX_NAME;
    let wrong = || Invalid::new(field, format!("a name of {} bytes", name.len()));
    if fits { Ok(NodeName(name.into())) } else { Err(wrong()) }
}

fn links(field: &str, links: Vec<String>) -> Result<Vec<Box<str>>, Invalid> {
    if links.len() > MAX_LINKS {
        return Err(Invalid::new(field, format!("{} addresses: at most {MAX_LINKS}", links.len())));
    }
    Ok(links.into_iter().map(Into::into).collect())
}

pub(super) fn port(field: &str, number: u32) -> Result<NonZeroU16, Invalid> {
    let fits = u16::try_from(number).ok().and_then(NonZeroU16::new);
    fits.ok_or_else(|| Invalid::new(field, format!("{number} is no port: 1 to 65535")))
}

pub(super) fn socket(field: &str, text: &str) -> Result<Option<SocketAddr>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| Invalid::new(field, format!("`{text}` is no ADDRESS:PORT")))
}

pub(super) fn address(field: &str, bytes: &[u8]) -> Result<Option<IpAddr>, Invalid> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(Some(v4.into()));
    }
    exact::<16>(field, bytes).map(|v6| Some(v6.into()))
}

pub(super) fn header_fields(fields: Vec<pb::HeaderField>) -> Result<Vec<HeaderField>, Invalid> {
    if fields.len() > MAX_FIELDS {
        let reason = format!("{} fields: at most {MAX_FIELDS}", fields.len());
        return Err(Invalid::new("headers", reason));
    }
    let field = |field: pb::HeaderField| HeaderField { name: field.name, value: field.value };
    Ok(fields.into_iter().map(field).collect())
}
