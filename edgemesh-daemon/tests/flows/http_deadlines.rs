//! Deadlines and cancellation of gRPC and HTTP/2 calls, from end to end.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Response};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::agent::Agent;
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::common::wait::timed;
use crate::h2peer::{Asked, answered, ask, connect, grpc, push, read, runtime, serve};
use crate::servers::{self, PEER};
use crate::world::{ONE, TWO, World};

const AT: &str = "10.96.0.30:80";
/// A debug build on a busy machine.
const SLACK: Duration = Duration::from_secs(2);

/// What the backend saw of a call: the deadline it was told, and how the call ended for it.
#[derive(Debug, PartialEq, Eq)]
enum Saw {
    Timeout(Option<String>),
    Reset(Reason),
    End(usize),
}

async fn behave(mut asked: Asked, saw: Sender<Saw>) {
    let path = asked.request.uri().path().to_owned();
    let told = asked.request.headers().get("grpc-timeout").map(|t| t.to_str().unwrap().to_owned());
    saw.send(Saw::Timeout(told)).await.unwrap();
    let head = || Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    match &*path {
        "/hangs" => {
            let reason = std::future::poll_fn(|cx| asked.answer.poll_reset(cx)).await;
            saw.send(Saw::Reset(reason.unwrap())).await.unwrap();
        }
        "/half" => {
            let mut stream = asked.answer.send_response(head(), false).unwrap();
            push(&mut stream, Bytes::from_static(b"half"), false).await;
            let reason = std::future::poll_fn(|cx| stream.poll_reset(cx)).await;
            saw.send(Saw::Reset(reason.unwrap())).await.unwrap();
        }
        "/breaks" => {
            let mut stream = asked.answer.send_response(head(), false).unwrap();
            push(&mut stream, Bytes::from_static(b"half"), false).await;
            read(asked.request.body_mut()).await.ok();
            stream.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
        "/uploads" => match read(asked.request.body_mut()).await {
            Ok(body) => saw.send(Saw::End(body.len())).await.unwrap(),
            Err(error) => saw.send(Saw::Reset(error.reason().unwrap())).await.unwrap(),
        },
        _ => {
            let mut stream = asked.answer.send_response(head(), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).ok();
        }
    }
}

#[test]
fn deadlines_and_cancellation_pass_through() {
    in_namespace("http_deadlines::deadlines_and_cancellation_pass_through", || {
        let (world, runtime) = (World::new(), runtime());
        let (send, mut saw) = channel(64);
        serve(&runtime, "10.4.0.1:8082", move |asked| behave(asked, send.clone()));
        let backend = [[ONE[0], ""]];
        world.service("calls", &["10.96.0.30"], &["grpc:80:8082"], &backend);
        world.policy("calls", "  circuitBreaker: { consecutiveFailures: 1, ejectFor: 60s }");
        world.service("short", &["10.96.0.31"], &["grpc:80:8082"], &backend);
        world.policy("short", "  timeouts: { request: 200ms }\n  circuitBreaker: { consecutiveFailures: 1, ejectFor: 60s }");
        let agent = Agent::start(&world);
        runtime.block_on(async {
            the_time_that_is_left_is_passed_on(&mut saw).await;
            a_late_call_is_ended(&mut saw).await;
            resets_pass_both_ways(&mut saw).await;
            the_earlier_deadline_counts(&mut saw).await;
        });
        let late = agent.lines("late calls", 3, |line| line["outcome"] == "requestTimeout");
        assert!(late.iter().all(|line| line["protocol"] == "http2"), "{late:?}");
    });
}

async fn told(saw: &mut Receiver<Saw>) -> Option<u64> {
    let Some(Saw::Timeout(told)) = saw.recv().await else { panic!("it is told first") };
    told.map(|told| told.strip_suffix('m').expect("milliseconds").parse().unwrap())
}

async fn the_time_that_is_left_is_passed_on(saw: &mut Receiver<Saw>) {
    let sender = connect(AT).await;
    for (timeout, range) in [
        (None, None),
        (Some("5S"), Some(4000..=5000)),
        (Some("60000000u"), Some(59_000..=60_000)),
        (Some("99999999H"), Some(99_999_999..=99_999_999)),
    ] {
        let headers: Vec<_> = timeout.iter().map(|timeout| ("grpc-timeout", *timeout)).collect();
        let answer = ask(&sender, grpc(AT, "/ok", &headers), vec![Bytes::from_static(b"x")]).await;
        assert_eq!(answer.grpc_status(), Some("0"), "{answer:?}");
        match (told(saw).await, range) {
            (Some(millis), Some(range)) => {
                assert!(range.contains(&millis), "{timeout:?}: {millis}")
            }
            (told, range) => assert!(told.is_none() && range.is_none(), "{timeout:?}: {told:?}"),
        }
    }
}

/// Before the head, and in the middle of an answer. The client's impatience is nobody's fault: the
/// breaker, which one failure would trip, still admits.
async fn a_late_call_is_ended(saw: &mut Receiver<Saw>) {
    let sender = connect(AT).await;
    for (path, body) in [("/hangs", &b""[..]), ("/half", b"half")] {
        let began = tokio::time::Instant::now();
        let request = grpc(AT, path, &[("grpc-timeout", "300m")]);
        let answer = ask(&sender, request, vec![Bytes::from_static(b"x")]).await;
        let took = began.elapsed();
        assert_eq!((answer.status, answer.grpc_status()), (200, Some("4")), "{path}: {answer:?}");
        assert_eq!((&*answer.body, answer.reset), (body, None), "{path}");
        assert!((Duration::from_millis(299)..SLACK).contains(&took), "{path}: {took:?}");
        assert!((200..=300).contains(&told(saw).await.unwrap()), "{path}");
        assert_eq!(saw.recv().await, Some(Saw::Reset(Reason::CANCEL)), "{path}");
    }
}

async fn resets_pass_both_ways(saw: &mut Receiver<Saw>) {
    let sender = connect(AT).await;
    // The client gives up: before an answer, in its middle, and while it sends.
    for path in ["/hangs", "/half", "/uploads"] {
        let mut sender = sender.clone().ready().await.unwrap();
        let (response, mut stream) = sender.send_request(grpc(AT, path, &[]), false).unwrap();
        push(&mut stream, Bytes::from_static(b"part"), false).await;
        told(saw).await;
        if path == "/half" {
            response.await.unwrap();
        }
        stream.send_reset(Reason::CANCEL);
        assert_eq!(saw.recv().await, Some(Saw::Reset(Reason::CANCEL)), "{path}");
    }
    // The backend breaks off in the middle of its answer, and says why. (Before its head reached
    // us there would be no answer to break: that is `backendReset`.)
    let mut sender = sender.ready().await.unwrap();
    let (response, mut stream) = sender.send_request(grpc(AT, "/breaks", &[]), false).unwrap();
    told(saw).await;
    let response = response.await;
    push(&mut stream, Bytes::from_static(b"x"), true).await;
    let answer = answered(response).await;
    assert_eq!((answer.status, answer.reset), (200, Some(Reason::ENHANCE_YOUR_CALM)), "{answer:?}");
}

/// The Policy's time is shorter: the backend is told of it, and to blame.
async fn the_earlier_deadline_counts(saw: &mut Receiver<Saw>) {
    let at = "10.96.0.31:80";
    let sender = connect(at).await;
    let request = || grpc(at, "/hangs", &[("grpc-timeout", "10S")]);
    let answer = ask(&sender, request(), vec![Bytes::from_static(b"x")]).await;
    assert_eq!(answer.grpc_status(), Some("4"), "{answer:?}");
    assert!(told(saw).await.unwrap() <= 200);
    let answer = ask(&sender, request(), vec![Bytes::from_static(b"x")]).await;
    assert_eq!(answer.headers.get("x-edgemesh-refusal").unwrap(), "unhealthy", "{answer:?}");
}

#[test]
fn a_real_grpc_client_is_told_in_time() {
    in_namespace("http_deadlines::a_real_grpc_client_is_told_in_time", || {
        let world = World::new();
        let _servers =
            [servers::grpc(&world, "", "grpc-1", ONE), servers::grpc(&world, "", "grpc-2", TWO)];
        world.service("greeter", &["10.96.0.40"], &["grpc:50051:50051"], &[ONE, TWO]);
        world.service("old", &["10.96.0.41"], &["http:50051:50051"], &[ONE]);
        let _agent = Agent::start(&world);
        let (ran, took) =
            timed(|| run("", &format!("/usr/bin/python3 {PEER} once 10.96.0.41:50051 Unary")));
        assert!(ran.out.contains("UNIMPLEMENTED") && took < Duration::from_secs(10), "{ran:?}");
        let ran = run("", &format!("/usr/bin/python3 {PEER} late 10.96.0.40:50051"));
        // The server's context tells how long it may take: what the client said, less a little.
        let left: f64 = ran.out.trim().parse().unwrap_or_else(|_| panic!("{ran:?}"));
        assert!((3.0..=5.0).contains(&left), "{ran:?}");
    });
}
