//! How answers that crossed end: never half a body for a whole one, and nobody waits for who is gone.

use std::time::Duration;

use edgemesh_core::forward::http::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_service::Service as _;

use crate::backend::Backend;
use crate::http::{one, text};
use crate::log;
use crate::world::{World, soon};

async fn get(world: &World, url: &str) -> Response<Body> {
    let request = Request::get(url).body(String::new()).unwrap();
    soon("a head", world.at("edge-1").mesh.http().call(request)).await.unwrap()
}

/// The first piece of a body.
async fn piece(response: &mut Response<Body>) -> bytes::Bytes {
    let frame = soon("a piece", response.body_mut().frame()).await.unwrap().unwrap();
    frame.into_data().unwrap()
}

#[tokio::test]
async fn half_an_answer_is_never_taken_for_a_whole_one() {
    for by_link in [false, true] {
        let name = format!("half-{by_link}");
        let backend = Backend::start(false).await;
        let world = World::new(&["edge-1", "edge-2"], &one(&name, backend.port())).await;
        let mut response = get(&world, &format!("http://{name}.default/half")).await;
        assert_eq!(piece(&mut response).await, "half!");
        match by_link {
            true => world.at("edge-1").wires.cut("edge-2"),
            false => drop(backend.seen.gate.send_replace(true)),
        }
        let broken = soon("its end", response.body_mut().collect()).await.unwrap_err();
        assert!(broken.to_string().contains("broke off"), "{broken}");
        drop(response);
        for line in log::of(&name, 2).await {
            // Where the Link broke, the other node's caller left.
            let there = line.contains_key("from");
            let want = if by_link && there { "cancelled" } else { "failed" };
            assert_eq!((&*line["outcome"], &*line["status"]), (want, "200"), "{line:?}");
        }
        // The next one is as good as any.
        backend.seen.gate.send_replace(true);
        assert_eq!(
            text(get(&world, &format!("http://{name}.default/teapot")).await).await,
            "short and stout"
        );
    }
}

/// A client of HTTP/1 sees its connection break, not a body that ends.
#[tokio::test]
async fn a_client_of_the_proxy_sees_it_break() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("cutoff", backend.port())).await;
    let mut client = TcpStream::connect(world.at("edge-1").proxy).await.unwrap();
    let request = "GET http://cutoff.default/stream HTTP/1.1\r\nHost: cutoff.default\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"begun \r\n") {
        got.push(soon("its beginning", client.read_u8()).await.unwrap());
    }
    world.at("edge-1").wires.cut("edge-2");
    let mut rest = Vec::new();
    let ended = soon("its end", client.read_to_end(&mut rest)).await;
    assert!(ended.is_err() || !rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
}

#[tokio::test]
async fn a_client_that_leaves_is_gone_for_the_backend_too() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("leave", backend.port())).await;
    let (mut waiting, mut left) = (backend.seen.waiting.subscribe(), backend.seen.left.subscribe());
    for (count, path) in [(1, "/wait"), (2, "/stream")] {
        let mut client = TcpStream::connect(world.at("edge-1").proxy).await.unwrap();
        let request =
            format!("GET http://leave.default{path} HTTP/1.1\r\nHost: leave.default\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        soon("it is there", waiting.wait_for(|n| *n == count)).await.unwrap();
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        soon("it left", left.wait_for(|n| *n == count)).await.unwrap();
        let told = log::of("leave", 2 * count).await;
        assert!(told.iter().all(|line| line["outcome"] == "cancelled"), "{told:?}");
    }
    // A request whose body breaks off is none that the Backend would have to answer.
    let mut client = TcpStream::connect(world.at("edge-1").proxy).await.unwrap();
    let request = "POST http://leave.default/echo HTTP/1.1\r\nHost: leave.default\r\nX-Number: 1\r\nContent-Length: 9\r\n\r\nhalf";
    client.write_all(request.as_bytes()).await.unwrap();
    drop(client);
    log::of("leave", 6).await;
    assert!(backend.seen.numbers.lock().is_empty());
}

/// What is under way is let end, nothing new is taken, and what does not end is cut.
#[tokio::test]
async fn a_node_that_stops_says_so() {
    let backend = Backend::start(false).await;
    let world = World::new(&["edge-1", "edge-2"], &one("stops", backend.port())).await;
    let mut streaming = get(&world, "http://stops.default/stream").await;
    assert_eq!(piece(&mut streaming).await, "begun ");
    let mut connection =
        soon("a connection", world.at("edge-1").mesh.connect("stops.default:80")).await.unwrap();
    let stopping = world.at("edge-2").mesh.run(async {});
    let refused = async {
        let refused = loop {
            let request = Request::get("http://stops.default/echo").body(String::new()).unwrap();
            match soon("an answer", world.at("edge-1").mesh.http().call(request)).await {
                Ok(response) => drop(response.into_body().collect().await),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.refusal.row().label, "draining");
        backend.seen.gate.send_replace(true);
        let rest = soon("the rest", streaming.body_mut().collect()).await.unwrap().to_bytes();
        assert_eq!(rest, "ended");
        connection.shutdown().await.unwrap();
        let mut end = String::new();
        soon("its end", connection.read_to_string(&mut end)).await.unwrap();
    };
    let ((), ()) = soon("the stop", async { tokio::join!(stopping, refused) }).await;
}

/// An answer that does not end is broken off at the end of the drain, and its Backend is let go.
#[tokio::test]
async fn an_answer_is_cut_with_its_node() {
    let backend = Backend::start(false).await;
    let mut world = World::new(&["edge-1", "edge-2"], &one("cutshort", backend.port())).await;
    let mut streaming = get(&world, "http://cutshort.default/stream").await;
    assert_eq!(piece(&mut streaming).await, "begun ");
    let mut left = backend.seen.left.subscribe();
    soon("the cut", world.cut_short("edge-2")).await;
    soon("it left", left.wait_for(|n| *n == 1)).await.unwrap();
    let broken = soon("its end", streaming.body_mut().collect()).await.unwrap_err();
    assert!(broken.to_string().contains("broke off"), "{broken}");
    for line in log::of("cutshort", 2).await {
        let want = if line.contains_key("from") { "draining" } else { "failed" };
        assert_eq!(line["outcome"], want, "{line:?}");
    }
}
