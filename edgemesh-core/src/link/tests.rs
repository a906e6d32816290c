//! Links over pipes: what every test of them needs, and the plain exchanges.

mod bad;
mod frames;
mod life;
mod rate;
mod real;
mod streams;
mod unread;

use std::num::NonZeroU16;

use bytes::Bytes;
use edgemesh_proto::message::{Accepted, Answer, Body, Caller, Connect, Request, Target, fresh_id};
use edgemesh_proto::record::ServiceName;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::sample::{end, peer};
use super::*;

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

/// Answers with a function.
struct Handler<F>(F);

impl<F> Serve for Handler<F>
where
    F: Fn(Called) -> Future<Answering> + Send + Sync + 'static,
{
    fn serve(self: Arc<Self>, called: Called) -> Future<Answering> {
        (self.0)(called)
    }
}

fn handler<F, Fut>(of: F) -> Arc<dyn Serve>
where
    F: Fn(Called) -> Fut + Send + Sync + 'static,
    Fut: std::future::Future<Output = Answering> + Send + 'static,
{
    Arc::new(Handler(move |called| -> Future<Answering> { Box::pin(of(called)) }))
}

/// Says back what it hears.
fn echo() -> Arc<dyn Serve> {
    handler(|called| async move {
        Answering { opening: accepted(&called.opening), rest: Rest::Inbound(called.body) }
    })
}

/// A call, and where its answer is wanted.
type Calls = mpsc::Receiver<(Called, mpsc::Sender<Answering>)>;

/// Hands each call to the test, and its answer back.
fn by_hand() -> (Arc<dyn Serve>, Calls) {
    let (calls, called) = mpsc::channel(16);
    let handler = handler(move |called| {
        let calls = calls.clone();
        async move {
            let (answer, mut answers) = mpsc::channel(1);
            calls.send((called, answer)).await.unwrap();
            // One that never answers is waited for.
            match answers.recv().await {
                Some(answering) => answering,
                None => std::future::pending().await,
            }
        }
    });
    (handler, called)
}

fn ends() -> (Dialled<DuplexStream>, Dialled<DuplexStream>) {
    let (near, far) = tokio::io::duplex(1 << 18);
    (end(near, "edge-2", Role::Opens), end(far, "edge-1", Role::Serves))
}

/// edge-1 opens, edge-2 answers.
async fn world(handler: Arc<dyn Serve>) -> (Link, ServedLink) {
    let (near, far) = ends();
    let tasks = TaskTracker::new();
    let served = serve(far, handler, Limits::REQUESTS, &tasks);
    (client(near, Limits::REQUESTS, tasks).await.unwrap(), served)
}

fn target() -> Target {
    Target {
        service: ServiceName::new("default", "hello"),
        port: NonZeroU16::MIN,
        hostname: None,
        backend: None,
        caller: Caller::default(),
    }
}

fn said(body: Body) -> Message {
    Message::of_link(fresh_id(), 0, ["edge-1", "edge-2"], body)
}

fn connect() -> Message {
    said(Body::Connect(Connect { target: target(), race: false }))
}

fn get(path: &str) -> Message {
    said(Body::Request(Request {
        target: target(),
        method: "GET".into(),
        scheme: "http".into(),
        authority: "hello".into(),
        path: path.into(),
        headers: Vec::new(),
        http2: false,
        upgrade: false,
    }))
}

fn accepted(to: &Message) -> Message {
    to.answered(fresh_id(), 0, "edge-2", Body::Accepted(Accepted { backend: None }))
}

fn ok(to: &Message) -> Message {
    to.answered(fresh_id(), 0, "edge-2", Body::Answer(Answer { status: 200, headers: vec![] }))
}

fn whole(text: &'static str) -> Rest {
    Rest::of(Full::new(Bytes::from_static(text.as_bytes())))
}

/// Frames one after the other, as a body.
fn frames(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Rest {
    Rest::of(StreamBody::new(futures_util::stream::iter(frames)))
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))])
}

/// The label of the refusal that `message` is.
fn refused(message: &Message) -> Option<&str> {
    match message.body.as_deref() {
        Some(Body::Refused(refused)) => Some(&refused.label),
        _ => None,
    }
}

#[tokio::test]
async fn what_follows_each_message_goes_through_as_it_came() {
    let (link, _served) = world(echo()).await;
    type Made = fn() -> Rest;
    let cases: &[(&str, Made, &[u8], Option<HeaderMap>)] = &[
        ("nothing", || Rest::Nothing, b"", None),
        ("bytes", || whole("hello"), b"hello", None),
        (
            "bytes and trailers",
            || frames(vec![Ok(Frame::data("x".into())), Ok(Frame::trailers(trailers()))]),
            b"x",
            Some(trailers()),
        ),
        ("trailers", || frames(vec![Ok(Frame::trailers(trailers()))]), b"", Some(trailers())),
        (
            "fields of one connection among trailers",
            || {
                let mut trailers = trailers();
                trailers.insert("connection", HeaderValue::from_static("x"));
                trailers.insert("te", HeaderValue::from_static("gzip"));
                frames(vec![Ok(Frame::data("x".into())), Ok(Frame::trailers(trailers))])
            },
            b"x",
            Some(trailers()),
        ),
        ("trailers of nothing", || frames(vec![Ok(Frame::trailers(HeaderMap::new()))]), b"", None),
    ];
    for (name, rest, bytes, trailers) in cases {
        let reply = link.open(Operation::Request, &get("/"), rest()).await.unwrap();
        assert!(matches!(reply.opening.body.as_deref(), Some(Body::Accepted(_))), "{name}");
        let body = reply.body.collect().await.unwrap();
        assert_eq!(body.trailers(), trailers.as_ref(), "{name}");
        assert_eq!(body.to_bytes(), bytes, "{name}");
    }
}

#[tokio::test]
async fn the_other_side_gets_the_message_that_was_sent() {
    let (handler, mut calls) = by_hand();
    let (link, _served) = world(handler).await;
    for operation in [Operation::Request, Operation::Stream] {
        let opening = if operation == Operation::Request { get("/a?b") } else { connect() };
        let answering = async {
            let (called, answer) = calls.recv().await.unwrap();
            assert_eq!((called.operation, &called.opening), (operation, &opening));
            assert_eq!(called.from.node(), Some(&NodeName("edge-1".into())));
            assert!(http_body::Body::is_end_stream(&called.body), "nothing follows");
            let opening = ok(&called.opening);
            answer.send(Answering { opening: opening.clone(), rest: Rest::Nothing }).await.unwrap();
            opening
        };
        let (reply, answered) =
            tokio::join!(link.open(operation, &opening, Rest::Nothing), answering);
        let reply = reply.unwrap();
        assert_eq!(reply.opening, answered);
        assert!(http_body::Body::is_end_stream(&reply.body));
    }
}

/// HTTP/2 lets a connection have a hundred of them in its life.
#[tokio::test]
async fn empty_pieces_of_a_body_end_no_link() {
    let (link, _served) = world(echo()).await;
    for _ in 0..30 {
        let pieces =
            (0..10).map(|i| Ok(Frame::data(if i == 5 { "x".into() } else { Bytes::new() })));
        let reply = link.open(Operation::Request, &get("/"), frames(pieces.collect())).await;
        assert_eq!(reply.unwrap().body.collect().await.unwrap().to_bytes(), "x");
    }
    assert!(link.is_open());
}

/// Who dials does not decide who opens.
#[tokio::test]
async fn both_directions_at_once_on_one_pair_of_nodes() {
    let tasks = TaskTracker::new();
    let mut links = Vec::new();
    for _ in 0..2 {
        let (opens, serves) = ends();
        serve(serves, echo(), Limits::CONTROL, &tasks);
        links.push(client(opens, Limits::CONTROL, tasks.clone()).await.unwrap());
    }
    for link in &links {
        let reply = link.open(Operation::Request, &get("/"), whole("x")).await.unwrap();
        assert_eq!(reply.body.collect().await.unwrap().to_bytes(), "x");
    }
    links.iter().for_each(Link::close);
    for link in &links {
        link.closed().await;
    }
    tasks.close();
    tasks.wait().await;
}
