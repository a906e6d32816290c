//! Captured connections whose Backend is on another node, over a Link in this process; and how much
//! room a connection takes.

use std::num::NonZeroU16;
use std::sync::OnceLock;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgemesh_proto::record::{
    Agent, Backend, Body, Node, NodeName, Record, Service, ServicePort, Slice, SlicePort,
    TargetPort, Transport,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::backends::Way;
use crate::config::{AccessLog, AccessLogSwitch};
use crate::dial::Dial;
use crate::forward::http::Pools;
use crate::io::{now, pair};
use crate::lanes::{Lanes, number};
use crate::link::sample::end;
use crate::link::{self, Limits, Link, Role};
use crate::listen::Listener;
use crate::peers::{Finding, NoWay, Ways};
use crate::snapshot::{Builder, Change};

/// How long anything may take before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

fn size<A, F>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

/// 5,000 idle connections are 5,000 of these: whatever is large and short-lived is boxed.
#[test]
fn an_idle_connection_is_small() {
    let size = size(flow);
    assert!(size <= 1024, "the future of a connection takes {size} bytes");
}

/// The one Link that there is.
#[derive(Debug)]
struct OneWay(Link);

impl Ways for OneWay {
    fn ready(&self, _: &NodeName) -> Option<(Link, Way)> {
        Some((self.0.clone(), Way::Direct))
    }

    fn find<'a>(&'a self, _: &'a NodeName) -> Finding<'a> {
        Box::pin(std::future::ready(Err(NoWay::new("there is one"))))
    }
}

/// What every flow of a node uses, with a Service at 10.96.0.1:80 whose Backend is on `edge-2`.
fn node(name: &str, backend: SocketAddr) -> Arc<Shared> {
    let node = NodeName(name.into());
    let port = |number| NonZeroU16::new(number).unwrap();
    let service = Service {
        cluster_ips: vec![[10, 96, 0, 1].into()],
        ports: vec![ServicePort {
            name: "".into(),
            port: port(80),
            target: TargetPort::Same,
            transport: Transport::Tcp,
            app_protocol: None,
            node_port: None,
        }],
        ..Service::default()
    };
    let slice = Slice {
        service: "web".into(),
        ports: vec![SlicePort {
            name: "".into(),
            port: port(backend.port()),
            transport: Transport::Tcp,
            app_protocol: None,
        }],
        backends: vec![Backend {
            addresses: vec![backend.ip()],
            ready: true,
            serving: true,
            terminating: false,
            hostname: None,
            node: Some(NodeName("edge-2".into())),
            zone: None,
            workload: None,
            weight: None,
        }],
    };
    let there = Node { agent: Some(Agent::default()), ..Node::default() };
    let record = |namespace: &str, name: &str, body| Record {
        namespace: namespace.into(),
        name: name.into(),
        body,
    };
    let put = vec![
        record("", "edge-2", Body::Node(there)),
        record("default", "web", Body::Service(service)),
        record("default", "web-1", Body::Slice(slice)),
    ];
    let snapshot =
        Builder::new(node.clone(), None).apply(Change { put, ..Change::default() }, now());
    Arc::new(Shared {
        node,
        ways: OnceLock::new(),
        inbox: OnceLock::new(),
        live: Arc::new(ArcSwap::from(snapshot)),
        dial: Dial::default(),
        metrics: Arc::default(),
        domain: "cluster.local".into(),
        access_log: AccessLogSwitch::new(AccessLog::Off),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        cut: CancellationToken::new(),
        own: OnceLock::new(),
        pools: Pools::default(),
    })
}

/// A client whose connection to 10.96.0.1:80 was captured on `edge-1`, where its Backend will be on
/// `edge-2`, and what both nodes count.
async fn captured_client() -> (TcpStream, TcpListener, [Arc<Shared>; 2]) {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [here, there] = ["edge-1", "edge-2"].map(|name| node(name, backend.local_addr().unwrap()));
    let (near, far) = pair().await;
    let handler = Arc::new(Linked::new(there.clone()));
    link::serve(end(far, "edge-1", Role::Serves), handler, Limits::REQUESTS, &there.tasks);
    let near = end(near, "edge-2", Role::Opens);
    let link = link::client(near, Limits::REQUESTS, here.tasks.clone()).await.unwrap();
    here.ways.set(Arc::new(OneWay(link))).unwrap();
    let (client, stream) = pair().await;
    let peer = stream.peer_addr().unwrap();
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let place = Place { room, open: here.metrics.connection(), turn: Arc::default(), seat: None };
    let (shared, place) = (here.clone(), Arc::new(place));
    here.tasks.spawn(async move {
        let to = ([10, 96, 0, 1], 80).into();
        let flow = Flow::begin(&shared, peer, Some(to));
        captured(Client { shared: &shared, place: &place, stream, peer }, flow, to).await;
    });
    (client, backend, [here, there])
}

/// Flows of bytes that ended well on both nodes.
async fn ended_well(nodes: &[Arc<Shared>; 2], carried: Carried) {
    let ok = |shared: &Arc<Shared>, carried: Carried| {
        shared.metrics.calls[carried.index()].ok.load(Relaxed)
    };
    // What comes over a Link is not sniffed again.
    while ok(&nodes[0], carried) < 1 || ok(&nodes[1], Carried::Opaque) < 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_over_a_link() {
    let all = async {
        let (mut client, backend, nodes) = captured_client().await;
        // The client says nothing; the dial is raced against its silence.
        let mut server = backend.accept().await.unwrap().0;
        server.write_all(b"220 ready\r\n").await.unwrap();
        let mut greeting = [0; 11];
        client.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ready\r\n");
        client.write_all(b"QUIT\r\n").await.unwrap();
        server.read_exact(&mut greeting[..6]).await.unwrap();
        server.write_all(b"221 bye\r\n").await.unwrap();
        drop(server);
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "221 bye\r\n");
        drop(client);
        ended_well(&nodes, Carried::Opaque).await;
        assert_eq!(nodes[0].metrics.raced.load(Relaxed), 1);
    };
    tokio::time::timeout(PATIENCE, all).await.expect("in time");
}

#[tokio::test]
async fn what_a_client_said_first_goes_along() {
    // Words of a protocol that nobody knows, and a ClientHello that is long and says nothing.
    let hello = [&b"\x16\x03\x01\x3f\xf0\x01\x00\x3f\xec"[..], &[0; 0x3fec][..]].concat();
    for (words, carried) in [(b"PING\r\n".to_vec(), Carried::Opaque), (hello, Carried::Tls)] {
        let all = async {
            let (mut client, backend, nodes) = captured_client().await;
            client.write_all(&words).await.unwrap();
            let mut server = backend.accept().await.unwrap().0;
            let mut heard = vec![0; words.len()];
            server.read_exact(&mut heard).await.unwrap();
            assert!(heard == words);
            client.write_all(b"more").await.unwrap();
            client.shutdown().await.unwrap();
            let mut rest = String::new();
            server.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "more");
            server.write_all(b"PONG").await.unwrap();
            drop(server);
            client.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "morePONG");
            ended_well(&nodes, carried).await;
            let up = |shared: &Arc<Shared>| shared.metrics.bytes_up.load(Relaxed);
            assert_eq!([up(&nodes[0]), up(&nodes[1])], [words.len() as u64 + 4; 2]);
        };
        tokio::time::timeout(PATIENCE, all).await.expect("in time");
    }
}

/// It was silent for long enough that a dial was raced, and then asks for a page.
#[tokio::test]
async fn a_slow_client_of_http_is_served_as_any_other() {
    let all = async {
        let (mut client, backend, nodes) = captured_client().await;
        let _raced = backend.accept().await.unwrap().0;
        client.write_all(b"GET / HTTP/1.1\r\nHost: web.default\r\n\r\n").await.unwrap();
        let mut server = backend.accept().await.unwrap().0;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(server.read_u8().await.unwrap());
        }
        server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 204");
        let of_http =
            |shared: &Arc<Shared>| shared.metrics.calls[Carried::Http1.index()].ok.load(Relaxed);
        while of_http(&nodes[0]) + of_http(&nodes[1]) < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all).await.expect("in time");
}

/// Nobody listens there: a client that waits for a greeting is told at once, by a reset.
#[tokio::test]
async fn a_greeting_that_will_not_come_is_told() {
    let all = async {
        let (mut client, backend, nodes) = captured_client().await;
        drop(backend);
        assert!(client.read_u8().await.is_err());
        let refused = nodes[0].metrics.refusals().find(|(label, _)| *label == "connectFailed");
        assert_eq!(refused, Some(("connectFailed", 1)));
    };
    tokio::time::timeout(PATIENCE, all).await.expect("in time");
}

/// Says which lane serves it, and then nothing more.
#[derive(Clone, Copy)]
struct Numbered;

impl Entrance for Numbered {
    fn serve(&self, newcomer: Newcomer) -> impl Future<Output = ()> + Send + 'static {
        let Newcomer { mut stream, place, .. } = newcomer;
        async move {
            let _place = place;
            stream.write_u8(number().try_into().unwrap()).await.unwrap();
            assert!(!matches!(stream.read(&mut [0]).await, Ok(1)));
        }
    }
}

/// One lane of two accepts, and gives away what is too much for it; what was given is cut with the rest.
#[tokio::test]
async fn connections_move_to_emptier_lanes() {
    let shared = node("edge-1", ([127, 0, 0, 1], 1).into());
    let (lanes, accepting) = (Lanes::start(2).unwrap(), CancellationToken::new());
    let lane = lanes.each().next().unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let (at, same) = (listener.address(), listener.duplicate().unwrap());
    let proxy = Proxy::new(Numbered, shared.clone(), 100, accepting.clone()).within(lane.clone());
    let running = lane.handle().spawn(async move {
        proxy.run(Listener::from_std(same.into()).unwrap()).await;
    });
    let all = tokio::time::timeout(PATIENCE, async {
        let (mut open, mut served) = (Vec::new(), [0; 3]);
        for _ in 0..20 {
            let mut client = TcpStream::connect(at).await.unwrap();
            served[usize::from(client.read_u8().await.unwrap())] += 1;
            open.push(client);
        }
        assert_eq!(served, [0, 11, 9]);
        accepting.cancel();
        shared.cut.cancel();
        for client in &mut open {
            assert!(!matches!(client.read(&mut [0]).await, Ok(1)));
        }
        running.await.unwrap();
    });
    all.await.expect("in time");
}
