//! How Links end: in order, cut, or because nobody is there any more.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};

use super::*;

/// A pipe that swallows everything from the moment it is told to.
async fn blackhole(
    near: DuplexStream,
    far: DuplexStream,
    swallow: tokio_util::sync::CancellationToken,
) {
    let (mut near, mut far) = (near, far);
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        () = swallow.cancelled() => std::future::pending().await,
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanished_is_dead_after_nine_seconds() {
    for is_busy in [false, true] {
        let (near, far) = ends();
        let (between_near, between_far) = (tokio::io::duplex(4096), tokio::io::duplex(4096));
        let (opens, serves) = (
            Dialled { stream: between_near.0, peer: near.peer, role: near.role },
            Dialled { stream: between_far.0, peer: far.peer, role: far.role },
        );
        let (tasks, swallow) = (TaskTracker::new(), tokio_util::sync::CancellationToken::new());
        tasks.spawn(blackhole(between_near.1, between_far.1, swallow.clone()));
        let (handler, mut calls) = by_hand();
        let served = serve(serves, handler, Limits::REQUESTS, &tasks);
        let link = client(opens, Limits::REQUESTS, tasks.clone()).await.unwrap();
        // An upload whose end never comes, and an answer likewise.
        let (writer, rest) = pipe();
        let opening = connect();
        let answering = async {
            let (called, answer) = calls.recv().await.unwrap();
            let (writer, rest) = pipe();
            answer.send(Answering { opening: accepted(&called.opening), rest }).await.unwrap();
            Duplex::new(writer, called.body)
        };
        let (reply, mut far) =
            tokio::join!(link.open(Operation::Stream, &opening, rest), answering);
        let mut near = Duplex::new(writer, reply.unwrap().body);
        // Idle for long: pings go back and forth.
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert!(link.is_open() && served.is_open());
        near.write_all(b"half of it").await.unwrap();
        far.write_all(b"half of it").await.unwrap();
        far.read_exact(&mut [0; 10]).await.unwrap();
        near.read_exact(&mut [0; 10]).await.unwrap();

        swallow.cancel();
        let since = tokio::time::Instant::now();
        if is_busy {
            // More than the pipe in between takes: writes wait. What is said after that is no life.
            near.write_all(&[0; 100_000]).await.unwrap();
            far.write_all(&[0; 100_000]).await.unwrap();
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                near.write_all(&[0; 10]).await.unwrap();
                far.write_all(&[0; 10]).await.unwrap();
            }
        }
        for stream in [&mut near, &mut far] {
            let end = stream.read_u8().await.unwrap_err();
            assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "{end}");
            assert!(stream.write_u8(0).await.is_err());
        }
        link.closed().await;
        served.closed().await;
        let took = since.elapsed();
        assert!((6..=9).contains(&took.as_secs()) && took <= DEAD_AFTER * 101 / 100, "{took:?}");
        assert_eq!(link.why(), Some("nothing was heard for 9 s"));
        let gone = link.open(Operation::Request, &get("/"), Rest::Nothing).await.unwrap_err();
        assert_eq!(gone.kind(), Failure::NotSent);
    }
}

#[tokio::test]
async fn an_orderly_close_lets_what_is_under_way_end() {
    for opener_closes in [true, false] {
        let (handler, mut calls) = by_hand();
        let (link, served) = world(handler).await;
        let opening = get("/");
        let rest = Rest::Nothing;
        let under_way = link.open(Operation::Request, &opening, rest);
        let closing = async {
            let (called, answer) = calls.recv().await.unwrap();
            match opener_closes {
                true => link.close(),
                false => served.close(),
            }
            // The other side hears of it before it asks again.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            let late = get("/");
            let late = link.open(Operation::Request, &late, whole("x")).await;
            let opening = ok(&called.opening);
            answer.send(Answering { opening, rest: whole("to the end") }).await.unwrap();
            late
        };
        let (reply, late) = tokio::join!(under_way, closing);
        let body = reply.unwrap().body.collect().await.unwrap().to_bytes();
        assert_eq!(body, "to the end");
        assert_eq!(late.unwrap_err().kind(), Failure::NotSent, "{opener_closes}");
        link.closed().await;
        served.closed().await;
        assert!(!link.is_open() && !served.is_open());
    }
}

/// What was not sent is given back.
#[tokio::test]
async fn the_rest_is_still_there_where_nothing_left() {
    let (link, _served) = world(echo()).await;
    link.cut();
    let mut rest = Some(whole("kept"));
    let error = link.open_with(Operation::Request, &get("/"), &mut rest).await.unwrap_err();
    assert_eq!(error.kind(), Failure::NotSent);
    let (other, _served) = world(echo()).await;
    let reply = other.open_with(Operation::Request, &get("/"), &mut rest).await.unwrap();
    assert_eq!(reply.body.collect().await.unwrap().to_bytes(), "kept");
}

#[tokio::test]
async fn a_cut_breaks_what_is_under_way_and_never_ends_it() {
    for opener_cuts in [true, false] {
        let (handler, mut calls) = by_hand();
        let (link, served) = world(handler).await;
        let (writer, rest) = pipe();
        let opening = connect();
        let answering = async {
            let (called, answer) = calls.recv().await.unwrap();
            let (writer, rest) = pipe();
            answer.send(Answering { opening: accepted(&called.opening), rest }).await.unwrap();
            Duplex::new(writer, called.body)
        };
        let (reply, mut far) =
            tokio::join!(link.open(Operation::Stream, &opening, rest), answering);
        let mut near = Duplex::new(writer, reply.unwrap().body);
        let unanswered = connect();
        let unanswered = link.open(Operation::Stream, &unanswered, Rest::Nothing);
        let cutting = async {
            calls.recv().await.unwrap();
            if opener_cuts { link.cut() } else { served.cut() }
        };
        let (unanswered, ()) = tokio::join!(unanswered, cutting);
        assert_eq!(unanswered.unwrap_err().kind(), Failure::Broken, "it may have been done");
        for stream in [&mut near, &mut far] {
            let end = stream.read_u8().await.unwrap_err();
            assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test]
async fn giving_up_before_the_answer_is_heard_on_the_other_side() {
    let (handler, mut calls) = by_hand();
    let (link, served) = world(handler).await;
    let (writer, rest) = pipe();
    let opening = connect();
    let mut asking = Box::pin(link.open(Operation::Stream, &opening, rest));
    let (mut called, _answer) = tokio::select! {
        called = calls.recv() => called.unwrap(),
        _ = asking.as_mut() => panic!("nobody answered"),
    };
    drop(asking);
    let end = called.body.frame().await.unwrap().unwrap_err();
    assert_eq!(end.kind(), Failure::Cancelled);
    drop((called, writer));
    while link.exchanges() + served.exchanges() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn exchanges_of_a_link_are_bounded() {
    let (handler, mut calls) = by_hand();
    let (near, far) = ends();
    let tasks = TaskTracker::new();
    let limits = Limits { exchanges: 2, ..Limits::REQUESTS };
    let _served = serve(far, handler, limits, &tasks);
    let link = client(near, limits, tasks).await.unwrap();
    let opening = get("/");
    let (one, two) = (
        link.open(Operation::Request, &opening, Rest::Nothing),
        link.open(Operation::Request, &opening, Rest::Nothing),
    );
    let more = async {
        let _calls = (calls.recv().await.unwrap(), calls.recv().await.unwrap());
        let error = link.open(Operation::Request, &opening, Rest::Nothing).await.unwrap_err();
        assert_eq!(error.kind(), Failure::NotSent);
        assert_eq!(link.exchanges(), 2);
    };
    tokio::select! {
        _ = async { tokio::join!(one, two) } => panic!("nobody answered"),
        () = more => {}
    }
}
