//! Whole records, keys and deltas to and from protobuf: the border where bytes become checked types.

use bytes::Bytes;
use prost::Message as _;

use crate::message::exact;
use crate::pb;
use crate::record::values::{bounded, required, variant};
use crate::record::{
    Body, Endpoint, Invalid, Key, Kind, Node, Policy, Record, Route, Rule, Service, Slice, Workload,
};

/// Largest body, in bytes: what the Kubernetes API server takes (1.5 MiB), and room.
pub const MAX_BODY: usize = 2 * 1024 * 1024;

impl Record {
    /// The protobuf of the body, as the metastore keeps it. Equal bodies give equal bytes, which
    /// digests rely on.
    pub fn encode_body(&self) -> Vec<u8> {
        match &self.body {
            Body::Service(service) => pb::Service::from(service).encode_to_vec(),
            Body::Slice(slice) => pb::Slice::from(slice).encode_to_vec(),
            Body::Node(node) => pb::Node::from(node).encode_to_vec(),
            Body::Workload(workload) => pb::Workload::from(workload).encode_to_vec(),
            Body::Policy(policy) => pb::Policy::from(policy).encode_to_vec(),
            Body::Route(route) => pb::HttpRoute::from(route).encode_to_vec(),
            Body::Endpoint(endpoint) => pb::Endpoint::from(endpoint).encode_to_vec(),
            Body::Rule(rule) => pb::Rule::from(rule).encode_to_vec(),
            Body::Revocation(revocation) => pb::Revocation::from(revocation).encode_to_vec(),
        }
    }

    /// The record of that identity, from the protobuf of its body.
    ///
    /// # Errors
    /// Names the field that does not fit. `body` when the bytes are no protobuf of this kind or
    /// longer than [`MAX_BODY`].
    pub fn decode(kind: Kind, namespace: &str, name: &str, body: &[u8]) -> Result<Self, Invalid> {
        if body.len() > MAX_BODY {
            return Err(Invalid::new("body", format!("{} bytes: at most {MAX_BODY}", body.len())));
        }
        let namespace = bounded("namespace", namespace.to_owned())?;
        let name = required("name", name.to_owned())?;
        let body = match kind {
            Kind::Service => Body::Service(Service::try_from(message::<pb::Service>(body)?)?),
            Kind::Slice => Body::Slice(Slice::try_from(message::<pb::Slice>(body)?)?),
            Kind::Node => Body::Node(Node::try_from(message::<pb::Node>(body)?)?),
            Kind::Workload => Body::Workload(Workload::try_from(message::<pb::Workload>(body)?)?),
            Kind::Policy => Body::Policy(Policy::try_from(message::<pb::Policy>(body)?)?),
            Kind::Route => Body::Route(Route::try_from(message::<pb::HttpRoute>(body)?)?),
            Kind::Endpoint => Body::Endpoint(Endpoint::try_from(message::<pb::Endpoint>(body)?)?),
            Kind::Rule => Body::Rule(Rule::try_from(message::<pb::Rule>(body)?)?),
            Kind::Revocation => Body::Revocation(message::<pb::Revocation>(body)?.into()),
        };
        Ok(Self { namespace, name, body })
    }
}

fn message<M: prost::Message + Default>(body: &[u8]) -> Result<M, Invalid> {
    M::decode(body).map_err(|error| Invalid::new("body", error.to_string()))
}

impl From<Kind> for pb::Kind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Service => Self::Service,
            Kind::Slice => Self::Slice,
            Kind::Node => Self::Node,
            Kind::Workload => Self::Workload,
            Kind::Policy => Self::Policy,
            Kind::Route => Self::Route,
            Kind::Endpoint => Self::Endpoint,
            Kind::Rule => Self::Rule,
            Kind::Revocation => Self::Revocation,
        }
    }
}

impl TryFrom<pb::Kind> for Kind {
    type Error = Invalid;

    fn try_from(kind: pb::Kind) -> Result<Self, Invalid> {
        match kind {
            pb::Kind::Unspecified => Err(Invalid::new("kind", "is missing")),
            pb::Kind::Service => Ok(Self::Service),
            pb::Kind::Slice => Ok(Self::Slice),
            pb::Kind::Node => Ok(Self::Node),
            pb::Kind::Workload => Ok(Self::Workload),
            pb::Kind::Policy => Ok(Self::Policy),
            pb::Kind::Route => Ok(Self::Route),
            pb::Kind::Endpoint => Ok(Self::Endpoint),
            pb::Kind::Rule => Ok(Self::Rule),
            pb::Kind::Revocation => Ok(Self::Revocation),
        }
    }
}

impl From<&Key> for pb::Key {
    fn from(key: &Key) -> Self {
        Self {
            kind: pb::Kind::from(key.kind).into(),
            namespace: (&*key.namespace).into(),
            name: (&*key.name).into(),
        }
    }
}

impl TryFrom<pb::Key> for Key {
    type Error = Invalid;

    fn try_from(key: pb::Key) -> Result<Self, Invalid> {
        Ok(Self {
            kind: variant::<pb::Kind>("kind", key.kind)?.try_into()?,
            namespace: bounded("namespace", key.namespace)?,
            name: required("name", key.name)?,
        })
    }
}

impl From<&Record> for pb::Record {
    fn from(record: &Record) -> Self {
        Self { key: Some((&record.key()).into()), body: record.encode_body().into() }
    }
}

impl TryFrom<pb::Record> for Record {
    type Error = Invalid;

    fn try_from(record: pb::Record) -> Result<Self, Invalid> {
        Put::try_from(record)?.record()
    }
}

/// Identity and body bytes of a record, as they are kept and sent. The bytes stay as the writer
/// made them: they may hold fields, or be of a kind, that only a newer version reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The identity.
    pub key: Key,
    /// The protobuf of the body.
    pub body: Bytes,
}

impl Put {
    /// The checked record.
    ///
    /// # Errors
    /// As [`Record::decode`].
    pub fn record(&self) -> Result<Record, Invalid> {
        Record::decode(self.key.kind, &self.key.namespace, &self.key.name, &self.body)
    }
}

impl From<&Record> for Put {
    fn from(record: &Record) -> Self {
        Self { key: record.key(), body: record.encode_body().into() }
    }
}

impl TryFrom<pb::Record> for Put {
    type Error = Invalid;

    fn try_from(record: pb::Record) -> Result<Self, Invalid> {
        let key = record.key.ok_or_else(|| Invalid::new("key", "is missing"))?;
        Ok(Self { key: key.try_into().map_err(|e: Invalid| e.under("key"))?, body: record.body })
    }
}

/// A step between two revisions of the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// The life of the registry that the revisions belong to.
    pub epoch: [u8; 16],
    /// The revision before; without meaning when `reset`.
    pub from: u64,
    /// The revision after.
    pub to: u64,
    /// Records that are new or changed.
    pub put: Vec<Put>,
    /// Records that are gone.
    pub delete: Vec<Key>,
    /// Everything known before is void; `put` holds all there is.
    pub reset: bool,
    /// Everything known before in these buckets is void; `put` holds all there is in them.
    pub buckets: Vec<u8>,
    /// Further parts of the same step follow; they are applied together.
    pub more: bool,
    /// Digest of the records after the step, with its last part; `None` = not said.
    pub digest: Option<[u8; 32]>,
}

impl Delta {
    /// The delta, and what in it was left out with the reason (`put[3].key.name`): a bad record
    /// harms only itself, and bodies are not looked into here.
    ///
    /// # Errors
    /// When the delta as a whole cannot be used: `delta` if the bytes are no protobuf, `epoch`,
    /// or `to` if it is below `from`.
    pub fn decode(bytes: Bytes) -> Result<(Self, Vec<Invalid>), Invalid> {
        let delta = pb::Delta::decode(bytes).map_err(|e| Invalid::new("delta", e.to_string()))?;
        Self::checked(delta)
    }

    /// As [`Delta::decode`].
    ///
    /// # Errors
    /// As [`Delta::decode`], and `buckets` or `digest`.
    pub fn checked(delta: pb::Delta) -> Result<(Self, Vec<Invalid>), Invalid> {
        let epoch = exact("epoch", &delta.epoch)?;
        let (from, to, reset, more) = (delta.from, delta.to, delta.reset, delta.more);
        if !reset && to < from {
            return Err(Invalid::new("to", format!("{to} comes before {from}")));
        }
        let bucket = |n: u32| {
            u8::try_from(n).map_err(|_| Invalid::new("buckets", format!("{n} is none: 0 to 255")))
        };
        let buckets = delta.buckets.into_iter().map(bucket).collect::<Result<_, _>>()?;
        let digest = match delta.digest.is_empty() {
            true => None,
            false => Some(exact("digest", &delta.digest)?),
        };
        let mut bad = Vec::new();
        let put = fitting("put", delta.put, &mut bad);
        let delete = fitting("delete", delta.delete, &mut bad);
        Ok((Self { epoch, from, to, put, delete, reset, buckets, more, digest }, bad))
    }

    /// The protobuf.
    pub fn encode(&self) -> Vec<u8> {
        pb::Delta::from(self).encode_to_vec()
    }
}

/// The entries that fit; the others as errors in `bad`.
pub(crate) fn fitting<P, T>(field: &str, entries: Vec<P>, bad: &mut Vec<Invalid>) -> Vec<T>
where
    T: TryFrom<P, Error = Invalid>,
{
    let mut keep = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        match T::try_from(entry) {
            Ok(entry) => keep.push(entry),
            Err(error) => bad.push(error.at(index).under(field)),
        }
    }
    keep
}

impl TryFrom<pb::Delta> for Delta {
    type Error = Invalid;

    /// Without what was left out.
    fn try_from(delta: pb::Delta) -> Result<Self, Invalid> {
        Self::checked(delta).map(|(delta, _)| delta)
    }
}

impl From<&Put> for pb::Record {
    fn from(put: &Put) -> Self {
        Self { key: Some((&put.key).into()), body: put.body.clone() }
    }
}

impl From<&Delta> for pb::Delta {
    fn from(delta: &Delta) -> Self {
        Self {
            epoch: Bytes::copy_from_slice(&delta.epoch),
            from: delta.from,
            to: delta.to,
            put: delta.put.iter().map(Into::into).collect(),
            delete: delta.delete.iter().map(Into::into).collect(),
            reset: delta.reset,
            buckets: delta.buckets.iter().map(|bucket| u32::from(*bucket)).collect(),
            more: delta.more,
            digest: delta.digest.map(|d| Bytes::copy_from_slice(&d)).unwrap_or_default(),
        }
    }
}
