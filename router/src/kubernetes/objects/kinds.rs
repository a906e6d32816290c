//! Every kind of object that is followed, and what becomes of its objects.

use edgemesh_proto::record::Kind;

/// Kind of object, which kind of record it becomes, if any, and how its objects are held.
pub(super) const KINDS: &[(&str, Option<Kind>, How)] = &[
    ("Service", Some(Kind::Service), How::Together),
    ("EndpointSlice", Some(Kind::Slice), How::Alone),
    ("Endpoints", Some(Kind::Slice), How::Alone),
    ("Node", Some(Kind::Node), How::Alone),
    ("Pod", Some(Kind::Workload), How::Alone),
    ("TrafficPolicy", Some(Kind::Policy), How::Together),
    ("DestinationRule", Some(Kind::Policy), How::Together),
    ("HTTPRoute", Some(Kind::Route), How::Together),
    ("RuleEndpoint", Some(Kind::Endpoint), How::Together),
    ("Rule", Some(Kind::Rule), How::Together),
    (RANGES, None, How::Ranges),
];

/// The kind whose objects say where addresses of Services lie.
pub(super) const RANGES: &str = "ServiceCIDR";

/// How objects of a kind are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// See [`alone`](super::alone).
    Alone,
    /// See [`together`](super::together).
    Together,
    /// As what they say.
    Ranges,
}

pub(super) fn how(kind: &str) -> How {
    KINDS.iter().find(|row| row.0 == kind).map_or(How::Together, |row| row.2)
}

/// `None`: its objects become no records.
pub(in crate::kubernetes) fn record_of(kind: &str) -> Option<Kind> {
    KINDS.iter().find(|row| row.0 == kind)?.1
}
