//! Strangers and liars at the ports of the hub and of peers: named, cut off, and nobody else harmed.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::dial::Dial;
use edgemesh_core::identity::{Clock, Expect, Identity, JoinToken, Tls, joining};
use edgemesh_core::link::{
    self, ALPN_H2, Limits, Link, MessageReader, Messages, Operation, Reply, Rest, pipe,
};
use edgemesh_core::peers::message;
use edgemesh_proto::message::{
    Ack, Body, Caller, Connect, Hello, Message, Selector, Target, Welcome,
};
use edgemesh_proto::record::{NodeName, ServiceName};
use tokio_util::task::TaskTracker;

use crate::PATIENCE;
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, within};
use crate::common::wait::{eventually, timed};
use crate::load::Load;
use crate::nodes::{Node, agent, agent_with, cloud, token};
use crate::world::{A1, A2, B1, B2, World};

/// Where links come in: the hub's port, and a peer's.
const PORTS: [&str; 2] = ["10.90.0.2:10000", "10.92.1.11:15008"];
/// Connections that say nothing, at each port.
const SILENT: usize = 200;

/// A site that calls within itself, another site directly, and by the hub.
fn unharmed(world: &World) -> (Node, [Node; 3], Load) {
    for (at, ip) in [(A1, "10.96.0.1"), (A2, "10.96.0.2"), (B1, "10.96.0.3")] {
        Backend::start(at.name, at.name, [at.ip, "::1"], 8080);
        world.service(&format!("at-{}", at.name), ip, "web:80:8080", &[at]);
    }
    let cloud = cloud(world);
    let a1 = agent(world, A1);
    let nodes = [a1, agent_with(world, A2, "peer: { path: hub }"), agent(world, B1)];
    let load =
        Load::start(&[("a1", "10.96.0.3:80"), ("a2", "10.96.0.3:80"), ("b1", "10.96.0.1:80")]);
    (cloud, nodes, load)
}

#[track_caller]
fn nobody_was_harmed(load: Load) {
    let (calls, failed) = load.stop();
    assert!(calls > 0 && failed.is_empty(), "{} of {calls}: {failed:#?}", failed.len());
}

/// What strangers say.
const STRANGERS: &[(&str, &[u8])] = &[
    ("nothing at all", b""),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n"),
    ("HTTP/2 without TLS", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"),
    ("zeros", &[0; 4096]),
    ("half of a ClientHello", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
    ("a record that is too long", b"\x16\x03\x01\xff\xff\x01"),
    ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n"),
];

fn stranger(to: &str, says: &[u8]) -> TcpStream {
    let (to, says) = (to.to_owned(), says.to_owned());
    within("b2", move || {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&says).unwrap();
        stream
    })
}

#[test]
fn strangers_are_cut_off() {
    in_namespace("bad::strangers_are_cut_off", || {
        let world = World::new();
        let (cloud, nodes, load) = unharmed(&world);
        let silent: Vec<_> =
            PORTS.iter().flat_map(|to| (0..SILENT).map(|_| stranger(to, b""))).collect();
        let (b2, took) = timed(|| agent(&world, B2));
        println!("a node joined and was linked in {took:?} beside {SILENT} that say nothing");
        assert!(took < Duration::from_secs(5), "it had to wait for the silent: {took:?}");
        let mut talking: Vec<_> = PORTS
            .iter()
            .flat_map(|to| {
                STRANGERS.iter().map(move |(what, says)| (*to, *what, stranger(to, says)))
            })
            .collect();
        for (to, what, stream) in &mut talking {
            let ended = stream.read_to_end(&mut Vec::new());
            let silence = std::io::ErrorKind::WouldBlock;
            let stays = matches!(&ended, Err(error) if error.kind() == silence);
            assert!(!stays, "{to}: {what}: still there");
        }
        drop(silent);
        for (node, log) in [(&cloud, cloud.log()), (&nodes[2], nodes[2].log())] {
            let name = node.place.name;
            assert!(log.contains("speaks no TLS"), "{name} names the cause: {log}");
        }
        drop(b2);
        nobody_was_harmed(load);
    });
}

/// Somebody with the certificate of node `b2`, or none, who says what it should not.
struct Liar {
    tls: Option<Tls>,
    token: JoinToken,
    clock: Arc<Clock>,
    tasks: TaskTracker,
}

/// A lie, at which port, with a certificate or without, and by which label it is refused.
type Lie = (&'static str, &'static str, bool, Operation, fn() -> Message, &'static str);

const LIES: &[Lie] = &[
    ("another node", PORTS[0], true, Operation::Stream, || call("a1", "b1", "at-b1"), "notAllowed"),
    ("another node", PORTS[1], true, Operation::Stream, || call("a1", "b1", "at-b1"), "notAllowed"),
    ("nobody", PORTS[0], false, Operation::Stream, || call("b2", "b1", "at-b1"), "notAllowed"),
    (
        "a Request that is none",
        PORTS[0],
        true,
        Operation::Request,
        || call("b2", "b1", "at-b1"),
        "unknownOperation",
    ),
    (
        "no header",
        PORTS[0],
        true,
        Operation::Stream,
        || headless(call("b2", "b1", "at-b1")),
        "malformed",
    ),
    (
        "no header",
        PORTS[1],
        true,
        Operation::Stream,
        || headless(call("b2", "b1", "at-b1")),
        "malformed",
    ),
    (
        "to a node that is not there",
        PORTS[0],
        true,
        Operation::Stream,
        || call("b2", "b9", "at-b1"),
        "noPath",
    ),
    (
        "what runs elsewhere",
        PORTS[1],
        true,
        Operation::Stream,
        || call("b2", "b1", "at-a1"),
        "noLocalBackend",
    ),
    (
        "what runs nowhere",
        PORTS[1],
        true,
        Operation::Stream,
        || call("b2", "b1", "nothing"),
        "noService",
    ),
    ("hello as another node", PORTS[0], true, Operation::Control, || hello("a1"), "otherNode"),
    (
        "Control without hello",
        PORTS[0],
        true,
        Operation::Control,
        || call("b2", "cloud", "at-b1"),
        "unknownOperation",
    ),
];

fn call(from: &str, to: &str, service: &str) -> Message {
    let target = Target {
        service: ServiceName::new("default", service),
        port: NonZeroU16::new(80).unwrap(),
        hostname: None,
        backend: Some(([127, 0, 0, 1], 22).into()),
        caller: Caller::default(),
    };
    message([from, to], Body::Connect(Connect { target, race: false }))
}

fn headless(mut message: Message) -> Message {
    message.header.id.clear();
    message
}

fn hello(node: &str) -> Message {
    let hello = Hello {
        node: NodeName(node.into()),
        instance: [7; 16],
        generation: 9,
        version: "0.0.0".into(),
        epoch: [9; 16],
        revision: u64::MAX,
        digest: [9; 32],
        selector: Selector::default(),
        links: vec!["not an address".into(); 9],
        takes_over: false,
    };
    message(["b2", "cloud"], Body::Hello(hello))
}

impl Liar {
    async fn link(&self, to: &str, with_certificate: bool) -> Link {
        let peer = NodeName("b1".into());
        let expect = if to == PORTS[0] { Expect::Hub } else { Expect::Node(&peer) };
        let tls = match self.tls.as_ref().filter(|_| with_certificate) {
            Some(tls) => tls.client(expect, ALPN_H2),
            None => joining(self.token.ca(), &self.clock, Duration::ZERO, ALPN_H2),
        };
        let (to, name) = (to.parse().unwrap(), expect.server_name());
        let dialled = link::dial(&Dial::default(), to, PATIENCE, tls, name).await.unwrap();
        link::client(dialled, Limits::REQUESTS, self.tasks.clone()).await.unwrap()
    }

    async fn lies(&self) {
        for (what, to, with_certificate, operation, opening, label) in LIES {
            let link = self.link(to, *with_certificate).await;
            let reply = link.open(*operation, &opening(), Rest::Nothing).await.unwrap();
            let Some(Body::Refused(refused)) = reply.opening.body.as_deref() else {
                panic!("{what} at {to}: {:?}", reply.opening);
            };
            println!("{what} at {to}: {} ({})", refused.text, refused.label);
            assert_eq!(refused.label, *label, "{what} at {to}: {}", refused.text);
        }
    }

    /// A conversation that begins well.
    async fn control(&self) -> (Link, link::Writer, MessageReader, Welcome) {
        let link = self.link(PORTS[0], true).await;
        // The one before may not be known for gone yet.
        for _ in 0..100 {
            let (writer, rest) = pipe();
            let Reply { opening, body } =
                link.open(Operation::Control, &hello("b2"), rest).await.unwrap();
            if let Some(Body::Welcome(welcome)) = opening.body.as_deref() {
                let messages = Messages::new(pipe().0, body);
                return (link, writer, messages.reader, welcome.clone());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no Control");
    }

    async fn talks_nonsense(&self) {
        for (what, says, want) in NONSENSE {
            let (link, writer, mut reader, welcome) = self.control().await;
            writer.send(says(&welcome).into());
            if what.contains("the end") {
                writer.finish();
            }
            let answer = async {
                loop {
                    match reader.next().await.map(|message| message.map(|m| m.body)) {
                        Ok(Some(Some(body))) => match *body {
                            Body::Refused(refused) => return format!("refused: {}", refused.text),
                            Body::Delta(delta) if delta.reset => return "a reset".into(),
                            _ => {}
                        },
                        Ok(Some(None)) => {}
                        Ok(None) => return "the end".into(),
                        Err(error) => return format!("the end: {error}"),
                    }
                }
            };
            let answer = tokio::time::timeout(PATIENCE, answer).await;
            println!("{what}: {answer:?}");
            let answer = answer.unwrap_or_else(|_| panic!("{what}: the conversation goes on"));
            assert!(answer.starts_with(want), "{what}: {answer}");
            link.cut();
        }
    }
}

/// What a conversation goes on with, and what comes of it.
type Nonsense = (&'static str, fn(&Welcome) -> Vec<u8>, &'static str);

const NONSENSE: &[Nonsense] = &[
    ("garbage", |_| vec![0xff; 64], "refused"),
    ("a frame of 100 MiB", |_| vec![0x80, 0x80, 0x80, 0x32, 1, 2, 3], "refused"),
    ("a Message that is none", |_| vec![3, 0xff, 0xff, 0xff], "refused"),
    ("the end in the middle of a frame", |_| vec![200, 1, 8], "refused"),
    ("more than the registry has", |welcome| ack(welcome, u64::MAX), "a reset"),
    (
        "revisions that go backwards",
        |welcome| [ack(welcome, welcome.revision), ack(welcome, 0)].concat(),
        "refused",
    ),
];

fn ack(welcome: &Welcome, revision: u64) -> Vec<u8> {
    let ack = Body::Ack(Ack { epoch: welcome.epoch, revision });
    let mut frame = Vec::new();
    edgemesh_proto::frame::push(&mut frame, &message(["b2", "cloud"], ack).encode()).unwrap();
    frame
}

#[test]
fn liars_are_named_and_cut_off() {
    in_namespace("bad::liars_are_named_and_cut_off", || {
        let world = World::new();
        let (cloud, nodes, load) = unharmed(&world);
        agent(&world, B2).stop();
        let identity = Identity::load(&world.path("b2")).unwrap().unwrap();
        let token: JoinToken = token(&world, "").parse().unwrap();
        within("b2", move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let clock = Arc::new(Clock::open(std::path::Path::new("/nonexistent")));
                let tls = Some(Tls::new(identity, clock.clone(), Duration::ZERO));
                let liar = Liar { tls, token, clock, tasks: TaskTracker::new() };
                liar.lies().await;
                liar.talks_nonsense().await;
            });
        });
        let (hub, peer) = (cloud.log(), nodes[2].log());
        for (log, label) in [
            (&hub, "`b2` speaks as `a1`"),
            (&hub, "b2 says that it is a1"),
            (&hub, "without header"),
            (&peer, "`b2` speaks as `a1`"),
            (&peer, "without header"),
        ] {
            assert!(log.contains(label), "`{label}` is not in {log}");
        }
        for log in [&hub, &peer] {
            assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
        }
        eventually("the node may come back", PATIENCE, || cloud.try_get("/v1/nodes").map(drop));
        drop(agent(&world, B2));
        nobody_was_harmed(load);
    });
}
