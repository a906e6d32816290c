//! HTTP/1 and HTTP/2 on the two sides of the mesh: a Backend is spoken to in what it declares.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version};

use crate::agent::Agent;
use crate::backend::{Backend, header};
use crate::common::namespace::in_namespace;
use crate::common::run::run;
use crate::h2peer::{Answered, Asked, answered, ask, connect, push, read, runtime, serve};
use crate::raw::Raw;
use crate::world::{ONE, World};

/// An HTTP/1 backend that is declared as such, one that declares nothing, and an HTTP/2 one.
const OLD: &str = "10.96.0.30:80";
const UNDECLARED: &str = "10.96.0.31:80";
const NEW: &str = "10.96.0.32:80";

/// What the HTTP/2 backend was asked.
type Seen = Arc<Mutex<Vec<Request<()>>>>;

#[test]
fn versions_are_translated_where_declared() {
    in_namespace("http_versions::versions_are_translated_where_declared", || {
        let (world, runtime) = (World::new(), runtime());
        let old = Backend::start("", "one", ONE, 8080);
        let seen = Seen::default();
        let kept = seen.clone();
        serve(&runtime, "10.4.0.1:8082", move |asked| reflect(asked, kept.clone()));
        world.service("old", &["10.96.0.30"], &["http:80:8080"], &[ONE]);
        world.service("plain", &["10.96.0.31"], &[":80:8080"], &[ONE]);
        world.service("new", &["10.96.0.32"], &["http2:80:8082"], &[[ONE[0], ""]]);
        let agent = Agent::start(&world);
        runtime.block_on(async {
            requests_become_http1(&old).await;
            bodies_and_trailers_cross().await;
            grpc_and_tunnels_do_not_cross(&old).await;
            the_proxy_ends_tunnels_of_http2().await;
        });
        requests_become_http2(&seen);
        nobody_probes(&old);
        let page = agent.get("/v1/status");
        assert_eq!(page["refusals"]["unsupported"], 4, "{page}");
    });
}

fn get(at: &str, path: &str) -> http::request::Builder {
    Request::get(format!("http://{at}{path}"))
}

fn text(answer: &Answered) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}

async fn requests_become_http1(old: &Backend) {
    let sender = connect(OLD).await;
    let request = Request::get("http://old.default/head?q=1")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let answer = ask(&sender, request, vec![]).await;
    let head = text(&answer);
    assert!(head.starts_with("GET /head?q=1 HTTP/1.1\r\n"), "{head}");
    for (name, want) in [
        ("host", Some("old.default")),
        ("cookie", Some("a=1; b=2")),
        ("te", Some("trailers")),
        ("connection", Some("te")),
        ("transfer-encoding", None),
    ] {
        assert_eq!(header(&head, name), want, "{name}: {head}");
    }
    assert_eq!(answer.headers.get("connection"), None);
    assert!(answer.headers.contains_key("date"), "a proxy dates what has no date");
    let all = Uri::builder().scheme("http").authority("old.default").path_and_query("*");
    let options = Request::options(all.build().unwrap()).body(()).unwrap();
    ask(&sender, options, vec![]).await;
    assert!(old.last_head().starts_with("OPTIONS * HTTP/1.1\r\n"), "{}", old.last_head());
    for (method, path, status, length) in [
        (Method::HEAD, "/", 200, Some("4321")),
        (Method::GET, "/status/204", 204, None),
        (Method::GET, "/status/404", 404, Some("0")),
    ] {
        let request = get(OLD, path).method(&method).body(()).unwrap();
        let answer = ask(&sender, request, vec![]).await;
        let found = answer.headers.get("content-length").map(|length| length.to_str().unwrap());
        assert_eq!((answer.status, found, answer.body.len()), (status, length, 0), "{path}");
    }
}

async fn bodies_and_trailers_cross() {
    let sender = connect(OLD).await;
    let pieces: Vec<Bytes> = (0..20).map(|_| Bytes::from(vec![b'x'; 10_000])).collect();
    for length in [None, Some("200000")] {
        let mut request = get(OLD, "/echo").method(Method::POST);
        if let Some(length) = length {
            request = request.header("content-length", length);
        }
        let answer = ask(&sender, request.body(()).unwrap(), pieces.clone()).await;
        assert_eq!((answer.status, answer.body.len()), (200, 200_000), "{length:?}");
        assert_eq!(answer.trailers.get("x-length").unwrap(), "200000");
    }
}

async fn grpc_and_tunnels_do_not_cross(old: &Backend) {
    let before = old.counts();
    let request = crate::h2peer::grpc(OLD, "/t.T/M", &[]);
    let answer = ask(&connect(OLD).await, request, vec![Bytes::from_static(b"\0\0\0\0\0")]).await;
    assert_eq!(
        (answer.status, answer.headers.get("grpc-status").unwrap().as_bytes()),
        (200, &b"12"[..])
    );
    assert_eq!(answer.headers.get("x-edgemesh-refusal").unwrap(), "unsupported");
    // gRPC-Web needs no trailers.
    let request =
        get(OLD, "/echo").method(Method::POST).header("content-type", "application/grpc-web");
    let web =
        ask(&connect(OLD).await, request.body(()).unwrap(), vec![Bytes::from_static(b"web")]).await;
    assert_eq!((web.status, text(&web).as_str()), (200, "web"));
    for at in [OLD, NEW] {
        let request = Request::connect("a.b:80").body(()).unwrap();
        let sender = connect(at).await;
        let (response, _stream) =
            sender.ready().await.unwrap().send_request(request, false).unwrap();
        assert_eq!(response.await.unwrap().status(), 501, "a tunnel over HTTP/2 to {at}");
    }
    let mut raw = Raw::connect("", NEW);
    raw.send(b"CONNECT a.b:80 HTTP/1.1\r\nHost: a.b:80\r\n\r\n");
    assert_eq!(raw.answer("CONNECT").status, 501);
    assert_eq!(old.counts().1, before.1 + 1, "only gRPC-Web came through");
}

async fn the_proxy_ends_tunnels_of_http2() {
    let sender = connect("127.0.0.1:15001").await;
    let request = Request::connect("old.default:80").body(()).unwrap();
    let (response, mut stream) =
        sender.ready().await.unwrap().send_request(request, false).unwrap();
    let said = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(push(&mut stream, Bytes::from_static(said), true).await);
    let answer = answered(Ok(response)).await;
    assert!(text(&answer).ends_with("\r\n\r\none"), "{answer:?}");
}

/// Keeps the head; answers with the body and a trailer.
async fn reflect(mut asked: Asked, seen: Seen) {
    let body = read(asked.request.body_mut()).await.unwrap_or_default();
    let (head, _) = asked.request.into_parts();
    seen.lock().unwrap().push(Request::from_parts(head, ()));
    let said = Response::builder().header("trailer", "x-end").body(()).unwrap();
    let mut stream = asked.answer.send_response(said, false).unwrap();
    push(&mut stream, format!("new:{}", body.len()).into(), false).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-end", "yes".parse().unwrap());
    stream.send_trailers(trailers).ok();
}

/// What an HTTP/1 client says to the HTTP/2 backend; the authority and the length of the body that
/// arrive.
const SAID: &[(&str, &str, &str)] = &[
    (
        "GET /x?y HTTP/1.1\r\nHost: new.default\r\nConnection: keep-alive, x-mine\r\nX-Mine: 1\r\n\r\n",
        "new.default",
        "new:0",
    ),
    ("GET /x?y HTTP/1.0\r\n\r\n", "10.96.0.32:80", "new:0"),
    ("GET http://me:secret@other:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n", "other:81", "new:0"),
    ("POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "a", "new:5"),
    (
        "POST /x?y HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers, gzip\r\nConnection: TE\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "a",
        "new:5",
    ),
    (
        "GET /x?y HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "a",
        "new:0",
    ),
    (
        "GET /x?y HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n",
        "a",
        "new:0",
    ),
];

fn requests_become_http2(seen: &Seen) {
    for (said, authority, want) in SAID {
        let mut raw = Raw::connect("", NEW);
        raw.send(said.as_bytes());
        // HTTP/1.0 knows no chunks: its answer ends with the connection.
        let old = said.contains("HTTP/1.0");
        let body = if old { raw.rest().0 } else { raw.answer("GET").body };
        assert!(body.ends_with(want), "{said}: {body}");
        let request = seen.lock().unwrap().pop().unwrap();
        assert_eq!(request.version(), Version::HTTP_2, "{said}");
        assert_eq!(request.uri().to_string(), format!("http://{authority}/x?y"), "{said}");
        for name in
            ["host", "connection", "transfer-encoding", "upgrade", "x-mine", "http2-settings"]
        {
            assert!(!request.headers().contains_key(name), "{name}: {said}");
        }
        let te = request.headers().get("te").map(|te| te.to_str().unwrap());
        assert_eq!(te, said.contains("TE:").then_some("trailers"), "{said}");
        assert!(!format!("{request:?}").contains("secret"), "{request:?}");
    }
    let mut raw = Raw::connect("", NEW);
    raw.send(b"POST /x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nContent-Length: 5\r\n\r\nhello");
    let answer = raw.answer("POST");
    assert_eq!((answer.status, answer.body.as_str()), (200, "new:5"));
    assert!(answer.trailers.contains("x-end: yes"), "{answer:?}");
    let curl = "curl -sS -w '/%{http_version}' -x http://127.0.0.1:15001 http://new.default/";
    assert_eq!(run("", curl).out, "new:0/1.1");
}

/// A backend that declares nothing is spoken to in what the client speaks.
fn nobody_probes(old: &Backend) {
    let before = old.counts();
    let url = format!("http://{UNDECLARED}/");
    let status = run(
        "",
        &format!("curl -sS -o /dev/null -w '%{{http_code}}' --http2-prior-knowledge {url}"),
    );
    assert_eq!(status.out, "502", "{status:?}");
    assert!(!old.last_head().starts_with("GET"), "{}", old.last_head());
    assert!(old.counts().0 <= before.0 + 2, "what was not sent is sent once more, no oftener");
    assert_eq!(run("", &format!("curl -sS {url}")).out, "one");
}
