//! Nodes and Workloads, from protobuf to checked form and back.

use crate::pb;
use crate::record::values::{
    address_bytes, addresses, label_strings, labels, list, port, required, text,
};
use crate::record::{Agent, Invalid, NamedPort, Node, NodeName, Revocation, Workload};

impl From<&Node> for pb::Node {
    fn from(node: &Node) -> Self {
        Self {
            addresses: address_bytes(&node.addresses),
            zone: text(node.zone.as_deref()),
            labels: label_strings(&node.labels),
            agent: node.agent.as_ref().map(|agent| pb::Agent {
                links: agent.links.iter().map(ToString::to_string).collect(),
            }),
            via_cloud: node.via_cloud,
        }
    }
}

impl TryFrom<pb::Node> for Node {
    type Error = Invalid;

    fn try_from(node: pb::Node) -> Result<Self, Invalid> {
        Ok(Self {
            addresses: addresses("addresses", node.addresses)?,
            zone: node.zone.map(Into::into),
            labels: labels(node.labels),
            agent: node
                .agent
                .map(|agent| Agent { links: agent.links.into_iter().map(Into::into).collect() }),
            via_cloud: node.via_cloud,
        })
    }
}

impl From<&Revocation> for pb::Revocation {
    fn from(revocation: &Revocation) -> Self {
        Self { before: revocation.before }
    }
}

impl From<pb::Revocation> for Revocation {
    fn from(revocation: pb::Revocation) -> Self {
        Self { before: revocation.before }
    }
}

impl From<&Workload> for pb::Workload {
    fn from(workload: &Workload) -> Self {
        Self {
            addresses: address_bytes(&workload.addresses),
            node: text(workload.node.as_ref().map(|n| &*n.0)),
            labels: label_strings(&workload.labels),
            ready: workload.ready,
            terminating: workload.terminating,
            ports: workload.ports.iter().map(Into::into).collect(),
            owner: (&*workload.owner).into(),
        }
    }
}

impl TryFrom<pb::Workload> for Workload {
    type Error = Invalid;

    fn try_from(workload: pb::Workload) -> Result<Self, Invalid> {
        Ok(Self {
            addresses: addresses("addresses", workload.addresses)?,
            node: workload.node.map(|name| required("node", name).map(NodeName)).transpose()?,
            labels: labels(workload.labels),
            ready: workload.ready,
            terminating: workload.terminating,
            ports: list("ports", workload.ports, NamedPort::try_from)?,
            owner: workload.owner.into(),
        })
    }
}

impl From<&NamedPort> for pb::NamedPort {
    fn from(entry: &NamedPort) -> Self {
        Self { name: (&*entry.name).into(), port: entry.port.get().into() }
    }
}

impl TryFrom<pb::NamedPort> for NamedPort {
    type Error = Invalid;

    fn try_from(entry: pb::NamedPort) -> Result<Self, Invalid> {
        Ok(Self { name: required("name", entry.name)?, port: port("port", entry.port)? })
    }
}
