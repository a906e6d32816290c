//! Two-way streams: half-closes, resets, and how much may wait.

use std::io::ErrorKind;

use http_body_util::channel::Channel;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A stream that edge-1 opened, from both ends.
async fn stream(link: &Link, calls: &mut Calls) -> (Duplex, Duplex) {
    let (writer, rest) = pipe();
    let opening = connect();
    let answering = async {
        let (called, answer) = calls.recv().await.unwrap();
        let (writer, rest) = pipe();
        answer.send(Answering { opening: accepted(&called.opening), rest }).await.unwrap();
        Duplex::new(writer, called.body)
    };
    let (reply, far) = tokio::join!(link.open(Operation::Stream, &opening, rest), answering);
    (Duplex::new(writer, reply.unwrap().body), far)
}

#[tokio::test]
async fn a_half_close_keeps_the_other_direction() {
    let (handler, mut calls) = by_hand();
    let (link, _served) = world(handler).await;
    let (near, far) = stream(&link, &mut calls).await;
    for (mut one, mut other) in [(near, far), {
        let (near, far) = stream(&link, &mut calls).await;
        (far, near)
    }] {
        one.write_all(b"question").await.unwrap();
        one.shutdown().await.unwrap();
        let mut heard = String::new();
        other.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        other.write_all(b"answer").await.unwrap();
        other.shutdown().await.unwrap();
        heard.clear();
        one.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "answer");
        let late = one.write(b"more").await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::BrokenPipe);
    }
    assert_eq!(link.exchanges(), 0);
}

#[tokio::test]
async fn dropped_before_its_end_it_is_a_reset_for_the_other_side() {
    for opener_drops in [true, false] {
        for has_shut_down in [false, true] {
            let (handler, mut calls) = by_hand();
            let (link, _served) = world(handler).await;
            let (mut near, mut far) = stream(&link, &mut calls).await;
            near.write_all(b"x").await.unwrap();
            far.write_all(b"y").await.unwrap();
            let (mut dropped, mut witness) = if opener_drops { (near, far) } else { (far, near) };
            dropped.read_u8().await.unwrap();
            if has_shut_down {
                dropped.shutdown().await.unwrap();
            }
            drop(dropped);
            witness.read_u8().await.unwrap();
            let end = witness.read_u8().await.unwrap_err();
            // An answer that was finished is whole, also where the question was not read: who
            // reads it sees its end, and who still asks that nobody listens.
            let (end_is, write_is) = match has_shut_down && !opener_drops {
                true => (ErrorKind::UnexpectedEof, ErrorKind::BrokenPipe),
                false => (ErrorKind::ConnectionReset, ErrorKind::ConnectionReset),
            };
            assert_eq!(end.kind(), end_is, "{opener_drops} {has_shut_down}");
            // Sooner or later nothing is taken any more.
            let written = async {
                loop {
                    if let Err(error) = witness.write_all(&[0; 4096]).await {
                        return error;
                    }
                }
            };
            assert_eq!(written.await.kind(), write_is, "{opener_drops}");
        }
    }
}

#[tokio::test]
async fn a_broken_body_is_an_error_with_its_reason() {
    type Made = fn() -> BoxError;
    let cases: &[(Made, Failure, Option<&str>)] = &[
        (|| "the client left".into(), Failure::Cancelled, None),
        (|| LinkError::refused("backendReset").into(), Failure::Broken, Some("backendReset")),
        (|| LinkError::new(Failure::Broken, "cut").into(), Failure::Broken, None),
    ];
    for (error, kind, label) in cases {
        // Seen directly, and through a relay.
        for hops in [1, 2] {
            let (handler, mut calls) = by_hand();
            let (link, served) = world(handler).await;
            let (link, _served) = match hops {
                1 => (link, vec![served]),
                _ => {
                    let (relayed, relay) = world(relay(link)).await;
                    (relayed, vec![served, relay])
                }
            };
            let (mut says, said) = Channel::<Bytes, BoxError>::new(1);
            let opening = get("/");
            let answering = async {
                let (called, answer) = calls.recv().await.unwrap();
                let rest = Rest::of(said);
                answer.send(Answering { opening: ok(&called.opening), rest }).await.unwrap();
            };
            let (reply, ()) =
                tokio::join!(link.open(Operation::Request, &opening, Rest::Nothing), answering);
            let mut body = reply.unwrap().body;
            says.send_data("half".into()).await.unwrap();
            let first = body.frame().await.unwrap().unwrap();
            assert_eq!(first.into_data().unwrap(), "half");
            says.abort(error());
            let broken = body.frame().await.unwrap().unwrap_err();
            assert_eq!((broken.kind(), broken.refusal()), (*kind, *label), "{broken:?}");
            assert!(body.frame().await.is_none());
        }
    }
}

/// Where nobody reads on the other side, giving up is heard there all the same.
#[tokio::test]
async fn a_stuck_stream_can_be_given_up() {
    for opener_drops in [true, false] {
        let (handler, mut calls) = by_hand();
        let (link, served) = world(handler).await;
        let (near, far) = stream(&link, &mut calls).await;
        let (mut dropped, mut witness) = if opener_drops { (near, far) } else { (far, near) };
        fill(&mut dropped).await;
        drop(dropped);
        let error = async {
            loop {
                if let Err(error) = witness.write_all(&[0; 4096]).await {
                    return error;
                }
            }
        };
        assert_eq!(error.await.kind(), ErrorKind::ConnectionReset, "{opener_drops}");
        drop(witness);
        while link.exchanges() + served.exchanges() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Writes until there is no room left.
async fn fill(stream: &mut Duplex) -> usize {
    let mut sum = 0;
    // On a clock that stands still the time-out comes when nothing else can happen any more.
    tokio::time::pause();
    let full = async {
        loop {
            sum += stream.write(&[0; 65536]).await.unwrap();
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(1), full).await;
    tokio::time::resume();
    assert!(waited.is_err());
    sum
}

/// Passes exchanges on, as a hub does.
pub(super) fn relay(to: Link) -> Arc<dyn Serve> {
    handler(move |called| {
        let to = to.clone();
        async move {
            let Called { operation, opening, body, .. } = called;
            let reply = to.open(operation, &opening, Rest::Inbound(body)).await.unwrap();
            Answering { opening: reply.opening, rest: Rest::Inbound(reply.body) }
        }
    })
}

#[tokio::test]
async fn bytes_through_a_relay_arrive_whole() {
    const N: usize = 8 << 20;
    let (link, _far) = world(echo()).await;
    let (link, _near) = world(relay(link)).await;
    let (writer, rest) = pipe();
    let reply = link.open(Operation::Stream, &connect(), rest).await.unwrap();
    let (mut read, mut write) = tokio::io::split(Duplex::new(writer, reply.body));
    let say = async move {
        for i in 0..N / 65536 {
            write.write_all(&[i as u8; 65536]).await.unwrap();
        }
        write.shutdown().await.unwrap();
    };
    let hear = async move {
        let mut piece = vec![0; 65536];
        for i in 0..N / 65536 {
            read.read_exact(&mut piece).await.unwrap();
            assert!(piece.iter().all(|byte| *byte == i as u8), "piece {i}");
        }
        assert_eq!(read.read(&mut piece).await.unwrap(), 0);
    };
    tokio::join!(say, hear);
}

/// A side that does not read bounds what the other can write.
#[tokio::test]
async fn what_nobody_reads_does_not_pile_up() {
    let (handler, mut calls) = by_hand();
    let (link, _served) = world(handler).await;
    let (near, far) = stream(&link, &mut calls).await;
    for (mut writes, _silent) in [(near, far), {
        let (near, far) = stream(&link, &mut calls).await;
        (far, near)
    }] {
        let sum = fill(&mut writes).await;
        let most = Limits::REQUESTS.window as usize + 4 * PIPE;
        assert!((Limits::REQUESTS.window as usize..=most).contains(&sum), "{sum}");
    }
}

#[tokio::test]
async fn messages_come_whole_and_in_order() {
    let (handler, mut calls) = by_hand();
    let (link, _served) = world(handler).await;
    let (near, far) = stream(&link, &mut calls).await;
    let ((near_writer, _, near_inbound), (far_writer, _, far_inbound)) =
        (near.into_parts(), far.into_parts());
    let mut near = Messages::new(near_writer, near_inbound);
    let mut far = Messages::new(far_writer, far_inbound);
    let sizes = [0, 1, 100, 70_000, 1 << 20, 3];
    let message = |size: usize| {
        let mut message = connect();
        message.content = edgemesh_proto::message::Content::Bytes(vec![7; size].into());
        message
    };
    let say = async {
        for size in sizes {
            near.send(&message(size)).await.unwrap();
        }
        near.writer.finish();
    };
    let hear = async {
        for size in sizes {
            assert_eq!(far.next().await.unwrap().unwrap().content.len(), size);
        }
        assert_eq!(far.next().await.unwrap(), None);
    };
    tokio::join!(say, hear);
    let too_long = far.send(&message(MAX_MESSAGE)).await.unwrap_err();
    assert_eq!(too_long.kind(), Failure::Protocol);
    drop(far);
    assert_eq!(near.next().await.unwrap_err().kind(), Failure::Cancelled);
}
