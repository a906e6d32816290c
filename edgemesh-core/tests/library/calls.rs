//! Requests by name: balanced, generic over their bodies, refused with a reason, cancelled by drop.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use bytes::Bytes;
use edgemesh_core::mesh::{Http, Mesh, OpenError};
use edgemesh_core::metrics::Carried;
use edgemesh_core::plan::Outcome;
use edgemesh_core::refusal::Refusal;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower_service::Service;

use crate::world::{Act, Backend, Folder, PATIENCE, mesh, nobody};

fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}

async fn text(http: &mut Http, request: Request<Empty<Bytes>>) -> String {
    let answer = http.call(request).await.unwrap();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.into()).unwrap()
}

#[tokio::test]
async fn each_request_is_balanced_by_itself() {
    let backends = [Backend::start(Act::Answer).await, Backend::start(Act::Answer).await];
    let (_folder, mesh) =
        mesh(&[&backends[0], &backends[1]], "loadBalancer: { policy: roundRobin }").await;
    let mut http = mesh.http();
    for _ in 0..6 {
        assert!(text(&mut http, get("http://svc.default/x")).await.ends_with("/x"));
    }
    assert_eq!(backends.map(|backend| backend.requests()), [3, 3]);
    assert_eq!(mesh.metrics().calls[Carried::Http1.index()].ok.load(Relaxed), 6);
}

#[tokio::test]
async fn bodies_of_every_kind_go_up() {
    let backend = Backend::start(Act::Answer).await;
    let (_folder, mesh) = mesh(&[&backend], "").await;
    let mut http = mesh.http();
    let post = || Request::post("http://svc.default:80/");
    http.call(post().body(Full::new(Bytes::from_static(b"full "))).unwrap()).await.unwrap();
    http.call(post().body("text ".to_owned()).unwrap()).await.unwrap();
    let pieces = ["a ", "stream"].map(|piece| {
        Ok::<_, std::io::Error>(http_body::Frame::data(std::collections::VecDeque::from(
            piece.as_bytes().to_vec(),
        )))
    });
    let stream = StreamBody::new(futures_util::stream::iter(pieces));
    // Of unknown length, so with a length of the application's own.
    let streamed = post().header("content-length", 8).body(stream).unwrap();
    http.call(streamed).await.unwrap();
    assert_eq!(&*backend.seen.bodies.lock(), b"full text a stream");
}

#[tokio::test]
async fn a_version_is_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = Folder::new();
    folder.service("svc", &[listener.local_addr().unwrap()], "");
    let mesh = folder.open().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service =
            hyper::service::service_fn(async |request: Request<hyper::body::Incoming>| {
                let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
                Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(host))))
            });
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await
            .ok();
    });
    let mut request = get("http://svc.default/");
    *request.version_mut() = Version::HTTP_2;
    assert_eq!(text(&mut mesh.http(), request).await, "svc.default");
}

#[tokio::test]
async fn refusals_say_why() {
    let backend = Backend::start(Act::Answer).await;
    let reset = Backend::start(Act::Reset).await;
    let folder = Folder::new();
    folder.service("svc", &[backend.address], "");
    folder.service("dead", &[nobody().await], "");
    folder.service("reset", &[reset.address], "");
    folder.service("empty", &[], "");
    folder.service("spent", &[backend.address], "rateLimit: { client: { qps: 1, burst: 1 } }");
    let mesh = folder.open().await;
    let mut http = mesh.http();
    text(&mut http, get("http://spent.default/")).await;
    let rows: &[(Method, &str, &str)] = &[
        (Method::GET, "http://other.default/", "noService"),
        (Method::GET, "http://example.com/", "noService"),
        (Method::GET, "http://svc.default:81/", "noPort"),
        (Method::GET, "http://empty.default/", "noBackend"),
        (Method::GET, "http://dead.default/", "connectFailed"),
        (Method::GET, "http://reset.default/", "backendReset"),
        (Method::GET, "http://spent.default/", "rateLimited"),
        (Method::GET, "/x", "badRequest"),
        (Method::GET, "https://svc.default/", "badRequest"),
        (Method::CONNECT, "svc.default:80", "badRequest"),
    ];
    for (method, uri, want) in rows {
        let request = Request::builder().method(method).uri(*uri).body(Empty::<Bytes>::new());
        let refused = http.call(request.unwrap()).await.unwrap_err();
        assert_eq!(refused.refusal.row().label, *want, "{method} {uri}");
        let hinted = *want == "badRequest";
        assert_eq!(hinted, !refused.hint.is_empty(), "{refused}");
        assert!(refused.to_string().contains(&refused.refusal.to_string()), "{refused}");
    }
    assert_eq!(backend.requests(), 1, "the one that spent the limit");
    assert_eq!(reset.requests(), 1);
}

#[tokio::test]
async fn a_dead_backend_is_left_for_another() {
    let backend = Backend::start(Act::Answer).await;
    let folder = Folder::new();
    folder.service("svc", &[nobody().await, backend.address], "");
    let mesh = folder.open().await;
    for _ in 0..4 {
        text(&mut mesh.http(), get("http://svc.default/")).await;
    }
    assert_eq!(backend.requests(), 4);
}

#[tokio::test]
async fn a_dropped_call_is_cancelled() {
    let backend = Backend::gated(Act::Wait, Arc::new(|_, _| false)).await;
    let (_folder, mesh) = mesh(&[&backend], "").await;
    let mut http = mesh.http();
    let mut arrived = backend.seen.open.subscribe();
    let arrived = arrived.wait_for(|open| *open == 1);
    let call = http.call(get("http://svc.default/"));
    tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            answer = call => panic!("{answer:?}"),
            arrived = arrived => drop(arrived.unwrap()),
        }
        backend.seen.left.subscribe().wait_for(|left| *left == 1).await.unwrap();
    })
    .await
    .expect("in time");
    assert_eq!(mesh.metrics().calls[Carried::Http1.index()].cancelled.load(Relaxed), 1);
    let hop = mesh.plan(&mesh.towards("svc.default")).unwrap();
    assert_eq!(hop.backend().live.in_flight.load(SeqCst), 1, "nothing but this hop");
    hop.finish(Outcome::Good, tokio::time::Instant::now().into_std());
}

#[tokio::test]
async fn decisions_without_a_call() {
    let backend = Backend::start(Act::Answer).await;
    let (_folder, mesh) = mesh(&[&backend], "").await;
    assert_eq!(mesh.plan(&mesh.towards("svc.default:80")).unwrap().address(), backend.address);
    for (name, want) in [
        ("svc.default:81", Refusal::NoPort),
        ("svc.default:x", Refusal::NoPort),
        ("svc", Refusal::NoService),
        ("gone.default", Refusal::NoService),
    ] {
        assert_eq!(mesh.plan(&mesh.towards(name)).unwrap_err(), want, "{name}");
    }
}

#[tokio::test]
async fn opening_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let error = Mesh::builder().manifests(&missing).open().await.unwrap_err();
    assert!(matches!(error, OpenError::Source(_)), "{error}");
    assert!(error.to_string().contains("missing"), "{error}");
    let error = Mesh::builder().follow(folder.path().join("mesh.sock")).open().await.unwrap_err();
    assert!(error.to_string().contains("edgemesh agent"), "{error}");
}

#[tokio::test]
async fn a_mesh_with_a_data_folder_ends_and_begins_again() {
    let (folder, data) = (Folder::new(), tempfile::tempdir().unwrap());
    let backend = Backend::start(Act::Answer).await;
    folder.service("svc", &[backend.address], "");
    let manifests = folder.path().to_owned();
    let open = async || Mesh::builder().manifests(&manifests).data_dir(data.path()).open().await;
    let mesh = open().await.unwrap();
    assert!(open().await.is_err(), "of one folder there is one owner");
    text(&mut mesh.http(), get("http://svc.default/")).await;
    tokio::time::timeout(PATIENCE, mesh.run(async {})).await.expect("an idle pool holds nobody up");
    drop(folder);
    let mesh = open().await.unwrap();
    text(&mut mesh.http(), get("http://svc.default/")).await;
}
