//! Of all that is said of one record, what counts, and on which nodes it lives.
//!
//! Of what runs on a node the node knows best: its Slices and Workloads stand before the
//! manifests'. Everything else the manifests say, and where they are silent, one node.

use bytes::Bytes;
use edgemesh_proto::record::{Agent, Body, Key, Kind, Node, NodeName, Record};

use crate::registry::owned::Owner;

/// Where a record lives: who wants it depends on that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// On no node: everybody gets it.
    Everywhere,
    /// On each of these.
    On(Box<[NodeName]>),
    /// It is a node.
    Itself(Box<Node>),
}

/// What counts of the claims on a record.
pub(super) fn effective(key: &Key, claims: &[(Owner, Bytes)]) -> Option<(Bytes, Home)> {
    let body = match key.kind {
        Kind::Node => node(key, claims)?,
        Kind::Slice | Kind::Workload => of_a_node(key, claims)?,
        Kind::Service
        | Kind::Policy
        | Kind::Route
        | Kind::Endpoint
        | Kind::Rule
        | Kind::Revocation => claims.first()?.1.clone(),
    };
    let home = home(key, &body);
    Some((body, home))
}

/// The node itself, if it may speak of this record; else the manifests.
fn of_a_node(key: &Key, claims: &[(Owner, Bytes)]) -> Option<Bytes> {
    let manifest = claims.iter().find(|(owner, _)| *owner == Owner::Manifests);
    let at_home = |owner: &NodeName| match manifest.map(|(_, body)| home(key, body)) {
        // A Pod that moved away is no longer the old node's to speak of.
        Some(Home::On(nodes)) => *nodes == [owner.clone()],
        Some(Home::Everywhere) => false,
        Some(Home::Itself(_)) | None => true,
    };
    let offered = claims.iter().filter_map(|(owner, body)| match owner {
        Owner::Node(node) => Some((node, body)),
        Owner::Manifests | Owner::Cloud => None,
    });
    // Node names may have dots, so that one's prefix of names can hold another's: the longer is it.
    let rightful = offered
        .filter(|(node, _)| at_home(node))
        .max_by_key(|(node, _)| (node.0.len(), std::cmp::Reverse(*node)))
        .map(|(_, body)| body);
    rightful.or_else(|| manifest.map(|(_, body)| body)).cloned()
}

/// The manifests' Node; what they do not say of it, the node itself says; and the agent, if there
/// is one.
fn node(key: &Key, claims: &[(Owner, Bytes)]) -> Option<Bytes> {
    if let [(Owner::Manifests, body)] = claims {
        return Some(body.clone());
    }
    let mut merged: Option<Node> = None;
    for (owner, body) in claims {
        let Some(said) = decoded(key, body) else { continue };
        let Some(known) = &mut merged else {
            merged = Some(said);
            continue;
        };
        match owner {
            Owner::Manifests => {}
            Owner::Cloud => known.agent = said.agent,
            Owner::Node(_) => {
                known.zone = known.zone.take().or(said.zone);
                for (label, value) in said.labels {
                    known.labels.entry(label).or_insert(value);
                }
            }
        }
    }
    let (name, namespace) = (key.name.clone(), key.namespace.clone());
    Some(Record { namespace, name, body: Body::Node(merged?) }.encode_body().into())
}

fn decoded(key: &Key, body: &[u8]) -> Option<Node> {
    Record::decode(key.kind, &key.namespace, &key.name, body).ok()?.body.into_node()
}

/// The claim of the cloud that an agent runs on a node.
pub(super) fn agent(links: Vec<Box<str>>) -> Bytes {
    let body = Body::Node(Node { agent: Some(Agent { links }), ..Node::default() });
    Record { namespace: "".into(), name: "".into(), body }.encode_body().into()
}

/// Where a record lives; what cannot be read lives nowhere in particular.
fn home(key: &Key, body: &[u8]) -> Home {
    match key.kind {
        Kind::Slice | Kind::Workload | Kind::Node => {}
        Kind::Service
        | Kind::Policy
        | Kind::Route
        | Kind::Endpoint
        | Kind::Rule
        | Kind::Revocation => return Home::Everywhere,
    }
    let Ok(record) = Record::decode(key.kind, &key.namespace, &key.name, body) else {
        return Home::Everywhere;
    };
    match record.body {
        Body::Node(node) => Home::Itself(Box::new(node)),
        Body::Slice(slice) => on(slice.backends.into_iter().map(|backend| backend.node)),
        Body::Workload(workload) => on([workload.node]),
        Body::Service(_)
        | Body::Policy(_)
        | Body::Route(_)
        | Body::Endpoint(_)
        | Body::Rule(_)
        | Body::Revocation(_) => Home::Everywhere,
    }
}

fn on(nodes: impl IntoIterator<Item = Option<NodeName>>) -> Home {
    let nodes: Option<Vec<NodeName>> = nodes.into_iter().collect();
    let Some(mut nodes) = nodes.filter(|nodes| !nodes.is_empty()) else { return Home::Everywhere };
    nodes.sort_unstable();
    nodes.dedup();
    Home::On(nodes.into())
}
