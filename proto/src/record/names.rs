//! What a record is: its kind by name, its body by kind, and its identity as people read it.

use std::fmt;

use crate::record::{Body, Key, Kind, Node, NodeName, Record, Service, ServiceName, Slice};

impl Kind {
    /// Every kind, in the order of its variants.
    pub const ALL: [Self; 9] = [
        Self::Service,
        Self::Slice,
        Self::Node,
        Self::Workload,
        Self::Policy,
        Self::Route,
        Self::Endpoint,
        Self::Rule,
        Self::Revocation,
    ];

    /// The name that the metastore and the admin API use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Slice => "slice",
            Self::Node => "node",
            Self::Workload => "workload",
            Self::Policy => "policy",
            Self::Route => "route",
            Self::Endpoint => "endpoint",
            Self::Rule => "rule",
            Self::Revocation => "revocation",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl Record {
    /// The identity of this record.
    pub fn key(&self) -> Key {
        Key { kind: self.kind(), namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// What the record is about.
    pub const fn kind(&self) -> Kind {
        match self.body {
            Body::Service(_) => Kind::Service,
            Body::Slice(_) => Kind::Slice,
            Body::Node(_) => Kind::Node,
            Body::Workload(_) => Kind::Workload,
            Body::Policy(_) => Kind::Policy,
            Body::Route(_) => Kind::Route,
            Body::Endpoint(_) => Kind::Endpoint,
            Body::Rule(_) => Kind::Rule,
            Body::Revocation(_) => Kind::Revocation,
        }
    }
}

impl Body {
    /// The Service, if it is one.
    pub const fn service(&self) -> Option<&Service> {
        if let Self::Service(service) = self { Some(service) } else { None }
    }

    /// The Slice, if it is one.
    pub const fn slice(&self) -> Option<&Slice> {
        if let Self::Slice(slice) = self { Some(slice) } else { None }
    }

    /// The Node, if it is one.
    pub fn into_node(self) -> Option<Node> {
        if let Self::Node(node) = self { Some(node) } else { None }
    }
}

impl ServiceName {
    /// From namespace and name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ServiceName {
    /// `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Key {
    /// `kind namespace/name`, without the slash where there is no namespace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind.name(), self.namespace, self.name)
    }
}

impl From<Key> for ServiceName {
    fn from(key: Key) -> Self {
        Self { namespace: key.namespace, name: key.name }
    }
}
