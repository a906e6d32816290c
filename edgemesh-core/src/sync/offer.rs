//! What a node may say of itself to others, and the names under which its records rise.

use std::collections::BTreeMap;

use bytes::Bytes;
use edgemesh_proto::record::{
    Body, Invalid, Key, Kind, MAX_NAME, Node, NodeName, Put, Record, Service, Slice, Workload,
};

use crate::snapshot::{LOCAL_SLICES, NODE_SLICES};

/// Most records that one node offers: what it may have signed up, and as many Services.
pub const MAX_OFFERED: usize = 4096;

/// Most bytes of them: with what frames them, they fit into one Message
/// ([`MAX_MESSAGE`](crate::link::MAX_MESSAGE)).
const MAX_OFFERED_BYTES: usize = 3 << 20;
/// What frames a record, at most.
const OVERHEAD: usize = 64;

/// Begins the names of a node's Slices where others see them.
pub fn prefix(node: &NodeName) -> String {
    format!("{NODE_SLICES}{node}.")
}

/// Those of the records that `node` may say; why not the others. A bad one harms only itself.
pub fn accepted(node: &NodeName, records: Vec<Put>) -> (BTreeMap<Key, Bytes>, Vec<Invalid>) {
    let (mut fine, mut bad) = (BTreeMap::new(), Vec::new());
    for put in records {
        if fine.len() >= MAX_OFFERED {
            bad.push(Invalid::new("records", format!("at most {MAX_OFFERED} count")));
            break;
        }
        match check(node, &put) {
            Ok(()) => drop(fine.insert(put.key, put.body)),
            Err(why) => bad.push(Invalid::new(format!("{}: {}", put.key, why.field), why.reason)),
        }
    }
    (fine, bad)
}

/// Accepted records, as far as this version reads them.
pub fn records(accepted: BTreeMap<Key, Bytes>) -> BTreeMap<Key, Record> {
    let record = |(key, body)| {
        let put = Put { key, body };
        Some((put.key.clone(), put.record().ok()?))
    };
    accepted.into_iter().filter_map(record).collect()
}

/// What a node tells others of its `own` records: Services without the addresses that are not its
/// to give out, and what runs on it, under its name. `zone` is where it says that it is. More than
/// one Message holds is left out and logged: cut off for it, the node would offer nothing at all.
pub fn rising<'r>(
    node: &NodeName,
    zone: Option<&str>,
    own: impl IntoIterator<Item = &'r Record>,
) -> Vec<Put> {
    let mut rising: Vec<Put> =
        own.into_iter().filter_map(|record| rises(node, record)).map(|r| Put::from(&r)).collect();
    let left_out = bounded(&mut rising);
    if let Some(first) = left_out.first() {
        tracing::warn!(
            %first,
            left_out = left_out.len(),
            "not offered to others: a node offers at most {MAX_OFFERED} records of together \
             {MAX_OFFERED_BYTES} bytes"
        );
    }
    if let Some(zone) = zone {
        let body = Body::Node(Node { zone: Some(zone.into()), ..Node::default() });
        rising.push(Put::from(&Record { namespace: "".into(), name: node.0.clone(), body }));
    }
    rising
}

/// Takes out what is too much. One that is large leaves room for those after it.
fn bounded(rising: &mut Vec<Put>) -> Vec<Key> {
    let (mut records, mut bytes, mut left_out) = (0, 0, Vec::new());
    rising.retain(|Put { key, body }| {
        let more = OVERHEAD + key.namespace.len() + key.name.len() + body.len();
        // One more is the node itself.
        let fits = records + 1 < MAX_OFFERED && bytes + more <= MAX_OFFERED_BYTES;
        match fits {
            true => (records, bytes) = (records + 1, bytes + more),
            false => left_out.push(key.clone()),
        }
        fits
    });
    left_out
}

fn rises(node: &NodeName, record: &Record) -> Option<Record> {
    let mut record = record.clone();
    match &mut record.body {
        Body::Service(service) => {
            (service.cluster_ips, service.external_ips) = (Vec::new(), Vec::new());
            service.ports.iter_mut().for_each(|port| port.node_port = None);
        }
        Body::Slice(_) => {
            let own = record.name.strip_prefix(LOCAL_SLICES)?;
            record.name = name_of(node, own);
        }
        Body::Workload(workload) => {
            workload.node.get_or_insert_with(|| node.clone());
        }
        Body::Node(_)
        | Body::Policy(_)
        | Body::Route(_)
        | Body::Endpoint(_)
        | Body::Rule(_)
        | Body::Revocation(_) => return None,
    }
    check(node, &Put::from(&record)).is_ok().then_some(record)
}

/// The name of a node's own Slice where others see it; a hash stands for what is too long.
fn name_of(node: &NodeName, own: &str) -> Box<str> {
    let name = format!("{}{own}", prefix(node));
    if name.len() <= MAX_NAME {
        return name.into();
    }
    let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, own.as_bytes());
    format!("{}{}", prefix(node), hash.simple()).into()
}

/// Whether a record is one that `node` may say: a node speaks of itself and of what runs on it,
/// and takes no address that others own.
///
/// # Errors
/// Names the field that says too much.
pub fn check(node: &NodeName, put: &Put) -> Result<(), Invalid> {
    let Key { kind, name, .. } = &put.key;
    match kind {
        Kind::Service | Kind::Slice | Kind::Node | Kind::Workload => {}
        Kind::Policy | Kind::Route | Kind::Endpoint | Kind::Rule | Kind::Revocation => {
            return wrong("kind", "a node offers Services, and what runs on it");
        }
    }
    match put.record()?.body {
        Body::Service(service) => check_service(&service),
        Body::Slice(_) if !name.starts_with(&prefix(node)) => {
            wrong("name", "a node's Slices begin with its own name")
        }
        Body::Slice(slice) => check_slice(node, &slice),
        Body::Workload(Workload { node: Some(at), .. }) if at == *node => Ok(()),
        Body::Workload(_) => wrong("node", "is another one"),
        Body::Node(_) if *name != node.0 => wrong("name", "is another node's"),
        Body::Node(Node { addresses, agent: None, via_cloud: false, .. })
            if addresses.is_empty() =>
        {
            Ok(())
        }
        Body::Node(_) => wrong("node", "only zone and labels are its own to say"),
        Body::Policy(_)
        | Body::Route(_)
        | Body::Endpoint(_)
        | Body::Rule(_)
        | Body::Revocation(_) => Ok(()), // excluded above
    }
}

fn check_service(service: &Service) -> Result<(), Invalid> {
    if !service.cluster_ips.is_empty() || !service.external_ips.is_empty() {
        return wrong("addresses", "a node's Service gets virtual ones");
    }
    if service.external_name.is_some() {
        return wrong("external_name", "is not on this node");
    }
    match service.ports.iter().all(|port| port.node_port.is_none()) {
        true => Ok(()),
        false => wrong("node_port", "is not a node's to give out"),
    }
}

fn check_slice(node: &NodeName, slice: &Slice) -> Result<(), Invalid> {
    match slice.backends.iter().all(|backend| backend.node.as_ref() == Some(node)) {
        true => Ok(()),
        false => wrong("backends", "are on another node"),
    }
}

fn wrong(field: &str, reason: &str) -> Result<(), Invalid> {
    Err(Invalid::new(field, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_for_one_message_is_left_out() {
        let node = NodeName("n".into());
        let workload = |n: usize, bytes: usize| Record {
            namespace: "x".into(),
            name: format!("w{n}").into(),
            body: Body::Workload(Workload {
                labels: [("l".into(), "x".repeat(bytes).into())].into(),
                ..Workload::default()
            }),
        };
        for (count, bytes, want) in [
            (10, 10, 10),
            (10, 1 << 20, 2),
            (MAX_OFFERED, 10, MAX_OFFERED - 1),
            (MAX_OFFERED + 9, 10, MAX_OFFERED - 1),
        ] {
            let own: Vec<_> = (0..count).map(|n| workload(n, bytes)).collect();
            let rising = rising(&node, Some("zone"), &own);
            assert_eq!(rising.len(), want + 1, "{count} of {bytes} bytes, and the node");
            assert_eq!(accepted(&node, rising).1, [], "all of them count");
        }
        // A small one goes where a large one did not fit.
        let own =
            [workload(0, 2 << 19), workload(1, 3 << 19), workload(2, 3 << 19), workload(3, 9)];
        let names: Vec<_> = rising(&node, None, &own).into_iter().map(|p| p.key.name).collect();
        assert_eq!(names, ["w0".into(), "w1".into(), "w3".into()] as [Box<str>; 3]);
    }
}
