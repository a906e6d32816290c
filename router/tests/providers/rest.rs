//! URLs that are called.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use edgemesh_core::dial::Dial;
use edgemesh_core::forward::inbox::Undelivered;
use edgemesh_core::refusal::Refusal;
use edgemesh_router::providers::Providers;
use edgemesh_router::providers::connect::{Connect, Roots};
use edgemesh_router::providers::rest::Rest;
use http::Request;
use http_body_util::channel::Channel;
use http_body_util::{BodyExt as _, Full};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::server::{Authority, LARGE, Server, breaks_at_the_second, talks_nonsense};
use crate::world::{PATIENCE, World, nobody};

/// Whatever it is, the answer comes back as it is, and the message was sent once.
#[tokio::test]
async fn answers_come_back_as_they_are() {
    let (world, server) = (World::with(""), Server::default());
    let at = server.listen(None, &world.tasks).await;
    world.rules(&format!("r: rest path=/in -> rest resource=http://{at}/"));
    let providers = Providers::new(world.call(), None);
    for (method, path, body, want) in [
        ("POST", "/echo?k=v", "hi", "200 POST /echo?k=v hi"),
        ("GET", "/echo", "", "200 GET /echo "),
        ("DELETE", "/a%2Fb/%C3%A9", "", "200 DELETE /a%2Fb/%C3%A9 "),
        ("PUT", "/status/201", "x", "201 app says 201"),
        ("POST", "/status/204", "x", "204 "),
        ("POST", "/status/302", "x", "302 app says 302"),
        ("POST", "/status/400", "x", "400 app says 400"),
        ("POST", "/status/404", "x", "404 app says 404"),
        ("POST", "/status/429", "x", "429 app says 429"),
        ("POST", "/status/500", "x", "500 app says 500"),
        ("POST", "/status/503", "x", "503 app says 503"),
    ] {
        let before = server.asked.lock().len();
        let got = send(&providers, &world, method, path, body).await.unwrap();
        assert_eq!(got, want, "{method} {path}");
        let asked = server.asked.lock().clone();
        assert_eq!(asked.len(), before + 1, "{method} {path} is sent once");
        let last = asked.last().unwrap();
        assert_eq!((&*last.line, &*last.body), (&*format!("{method} {path}"), body.as_bytes()));
        assert_eq!(last.headers["host"], at.to_string());
        assert_eq!(
            (&last.headers["x-own"], last.headers.get("te")),
            (&"kept".parse().unwrap(), None)
        );
    }
    let large = send(&providers, &world, "GET", "/large", "").await.unwrap();
    assert_eq!(large.len(), "200 ".len() + LARGE);
}

/// Who does not answer, and what is said of it.
#[tokio::test]
async fn those_who_do_not_answer_are_told_apart() {
    let (world, server) = (World::with(""), Server::default());
    let at = server.listen(None, &world.tasks).await;
    let (nonsense, away) = (talks_nonsense(&world.tasks).await, nobody());
    use Refusal::{BackendProtocol, BackendReset, BadRequest, ConnectFailed};
    for (url, path, refusal, sent, want) in [
        (format!("http://{away}/"), "/", ConnectFailed, false, "nobody listens there"),
        (
            "http://a.invalid:81/".into(),
            "/",
            ConnectFailed,
            false,
            "a.invalid:81: its name cannot be",
        ),
        (format!("http://{at}/"), "/breaks", BackendReset, true, "it broke the connection before"),
        (format!("http://{nonsense}/"), "/", BackendProtocol, true, "its answer is not HTTP"),
        (format!("http://{at}/only/"), "/other", BadRequest, false, "the Rule makes no such path"),
        (format!("https://{at}/"), "/", ConnectFailed, false, "it does not speak TLS"),
    ] {
        world.rules(&format!("r: rest path=/in -> rest resource={url}"));
        let providers = Providers::new(world.call(), None);
        let error = send(&providers, &world, "POST", path, "x").await.unwrap_err();
        assert_eq!((error.refusal, error.sent), (refusal, sent), "{url}: {error:?}");
        assert!(error.reason.contains(want), "{url}: {error:?}");
    }
    assert_eq!(server.asked.lock().iter().filter(|asked| asked.line == "POST /breaks").count(), 1);
}

/// A kept connection that breaks under a message: it may have been read, and is not sent again. One that
/// the server closed while it was idle is replaced.
#[tokio::test]
async fn what_may_have_been_read_is_not_sent_again() {
    let (world, served) = (World::with(""), Arc::new(AtomicUsize::new(0)));
    let at = breaks_at_the_second(served.clone(), &world.tasks).await;
    world.rules(&format!("r: rest path=/in -> rest resource=http://{at}/"));
    let providers = Providers::new(world.call(), None);
    assert_eq!(send(&providers, &world, "POST", "/1", "x").await.unwrap(), "200 ok");
    let error = send(&providers, &world, "POST", "/2", "x").await.unwrap_err();
    assert_eq!((error.refusal, error.sent), (Refusal::BackendReset, true), "{error:?}");
    assert_eq!(served.load(Ordering::SeqCst), 2);
    assert_eq!(send(&providers, &world, "POST", "/3", "x").await.unwrap(), "200 ok");
    assert_eq!(served.load(Ordering::SeqCst), 3);
}

/// Bodies pass as they come, in both directions.
#[tokio::test]
async fn bodies_are_streamed() {
    let (world, server) = (World::with(""), Server::default());
    let at = server.listen(None, &world.tasks).await;
    world.rules(&format!("r: rest path=/in -> rest resource=http://{at}/"));
    let providers = Providers::new(world.call(), None);
    let (mut up, body) = Channel::<Bytes, Infallible>::new(1);
    let request = Request::post("/stream").body(body).unwrap();
    let answer = providers.send(&world.rule("r"), request).await.unwrap();
    let mut down = answer.into_body();
    for word in ["one", "two"] {
        up.send_data(Bytes::from(word)).await.unwrap();
        let frame = timeout(PATIENCE, down.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(up);
    assert!(timeout(PATIENCE, down.frame()).await.unwrap().is_none());
}

/// The size of what is sent in parts is not known before its end; a GET's too arrives whole.
#[tokio::test]
async fn bodies_of_unknown_size_arrive() {
    let (world, server) = (World::with(""), Server::default());
    let at = server.listen(None, &world.tasks).await;
    world.rules(&format!("r: rest path=/in -> rest resource=http://{at}/"));
    let providers = Providers::new(world.call(), None);
    for method in ["GET", "HEAD", "DELETE", "POST"] {
        let (mut up, body) = Channel::<Bytes, Infallible>::new(1);
        up.send_data(Bytes::from("hello")).await.unwrap();
        drop(up);
        let request = Request::builder().method(method).uri("/echo").body(body).unwrap();
        providers.send(&world.rule("r"), request).await.unwrap();
        let asked = server.asked.lock().pop().unwrap();
        assert_eq!((&*asked.line, &*asked.body), (&*format!("{method} /echo"), &b"hello"[..]));
    }
}

/// Servers close a connection that is idle after two or five seconds: before that it is closed here.
#[tokio::test]
async fn connections_are_not_kept_until_servers_close_them() {
    let world = World::with("");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let served = world.tasks.spawn(async move {
        let (mut stream, mut read) = (listener.accept().await.unwrap().0, [0; 4096]);
        while !stream.read(&mut read).await.is_ok_and(|n| read[..n].ends_with(b"x")) {}
        let answer = b"HTTP/1.1 200 OK\r\nx-app: yes\r\ncontent-length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
        timeout(Duration::from_secs(5), stream.read(&mut read)).await
    });
    world.rules(&format!("r: rest path=/in -> rest resource=http://{at}/"));
    let providers = Providers::new(world.call(), None);
    assert_eq!(send(&providers, &world, "POST", "/1", "x").await.unwrap(), "200 ok");
    assert_eq!(served.await.unwrap().expect("it is closed before Node would").unwrap(), 0);
}

/// A URL is called over HTTP/1.1, where a status in trailers would be lost.
#[tokio::test]
async fn grpc_is_refused() {
    let (world, server) = (World::with(""), Server::default());
    let at = server.listen(None, &world.tasks).await;
    world.rules(&format!("r: rest path=/in -> rest resource=http://{at}/"));
    let providers = Providers::new(world.call(), None);
    for (kind, is_refused) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("application/grpc; charset=utf-8", true),
        ("application/grpc-web", false),
        ("text/plain", false),
    ] {
        let request = Request::post("/echo").header("content-type", kind);
        let request = request.body(Full::new(Bytes::new())).unwrap();
        let sent = providers.send(&world.rule("r"), request).await;
        let refused = sent.err().map(|error| (error.refusal, error.sent));
        assert_eq!(refused, is_refused.then_some((Refusal::Unsupported, false)), "{kind}");
    }
    assert_eq!(server.asked.lock().len(), 2);
}

/// Whoever asks holds the time; what is given up is given up.
#[tokio::test]
async fn a_server_that_is_silent_is_waited_for_by_the_caller() {
    let (world, server) = (World::with(""), Server::default());
    let at = server.listen(None, &world.tasks).await;
    world.rules(&format!("r: rest path=/in -> rest resource=http://{at}/"));
    let providers = Providers::new(world.call(), None);
    let sent = send(&providers, &world, "POST", "/silent", "x");
    assert!(timeout(Duration::from_millis(200), sent).await.is_err());
    assert_eq!(send(&providers, &world, "GET", "/x", "").await.unwrap(), "200 GET /x ");
    assert_eq!(server.asked.lock().len(), 2);
}

/// Certificates: whom they are of, for which name, and in which years; what comes of a call.
#[tokio::test]
async fn certificates_are_verified() {
    let (world, server) = (World::with(""), Server::default());
    let (known, unknown) = (Authority::new(), Authority::new());
    let roots = || Roots::MachineAnd(vec![known.root.clone()]);
    let always = (1975, 4096);
    for (tls, want) in [
        (known.server("localhost", always), Ok("200 GET /x ")),
        (unknown.server("localhost", always), Err("no authority that this machine trusts")),
        (known.server("other.example", always), Err("it is for another name")),
        (known.server("localhost", (1975, 2000)), Err("it has expired")),
        (known.server("localhost", (4000, 4096)), Err("it is not valid yet")),
    ] {
        let at = server.listen(Some(tls), &world.tasks).await;
        world.rules(&format!("r: rest path=/in -> rest resource=https://localhost:{}/", at.port()));
        let connect = Connect::new(Dial::default(), roots());
        let rest = Rest::new(connect, &world.tasks, world.stop.clone());
        let providers = Providers::new(rest, None);
        match (send(&providers, &world, "GET", "/x", "").await, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want),
            (Err(got), Err(want)) => {
                assert!(got.reason.contains(want), "{got:?}");
                assert!(got.reason.starts_with("localhost:"), "{got:?}");
                assert_eq!((got.refusal, got.sent), (Refusal::ConnectFailed, false));
            }
            (got, want) => panic!("{got:?}, not {want:?}"),
        }
    }
    assert_eq!(server.asked.lock().len(), 1, "nothing was sent to those who are not trusted");
}

/// When everything stops, the answer that is under way still comes to its end.
#[tokio::test]
async fn what_is_under_way_ends_before_the_connections() {
    let (world, server) = (World::with(""), Server::default());
    let at = server.listen(None, &world.tasks).await;
    world.rules(&format!("r: rest path=/in -> rest resource=http://{at}/"));
    let tasks = tokio_util::task::TaskTracker::new();
    let rest = Rest::new(crate::world::connect(), &tasks, world.stop.clone());
    let providers = Providers::new(rest, None);
    let request = Request::get("/large").body(Full::new(Bytes::new())).unwrap();
    let answer = providers.send(&world.rule("r"), request).await.unwrap();
    assert!(!tasks.is_empty());
    world.stop.cancel();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), LARGE);
    tasks.close();
    timeout(PATIENCE, tasks.wait()).await.expect("no connection is left");
}

async fn send(
    providers: &Providers,
    world: &World,
    method: &str,
    path: &str,
    body: &'static str,
) -> Result<String, Undelivered> {
    let request = Request::builder().method(method).uri(path);
    let request = request.header("host", "mesh").header("x-own", "kept").header("te", "trailers");
    let request = request.body(Full::new(Bytes::from(body))).unwrap();
    let answer = providers.send(&world.rule("r"), request).await?;
    let status = answer.status().as_u16();
    assert_eq!(answer.headers()["x-app"], "yes");
    assert!(!answer.headers().contains_key("keep-alive"));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Ok(format!("{status} {}", String::from_utf8_lossy(&body)))
}
