//! What a Link costs, as printed figures; run in release, by hand.

use edgemesh_proto::message::HeaderField;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use super::real::{Cloud, DIAL, Made, SOON};
use super::*;
use crate::identity::{Expect, Role as Listens};

/// Processor time of this process so far, in microseconds.
fn used() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    usage.user_time().num_microseconds() + usage.system_time().num_microseconds()
}

async fn measured<F: std::future::Future<Output = u64>>(what: &str, run: F) -> (f64, f64) {
    let (start, before) = (tokio::time::Instant::now(), used());
    let n = run.await as f64;
    let (took, cpu) = (start.elapsed().as_secs_f64(), (used() - before) as f64);
    println!("{what:44} {:10.0}/s {:8.2} us CPU each", n / took, cpu / n);
    (n / took, cpu / n)
}

/// A runtime of one thread, as each agent's.
fn elsewhere(name: &str) -> Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name(name.into()).spawn(run).unwrap();
    handle
}

/// edge-1 here, edge-2 on a thread of its own.
async fn apart(alpn: &'static [u8]) -> (Made, tokio::task::JoinHandle<Made>, Handle) {
    let (there, cloud, name) = (elsewhere("far"), Cloud::new(), NodeName("edge-2".into()));
    let expect = Expect::Node(&name);
    let (tls, server) = (cloud.tls("edge-1"), cloud.tls("edge-2"));
    let server = server.server(Listens::Peer, &[ALPN_H2, ALPN_BULK]);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let to = listener.local_addr().unwrap();
    let accepting = there.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        let (stream, address) = listener.accept().await.unwrap();
        accept(stream, address, server).await.unwrap()
    });
    let dialling = dial(&DIAL, to, SOON, tls.client(expect, alpn), expect.server_name());
    (dialling.await.unwrap(), accepting, there)
}

async fn linked(handler: Arc<dyn Serve>) -> Link {
    let (near, far, there) = apart(ALPN_H2).await;
    there.spawn(async move {
        serve(far.await.unwrap(), handler, Limits::REQUESTS, &TaskTracker::new());
    });
    client(near, Limits::REQUESTS, TaskTracker::new()).await.unwrap()
}

/// A head such as browsers send.
fn head() -> Message {
    let mut message = get("/api/v1/items?limit=20");
    let field = |name: &str, value: &str| HeaderField {
        name: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
    };
    if let Some(Body::Request(request)) = message.body.as_deref_mut() {
        request.headers = vec![
            field("user-agent", "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"),
            field("accept", "application/json"),
            field("accept-encoding", "gzip, deflate, br"),
            field("x-request-id", "0f8fad5b-d9cb-469f-a165-70867728950e"),
            field("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ];
    }
    message
}

fn answers() -> Arc<dyn Serve> {
    handler(|called| async move {
        let id = uuid::Builder::from_random_bytes(crate::io::unique_id().to_be_bytes());
        let body = Body::Answer(Answer { status: 200, headers: vec![] });
        let mut opening = called.opening.answered(id.into_uuid(), 0, "edge-2", body);
        if let Some(Body::Answer(answer)) = opening.body.as_deref_mut() {
            let field = |name: &'static str, value: &'static str| HeaderField {
                name: Bytes::from_static(name.as_bytes()),
                value: Bytes::from_static(value.as_bytes()),
            };
            answer.headers = vec![
                field("content-type", "application/json"),
                field("content-length", "13"),
                field("date", "Mon, 30 Nov 2026 12:02:20 GMT"),
            ];
        }
        Answering { opening, rest: whole("{\"hello\":1}\r\n") }
    })
}

async fn requests(link: &Link, at_once: usize, n: usize) -> u64 {
    let opening = head();
    let asking = (0..at_once).map(|_| async {
        for _ in 0..n / at_once {
            let reply = link.open(Operation::Request, &opening, Rest::Nothing).await.unwrap();
            reply.body.collect().await.unwrap();
        }
    });
    futures_util::future::join_all(asking).await;
    n as u64
}

async fn ping_pong(link: &Link, at_once: usize, n: usize) -> u64 {
    let talking = (0..at_once).map(|_| async {
        let (writer, rest) = pipe();
        let reply = link.open(Operation::Stream, &connect(), rest).await.unwrap();
        let mut stream = Duplex::new(writer, reply.body);
        let mut piece = [7; 100];
        for _ in 0..n / at_once {
            stream.write_all(&piece).await.unwrap();
            stream.read_exact(&mut piece).await.unwrap();
        }
        stream.shutdown().await.unwrap();
    });
    futures_util::future::join_all(talking).await;
    n as u64
}

const MIB: usize = 512;

/// Writes so much and waits until the other side has it.
async fn poured(mut to: impl AsyncRead + AsyncWrite + Unpin) -> u64 {
    let piece = vec![7; 64 * 1024];
    for _ in 0..MIB * 16 {
        to.write_all(&piece).await.unwrap();
    }
    to.shutdown().await.unwrap();
    to.read_to_end(&mut Vec::new()).await.unwrap();
    MIB as u64
}

async fn swallowed(mut from: impl AsyncRead + AsyncWrite + Unpin) {
    let mut piece = vec![0; 64 * 1024];
    while from.read(&mut piece).await.unwrap() > 0 {}
    from.shutdown().await.unwrap();
}

fn swallows() -> Arc<dyn Serve> {
    handler(|called| async move {
        let (writer, rest) = pipe();
        let opening = accepted(&called.opening);
        TaskTracker::new().spawn(swallowed(Duplex::new(writer, called.body)));
        Answering { opening, rest }
    })
}

#[tokio::test]
#[ignore = "prints figures; in release"]
async fn rates() {
    let link = linked(answers()).await;
    requests(&link, 64, 20_000).await;
    for at_once in [1, 16, 64, 256] {
        let n = if at_once == 1 { 20_000 } else { 100_000 };
        measured(&format!("requests, {at_once} at once"), requests(&link, at_once, n)).await;
    }
    let link = linked(echo()).await;
    for at_once in [1, 16, 64] {
        let n = if at_once == 1 { 20_000 } else { 100_000 };
        measured(
            &format!("100 bytes there and back, {at_once} at once"),
            ping_pong(&link, at_once, n),
        )
        .await;
    }
    let (near, far, there) = apart(ALPN_BULK).await;
    there.spawn(async move { swallowed(far.await.unwrap().stream).await });
    measured("MiB, plain rustls", poured(near.stream)).await;
    let link = linked(swallows()).await;
    let (writer, rest) = pipe();
    let reply = link.open(Operation::Stream, &connect(), rest).await.unwrap();
    measured("MiB, an exchange", poured(Duplex::new(writer, reply.body))).await;
    let relay_to = linked(swallows()).await;
    let link = linked(streams::relay(relay_to)).await;
    let (writer, rest) = pipe();
    let reply = link.open(Operation::Stream, &connect(), rest).await.unwrap();
    measured("MiB, through a relay", poured(Duplex::new(writer, reply.body))).await;
    let link = linked(streams::relay(linked(answers()).await)).await;
    for at_once in [1, 64] {
        measured(&format!("relayed requests, {at_once} at once"), requests(&link, at_once, 20_000))
            .await;
    }
}

#[tokio::test]
#[ignore = "prints figures; in release"]
async fn messages() {
    const N: u64 = 200_000;
    let message = head();
    measured("Messages written", async {
        for _ in 0..N {
            std::hint::black_box(opening::encode(&message, MAX_OPENING).unwrap());
        }
        N
    })
    .await;
    let bytes = Bytes::from(opening::encode(&message, MAX_OPENING).unwrap());
    measured("Messages read", async {
        for _ in 0..N {
            let (message, _) = opening::split(&bytes, MAX_OPENING).unwrap().unwrap();
            std::hint::black_box(Message::decode(message).unwrap());
        }
        N
    })
    .await;
    measured("openings made", async {
        for _ in 0..N {
            std::hint::black_box(head());
        }
        N
    })
    .await;
}

/// For a look at what one exchange after the other does.
#[tokio::test]
#[ignore = "prints figures; in release"]
async fn one_by_one() {
    let link = linked(answers()).await;
    measured("requests, 1 at once", requests(&link, 1, 20_000)).await;
}
