//! Frames by hand, past what HTTP/2 lets a client do.

use bytes::{BufMut, BytesMut};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::bad::encoded;
use super::*;

/// One end of a connection.
struct Raw<S>(S);

impl Raw<DuplexStream> {
    async fn new(handler: Arc<dyn Serve>) -> (Self, ServedLink) {
        let (near, far) = ends();
        let served = serve(far, handler, Limits::REQUESTS, &TaskTracker::new());
        let mut raw = Self(near.stream);
        raw.0.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        raw.send(4, 0, 0, &[]).await;
        (raw, served)
    }
}

impl<S: AsyncWrite + Unpin> Raw<S> {
    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut out = BytesMut::new();
        out.put_uint(payload.len() as u64, 3);
        out.put_slice(&[kind, flags]);
        out.put_u32(stream);
        out.put_slice(payload);
        // Once it is cut off, nothing is taken any more.
        let _ = self.0.write_all(&out).await;
    }

    /// HEADERS: a POST of Request.
    async fn open(&mut self, stream: u32) {
        let mut block = vec![0x83, 0x87, 0x41, 4];
        block.extend_from_slice(b"link");
        block.extend_from_slice(&[0x44, 25]);
        block.extend_from_slice(b"/edgemesh.v1.Link/Request");
        self.send(1, 4, stream, &block).await;
    }
}

impl<S: AsyncRead + Unpin> Raw<S> {
    /// Reads until the end; the frames of a kind, as (stream, code).
    async fn codes(&mut self, kind: u8) -> Vec<(u32, u32)> {
        let mut all = Vec::new();
        let _ = self.0.read_to_end(&mut all).await;
        let (mut rest, mut codes) = (&all[..], Vec::new());
        while rest.len() >= 9 {
            let length = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
            let word = |at: usize| u32::from_be_bytes(rest[at..at + 4].try_into().unwrap());
            if rest[3] == kind {
                // RST_STREAM has its code first, GOAWAY after the last stream.
                codes.push((word(5), word(if kind == 3 { 9 } else { 13 })));
            }
            rest = &rest[9 + length..];
        }
        codes
    }
}

#[tokio::test]
async fn frames_that_break_the_rules_end_the_link() {
    const GOAWAY: u8 = 7;
    let (link, _served) = world(echo()).await;
    let (mut raw, served) = Raw::new(echo()).await;
    raw.open(1).await;
    raw.send(0, 0, 1, &vec![0; MAX_FRAME as usize + 1]).await;
    assert_eq!(raw.codes(GOAWAY).await, [(0, Reason::FRAME_SIZE_ERROR.into())]);
    served.closed().await;

    // Data after the half-close.
    let (handler, _calls) = by_hand();
    let (mut raw, served) = Raw::new(handler).await;
    raw.open(1).await;
    raw.send(0, 1, 1, &encoded(&get("/"))).await;
    raw.send(0, 1, 1, b"more").await;
    assert_eq!(raw.codes(GOAWAY).await, [(0, Reason::PROTOCOL_ERROR.into())]);
    served.closed().await;

    // Streams opened and reset at once, again and again.
    let (mut raw, served) = Raw::new(echo()).await;
    for stream in 0..100_000 {
        raw.open(2 * stream + 1).await;
        raw.send(3, 0, 2 * stream + 1, &8u32.to_be_bytes()).await;
        if !served.is_open() {
            break;
        }
    }
    served.closed().await;
    link.open(Operation::Request, &get("/"), Rest::Nothing).await.unwrap();
}

#[tokio::test]
async fn a_hundred_thousand_streams_harm_nobody() {
    const N: u32 = 100_000;
    let (link, _served) = world(echo()).await;
    let (handler, mut calls) = by_hand();
    let (raw, served) = Raw::new(handler).await;
    // None of them is answered.
    let tasks = TaskTracker::new();
    let kept = tasks.spawn(async move {
        let mut kept = Vec::new();
        while let Some(call) = calls.recv().await {
            kept.push(call);
        }
        kept.len()
    });
    let (read, write) = tokio::io::split(raw.0);
    let (mut hears, mut says) = (Raw(read), Raw(write));
    let hearing = tasks.spawn(async move { hears.codes(3).await });
    let opening = encoded(&get("/"));
    for i in 0..N {
        says.open(2 * i + 1).await;
        says.send(0, 1, 2 * i + 1, &opening).await;
        if i % 1000 == 0 {
            let reply = link.open(Operation::Request, &get("/"), whole("x")).await.unwrap();
            assert_eq!(reply.body.collect().await.unwrap().to_bytes(), "x");
            assert!(served.exchanges() <= Limits::REQUESTS.exchanges as usize);
        }
    }
    assert!(served.exchanges() <= Limits::REQUESTS.exchanges as usize);
    served.cut();
    // Data for streams that were refused is one more mistake.
    let codes = [Reason::REFUSED_STREAM, Reason::STREAM_CLOSED].map(u32::from);
    let refused = hearing.await.unwrap();
    assert!(refused.len() > 1000 && refused.iter().all(|(_, code)| codes.contains(code)));
    assert_eq!(kept.await.unwrap(), Limits::REQUESTS.exchanges as usize);
}
