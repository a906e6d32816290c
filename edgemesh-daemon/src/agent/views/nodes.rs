//! The Nodes of a Snapshot, with the ways to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use edgemesh_core::snapshot::Snapshot;

use crate::agent::views::all_backends;
use crate::api;

/// Every Node that has a record, a Backend or a Link. `own` is the one that answers; a cloud is none.
pub(crate) fn nodes(
    snapshot: &Snapshot,
    own: Option<&str>,
    links: &api::Links,
) -> Vec<api::NodeView> {
    let mut counts = BTreeMap::<&str, u64>::new();
    for port in snapshot.services().iter().flat_map(|service| &service.ports) {
        for node in all_backends(port).into_iter().filter_map(|b| b.node.as_ref()) {
            *counts.entry(&node.0).or_default() += 1;
        }
    }
    let linked = links.peers.iter().map(|peer| peer.node.as_str());
    for name in snapshot.nodes.keys().map(AsRef::as_ref).chain(own).chain(linked) {
        counts.entry(name).or_default();
    }
    let links: BTreeMap<&str, &api::PeerLink> =
        links.peers.iter().map(|peer| (peer.node.as_str(), peer)).collect();
    let view = |(name, backends): (&str, u64)| {
        let record = snapshot.nodes.get(name);
        api::NodeView {
            name: name.into(),
            zone: record.and_then(|n| n.zone.as_deref()).unwrap_or_default().into(),
            addresses: record
                .map(|n| n.addresses.iter().map(IpAddr::to_string).collect())
                .unwrap_or_default(),
            here: own == Some(name),
            backends,
            agent: record.is_some_and(|n| n.agent.is_some()),
            via_cloud: record.is_some_and(|n| n.via_cloud),
            link: links.get(name).map(|link| (*link).clone()),
        }
    };
    counts.into_iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use edgemesh_core::io::now;
    use edgemesh_core::snapshot::{Builder, Change};
    use edgemesh_proto::record::{Agent, Body, Node, NodeName, Record};

    use super::*;

    fn node(name: &str, agent: bool, via_cloud: bool) -> Record {
        let agent = agent.then(Agent::default);
        let body = Body::Node(Node { agent, via_cloud, ..Node::default() });
        Record { namespace: "".into(), name: name.into(), body }
    }

    fn link(node: &str, path: api::Path) -> api::PeerLink {
        api::PeerLink {
            node: node.into(),
            path,
            reason: String::new(),
            rtt_ms: None,
            since_seconds: 0,
            address: String::new(),
        }
    }

    #[test]
    fn nodes_come_from_records_and_links_and_a_cloud_is_none() {
        let put = vec![node("edge-1", true, false), node("vm-1", false, true)];
        let mut builder = Builder::new(NodeName("edge-1".into()), None);
        let snapshot = builder.apply(Change { put, ..Change::default() }, now());
        let peers = vec![link("edge-9", api::Path::None), link("vm-1", api::Path::Hub)];
        let links = api::Links { cloud: None, peers };
        let short = |own, links: &api::Links| -> Vec<_> {
            let nodes = nodes(&snapshot, own, links).into_iter();
            nodes.map(|n| (n.name, n.here, n.agent, n.via_cloud, n.link.map(|l| l.path))).collect()
        };
        assert_eq!(
            short(Some("edge-1"), &links),
            [
                ("edge-1".into(), true, true, false, None),
                ("edge-9".into(), false, false, false, Some(api::Path::None)),
                ("vm-1".into(), false, false, true, Some(api::Path::Hub)),
            ]
        );
        let alone = short(None, &api::Links::default());
        assert_eq!(alone[0], ("edge-1".into(), false, true, false, None));
        assert_eq!(alone.len(), 2);
    }
}
