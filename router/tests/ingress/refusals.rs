//! Requests that are refused as everywhere in the mesh: limits, heads that are too large, what is
//! malformed, what is no HTTP.

use http::Version;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{ask, request, say};
use crate::world::{PATIENCE, World};

#[tokio::test]
async fn a_spent_limit_says_when_to_come_back() {
    let world = World::open().await;
    let get = |named| request(Version::HTTP_11, "GET", named, &[]);
    assert_eq!(ask(world.at, get(("spent.default", "/"))).await.status, 200);
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for named in [("spent.default", "/"), ("x", "/_svc/default/spent/")] {
            let answer = ask(world.at, request(version, "GET", named, &[])).await;
            assert_eq!((answer.status, answer.header("retry-after")), (429, "1"), "{named:?}");
            assert_eq!(answer.header("x-edgemesh-refusal"), "rateLimited");
        }
    }
    let grpc = [("content-type", "application/grpc")];
    let call = || request(Version::HTTP_2, "POST", ("spent-grpc.default", "/p.S/M"), &grpc);
    assert_eq!(ask(world.at, call()).await.grpc().0, "0");
    let answer = ask(world.at, call()).await;
    assert_eq!((answer.status, answer.grpc().0), (200, "8"));
    assert!(answer.header("grpc-retry-pushback-ms").parse::<u32>().unwrap() > 0);
    assert_eq!(world.ended("rateLimited"), (7, 5));
}

#[tokio::test]
async fn heads_and_words_that_nobody_reads() {
    let world = World::open().await;
    let long = "x".repeat(70_000);
    let cases = [
        (format!("GET / HTTP/1.1\r\nhost: echo.default\r\nx: {long}\r\n\r\n"), "431 "),
        (format!("GET /{} HTTP/1.1\r\nhost: echo.default\r\n\r\n", &long[..40_000]), "414 "),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "400 "),
        ("GET / HTTP/1.1\r\nhost: echo.default\r\nhost: echo.shop\r\n\r\n".to_owned(), "400 "),
        ("GET /_svc/default/echo/ HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n".to_owned(), "400 "),
        ("GET /_svc/default/echo/ HTTP/1.1\r\nhost: a@b\r\n\r\n".to_owned(), "400 "),
        ("*1\r\n$4\r\nPING\r\n".to_owned(), "400 "),
    ];
    for (text, status) in &cases {
        let answer =
            say(world.at, &text.replacen("HTTP/1.1\r\n", "HTTP/1.1\r\nconnection: close\r\n", 1))
                .await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{text:.60}: {answer}");
    }
    assert_eq!(world.ended("badRequest"), (cases.len() as u64, 5));
    // TLS, where none is spoken.
    let mut stream = TcpStream::connect(world.at).await.unwrap();
    stream.write_all(&[22, 3, 1, 0, 200, 1, 0, 0, 196]).await.unwrap();
    let mut answer = Vec::new();
    let closed = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(closed.is_ok() && answer.is_empty());
    assert_eq!(world.ended("badRequest"), (cases.len() as u64 + 1, 6));
}
