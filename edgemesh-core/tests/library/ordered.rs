//! The laws of `map_ordered`: order, width, back-pressure, moves off a dead Backend, cancellation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use bytes::Bytes;
use edgemesh_core::mesh::CallError;
use edgemesh_core::metrics::Carried;
use edgemesh_core::refusal::Refusal;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{Method, Request};

use crate::world::{Act, Backend, Folder, PATIENCE, mesh, nobody};

/// Requests of this method for `/0`, `/1`, …
fn requests(method: Method, count: usize) -> impl Iterator<Item = Request<Bytes>> + Send {
    (0..count).map(move |i| {
        let uri = format!("http://svc.default/{i}");
        Request::builder().method(&method).uri(uri).body(Bytes::new()).unwrap()
    })
}

/// Answers come in the order of the requests, although the first is answered last, and `width` are
/// under way at once, never more.
#[tokio::test]
async fn in_order_and_as_many_as_asked_for() {
    for (width, count) in [(1, 5), (4, 4), (4, 40), (16, 40), (0, 3)] {
        let at_once = width.max(1);
        let full = move |path: &str, seen: &crate::world::Seen| {
            let peak = seen.peak.load(SeqCst) >= at_once;
            // The first waits until everybody else of its window was answered.
            peak && (path != "/0" || *seen.open.borrow() == 1)
        };
        let backend = Backend::gated(Act::Wait, Arc::new(full)).await;
        let (_folder, mesh) = mesh(&[&backend], "").await;
        let answers = mesh.http().map_ordered(requests(Method::GET, count), width);
        let answers = tokio::time::timeout(PATIENCE, answers.collect::<Vec<_>>()).await.unwrap();
        let got: Vec<_> = answers.into_iter().map(|a| a.unwrap().into_body()).collect();
        let want: Vec<_> = (0..count).map(|i| Bytes::from(format!("/{i}"))).collect();
        assert_eq!(got, want, "{width} {count}");
        assert_eq!(backend.seen.peak.load(SeqCst), at_once, "{width} {count}");
        assert_eq!(backend.requests(), count);
    }
}

/// Nothing is taken from the iterator before the stream is polled, and then no more than fits.
#[tokio::test]
async fn a_slow_reader_slows_the_calls_down() {
    let backend = Backend::start(Act::Answer).await;
    let (_folder, mesh) = mesh(&[&backend], "").await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = taken.clone();
    let requests = requests(Method::GET, 100).inspect(move |_| {
        counted.fetch_add(1, SeqCst);
    });
    let mut answers = mesh.http().map_ordered(requests, 3);
    assert_eq!(taken.load(SeqCst), 0);
    for read in 1..=10 {
        answers.next().await.unwrap().unwrap();
        let taken = taken.load(SeqCst);
        assert!((read..=read + 3).contains(&taken), "{taken} taken when {read} were read");
    }
}

#[tokio::test]
async fn calls_move_off_a_dead_backend_where_that_is_safe() {
    const ONCE: &str = "retries: { attempts: 2, on: [connect] }";
    const TOLD: &str = "retries: { attempts: 2, on: [connect], nonIdempotent: true }";
    const NEVER: &str = "retries: { attempts: 0, on: [connect] }";
    let (get, put, post) = (Method::GET, Method::PUT, Method::POST);
    // Two calls, of which one meets the dead Backend first; then: what came of the two, and how
    // often the dead one was asked.
    let rows: &[(&Method, Act, &str, [bool; 2])] = &[
        (&get, Act::Reset, ONCE, [true, true]),
        (&get, Act::Half, ONCE, [true, true]),
        (&get, Act::Half, "", [true, true]),
        (&put, Act::Half, ONCE, [true, true]),
        (&post, Act::Reset, ONCE, [false, true]),
        (&post, Act::Half, ONCE, [false, true]),
        (&post, Act::Half, TOLD, [true, true]),
        (&post, Act::Reset, TOLD, [true, true]),
        (&get, Act::Half, NEVER, [false, true]),
    ];
    for (method, act, policy, want) in rows {
        let (dead, well) = (Backend::start(*act).await, Backend::start(Act::Answer).await);
        let (_folder, mesh) = mesh(&[&dead, &well], policy).await;
        let answers = mesh.http().map_ordered(requests((*method).clone(), 2), 1);
        let answers = tokio::time::timeout(PATIENCE, answers.collect::<Vec<_>>()).await.unwrap();
        let mut got = [answers[0].is_ok(), answers[1].is_ok()];
        got.sort_unstable(); // which of the two Backends has the first turn depends on their ports
        assert_eq!(got, *want, "{method} {act:?} {policy}: {answers:?}");
        assert_eq!(dead.requests(), 1, "{method} {act:?} {policy}");
        let served = want.iter().filter(|ok| **ok).count();
        assert_eq!(well.requests(), served, "{method} {act:?} {policy}");
        for error in answers.into_iter().filter_map(Result::err) {
            match error {
                CallError::Broken { backend, .. } => assert_eq!(backend, dead.address),
                CallError::Refused(refused) => assert_eq!(refused.refusal, Refusal::BackendReset),
                CallError::TooLong { .. } => panic!("{error}"),
            }
        }
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let backend = Backend::start(Act::Answer).await;
    let folder = Folder::new();
    folder.service("svc", &[backend.address], "");
    folder.redirect();
    let mesh = folder.open().await;
    let answers = mesh.http().map_ordered(requests(Method::GET, 2), 2).collect::<Vec<_>>().await;
    for (i, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().len()), (302, 0));
        assert_eq!(answer.headers()["location"], format!("http://other.default/{i}"));
    }
    assert_eq!(backend.requests(), 0);
}

/// With nobody left to ask, the error is what the last Backend did; the others' answers still come.
#[tokio::test]
async fn an_error_stays_in_its_place() {
    let dead = Backend::start(Act::Half).await;
    let (folder, mesh) = mesh(&[&dead], "").await;
    folder.service("gone", &[nobody().await], "");
    let answers = mesh.http().map_ordered(requests(Method::GET, 3), 2).collect::<Vec<_>>().await;
    assert_eq!(answers.len(), 3);
    for answer in answers {
        let error = answer.unwrap_err();
        assert!(matches!(error, CallError::Broken { .. }), "{error}");
    }
    assert_eq!(dead.requests(), 3, "a Backend is not asked twice for one call");
}

/// Repeats are paid for: a Service whose every Backend dies over its calls is not asked thrice as
/// often for long.
#[tokio::test]
async fn moves_are_a_share_of_the_calls() {
    let backends = [Backend::start(Act::Half).await, Backend::start(Act::Half).await];
    let (_folder, mesh) = mesh(&[&backends[0], &backends[1]], "").await;
    let calls = 200;
    let answers = mesh.http().map_ordered(requests(Method::GET, calls), 8);
    assert_eq!(answers.filter(|a| std::future::ready(a.is_ok())).count().await, 0);
    let asked: usize = backends.iter().map(Backend::requests).sum();
    // A fresh budget of ten, and a fifth of what was asked.
    assert!((calls + 10..=calls + 10 + asked / 5).contains(&asked), "{asked}");
}

#[tokio::test]
async fn a_dropped_stream_cancels_what_is_under_way() {
    let backend = Backend::gated(Act::Wait, Arc::new(|_, _| false)).await;
    let (_folder, mesh) = mesh(&[&backend], "").await;
    let mut answers = mesh.http().map_ordered(requests(Method::GET, 100), 5);
    let mut open = backend.seen.open.subscribe();
    tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            answer = answers.next() => panic!("{answer:?}"),
            open = open.wait_for(|open| *open == 5) => drop(open.unwrap()),
        }
        assert!(answers.next().now_or_never().is_none());
        drop(answers);
        backend.seen.left.subscribe().wait_for(|left| *left == 5).await.unwrap();
    })
    .await
    .expect("in time");
    assert_eq!(backend.requests(), 5);
    assert_eq!(mesh.metrics().calls[Carried::Http1.index()].cancelled.load(Relaxed), 5);
}
