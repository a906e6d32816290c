//! Records of a registry: stored, shown and answered, beside what this node and its peers say.

use bytes::Bytes;
use edgemesh_proto::message::{Ack, Body as Word, Held};
use edgemesh_proto::record::{Delta, Kind, Node, Policy, Workload};

use super::{open as lone, service, set};
use crate::digest::{Hasher, Sums};
use crate::snapshot::{LOCAL_SLICES, NODE_SLICES};
use crate::sync::replica::Broken;

use super::*;

const EPOCH: [u8; 16] = [7; 16];

pub(super) fn open(folder: &std::path::Path) -> (Sync, Arc<ArcSwap<Snapshot>>) {
    let (store, loaded, repairs) = Store::open(folder).unwrap();
    let bad = |repair: &&crate::store::Repair| !repair.to_string().contains("left out");
    assert!(repairs.iter().find(bad).is_none(), "{repairs:?}");
    let live = Arc::<ArcSwap<Snapshot>>::default();
    let ranges = ["198.18.0.0/16".parse().unwrap(), "fd96::/112".parse().unwrap()];
    let sync = Sync::resume_synced(store, loaded, me(), None, &ranges, live.clone(), now());
    (sync, live)
}

fn me() -> NodeName {
    NodeName("edge-1".into())
}

/// One Backend of `service` on `node`, at an address that ends with `last`.
fn slice(name: &str, service: &str, node: &str, last: u8) -> Record {
    let backend = Backend {
        addresses: vec![[10, 1, 0, last].into()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: Some(NodeName(node.into())),
        zone: None,
        workload: None,
        weight: None,
    };
    let port = edgemesh_proto::record::SlicePort {
        name: "".into(),
        port: 8000.try_into().unwrap(),
        transport: Transport::Tcp,
        app_protocol: None,
    };
    let (ports, backends) = (vec![port], vec![backend]);
    let body = Body::Slice(Slice { service: service.into(), ports, backends });
    Record { namespace: "default".into(), name: name.into(), body }
}

fn delta(from: u64, to: u64, put: &[Record], delete: &[Key]) -> Delta {
    let (put, delete) = (put.iter().map(Put::from).collect(), delete.to_vec());
    Delta { epoch: EPOCH, from, to, put, delete, ..Delta::default() }
}

fn everything(to: u64, put: &[Record]) -> Delta {
    Delta { reset: true, ..delta(0, to, put, &[]) }
}

async fn hear(sync: &mut Sync, delta: Delta) -> Word {
    sync.hear(Word::Delta(delta), now()).await.unwrap().answer.unwrap()
}

fn ack(revision: u64) -> Word {
    Word::Ack(Ack { epoch: EPOCH, revision })
}

/// The last byte of each Backend of a Service.
fn backends(live: &ArcSwap<Snapshot>, service: &str) -> Vec<u8> {
    let snapshot = live.load();
    let Some(service) = snapshot.by_name("default", service) else { return Vec::new() };
    let backends = service.ports.iter().flat_map(|port| &port.pools[0].backends);
    let mut all: Vec<u8> = backends
        .map(|b| match b.address.ip() {
            IpAddr::V4(v4) => v4.octets()[3],
            IpAddr::V6(_) => 0,
        })
        .collect();
    all.sort_unstable();
    all
}

#[tokio::test]
async fn steps_are_stored_shown_and_acknowledged_and_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    assert_eq!(sync.holding(), Some(Default::default()));
    let records = [service("a", None), service("b", Some("10.96.0.2")), slice("a-1", "a", "n", 1)];
    assert_eq!(hear(&mut sync, everything(5, &records)).await, ack(5));
    let own = set(&[slice("edgemesh-local.a.x", "a", "edge-1", 9)]);
    let observed = sync.voice(&me(), own.clone(), now()).await;
    assert!(matches!(observed, Observed::Changed { revision: 5, put: 1, deleted: 0 }));
    assert!(matches!(sync.voice(&me(), own, now()).await, Observed::Same));
    let step = delta(5, 6, &[slice("a-1", "a", "n", 2)], &[service("b", None).key()]);
    assert_eq!(hear(&mut sync, step).await, ack(6));
    assert_eq!(backends(&live, "a"), [2, 9]);
    let (before, held) = (live.load_full(), sync.holding());
    let addresses = before.by_name("default", "a").unwrap().addresses.clone();
    assert_eq!(addresses.len(), 2);
    sync.into_store().close().await;

    let (sync, live) = open(folder.path());
    let after = live.load_full();
    assert_eq!((after.epoch, after.revision), (EPOCH, 6));
    assert_eq!(after.by_name("default", "a").unwrap().addresses, addresses);
    assert_eq!(backends(&live, "a"), [2, 9]);
    assert!(after.by_name("default", "b").is_none());
    assert_eq!(sync.holding(), held, "what this node adds is no part of it");
    sync.into_store().close().await;
}

#[tokio::test]
async fn a_bad_record_harms_only_itself_and_counts_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    let rule = Key { kind: Kind::Rule, namespace: "default".into(), name: "r".into() };
    let body = Bytes::from_static(&[0xff; 9]);
    let (mut hasher, mut sums) = (Hasher::default(), Sums::default());
    let mut put: Vec<Put> =
        [service("a", None), service("b", None)].iter().map(Put::from).collect();
    put.push(Put { key: rule.clone(), body: body.clone() });
    put[1].body = body.clone();
    for put in &put {
        sums.add(hasher.bucket(&put.key), hasher.of(&put.key, &put.body));
    }
    let digest = Some(sums.whole());
    let step = Delta { put, digest, ..everything(3, &[]) };
    assert_eq!(hear(&mut sync, step.clone()).await, ack(3), "the digest is right");
    let shown = |live: &ArcSwap<Snapshot>| -> Vec<String> {
        live.load().services().iter().map(|s| s.name.name.to_string()).collect()
    };
    assert_eq!(shown(&live), ["a"]);
    let unread: Vec<String> = sync.unread().map(|(key, _)| key.to_string()).collect();
    assert_eq!(unread, ["service default/b", "rule default/r"]);
    sync.into_store().close().await;

    let (mut sync, live) = open(folder.path());
    assert_eq!(sync.holding().map(|held| held.digest), digest, "as it came");
    assert_eq!(shown(&live), ["a"]);
    // A good one that turns bad is no longer shown; one that is mended is.
    let mut step = delta(3, 4, &[service("a", None), service("b", None)], &[]);
    step.put[0].body = body;
    assert_eq!(hear(&mut sync, step).await, ack(4));
    assert_eq!(shown(&live), ["b"]);
    sync.into_store().close().await;
}

#[tokio::test]
async fn a_full_disk_is_shown_on_but_acknowledged_only_when_it_has_room() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    assert_eq!(hear(&mut sync, everything(1, &[service("a", None)])).await, ack(1));
    sync.release().await;
    for (n, name) in [(1, "b"), (2, "c")] {
        let answer = hear(&mut sync, delta(n, n + 1, &[service(name, None)], &[])).await;
        let Word::Held(Held { revision, buckets, .. }) = answer else { panic!("{answer:?}") };
        assert_eq!((revision, buckets.len()), (n + 1, 0));
        assert!(live.load().by_name("default", name).is_some(), "visible all the same");
    }
    let gone = [service("b", None).key()];
    let own = set(&[slice("edgemesh-local.c.x", "c", "edge-1", 9)]);
    hear(&mut sync, delta(3, 4, &[], &gone)).await;
    assert!(matches!(sync.voice(&me(), own, now()).await, Observed::Unsaved(_)));
    assert_eq!(sync.save().await, None);
    sync.store = Store::open(folder.path()).unwrap().0;
    assert_eq!(sync.save().await, Some(ack(4)));
    let held = sync.holding();
    sync.into_store().close().await;

    let (sync, live) = open(folder.path());
    assert_eq!(sync.holding(), held);
    assert!(live.load().by_name("default", "b").is_none());
    assert_eq!(backends(&live, "c"), [9]);
    sync.into_store().close().await;
}

/// Records of the registry → of this node → the Backends of `a`.
#[tokio::test]
async fn a_node_knows_best_what_runs_on_it() {
    let risen = |node: &str, last| slice(&format!("{NODE_SLICES}{node}.a.x"), "a", node, last);
    let own = |last| slice(&format!("{LOCAL_SLICES}a.x"), "a", "edge-1", last);
    type Row = (&'static str, Vec<Record>, Vec<Record>, Vec<u8>);
    let rows: Vec<Row> = vec![
        (
            "what others run joins",
            vec![slice("a-1", "a", "n", 1), risen("n2", 2)],
            vec![],
            vec![1, 2],
        ),
        ("what rose from here is not shown", vec![risen("edge-1", 1)], vec![], vec![]),
        ("but what is said here", vec![risen("edge-1", 1)], vec![own(2)], vec![2]),
        (
            "a Slice of others is old news",
            vec![slice("a-1", "a", "edge-1", 1)],
            vec![own(2)],
            vec![2],
        ),
        ("and without news it counts", vec![slice("a-1", "a", "edge-1", 1)], vec![], vec![1]),
        (
            "so with a node elsewhere",
            vec![slice("a-1", "a", "n", 1), risen("n", 2)],
            vec![],
            vec![2],
        ),
        ("no registry speaks for here", vec![own(1)], vec![], vec![]),
        ("nor over it", vec![own(1)], vec![own(2)], vec![2]),
        ("a name that begins alike", vec![risen("edge-1.x", 3)], vec![own(2)], vec![2, 3]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    for (n, (what, theirs, ours, want)) in rows.into_iter().enumerate() {
        let theirs = [vec![service("a", Some("10.96.0.1"))], theirs].concat();
        hear(&mut sync, everything(n as u64 + 1, &theirs)).await;
        sync.voice(&me(), set(&ours), now()).await;
        assert_eq!(backends(&live, "a"), want, "{what}");
        // The other way round is the same.
        sync.voice(&me(), BTreeMap::new(), now()).await;
        hear(&mut sync, everything(n as u64 + 1, &[service("a", Some("10.96.0.1"))])).await;
        sync.voice(&me(), set(&ours), now()).await;
        hear(&mut sync, everything(n as u64 + 1, &theirs)).await;
        assert_eq!(backends(&live, "a"), want, "{what}, the other way round");
    }
    sync.into_store().close().await;
}

#[tokio::test]
async fn the_registry_knows_services_best_and_a_node_is_not_silent_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    let address = |live: &ArcSwap<Snapshot>| {
        live.load().by_name("default", "a").map(|service| service.is_virtual)
    };
    sync.voice(&me(), set(&[service("a", None)]), now()).await;
    assert_eq!((address(&live), sync.synced_service(&name("a"))), (Some(true), None));
    hear(&mut sync, everything(1, &[service("a", Some("10.96.0.1"))])).await;
    assert_eq!(address(&live), Some(false));
    assert!(sync.synced_service(&name("a")).is_some());
    // A change below changes nothing.
    sync.voice(&me(), set(&[service("a", Some("10.96.0.9"))]), now()).await;
    assert!(live.load().by_address("10.96.0.1".parse().unwrap(), 80).is_some());
    hear(&mut sync, delta(1, 2, &[], &[service("a", None).key()])).await;
    assert!(live.load().by_address("10.96.0.9".parse().unwrap(), 80).is_some());
    sync.voice(&me(), BTreeMap::new(), now()).await;
    assert_eq!(address(&live), None);
    sync.into_store().close().await;
}

fn name(of: &str) -> ServiceName {
    ServiceName::new("default", of)
}

#[tokio::test]
async fn peers_are_heard_while_the_registry_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    let risen = |last| slice(&format!("{NODE_SLICES}n.a.x"), "a", "n", last);
    let other = slice(&format!("{NODE_SLICES}n.a.y"), "a", "n", 7);
    let all = [service("a", Some("10.96.0.1")), risen(1), other.clone()];
    hear(&mut sync, everything(1, &all)).await;
    assert_eq!(backends(&live, "a"), [1, 7]);
    let (n, held) = (NodeName("n".into()), sync.holding());
    let said = [risen(2), service("b", None)];
    sync.voice(&n, set(&said), now()).await;
    assert_eq!(backends(&live, "a"), [2], "it moved, and one is gone");
    assert!(live.load().by_name("default", "b").is_some());
    assert_eq!(sync.holding(), held);
    // The registry comes back, with what rose meanwhile; then it alone counts.
    let step = delta(1, 2, &[risen(2)], &[other.key()]);
    hear(&mut sync, step).await;
    sync.hush(&n, now()).await;
    assert_eq!(backends(&live, "a"), [2]);
    assert!(live.load().by_name("default", "b").is_none());
    // Of peers nothing is kept.
    sync.voice(&n, set(&[risen(5)]), now()).await;
    assert_eq!(backends(&live, "a"), [5]);
    sync.into_store().close().await;
    let (sync, live) = open(folder.path());
    assert_eq!(backends(&live, "a"), [2]);
    sync.into_store().close().await;
}

#[tokio::test]
async fn a_node_can_change_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = lone(folder.path());
    let own = slice(&format!("{LOCAL_SLICES}a.x"), "a", "edge-1", 3);
    let node = Body::Node(Node::default());
    let node = Record { namespace: "".into(), name: "n".into(), body: node };
    let policy = Body::Policy(Policy { service: "a".into(), ..Policy::default() });
    let policy = Record { namespace: "default".into(), name: "p".into(), body: policy };
    let pod = Body::Workload(Workload { node: Some(me()), ..Workload::default() });
    let pod = Record { namespace: "default".into(), name: "w".into(), body: pod };
    let all = [service("a", None), own.clone(), node, policy, pod];
    sync.observe(set(&all), now()).await;
    assert_eq!(backends(&live, "a"), [3]);
    sync.into_store().close().await;

    let (mut sync, live) = open(folder.path());
    assert_ne!(sync.holding().map(|held| held.epoch), Some([0; 16]));
    assert!(live.load().by_name("default", "a").is_some(), "served until the cloud is reached");
    sync.voice(&me(), set(&[own]), now()).await;
    hear(&mut sync, everything(1, &[service("b", None)])).await;
    assert!(live.load().by_name("default", "a").is_none());
    sync.into_store().close().await;

    let (mut sync, live) = lone(folder.path());
    assert!(live.load().by_name("default", "b").is_some());
    sync.observe(set(&[service("c", None)]), now()).await;
    sync.into_store().close().await;
    let (store, loaded, _) = Store::open(folder.path()).unwrap();
    assert_eq!((loaded.records.len(), loaded.local.len()), (1, 0));
    store.close().await;
}

#[tokio::test]
async fn another_process_may_have_gone_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    let own = set(&[slice(&format!("{LOCAL_SLICES}a.x"), "a", "edge-1", 9)]);
    hear(&mut sync, everything(1, &[service("a", None), service("b", None)])).await;
    sync.voice(&me(), own, now()).await;
    sync.release().await;
    let (mut other, _) = open(folder.path());
    hear(&mut other, delta(1, 2, &[service("c", None)], &[service("b", None).key()])).await;
    let held = other.holding();
    other.into_store().close().await;

    let (store, loaded, _) = Store::open(folder.path()).unwrap();
    sync.take_back(store, loaded, now());
    assert_eq!(sync.holding(), held);
    let names: Vec<_> = live.load().services().iter().map(|s| s.name.name.clone()).collect();
    assert_eq!(names, ["a".into(), "c".into()]);
    assert_eq!(backends(&live, "a"), [9]);
    assert_eq!(hear(&mut sync, delta(2, 3, &[], &[])).await, ack(3));
    sync.into_store().close().await;
}

#[tokio::test]
async fn what_goes_backwards_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, _live) = open(folder.path());
    hear(&mut sync, everything(5, &[service("a", None)])).await;
    let broken = sync.hear(Word::Delta(delta(3, 4, &[], &[])), now()).await.unwrap_err();
    assert_eq!(broken, Broken::Backwards { held: 5, told: 4 });
    let broken = sync.hear(Word::Delta(delta(6, 7, &[], &[])), now()).await.unwrap_err();
    assert_eq!(broken, Broken::Gap { held: 5, from: 6 });
    // What went wrong changed nothing.
    assert_eq!(hear(&mut sync, delta(5, 6, &[], &[])).await, ack(6));
    sync.into_store().close().await;
}
