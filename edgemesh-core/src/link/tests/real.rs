//! Links over TLS and TCP: who is there, and flows on connections of their own.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::dial::Dial;
use crate::identity::authority::LIFETIME;
use crate::identity::{Authority, Clock, Expect, OFFLINE_GRACE, Role as Listens, Tls, joining};

pub(super) type Made = Dialled;

const NOW: i64 = 1_790_000_000;
pub(super) const SOON: Duration = Duration::from_secs(5);

pub(super) struct Cloud(Authority);

impl Cloud {
    pub(super) fn new() -> Self {
        Self(Authority::new(NOW).unwrap())
    }

    pub(super) fn tls(&self, name: &str) -> Tls {
        let identity = match name {
            "cloud" => self.0.hub(&["cloud.example".into()], NOW, LIFETIME).unwrap(),
            node => self.0.node(&NodeName(node.into()), NOW, LIFETIME).unwrap(),
        };
        Tls::new(identity, Arc::new(Clock::with(None, || NOW)), OFFLINE_GRACE)
    }
}

/// edge-1 dials edge-2, for `alpn`.
async fn connected(alpn: &'static [u8]) -> (Made, Made) {
    let cloud = Cloud::new();
    let name = NodeName("edge-2".into());
    let expect = Expect::Node(&name);
    let (tls, server) = (cloud.tls("edge-1"), cloud.tls("edge-2"));
    let server = server.server(Listens::Peer, &[ALPN_H2, ALPN_REVERSE, ALPN_BULK]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = listener.local_addr().unwrap();
    let dialling = dial(&DIAL, to, SOON, tls.client(expect, alpn), expect.server_name());
    let accepting = async {
        let (stream, address) = listener.accept().await.unwrap();
        accept(stream, address, server).await.unwrap()
    };
    let (dialled, accepted) = tokio::join!(dialling, accepting);
    (dialled.unwrap(), accepted)
}

pub(super) const DIAL: Dial = Dial { mark: None, private: [0; 2] };

#[tokio::test]
async fn who_dials_opens_or_serves_as_was_agreed() {
    for (alpn, roles) in [
        (ALPN_H2, (Role::Opens, Role::Serves)),
        (ALPN_REVERSE, (Role::Serves, Role::Opens)),
        (ALPN_BULK, (Role::Bulk, Role::Bulk)),
    ] {
        let (dialled, accepted) = connected(alpn).await;
        assert_eq!((dialled.role, accepted.role), roles);
        assert_eq!(dialled.peer.node().unwrap().0.as_ref(), "edge-2");
        assert_eq!(accepted.peer.node().unwrap().0.as_ref(), "edge-1");
        let (opens, serves) = match roles {
            (Role::Opens, _) => (dialled, accepted),
            (Role::Serves, _) => (accepted, dialled),
            (Role::Bulk, _) => continue,
        };
        let tasks = TaskTracker::new();
        let from = serves.peer.node().unwrap().clone();
        let served = serve(serves, echo(), Limits::REQUESTS, &tasks);
        let link = client(opens, Limits::REQUESTS, tasks).await.unwrap();
        let mut opening = get("/");
        opening.route.source = from.0.to_string();
        let reply = link.open(Operation::Request, &opening, whole("x")).await.unwrap();
        assert_eq!(refused(&reply.opening), None);
        assert_eq!(reply.body.collect().await.unwrap().to_bytes(), "x");
        link.close();
        served.closed().await;
    }
}

/// What each side says where there is no Link: the dialler, and the listener.
#[tokio::test]
async fn handshakes_that_fail_are_explained_at_both_ends() {
    let (cloud, other) = (Cloud::new(), Cloud::new());
    let name = NodeName("edge-2".into());
    let expect = Expect::Node(&name);
    type Config = Arc<rustls::ClientConfig>;
    /// What, the dialler's configuration, who listens, for what; what each of them says.
    type Row<'a> = (&'a str, Config, &'a str, &'a [&'a [u8]], Result<&'a str, &'a str>, &'a str);
    let clock = Clock::with(None, || NOW);
    let ca = cloud.tls("cloud").identity().ca();
    let of = |cloud: &Cloud, alpn| cloud.tls("edge-1").client(expect, alpn);
    let unjoined = joining(ca, &clock, OFFLINE_GRACE, ALPN_H2);
    let alpns: &[&[u8]] = &[ALPN_H2];
    // In TLS 1.3 a client hears only when it says something that it was not taken: `Ok`.
    let cases: &[Row<'_>] = &[
        ("tomorrow's", of(&cloud, b"x/9"), "edge-2", alpns, Err("no protocol"), "no protocol"),
        ("another cloud", of(&other, ALPN_H2), "edge-2", alpns, Err("cloud"), "cloud"),
        ("not joined", unjoined, "cloud", alpns, Ok("certificate"), "certificate"),
        ("no ALPN", of(&cloud, ALPN_H2), "edge-2", &[], Err("names no"), "names no"),
    ];
    for (what, config, node, alpns, dialler, listener) in cases {
        let tls = cloud.tls(node).server(Listens::Peer, alpns);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = socket.local_addr().unwrap();
        let dialling = dial(&DIAL, to, SOON, config.clone(), expect.server_name());
        let accepting = async {
            let (stream, address) = socket.accept().await.unwrap();
            accept(stream, address, tls).await.unwrap_err()
        };
        let (dialled, refused) = tokio::join!(dialling, accepting);
        assert_eq!(refused.kind(), Failure::Protocol, "{what}");
        assert!(refused.to_string().contains(listener), "{what}: {refused}");
        match dialler {
            Err(text) => {
                let error = dialled.unwrap_err();
                assert_eq!(error.kind(), Failure::Protocol, "{what}");
                assert!(error.to_string().contains(text), "{what}: {error}");
            }
            Ok(text) => {
                let tasks = TaskTracker::new();
                let link = client(dialled.unwrap(), Limits::CONTROL, tasks).await.unwrap();
                let error = link.open(Operation::Request, &get("/"), Rest::Nothing).await;
                let error = error.unwrap_err();
                assert!(error.to_string().contains(text), "{what}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn plain_text_on_either_side_is_told_from_tls() {
    let cloud = Cloud::new();
    let name = NodeName("edge-2".into());
    let expect = Expect::Node(&name);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = socket.local_addr().unwrap();
    let plain = async {
        let mut stream = TcpStream::connect(to).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        stream
    };
    let (_client, accepted) = tokio::join!(plain, socket.accept());
    let (stream, address) = accepted.unwrap();
    let tls = cloud.tls("edge-2").server(Listens::Peer, &[ALPN_H2]);
    let error = accept(stream, address, tls).await.unwrap_err();
    assert!(error.to_string().contains("plain text"), "{error}");

    let config = cloud.tls("edge-1").client(expect, ALPN_H2);
    let dialling = dial(&DIAL, to, SOON, config, expect.server_name());
    let answering = async {
        let (mut stream, _) = socket.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let (dialled, ()) = tokio::join!(dialling, answering);
    let error = dialled.unwrap_err();
    assert!(error.to_string().contains("plain text"), "{error}");

    drop(socket);
    let config = cloud.tls("edge-1").client(expect, ALPN_H2);
    let error = dial(&DIAL, to, SOON, config, expect.server_name()).await.unwrap_err();
    assert_eq!(error.kind(), Failure::NotSent);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() {
    let cloud = Cloud::new();
    let name = NodeName("edge-2".into());
    let expect = Expect::Node(&name);
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to = socket.local_addr().unwrap();
    let (silent, accepted) = tokio::join!(TcpStream::connect(to), socket.accept());
    let (_silent, (stream, address)) = (silent.unwrap(), accepted.unwrap());
    tokio::time::pause();
    let tls = cloud.tls("edge-2").server(Listens::Peer, &[ALPN_H2]);
    let error = accept(stream, address, tls).await.unwrap_err();
    assert_eq!(error.kind(), Failure::TimedOut, "{error}");
    let config = cloud.tls("edge-1").client(expect, ALPN_H2);
    let error = dial(&DIAL, to, SOON, config, expect.server_name()).await.unwrap_err();
    assert_eq!(error.kind(), Failure::TimedOut, "{error}");
}

/// Answers a bulk flow by saying back what it hears, and then ends it: in order, or not.
struct Bulk {
    ends: bool,
}

impl Serve for Bulk {
    fn serve(self: Arc<Self>, called: Called) -> Future<Answering> {
        Box::pin(async move { Answering { opening: ok(&called.opening), rest: Rest::Nothing } })
    }

    fn bulk(self: Arc<Self>, opening: Message, mut stream: BulkStream) -> Future<()> {
        Box::pin(async move {
            stream.say(&accepted(&opening)).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            if self.ends {
                write.shutdown().await.unwrap();
            }
        })
    }
}

#[tokio::test]
async fn a_bulk_flow_arrives_whole_or_breaks() {
    const N: usize = 8 << 20;
    for ends in [true, false] {
        let (dialled, accepted) = connected(ALPN_BULK).await;
        let tasks = TaskTracker::new();
        tasks.spawn(async move { serve_bulk(accepted, Arc::new(Bulk { ends })).await.unwrap() });
        let (answer, stream) = open_bulk(dialled, &connect(), b"first, ").await.unwrap();
        assert_eq!(refused(&answer), None);
        let (mut read, mut write) = tokio::io::split(stream);
        let say = async {
            for i in 0..N / 65536 {
                write.write_all(&[i as u8; 65536]).await.unwrap();
            }
            write.shutdown().await.unwrap();
        };
        let hear = async {
            let mut first = [0; 7];
            read.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"first, ");
            let mut piece = vec![0; 65536];
            for i in 0..N / 65536 {
                read.read_exact(&mut piece).await.unwrap();
                assert!(piece.iter().all(|byte| *byte == i as u8), "piece {i}");
            }
            read.read(&mut piece).await
        };
        let ((), end) = tokio::join!(say, hear);
        match ends {
            true => assert_eq!(end.unwrap(), 0),
            false => assert_eq!(end.unwrap_err().kind(), ErrorKind::UnexpectedEof),
        }
    }
}

#[tokio::test]
async fn bulk_flows_are_refused_by_their_name() {
    let mut foreign = connect();
    foreign.route.source = "edge-9".into();
    let cases: &[(Message, Arc<dyn Serve>, &str)] = &[
        (connect(), echo(), "unknownOperation"),
        (get("/"), echo(), "unknownOperation"),
        (foreign, echo(), "notAllowed"),
    ];
    for (opening, handler, label) in cases {
        let (dialled, accepted) = connected(ALPN_BULK).await;
        let (served, opened) =
            tokio::join!(serve_bulk(accepted, handler.clone()), open_bulk(dialled, opening, b""));
        served.unwrap();
        let (answer, mut stream) = opened.unwrap();
        assert_eq!(refused(&answer), Some(*label));
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    // What is no Message at all is cut off.
    let (mut dialled, accepted) = connected(ALPN_BULK).await;
    dialled.stream.write_all(&[0xff; 8]).await.unwrap();
    let error = serve_bulk(accepted, echo()).await.unwrap_err();
    assert_eq!(error.kind(), Failure::Protocol);
    assert_eq!(dialled.stream.read(&mut [0]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}
