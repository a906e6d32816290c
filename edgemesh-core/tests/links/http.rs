//! Requests: what the Backend of another node sees of them, and what the client sees of its answers.

use bytes::Bytes;
use edgemesh_core::backends::Way;
use edgemesh_core::forward::http::Body;
use http::{HeaderMap, Request, Response, Version};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_service::Service as _;

use crate::backend::Backend;
use crate::log;
use crate::world::{World, soon};

/// The records of one Service with one Backend on `edge-2`.
pub(crate) fn one(name: &str, port: u16) -> String {
    format!(
        "service default/{name} 10.96.0.1 http:80
         slice default/{name}-1 for={name} ports=http:{port} 127.0.0.1@edge-2"
    )
}

pub(crate) async fn text(response: Response<Body>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// Both by a client of the proxy and by the embedding application, by either way.
#[tokio::test]
async fn requests_cross_as_they_are() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("cross", backend.port())).await;
    let site = world.at("edge-1");
    for (way, lines) in [(Way::Direct, 2), (Way::Hub, 4)] {
        site.wires.by("edge-2", way);
        let mut client = TcpStream::connect(site.proxy).await.unwrap();
        let request = "POST http://cross.default/a%20b?c=d HTTP/1.1\r\nHost: cross.default\r\nX-Two: 1\r\nX-Two: 2\r\n\
             Connection: close, x-mine\r\nX-Mine: 1\r\nContent-Length: 4\r\nTransfer: no\r\n\r\nbody";
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("an answer", client.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.contains("x-backend: was here\r\n") && answer.contains("body"), "{answer}");
        {
            let heads = backend.seen.heads.lock();
            let head = heads.last().unwrap();
            assert_eq!((head.method.as_str(), head.version), ("POST", Version::HTTP_11));
            assert_eq!(head.uri, "/a%20b?c=d");
            let two: Vec<_> = head.headers.get_all("x-two").iter().collect();
            assert_eq!(two, ["1", "2"]);
            assert!(
                !head.headers.contains_key("x-mine") && !head.headers.contains_key("connection")
            );
            assert_eq!(head.headers["host"], "cross.default");
            assert_eq!(head.headers["x-forwarded-for"], "127.0.0.1", "it is said once");
            assert_eq!(head.headers["content-length"], "4");
        }
        let told = log::of("cross", lines).await.split_off(lines - 2);
        let line = |via: &str| {
            told.iter().find(|line| line["via"] == via).unwrap_or_else(|| panic!("{told:?}"))
        };
        let (entry, exit) = (line(way.name()), line("local"));
        assert_eq!(entry["message"].len(), 36);
        assert_eq!(entry["message"], exit["message"], "one Message, in both logs");
        assert_eq!((exit.get("from").unwrap().as_str(), entry.get("from")), ("edge-1", None));
        assert_eq!((&*entry["outcome"], &*exit["outcome"]), ("ok", "ok"));
        assert_eq!((&*entry["up"], &*exit["up"], &*entry["down"]), ("4", "4", "4"));
        assert_eq!(entry["backend"], exit["backend"]);
        assert_eq!(entry["id"], exit["id"]);
    }
    let request = Request::get("http://cross.default/teapot").body(String::new()).unwrap();
    let response = soon("an answer", site.mesh.http().call(request)).await.unwrap();
    assert_eq!((response.status().as_u16(), &*text(response).await), (418, "short and stout"));
    assert_eq!(backend.header("x-forwarded-for"), "");
    assert!(!backend.seen.heads.lock().last().unwrap().headers.contains_key("transfer-encoding"));
}

/// HTTP/2 stays HTTP/2, trailers go both ways, and the time that is left goes along.
#[tokio::test]
async fn grpc_crosses_with_its_trailers() {
    let backend = Backend::start(true).await;
    let world =
        World::new(&["edge-1", "edge-2"], &one("grpc", backend.port()).replace("http:", "grpc:"))
            .await;
    let frames = [
        Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"\0\0\0\0\x02hi"))),
        Ok(Frame::trailers(HeaderMap::from_iter([(
            "x-end".parse().unwrap(),
            "yes".parse().unwrap(),
        )]))),
    ];
    let request = Request::post("http://grpc.default/test.Service/Call")
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "5S")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .body(StreamBody::new(futures_util::stream::iter(frames)))
        .unwrap();
    let response = soon("an answer", world.at("edge-1").mesh.http().call(request)).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, Version::HTTP_2));
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), &b"\0\0\0\0\x02hi"[..]);
    assert_eq!(backend.seen.trailers.lock()[0]["x-end"], "yes");
    let head = &backend.seen.heads.lock()[0];
    assert_eq!(head.version, Version::HTTP_2);
    assert_eq!(head.uri.authority().unwrap(), "grpc.default");
    assert_eq!(head.headers["te"], "trailers");
    assert!(head.headers["traceparent"].to_str().unwrap().starts_with("00-0af7651916cd43dd"));
    let left = head.headers["grpc-timeout"].to_str().unwrap();
    let left: u32 = left.strip_suffix('m').unwrap().parse().unwrap();
    assert!((1000..=5000).contains(&left), "{left} ms are left of 5 s");
}

/// HTTP/1 to a port that is declared to be HTTP/2, and the reverse: the Backend's agent knows.
#[tokio::test]
async fn the_backends_agent_decides_what_it_is_spoken_to_in() {
    for (name, declared, http2) in [("h1to2", "http2", true), ("h2to1", "http", false)] {
        let backend = Backend::start(http2).await;
        let records = one(name, backend.port()).replace("http:", &format!("{declared}:"));
        let world = World::new(&["edge-1", "edge-2"], &records).await;
        let version = if http2 { Version::HTTP_11 } else { Version::HTTP_2 };
        let request = Request::post(format!("http://{name}.default/echo")).version(version);
        let request = request.body(Full::new(Bytes::from_static(b"words"))).unwrap();
        let response =
            soon("an answer", world.at("edge-1").mesh.http().call(request)).await.unwrap();
        assert_eq!(response.version(), version);
        assert_eq!(text(response).await, "words");
        let want = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        assert_eq!(backend.seen.heads.lock()[0].version, want, "{name}");
    }
}

#[tokio::test]
async fn large_bodies_cross_whole() {
    const LENGTH: usize = 3 << 20;
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("large", backend.port())).await;
    let body: Bytes = (0..LENGTH).map(|i| (i / 7) as u8).collect::<Vec<_>>().into();
    let request = Request::put("http://large.default/echo").body(Full::new(body.clone())).unwrap();
    let response = soon("an answer", world.at("edge-1").mesh.http().call(request)).await.unwrap();
    let got = soon("all of it", response.into_body().collect()).await.unwrap().to_bytes();
    assert!(got == body);
    assert_eq!(backend.header("content-length"), LENGTH.to_string());
    let told = log::of("large", 2).await;
    assert!(
        told.iter()
            .all(|line| line["up"] == LENGTH.to_string() && line["down"] == LENGTH.to_string())
    );
}

/// WebSocket and its like: bytes both ways, half-close kept; one that the Backend does not grant stays
/// a request.
#[tokio::test]
async fn upgrades_cross() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("ws", backend.port())).await;
    let ask = |path: &str| {
        format!(
            "GET http://ws.default{path} HTTP/1.1\r\nHost: ws.default\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\nearly "
        )
    };
    let mut client = TcpStream::connect(world.at("edge-1").proxy).await.unwrap();
    client.write_all(ask("/ws").as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", client.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: test"), "{head}");
    let mut hello = [0; 6];
    soon("its words", client.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello ");
    client.write_all(b"and late").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    soon("the echo", client.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "early and late");
    let told = log::of("ws", 2).await;
    for line in &told {
        assert_eq!(
            (&*line["status"], &*line["outcome"], &*line["up"], &*line["down"]),
            ("101", "ok", "14", "20")
        );
    }
    let mut client = TcpStream::connect(world.at("edge-1").proxy).await.unwrap();
    let request = ask("/teapot").replace("early ", "");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    soon("a head", client.read_exact(&mut head)).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 418");
    assert_eq!(log::of("ws", 4).await.iter().filter(|line| line["outcome"] == "ok").count(), 4);
}

/// A client that waits for `100 Continue` hears it from the agent at its own end, since a Link carries
/// no word between a request and its answer; a Backend that does not want the body says so after it.
#[tokio::test]
async fn expectations_are_met() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("expect", backend.port())).await;
    for (path, status, words) in [("/echo", "200", "body"), ("/early", "413", "too much")] {
        let mut client = TcpStream::connect(world.at("edge-1").proxy).await.unwrap();
        let request = format!(
            "POST http://expect.default{path} HTTP/1.1\r\nHost: expect.default\r\nExpect: 100-continue\r\n\
             Connection: close\r\nContent-Length: 4\r\n\r\n"
        );
        client.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 25];
        soon("the first words", client.read_exact(&mut first)).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n", "{path}");
        client.write_all(b"body").await.unwrap();
        let mut rest = String::new();
        soon("an answer", client.read_to_string(&mut rest)).await.unwrap();
        assert!(rest.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {rest}");
        assert!(rest.contains(words), "{path}: {rest}");
        assert_eq!(backend.header("expect"), "100-continue");
    }
}

/// The time of the caller's Policy goes along: the other node gives up with it.
#[tokio::test]
async fn deadlines_go_along() {
    let backend = Backend::start(false).await;
    let mut world = World::new(&["edge-1", "edge-2"], &one("late", backend.port())).await;
    world.put_at("edge-1", "policy default/late for=late request=300ms");
    let request = Request::get("http://late.default/wait").body(String::new()).unwrap();
    let refused =
        soon("an answer", world.at("edge-1").mesh.http().call(request)).await.unwrap_err();
    assert_eq!(refused.refusal.row().label, "requestTimeout");
    let left = &mut backend.seen.left.subscribe();
    soon("the Backend's client leaves", left.wait_for(|left| *left == 1)).await.unwrap();
    let told = log::of("late", 2).await;
    for line in &told {
        let took: f64 = line["ms"].parse().unwrap();
        assert!((250.0..5000.0).contains(&took), "{line:?}");
        assert!(["requestTimeout", "cancelled"].contains(&&*line["outcome"]), "{line:?}");
    }
    assert!(told.iter().any(|line| line["via"] == "direct" && line["outcome"] == "requestTimeout"));
    // The end of an answer that has begun is bounded too.
    let request = Request::get("http://late.default/stream").body(String::new()).unwrap();
    let response = soon("a head", world.at("edge-1").mesh.http().call(request)).await.unwrap();
    let broken = soon("its end", response.into_body().collect()).await.unwrap_err();
    assert!(broken.to_string().contains("in time"), "{broken}");
    soon("the Backend's client leaves", left.wait_for(|left| *left == 2)).await.unwrap();
}
