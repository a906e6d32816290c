//! One writer: what is observed is stored, then seen, then told to mirrors.

mod counts;
mod measure;
mod synced;

use edgemesh_proto::record::{Backend, Body, Service, ServicePort, TargetPort, Transport};

use super::*;
use crate::io::now;

fn service(name: &str, cluster_ip: Option<&str>) -> Record {
    let port = ServicePort {
        name: "".into(),
        port: 80.try_into().unwrap(),
        target: TargetPort::Same,
        transport: Transport::Tcp,
        app_protocol: None,
        node_port: None,
    };
    let cluster_ips = cluster_ip.into_iter().map(|ip| ip.parse().unwrap()).collect();
    let headless = cluster_ip.is_none();
    let body = Service { ports: vec![port], cluster_ips, headless, ..Service::default() };
    Record { namespace: "default".into(), name: name.into(), body: Body::Service(body) }
}

fn set(records: &[Record]) -> BTreeMap<Key, Record> {
    records.iter().map(|r| (r.key(), r.clone())).collect()
}

fn open(folder: &std::path::Path) -> (Sync, Arc<ArcSwap<Snapshot>>) {
    let (store, loaded, repairs) = Store::open(folder).unwrap();
    assert!(repairs.is_empty(), "{repairs:?}");
    let live = Arc::<ArcSwap<Snapshot>>::default();
    let ranges = ["198.18.0.0/16".parse().unwrap(), "fd96::/112".parse().unwrap()];
    let node = NodeName("edge-1".into());
    (Sync::resume(store, loaded, node, None, &ranges, live.clone(), now()), live)
}

/// Invariant 2: rebooted unplugged, the same; and 3: only what was observed is published.
#[tokio::test]
async fn invariant_2_a_restart_serves_the_last_revision_without_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    let records = set(&[service("a", Some("10.96.0.1")), service("b", None)]);
    let observed = sync.observe(records.clone(), now()).await;
    assert!(matches!(observed, Observed::Changed { revision: 1, put: 2, .. }), "{observed:?}");
    assert!(matches!(sync.observe(records, now()).await, Observed::Same));
    let before = live.load_full();
    let addresses = before.by_name("default", "b").unwrap().addresses.clone();
    assert_eq!(addresses.len(), 2, "one of each family");
    sync.into_store().close().await;

    let (sync, live) = open(folder.path());
    let after = live.load_full();
    assert_eq!((after.epoch, after.revision), (before.epoch, before.revision));
    assert_eq!(after.by_name("default", "b").unwrap().addresses, addresses);
    assert!(after.by_address("10.96.0.1".parse().unwrap(), 80).is_some());
    sync.into_store().close().await;
}

/// Two mirrors, one of them too slow: both end with what is in force.
#[tokio::test]
async fn mirrors_get_the_whole_then_steps_and_the_whole_again_when_they_lag() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, _live) = open(folder.path());
    sync.observe(set(&[service("a", None)]), now()).await;
    let (mut quick, mut slow) = (sync.feed().follow(), sync.feed().follow());
    for mirror in [&mut quick, &mut slow] {
        let serving = async {
            let asked = sync.asked().await.unwrap();
            sync.tell(asked);
        };
        let (whole, ()) = tokio::join!(mirror.next(), serving);
        let whole = whole.unwrap();
        assert!(whole.delta.reset && whole.delta.to == 1);
        assert_eq!((whole.delta.put.len(), whole.addresses.len()), (1, 1));
        assert_eq!(whole.delta.put[0].record().unwrap(), service("a", None));
    }
    for n in 0..100 {
        sync.observe(set(&[service(&format!("b{n}"), None)]), now()).await;
        let step = quick.next().await.unwrap();
        assert_eq!((step.delta.from, step.delta.to, step.delta.reset), (n + 1, n + 2, false));
        assert_eq!((step.delta.put.len(), step.delta.delete.len()), (1, 1));
        assert_eq!(step.addresses.len(), 2, "one given, one taken away");
    }
    let serving = async {
        let asked = sync.asked().await.unwrap();
        sync.tell(asked);
    };
    let (whole, ()) = tokio::join!(slow.next(), serving);
    let whole = whole.unwrap();
    assert!(whole.delta.reset && whole.delta.to == 101);
    assert_eq!(whole.delta.put[0].key.name.as_ref(), "b99");
    sync.into_store().close().await;
    assert!(quick.next().await.is_none() && slow.next().await.is_none());
}

/// A mirror that follows knows a Backend by its own name, at the same address.
#[tokio::test]
async fn mirrors_know_hosts() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    let mirrored = Arc::<ArcSwap<Snapshot>>::default();
    let mut follower = Follower::new(mirrored.clone());
    let mut feed = sync.feed().follow();
    let slice = |hostname: Option<&str>| {
        let backend = Backend {
            addresses: vec!["10.1.0.1".parse().unwrap()],
            ready: true,
            serving: true,
            terminating: false,
            hostname: hostname.map(Into::into),
            node: None,
            zone: None,
            workload: None,
            weight: None,
        };
        let body = Slice { service: "a".into(), ports: Vec::new(), backends: vec![backend] };
        Record { namespace: "default".into(), name: "a-1".into(), body: Body::Slice(body) }
    };
    let hosts =
        |live: &ArcSwap<Snapshot>| live.load().by_name("default", "a").unwrap().hosts.clone();
    for (round, hostname) in [Some("db-0"), Some("db-1"), None].into_iter().enumerate() {
        sync.observe(set(&[service("a", None), slice(hostname)]), now()).await;
        if round == 0 {
            let (whole, ()) = tokio::join!(feed.next(), async {
                let asked = sync.asked().await.unwrap();
                sync.tell(asked);
            });
            apply(&mut follower, &whole.unwrap());
        } else {
            apply(&mut follower, &feed.next().await.unwrap());
        }
        let names: Vec<_> = hosts(&mirrored).iter().map(|host| host.name.clone()).collect();
        assert_eq!(names, hostname.map(Into::into).into_iter().collect::<Vec<_>>());
        assert_eq!(hosts(&mirrored), hosts(&live));
    }
    sync.into_store().close().await;
}

fn apply(follower: &mut Follower, step: &Published) {
    let Published { delta, addresses, hosts } = step.clone();
    follower.apply(FollowerStep { delta, addresses, hosts, node: None }, now());
}

#[tokio::test]
async fn what_is_no_longer_observed_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut sync, live) = open(folder.path());
    sync.observe(set(&[service("a", None), service("b", None)]), now()).await;
    let a = live.load().by_name("default", "a").unwrap().addresses[0];
    sync.observe(set(&[service("b", None)]), now()).await;
    assert!(live.load().by_name("default", "a").is_none());
    assert!(live.load().owner(a).is_none());
    assert_eq!(live.load().revision, 2);
    sync.into_store().close().await;
}
