//! What a Link adds: a Message in its written form, and a request with its answer.

use std::hint::black_box;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use edgemesh_core::identity::Proved;
use edgemesh_core::link::{
    Answering, Called, Dialled, Limits, Operation, Peer, Rest, Role, Serve, client, serve,
};
use edgemesh_proto::message::{Answer, Body, Caller, HeaderField, Message, Request, Target};
use edgemesh_proto::record::{NodeName, ServiceName};
use http_body_util::{BodyExt as _, Full};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// What the pipe between the two ends holds.
const PIPE: usize = 256 * 1024;

/// A head such as browsers send is written and read, and so is its answer.
pub(crate) fn message(times: u64) -> io::Result<()> {
    let asked = head();
    let answer = answer_to(&asked);
    for _ in 0..times {
        for message in [&asked, &answer] {
            let bytes = Bytes::from(black_box(message).encode());
            black_box(Message::decode(bytes).map_err(io::Error::other)?);
        }
    }
    Ok(())
}

/// A request without a body over a Link, and a small answer; both ends, without TLS.
pub(crate) fn request(times: u64) -> io::Result<()> {
    crate::block_on(async {
        let (near, far) = tokio::io::duplex(PIPE);
        let tasks = TaskTracker::new();
        let limits = Limits::REQUESTS;
        let _served = serve(end(far, "edge-1", Role::Serves), Arc::new(Greets), limits, &tasks);
        let opened = client(end(near, "edge-2", Role::Opens), limits, tasks.clone()).await;
        let link = opened.map_err(io::Error::other)?;
        let opening = head();
        for _ in 0..times {
            let reply = link.open(Operation::Request, &opening, Rest::Nothing).await;
            let body = reply.map_err(io::Error::other)?.body;
            black_box(body.collect().await.map_err(io::Error::other)?);
        }
        Ok(())
    })
}

/// One end of a connection, as a handshake leaves it: `node` is at the other.
fn end<S>(stream: S, node: &str, role: Role) -> Dialled<S> {
    let proved = Proved { node: NodeName(node.into()), is_hub: false, issued: 0, until: i64::MAX };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    Dialled { stream, peer: Arc::new(Peer { proved: Some(proved), address }), role }
}

#[derive(Debug)]
struct Greets;

impl Serve for Greets {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        Box::pin(async move {
            let rest = Rest::of(Full::new(Bytes::from_static(b"{\"hello\":1}\r\n")));
            Answering { opening: answer_to(&called.opening), rest }
        })
    }
}

fn head() -> Message {
    let target = Target {
        service: ServiceName::new("default", "hello"),
        port: NonZeroU16::MIN,
        hostname: None,
        backend: None,
        caller: Caller::default(),
    };
    let request = Request {
        target,
        method: "GET".into(),
        scheme: "http".into(),
        authority: "hello".into(),
        path: "/api/v1/items?limit=20".into(),
        headers: vec![
            field("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"),
            field("accept", "application/json"),
            field("accept-encoding", "gzip, deflate, br"),
            field("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
            field("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ],
        http2: false,
        upgrade: false,
    };
    Message::of_link(Uuid::nil(), 0, ["edge-1", "edge-2"], Body::Request(request))
}

fn answer_to(asked: &Message) -> Message {
    let headers = vec![
        field("content-type", "application/json"),
        field("content-length", "13"),
        field("date", "Mon, 30 Nov 2026 12:02:20 GMT"),
    ];
    asked.answered(Uuid::nil(), 0, "edge-2", Body::Answer(Answer { status: 200, headers }))
}

fn field(name: &'static str, value: &'static str) -> HeaderField {
    HeaderField {
        name: Bytes::from_static(name.as_bytes()),
        value: Bytes::from_static(value.as_bytes()),
    }
}
