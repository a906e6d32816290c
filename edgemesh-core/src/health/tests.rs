//! Checks against sockets that answer this or that, and the logic of verdicts alone.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

fn bad(reason: &str) -> Health {
    Health::Unhealthy(reason.into())
}

#[test]
fn verdicts_need_their_probes() {
    let pace = Pace { unhealthy_after: 2, healthy_after: 2, ..Pace::default() };
    let mut streak = Streak::default();
    for (outcome, want) in [
        (Err("a"), bad("a")), // never well
        (Err("b"), bad("b")), // the newest reason
        (Ok(()), bad("b")),
        (Err("c"), bad("c")), // begins anew
        (Ok(()), bad("c")),
        (Ok(()), Health::Healthy),
        (Err("d"), Health::Healthy), // one is not enough
        (Ok(()), Health::Healthy),
        (Err("e"), Health::Healthy),
        (Err("f"), bad("f")),
    ] {
        streak.note(outcome.map_err(str::to_owned), &pace);
        assert_eq!(streak.health, want, "after {outcome:?}");
    }
}

/// Answers every connection with `answer` once it has read something (or at once for none).
async fn server(answer: Option<&'static [u8]>, tasks: &TaskTracker) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Some(answer) = answer else { continue };
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(answer).await;
        }
    });
    address
}

#[tokio::test]
async fn each_check_judges_real_answers() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    const FOUND: &[u8] = b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n";
    const SICK: &[u8] = b"HTTP/1.1 503 Sick\r\ncontent-length: 0\r\n\r\n";
    let tasks = TaskTracker::new();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    for (check, answer, want) in [
        ("tcp", None, Ok(())),
        ("http:/healthz", Some(OK), Ok(())),
        ("http:/healthz", Some(FOUND), Ok(())),
        ("http:/healthz", Some(SICK), Err("/healthz answered 503")),
        ("http:/", Some(b"220 mail.example".as_slice()), Err("invalid HTTP")),
        ("http:/", None, Err("")), // closed without a word
        ("grpc", Some(OK), Err("")),
    ] {
        let target = Target::new(server(answer, &tasks).await, Check::parse(check).unwrap());
        let have = probe(&Dial::default(), &target, TIMEOUT).await;
        let same = match (&have, want) {
            (Ok(()), Ok(())) => true,
            (Err(have), Err(want)) => have.contains(want),
            (Ok(()) | Err(_), _) => false,
        };
        assert!(same, "{check} {answer:?}: {have:?}, not {want:?}");
    }
    let refused = probe(&Dial::default(), &Target::new(closed, Check::Tcp), TIMEOUT).await;
    assert!(refused.unwrap_err().contains("refused"));
    // One that takes connections and is silent.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = Target::new(silent.local_addr().unwrap(), Check::parse("http:/").unwrap());
    let late = probe(&Dial::default(), &target, Duration::from_millis(30)).await;
    assert_eq!(late.unwrap_err(), "no answer within 30 ms");
}

/// A server of `grpc.health.v1` that gives `data` and `code`.
async fn grpc_server(data: &'static [u8], code: &'static str, tasks: &TaskTracker) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            send.send_data(data.into(), false).unwrap();
            let trailers = [("grpc-status", code)]
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            send.send_trailers(trailers.into_iter().collect()).unwrap();
        }
    });
    address
}

#[tokio::test]
async fn grpc_servers_say_how_they_are() {
    let tasks = TaskTracker::new();
    for (data, code, want) in [
        (&[0, 0, 0, 0, 2, 8, 1][..], "0", ""),
        (&[0, 0, 0, 0, 2, 8, 2], "0", "not serving"),
        (&[], "12", "UNIMPLEMENTED"),
        (&[], "5", "no such service"),
    ] {
        let check = Check::parse("grpc:shop.Cart").unwrap();
        let target = Target::new(grpc_server(data, code, &tasks).await, check);
        let have = probe(&Dial::default(), &target, TIMEOUT).await.err().unwrap_or_default();
        assert!(have.contains(want) && have.is_empty() == want.is_empty(), "{code}: {have}");
    }
}

#[tokio::test]
async fn changes_are_told_and_only_what_is_watched_is_probed() {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let millis = Duration::from_millis;
    let pace = Pace { every: millis(5), every_while_down: millis(5), ..Pace::default() };
    let checker = Checker::new(Dial::default(), pace, tasks.clone(), stop.clone());
    let mut changes = checker.changes();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let target = Target::new(listener.local_addr().unwrap(), Check::Tcp);
    checker.watch([target.clone()].into());
    changes.changed().await.unwrap();
    assert_eq!(checker.health(&target), Some(Health::Healthy));
    drop(listener);
    changes.changed().await.unwrap();
    assert!(matches!(checker.health(&target), Some(Health::Unhealthy(_))));
    let _again = TcpListener::bind(target.address).await.unwrap();
    changes.changed().await.unwrap();
    assert_eq!(checker.health(&target), Some(Health::Healthy));
    checker.watch(BTreeSet::new());
    assert_eq!(checker.health(&target), None);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}
