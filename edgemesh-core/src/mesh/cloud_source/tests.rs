//! Conversations with a cloud, as the keeper of the records hears them.

mod counts;
mod peers;
mod ranges;

use std::time::Duration;

use arc_swap::ArcSwap;
use edgemesh_proto::message::{Ack, Held, Refused};
use edgemesh_proto::record::{
    Backend, Body as Of, Delta, Kind, Put, Service, ServicePort, Slice, TargetPort, Transport,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::*;

mod retry;

use crate::config::AccessLog;
use crate::dial::Dial;
use crate::health::{Checker, Pace};
use crate::mesh::talking::Ends;
use crate::peers::{Position, Talk};
use crate::registrations::{Name, Registration, Registrations};
use crate::snapshot::{NODE_SLICES, Snapshot};
use crate::store::Store;

const EPOCH: [u8; 16] = [7; 16];
/// Longest wait for what comes without a word.
const PATIENCE: Duration = Duration::from_secs(20);

/// A linked node, and the cloud's end of what it says.
struct World {
    folder: TempDir,
    live: Arc<ArcSwap<Snapshot>>,
    status: Arc<Cell>,
    registrations: Registrations,
    ends: Ends,
    stop: CancellationToken,
    following: Option<JoinHandle<Ended>>,
}

/// The cloud's end of one conversation.
struct Cloud {
    say: mpsc::Sender<Body>,
    heard: mpsc::Receiver<Body>,
}

impl World {
    async fn new() -> Self {
        Self::on(tempfile::tempdir().unwrap()).await
    }

    async fn on(folder: TempDir) -> Self {
        let (store, loaded, _) = Store::open(&folder.path().join("data")).unwrap();
        let live = Arc::<ArcSwap<Snapshot>>::default();
        let services = folder.path().join("services");
        let options = Options {
            node: me(),
            zone: Some("site-a".into()),
            data_dir: folder.path().join("data"),
            folders: Folders { services: Some(services), ..Folders::default() },
            supply: None,
            is_linked: true,
            is_synced: true,
            virtual_range: Vec::new(),
            domain: "cluster.local".into(),
            dial: Dial::default(),
            access_log: AccessLog::Off,
            max_connections: 0,
            lanes: 0,
        };
        let sync = Sync::resume_synced(store, loaded, me(), None, &[], live.clone(), now());
        let status = Arc::new(Cell::new(Vec::new(), false));
        let stop = CancellationToken::new();
        let checker =
            Checker::new(Dial::default(), Pace::default(), TaskTracker::new(), stop.clone());
        let registrations = Registrations::open(folder.path(), now());
        let local = Local::new(me(), registrations.clone(), checker);
        let (talking, ends) = Talking::new(Position::default()); // of before, as after a hand-over
        let source = CloudSource::new(&options, sync, talking, local, status.clone()).begin().await;
        let following = Some(TaskTracker::new().spawn(source.follow(stop.clone())));
        Self { folder, live, status, registrations, ends, stop, following }
    }

    /// A conversation that the hub welcomed with its number; the Offer it begins with.
    async fn talk(&self, epoch: [u8; 16], revision: u64) -> (Cloud, Vec<String>) {
        let (say, incoming) = mpsc::channel(16);
        let (outgoing, heard) = mpsc::channel(16);
        let welcome = Welcome {
            node: NodeName("cloud".into()),
            instance: [0; 16],
            epoch,
            revision,
            renew: false,
        };
        self.ends.talks.send(Talk { welcome, incoming, outgoing }).await.unwrap();
        let mut cloud = Cloud { say, heard };
        let offer = cloud.offer().await;
        (cloud, offer)
    }

    /// The peer `n` says that in a conversation, or ends it.
    async fn peer(&self, talk: u64, offer: Option<Offer>) {
        let node = NodeName("n".into());
        self.ends.offered.send(PeerSaid { node, talk, offer }).await.unwrap();
        self.until(|world| world.ends.offered.capacity() == world.ends.offered.max_capacity())
            .await;
    }

    async fn end(mut self) -> TempDir {
        self.stop.cancel();
        let ended = self.following.take().unwrap().await.unwrap();
        ended.sync.into_store().close().await;
        self.folder
    }

    fn services(&self) -> Vec<String> {
        self.live.load().services().iter().map(|s| s.name.name.to_string()).collect()
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let eventually = async {
            while !what(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, eventually).await.expect("in time");
    }
}

impl Cloud {
    async fn tell(&mut self, delta: Delta) -> Body {
        self.say.send(Body::Delta(delta)).await.unwrap();
        self.heard.recv().await.unwrap()
    }

    /// The names of what is offered next, with `→` the Backends' last bytes.
    async fn offer(&mut self) -> Vec<String> {
        let Some(Body::Offer(offer)) = self.heard.recv().await else { panic!("no Offer") };
        names(&offer)
    }
}

fn names(offer: &Offer) -> Vec<String> {
    let of = |put: &Put| match put.record().unwrap().body {
        Of::Slice(slice) => format!("{}→{}", put.key, slice.backends[0].addresses[0]),
        _ => put.key.to_string(),
    };
    offer.records.iter().map(of).collect()
}

fn me() -> NodeName {
    NodeName("edge-1".into())
}

fn service(name: &str, ports: &[(&str, u16)]) -> Record {
    let port = |(name, number): &(&str, u16)| ServicePort {
        name: (*name).into(),
        port: (*number).try_into().unwrap(),
        target: TargetPort::Same,
        transport: Transport::Tcp,
        app_protocol: None,
        node_port: None,
    };
    let body = Of::Service(Service { ports: ports.iter().map(port).collect(), ..<_>::default() });
    Record { namespace: "default".into(), name: name.into(), body }
}

fn everything(to: u64, put: &[Record]) -> Delta {
    let put = put.iter().map(Put::from).collect();
    Delta { epoch: EPOCH, to, reset: true, put, ..Delta::default() }
}

fn ack(revision: u64) -> Body {
    Body::Ack(Ack { epoch: EPOCH, revision })
}

#[tokio::test]
async fn a_conversation_brings_the_records_and_takes_what_runs_here() {
    let world = World::new().await;
    assert_eq!(world.status.get().source_trouble.as_deref(), Some(NO_TALK));
    assert!(!world.status.get().has_records);
    let (mut cloud, offer) = world.talk(EPOCH, 3).await;
    assert_eq!(offer, ["node edge-1"], "its zone");
    assert_eq!(cloud.tell(everything(3, &[service("a", &[("", 80)])])).await, ack(3));
    assert_eq!(world.services(), ["a"]);
    let status = world.status.get();
    assert!(status.in_step && status.has_records && status.source_trouble.is_none());
    assert_eq!(world.status.data_age(now()), Some(Duration::ZERO));
    assert_eq!(world.ends.position.borrow().revision, 3);
    // What is signed up attaches to the cloud's Service, or makes one of its own.
    for (name, port) in [("a", 8000), ("mine", 9000)] {
        let registration = Registration::at(port.try_into().unwrap());
        let name = Name::new("default", name, "x").unwrap();
        let signing = world.registrations.put(name, registration, now());
        let (signed, offer) = tokio::join!(signing, cloud.offer());
        signed.unwrap().unwrap();
        assert!(offer.iter().any(|n| n.contains("edgemesh-node.edge-1.")), "{offer:?}");
        let made = offer.contains(&"service default/mine".to_owned());
        assert_eq!(made, port == 9000, "{offer:?}");
    }
    assert_eq!(world.services(), ["a", "mine"]);
    drop(cloud);
    world.until(|world| !world.status.get().in_step).await;
    assert_eq!(world.status.get().source_trouble.as_deref(), Some(NO_TALK));
    assert_eq!(world.services(), ["a", "mine"], "the last records stay in force");

    // Unplugged, it starts with the same; and with the same number nothing needs to be said.
    let world = World::on(world.end().await).await;
    assert_eq!(world.services(), ["a", "mine"]);
    let (_cloud, offer) = world.talk(EPOCH, 3).await;
    assert_eq!(offer.len(), 4, "{offer:?}");
    let held = *world.ends.position.borrow();
    assert_eq!((held.epoch, held.revision), (EPOCH, 3));
    world.until(|world| world.status.get().in_step).await;
    world.end().await;
}

#[tokio::test]
async fn what_makes_no_sense_ends_the_conversation_and_both_ends_know_why() {
    let world = World::new().await;
    let (mut cloud, _) = world.talk(EPOCH, 5).await;
    assert_eq!(cloud.tell(everything(5, &[service("a", &[("", 80)])])).await, ack(5));
    let backwards = Delta { epoch: EPOCH, from: 3, to: 4, ..Delta::default() };
    let told = cloud.tell(backwards).await;
    let Body::Refused(Refused { label, text, .. }) = told else { panic!("{told:?}") };
    assert!(label == "badStep" && text.contains("backwards: 4 after 5"), "{label} {text}");
    assert!(cloud.heard.recv().await.is_none());
    let trouble = world.status.get().source_trouble.clone().unwrap();
    assert!(trouble.contains("backwards"), "{trouble}");
    // The next one begins with what is held.
    let (mut cloud, _) = world.talk(EPOCH, 6).await;
    let next = Delta { from: 5, reset: false, ..everything(6, &[service("b", &[("", 80)])]) };
    assert_eq!(cloud.tell(next).await, ack(6));
    assert_eq!(world.services(), ["a", "b"]);
    assert_eq!(world.status.get().source_trouble, None);
    world.end().await;
}

#[tokio::test]
async fn a_newer_conversation_takes_the_place_of_the_older() {
    let world = World::new().await;
    let (mut old, _) = world.talk(EPOCH, 1).await;
    let part = Delta { more: true, ..everything(1, &[service("lost", &[("", 80)])]) };
    old.say.send(Body::Delta(part)).await.unwrap();
    let (mut new, _) = world.talk(EPOCH, 2).await;
    assert_eq!(new.tell(everything(2, &[service("a", &[("", 80)])])).await, ack(2));
    assert!(old.heard.recv().await.is_none());
    assert_eq!(world.services(), ["a"], "half a step of the older is void");
    // A question for the digest, with the wrong one: it is to be mended.
    let held = Held { epoch: EPOCH, revision: 2, digest: [1; 32], buckets: Vec::new() };
    new.say.send(Body::Held(held)).await.unwrap();
    let Some(Body::Held(held)) = new.heard.recv().await else { panic!("no digest") };
    assert_eq!(held.buckets.len(), 256);
    world.end().await;
}

#[tokio::test]
async fn the_folder_of_a_node_stands_beside_the_registry_and_peers_stand_in_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let services = folder.path().join("services");
    std::fs::create_dir(&services).unwrap();
    std::fs::write(services.join("cam.yaml"), CAMERA).unwrap();
    let world = World::on(folder).await;
    assert_eq!(world.services(), ["cam"]);
    let (mut cloud, offer) = world.talk(EPOCH, 1).await;
    assert_eq!(
        offer,
        [
            "service default/cam",
            "slice default/edgemesh-node.edge-1.cam-1→192.168.1.20",
            "node edge-1"
        ]
    );
    let all = [service("cam", &[("", 80)]), slice("n", 1)];
    assert_eq!(cloud.tell(everything(1, &all)).await, ack(1));
    let backends = |world: &World| -> Vec<String> {
        let snapshot = world.live.load();
        let service = snapshot.by_name("default", "cam").unwrap();
        service.ports[0].pools[0].backends.iter().map(|b| b.address.to_string()).collect()
    };
    let own = "192.168.1.20:8554".to_owned();
    assert_eq!(backends(&world), [own.clone(), "10.1.0.1:8554".to_owned()]);
    // A peer that tells of itself counts while the cloud is away.
    let peer = |last| Offer { records: vec![Put::from(&slice("n", last))] };
    world.peer(1, Some(peer(2))).await;
    drop(cloud);
    world.until(|world| backends(world).contains(&"10.1.0.2:8554".to_owned())).await;
    assert_eq!(backends(&world).len(), 2);
    world.peer(1, Some(peer(3))).await;
    world.until(|world| backends(world).contains(&"10.1.0.3:8554".to_owned())).await;
    let (mut cloud, _) = world.talk(EPOCH, 2).await;
    let next = Delta { from: 1, reset: false, ..everything(2, &[slice("n", 4)]) };
    assert_eq!(cloud.tell(next).await, ack(2));
    world.until(|world| world.status.get().in_step).await;
    world.until(|world| backends(world).contains(&"10.1.0.4:8554".to_owned())).await;
    assert_eq!(backends(&world), [own, "10.1.0.4:8554".to_owned()]);
    world.end().await;
}

/// A hub that does not listen keeps nobody from signing up here, and hears the last state.
#[tokio::test]
async fn a_hub_that_does_not_listen_keeps_nobody_waiting() {
    let world = World::new().await;
    let (mut cloud, _) = world.talk(EPOCH, 1).await;
    assert_eq!(cloud.tell(everything(1, &[service("a", &[("", 80)])])).await, ack(1));
    for n in 0..40_u16 {
        let registration = Registration::at((9000 + n).try_into().unwrap());
        let name = Name::new("default", "a", &format!("x{n}")).unwrap();
        let signing = world.registrations.put(name, registration, now());
        tokio::time::timeout(PATIENCE, signing).await.expect("in time").unwrap().unwrap();
    }
    // There is room for an answer still.
    let next = Delta { from: 1, reset: false, ..everything(2, &[service("b", &[("", 80)])]) };
    cloud.say.send(Body::Delta(next)).await.unwrap();
    let (mut offers, mut last, mut acknowledged) = (0, 0, false);
    while last < 41 || !acknowledged {
        match cloud.heard.recv().await.unwrap() {
            Body::Offer(offer) => (offers, last) = (offers + 1, offer.records.len()),
            answer => acknowledged = answer == ack(2),
        }
    }
    assert!(offers < 20, "{offers}: what changed meanwhile is told once");
    world.end().await;
}

/// What `node` runs of `cam`, as others see it.
fn slice(node: &str, last: u8) -> Record {
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
        port: 8554.try_into().unwrap(),
        transport: Transport::Tcp,
        app_protocol: None,
    };
    let body =
        Of::Slice(Slice { service: "cam".into(), ports: vec![port], backends: vec![backend] });
    let name = format!("{NODE_SLICES}{node}.cam.1").into();
    let record = Record { namespace: "default".into(), name, body };
    assert_eq!(record.kind(), Kind::Slice);
    record
}

const CAMERA: &str = r#"
apiVersion: v1
kind: Service
metadata: { name: cam, namespace: default }
spec: { clusterIP: None, ports: [{ port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: cam-1, namespace: default, labels: { kubernetes.io/service-name: cam } }
addressType: IPv4
ports: [{ port: 8554 }]
endpoints: [{ addresses: [192.168.1.20] }]
"#;
