//! Every form that names a Service, in every protocol.

use std::convert::Infallible;

use http::{Request, Version};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{ask, head, request, say};
use crate::world::{PATIENCE, World};

const BOTH: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Host and target of a client, and what the Backend is asked for.
const FORMS: &[((&str, &str), &str)] = &[
    (("echo.default", "/x?y=1"), "a GET /x?y=1 host=echo.default"),
    (("echo.default:80", "/x"), "a GET /x host=echo.default:80"),
    (("echo.default.svc", "/"), "a GET / host=echo.default.svc"),
    (("echo.default.svc.cluster.local", "/"), "a GET / host=echo.default.svc.cluster.local"),
    (("Echo.Default", "/"), "a GET / host=Echo.Default"),
    (("echo.shop", "/"), "b GET / host=echo.shop"),
    (("only.default", "/"), "a GET / host=only.default"),
    (("two.default", "/"), "a GET / host=two.default"),
    (("two.default:8080", "/"), "b GET / host=two.default:8080"),
    // A mesh Host has the whole path, whatever it begins with.
    (("echo.default", "/_svc/shop/echo/x"), "a GET /_svc/shop/echo/x host=echo.default"),
    (("echo.default", "/edge-1/x"), "a GET /edge-1/x host=echo.default"),
    (("cloud.example:9443", "/_svc/default/echo/x?y=1"), "a GET /x?y=1 host=echo.default"),
    (("cloud.example", "/_svc/shop/echo"), "b GET / host=echo.shop"),
    (("cloud.example", "/_svc/shop/echo?y"), "b GET /?y host=echo.shop"),
    (("127.0.0.1", "/_svc/default/only/"), "a GET / host=only.default"),
    (("[::1]:9443", "/_svc/default/two:8080/x"), "b GET /x host=two.default:8080"),
    // The name of the ingress itself, where it is one of the mesh.
    (("us.default", "/_svc/default/echo/x"), "a GET /x host=echo.default"),
    (("us.default:80", "/_svc/shop/echo/x"), "b GET /x host=echo.shop"),
];

/// Paths of a Service that nobody may touch.
const PATHS: &[&str] = &[
    "/",
    "//",
    "//x",
    "/x//y/",
    "/%2F",
    "/%2f..%2F",
    "/a:b@c",
    "/../x",
    "/./x/..",
    "/?",
    "/?a?b=/c",
    "/x;y=1,2",
    "/~!$&'()*+=|{}\"",
    "/%",
    "/%zz",
];

#[tokio::test]
async fn every_form_by_http1_and_http2() {
    let world = World::open().await;
    for version in BOTH {
        for (named, want) in FORMS {
            let answer = ask(world.at, request(version, "GET", *named, &[])).await;
            assert_eq!(answer.status, 200, "{version:?} {named:?}: {}", answer.body);
            assert!(answer.body.starts_with(want), "{version:?} {named:?}: {}", answer.body);
        }
    }
    assert_eq!(world.ended("noService"), (2 * FORMS.len() as u64, 0), "one account each");
}

#[tokio::test]
async fn what_was_taken_off_is_told() {
    let world = World::open().await;
    // Nobody can say it in our place.
    let false_words = [("x-forwarded-host", "evil"), ("x-forwarded-prefix", "/evil")];
    for (version, scheme) in [(Version::HTTP_11, "-"), (Version::HTTP_2, "http")] {
        let named = ("cloud.example:1", "/_svc/default/two:80/x");
        let answer = ask(world.at, request(version, "GET", named, &false_words)).await;
        let want = format!(
            "a GET /x host=two.default:80 scheme={scheme} of=cloud.example:1 off=/_svc/default/two:80 auth=-/- cookies="
        );
        assert_eq!(answer.body, want);
    }
    let proxied = "GET http://cloud.example/_svc/shop/echo/x HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n";
    let answer = say(world.at, proxied).await;
    assert!(answer.contains("b GET /x host=echo.shop scheme=- of=cloud.example "), "{answer}");
    let direct = "GET http://echo.shop/_svc/x HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n";
    let answer = say(world.at, direct).await;
    assert!(answer.contains("b GET /_svc/x host=echo.shop "), "{answer}");
    let ancient = say(world.at, "GET /_svc/shop/echo/x HTTP/1.0\r\n\r\n").await;
    assert!(ancient.contains("b GET /x host=echo.shop scheme=- of=- "), "{ancient}");
}

/// `Connection` names what is between neighbours; what the ingress says is not, whoever calls it so.
#[tokio::test]
async fn nobody_has_taken_out_what_was_told() {
    let world = World::open().await;
    let asked = "GET /_svc/shop/echo/x HTTP/1.1\r\nhost: cloud.example\r\n\
                 connection: X-Forwarded-Prefix, close\r\nconnection: x-forwarded-host\r\n\r\n";
    let answer = say(world.at, asked).await;
    assert!(answer.contains(" of=cloud.example off=/_svc/shop/echo "), "{answer}");
}

/// A client of HTTP/2 may name a host by Host alone (RFC 9113 §8.3.1).
#[tokio::test]
async fn a_host_alone_names_the_ingress_by_http2() {
    let world = World::open().await;
    let stream = TcpStream::connect(world.at).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async { drop(connection.await) });
    // As HTTP/1.1, h2 lets it pass without an authority.
    let asked = Request::get("/_svc/shop/echo/x").version(Version::HTTP_11);
    let asked = asked.header("host", "cloud.example").body(()).unwrap();
    let (answer, _) = sender.send_request(asked, true).unwrap();
    let mut answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
    let status = answer.status();
    let body = answer.body_mut().data().await.unwrap().unwrap();
    let body = String::from_utf8_lossy(&body);
    assert!(status == 200 && body.contains("b GET /x host=echo.shop "), "{status} {body}");
    assert!(body.contains(" of=cloud.example off=/_svc/shop/echo "), "{body}");
}

#[tokio::test]
async fn paths_pass_as_they_are() {
    let world = World::open().await;
    for path in PATHS {
        for (host, before) in [("echo.default", ""), ("cloud.example", "/_svc/default/echo")] {
            let text =
                format!("GET {before}{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let answer = say(world.at, &text).await;
            assert!(
                answer.contains(&format!("a GET {path} host=echo.default ")),
                "{path}: {answer}"
            );
            let Ok(uri) = format!("http://{host}{before}{path}").parse::<http::Uri>() else {
                continue;
            };
            let by_http2 =
                Request::get(uri).version(Version::HTTP_2).body(Full::default()).unwrap();
            let answer = ask(world.at, by_http2).await;
            assert!(
                answer.body.starts_with(&format!("a GET {path} host=echo.default ")),
                "{path}: {answer:?}"
            );
        }
    }
}

#[tokio::test]
async fn grpc_has_its_trailers() {
    let world = World::open().await;
    for (host, target) in [("echo.default", "/p.S/M"), ("cloud", "/_svc/default/echo/p.S/M")] {
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let mut call = request(Version::HTTP_2, "POST", (host, target), &grpc);
        *call.body_mut() = Full::from("message");
        let answer = ask(world.at, call).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "message"), "{host}");
        assert_eq!(answer.grpc(), ("0", "well"), "{host}");
        assert!(answer.headers.get("grpc-status").is_none(), "in the trailers");
    }
}

#[tokio::test]
async fn websockets_open() {
    let world = World::open().await;
    for (host, target) in [("echo.default", "/ws"), ("cloud", "/_svc/default/echo/ws")] {
        let mut stream = TcpStream::connect(world.at).await.unwrap();
        let text = format!(
            "GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nwith"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
        let answer = head(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        for word in [b"with", b"more"] {
            if word == b"more" {
                stream.write_all(word).await.unwrap();
            }
            let mut echo = [0; 4];
            stream.read_exact(&mut echo).await.unwrap();
            assert_eq!(&echo, word);
        }
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let world = World::open().await;
    let streamed = async |version: Version, host: &str, target: &str| {
        let mut tasks = JoinSet::new();
        let (pieces, body) = mpsc::channel::<Bytes>(1);
        let body = futures_util::stream::unfold(body, async |mut body| {
            let piece = body.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), body))
        });
        let call =
            request(version, "POST", (host, target), &[]).map(|_| StreamBody::new(Box::pin(body)));
        let io = TokioIo::new(TcpStream::connect(world.at).await.unwrap());
        let answer = if version == Version::HTTP_2 {
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tasks.spawn(async { drop(connection.await) });
            pieces.send("0".into()).await.unwrap();
            sender.send_request(call).await.unwrap()
        } else {
            let (mut sender, connection) = http1::handshake(io).await.unwrap();
            tasks.spawn(async { drop(connection.await) });
            pieces.send("0".into()).await.unwrap();
            sender.send_request(call).await.unwrap()
        };
        let mut body = answer.into_body();
        // Each piece is sent only after the one before it has come back.
        for piece in ["0", "1", "2"] {
            let mut came = String::new();
            while came != piece {
                let frame = body.frame().await.unwrap().unwrap();
                came.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
            }
            let next = (piece.parse::<u8>().unwrap() + 1).to_string();
            if next != "3" {
                pieces.send(next.into()).await.unwrap();
            }
        }
        drop(pieces);
        assert!(body.collect().await.unwrap().to_bytes().is_empty());
    };
    for version in BOTH {
        for (host, target) in [("echo.default", "/stream"), ("x", "/_svc/default/echo/stream")] {
            let talk = streamed(version, host, target);
            tokio::time::timeout(PATIENCE, talk).await.expect("in time");
        }
    }
}
