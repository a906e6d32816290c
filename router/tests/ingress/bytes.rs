//! `CONNECT svc.ns:port`, by HTTP/1 and HTTP/2, in the clear and in TLS: bytes both ways, ended as
//! their ends ended.

use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use edgemesh_core::metrics::Carried;
use http::Request;
use hyper::body::Bytes;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::client::TlsStream;

use crate::client::head;
use crate::secured::Site;
use crate::world::{PATIENCE, World};

/// A client's side of a tunnel.
enum Tunnel {
    Socket(TcpStream),
    Secured(Box<TlsStream<TcpStream>>),
    Stream(h2::SendStream<Bytes>, Box<(h2::RecvStream, Bytes)>, JoinSet<()>),
}

/// How the other side ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    InOrder,
    Reset,
}

const KINDS: [&str; 4] = ["h1", "h1 tls", "h2", "h2 tls"];

impl Tunnel {
    /// Through a world that speaks TLS where `site` is there.
    async fn open(kind: &str, world: &World, site: Option<&Site>) -> Self {
        let stream = TcpStream::connect(world.at).await.unwrap();
        stream.set_nodelay(true).unwrap();
        match (kind, site) {
            ("h1", None) => Self::Socket(http1(stream).await),
            ("h1 tls", Some(site)) => {
                Self::Secured(Box::new(http1(site.shake(stream).await).await))
            }
            ("h2", None) => Self::http2(stream).await,
            ("h2 tls", Some(site)) => Self::http2(site.shake(stream).await).await,
            (_, _) => panic!("{kind}"),
        }
    }

    async fn http2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Self {
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async { drop(connection.await) });
        let mut sender = sender.ready().await.unwrap();
        let request = Request::connect("bytes.default:6379").body(()).unwrap();
        let (answer, sending) = sender.send_request(request, false).unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200);
        Self::Stream(sending, Box::new((answer.into_body(), Bytes::new())), tasks)
    }

    async fn say(&mut self, bytes: &[u8]) {
        match self {
            Self::Socket(stream) => stream.write_all(bytes).await.unwrap(),
            Self::Secured(stream) => {
                stream.write_all(bytes).await.unwrap();
                stream.flush().await.unwrap();
            }
            Self::Stream(sending, ..) => {
                sending.send_data(Bytes::copy_from_slice(bytes), false).unwrap();
            }
        }
    }

    /// Has no more to say.
    async fn finish(&mut self) {
        match self {
            Self::Socket(stream) => stream.shutdown().await.unwrap(),
            Self::Secured(stream) => stream.shutdown().await.unwrap(),
            Self::Stream(sending, ..) => sending.send_data(Bytes::new(), true).unwrap(),
        }
    }

    /// Breaks it off.
    fn reset(self) {
        let linger = |stream: &TcpStream| {
            SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
        };
        match self {
            Self::Socket(stream) => linger(&stream),
            Self::Secured(stream) => linger(stream.get_ref().0),
            // Its connection goes on, so that nothing but the frame can tell.
            Self::Stream(mut sending, received, mut tasks) => {
                sending.send_reset(h2::Reason::CANCEL);
                drop(received);
                tasks.detach_all();
            }
        }
    }

    /// Up to `n` more bytes, fewer at the end.
    async fn hear(&mut self, n: usize) -> (Vec<u8>, Option<End>) {
        let mut heard = vec![0; n];
        let mut at = 0;
        while at < n {
            match self.read(&mut heard[at..]).await {
                Ok(0) => return (heard[..at].to_vec(), Some(End::InOrder)),
                Ok(more) => at += more,
                Err(()) => return (heard[..at].to_vec(), Some(End::Reset)),
            }
        }
        (heard, None)
    }

    async fn read(&mut self, into: &mut [u8]) -> Result<usize, ()> {
        let reset = |error: std::io::Error| {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
        };
        match self {
            Self::Socket(stream) => stream.read(into).await.map_err(reset),
            Self::Secured(stream) => stream.read(into).await.map_err(reset),
            Self::Stream(_, received, _) => {
                let (stream, left) = &mut **received;
                if left.is_empty() {
                    match stream.data().await {
                        None => return Ok(0),
                        Some(Ok(data)) => *left = data,
                        Some(Err(error)) => {
                            assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error}");
                            return Err(());
                        }
                    }
                }
                let n = left.len().min(into.len());
                into[..n].copy_from_slice(&left.split_to(n));
                stream.flow_control().release_capacity(n).unwrap();
                if n == 0 { Box::pin(self.read(into)).await } else { Ok(n) }
            }
        }
    }
}

async fn http1<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> S {
    let request = b"CONNECT bytes.default:6379 HTTP/1.1\r\nhost: bytes.default:6379\r\n\r\n";
    stream.write_all(request).await.unwrap();
    stream.flush().await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    stream
}

/// Does `talk` through a tunnel of each kind, in a world of its own. `want` is what it has to count
/// as, ok, failed or cancelled, while what `talk` gives back is still open.
async fn each(want: [u64; 3], talk: impl AsyncFn(&str, Tunnel, &mut World) -> Option<Tunnel>) {
    for kind in KINDS {
        let site = kind.ends_with("tls").then(Site::new);
        let mut world = match &site {
            None => World::open().await,
            Some(site) => World::with(site.open_to_all()).await,
        };
        let talking = async {
            let mut tunnel = Tunnel::open(kind, &world, site.as_ref()).await;
            let greeting = tunnel.hear(6).await;
            assert_eq!(
                greeting,
                (b"+hello".to_vec(), None),
                "{kind}: before a word of the client's"
            );
            let _open = talk(kind, tunnel, &mut world).await;
            let metrics = world.mesh.metrics();
            let calls = &metrics.calls[Carried::Opaque.index()];
            let count = || [&calls.ok, &calls.failed, &calls.cancelled].map(|n| n.load(Relaxed));
            while count().iter().sum::<u64>() == 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(count(), want, "{kind}");
        };
        tokio::time::timeout(PATIENCE, talking).await.unwrap_or_else(|_| panic!("{kind}: in time"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_ends_is_an_end() {
    each([1, 0, 0], async |kind, mut tunnel, _| {
        tunnel.say(b"ends").await;
        assert_eq!(tunnel.hear(9).await, (b"ends".to_vec(), Some(End::InOrder)), "{kind}");
        tunnel.finish().await;
        Some(tunnel)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_close_is_a_half_close() {
    each([1, 0, 0], async |kind, mut tunnel, world| {
        tunnel.say(b"hear").await;
        assert_eq!(tunnel.hear(3).await.0, b"yes", "{kind}");
        tunnel.say(b"all of it").await;
        tunnel.finish().await;
        let want = (b"all of it and end".to_vec(), Some(End::InOrder));
        assert_eq!(tunnel.hear(99).await, want, "{kind}");
        assert_eq!(*world.ends.borrow(), ["all of it and end"], "{kind}");
        Some(tunnel)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resets_is_a_reset() {
    each([0, 0, 1], async |kind, mut tunnel, world| {
        tunnel.say(b"hear").await;
        assert_eq!(tunnel.hear(3).await.0, b"yes", "{kind}");
        tunnel.reset();
        let ends = world.ends.wait_for(|ends| !ends.is_empty()).await.unwrap();
        assert!(ends[0].ends_with(" and reset"), "{kind}: {ends:?}");
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_resets_is_a_reset() {
    each([0, 1, 0], async |kind, mut tunnel, _| {
        tunnel.say(b"dies").await;
        assert_eq!(tunnel.hear(8).await, (b"half a w".to_vec(), None), "{kind}");
        tunnel.say(b"now!").await;
        assert_eq!(tunnel.hear(1).await, (Vec::new(), Some(End::Reset)), "{kind}");
        None
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_comes_whole_to_who_has_no_more_to_say() {
    const KILOBYTES: u32 = 4096;
    each([1, 0, 0], async |kind, mut tunnel, _| {
        tunnel.say(b"bulk").await;
        tunnel.say(&KILOBYTES.to_be_bytes()).await;
        tunnel.finish().await;
        let (heard, end) = tunnel.hear(KILOBYTES as usize * 1024 + 1).await;
        assert_eq!((heard.len(), end), (KILOBYTES as usize * 1024, Some(End::InOrder)), "{kind}");
        assert!(heard.iter().all(|byte| *byte == 7));
        Some(tunnel)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_takes_its_place_until_it_ends() {
    let world = World::open().await;
    let open = || world.mesh.metrics().connections_open.load(Relaxed);
    let mut tunnel = Tunnel::open("h1", &world, None).await;
    assert_eq!(open(), 1);
    tunnel.say(b"ends").await;
    assert_eq!(tunnel.hear(99).await.1, Some(End::InOrder));
    drop(tunnel);
    let closed = async {
        while open() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, closed).await.expect("in time");
}
