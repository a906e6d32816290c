//! Backends that do what the path of a request says, and note what they saw.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use http::{HeaderMap, Request, Response, StatusCode, request};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// A Backend that speaks HTTP.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

/// What it saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Heads of requests.
    pub(crate) heads: Mutex<Vec<request::Parts>>,
    /// Trailers of requests.
    pub(crate) trailers: Mutex<Vec<HeaderMap>>,
    /// The `x-number` of each request that came whole.
    pub(crate) numbers: Mutex<Vec<String>>,
    /// Requests whose answer waits for the gate.
    pub(crate) waiting: watch::Sender<usize>,
    /// Those whose client left.
    pub(crate) left: watch::Sender<usize>,
    /// Opens it.
    pub(crate) gate: watch::Sender<bool>,
}

impl Backend {
    /// One that speaks HTTP/1, or HTTP/2.
    pub(crate) async fn start(http2: bool) -> Self {
        Self::start_at([127, 0, 0, 1].into(), http2).await
    }

    /// The same at another address of loopback.
    pub(crate) async fn start_at(address: IpAddr, http2: bool) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let (saw, mut tasks) = (seen.clone(), JoinSet::new());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let saw = saw.clone();
                let service = service_fn(move |request| act(saw.clone(), request));
                let io = TokioIo::new(stream);
                connections.spawn(async move {
                    // How it ends is the test's to find out.
                    let _ = match http2 {
                        true => {
                            http2::Builder::new(TokioExecutor::new())
                                .serve_connection(io, service)
                                .await
                        }
                        false => {
                            http1::Builder::new()
                                .serve_connection(io, service)
                                .with_upgrades()
                                .await
                        }
                    };
                });
            }
        });
        Self { address, seen, _tasks: tasks }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.heads.lock().len()
    }

    pub(crate) fn header(&self, name: &str) -> String {
        let heads = self.seen.heads.lock();
        let value = heads.last().and_then(|head| head.headers.get(name));
        value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    }
}

/// A port at which nobody listens.
pub(crate) async fn nobody() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

async fn act(seen: Arc<Seen>, mut request: Request<Incoming>) -> Result<Answer, BoxError> {
    let upgrade =
        request.headers().contains_key("upgrade").then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let number = head.headers.get("x-number").map(|n| n.to_str().unwrap().to_owned());
    seen.heads.lock().push(head);
    match &*path {
        "/reset" => return Err("the application broke".into()),
        "/early" => return Ok(answer(413, "too much")),
        _ => {}
    }
    let body = body.collect().await?;
    seen.numbers.lock().extend(number);
    let trailers = body.trailers().cloned();
    seen.trailers.lock().extend(trailers.clone());
    let body = body.to_bytes();
    Ok(match &*path {
        "/teapot" => answer(418, "short and stout"),
        "/503" => answer(503, "not now"),
        "/wait" => {
            wait(&seen).await;
            answer(200, "at last")
        }
        "/half" => broken(&seen).await,
        "/stream" => streaming(seen),
        "/ws" if upgrade.is_some() => {
            tokio::spawn(echo_upgraded(upgrade.unwrap()));
            let mut response = answer(101, "");
            response.headers_mut().insert("upgrade", "test".parse().unwrap());
            response.headers_mut().insert("connection", "upgrade".parse().unwrap());
            response
        }
        "/test.Service/Call" => grpc(body),
        _ => echo(body, trailers),
    })
}

fn answer(status: u16, text: &str) -> Answer {
    let body = Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("x-backend", "was here".parse().unwrap());
    if status == 101 {
        *response.body_mut() = Empty::new().map_err(|never| match never {}).boxed_unsync();
    }
    response
}

fn echo(body: Bytes, trailers: Option<HeaderMap>) -> Answer {
    let frames = [Some(Frame::data(body)), trailers.map(Frame::trailers)];
    let frames = stream::iter(frames.into_iter().flatten().map(Ok));
    answer(200, "").map(|_| StreamBody::new(frames).boxed_unsync())
}

fn grpc(body: Bytes) -> Answer {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    let mut response = echo(body, Some(trailers));
    response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    response
}

/// Waits for the gate; notes a client that leaves before.
async fn wait(seen: &Arc<Seen>) {
    struct Waits(Arc<Seen>, bool);
    impl Drop for Waits {
        fn drop(&mut self) {
            if !self.1 {
                self.0.left.send_modify(|left| *left += 1);
            }
        }
    }
    let mut waits = Waits(seen.clone(), false);
    seen.waiting.send_modify(|waiting| *waiting += 1);
    seen.gate.subscribe().wait_for(|open| *open).await.unwrap();
    waits.1 = true;
}

/// Promises ten bytes and breaks after five, when the gate opens.
async fn broken(seen: &Arc<Seen>) -> Answer {
    let gate = seen.gate.subscribe();
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"half!")))]);
    let then = stream::once(async move {
        gate.clone().wait_for(|open| *open).await.unwrap();
        Err(BoxError::from("broken"))
    });
    let mut response = answer(200, "").map(|_| StreamBody::new(first.chain(then)).boxed_unsync());
    response.headers_mut().insert("content-length", "10".parse().unwrap());
    response
}

/// Says `begun`, waits for the gate, says `ended`.
fn streaming(seen: Arc<Seen>) -> Answer {
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"begun ")))]);
    let then = stream::once(async move {
        wait(&seen).await;
        Ok(Frame::data(Bytes::from_static(b"ended")))
    });
    answer(200, "").map(|_| StreamBody::new(first.chain(then)).boxed_unsync())
}

async fn echo_upgraded(upgrade: hyper::upgrade::OnUpgrade) {
    let mut stream = TokioIo::new(upgrade.await.unwrap());
    stream.write_all(b"hello ").await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.ok();
    stream.write_all(&all).await.ok();
    stream.shutdown().await.ok();
}

/// A Backend that speaks bytes: each connection is given to `serve`.
pub(crate) struct Raw {
    pub(crate) port: u16,
    _tasks: JoinSet<()>,
}

impl Raw {
    pub(crate) async fn start<F>(serve: fn(TcpStream) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                connections.spawn(serve(listener.accept().await.unwrap().0));
            }
        });
        Self { port, _tasks: tasks }
    }
}
