//! Connections of bytes to another node: what is said arrives, and how it ends too.

use std::io::ErrorKind;
use std::time::Duration;

use edgemesh_core::backends::Way;
use edgemesh_core::refusal::Refusal;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::backend::{Raw, nobody};
use crate::http::one;
use crate::log;
use crate::world::{World, soon};

/// Reads to the end, then says it all again, and ends.
async fn parrot(mut stream: TcpStream) {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    stream.write_all(&all).await.unwrap();
}

/// Says each byte again as it comes.
async fn echo(mut stream: TcpStream) {
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await.ok();
}

/// Speaks first, as MySQL and SMTP do; then repeats.
async fn greeter(mut stream: TcpStream) {
    stream.write_all(b"220 ready\r\n").await.unwrap();
    echo(stream).await;
}

/// Says `bye`, and resets the connection once it was told to.
async fn resetter(mut stream: TcpStream) {
    stream.write_all(b"bye").await.unwrap();
    stream.read_u8().await.unwrap();
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Reads to the end, then speaks until nobody listens.
async fn endless(mut stream: TcpStream) {
    stream.read_to_end(&mut Vec::new()).await.unwrap();
    while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
}

/// Closes at once.
async fn mute(_: TcpStream) {}

/// A tunnel through the proxy of `edge-1`.
async fn tunnel(world: &World, name: &str) -> TcpStream {
    let mut client = TcpStream::connect(world.at("edge-1").proxy).await.unwrap();
    let ask = format!("CONNECT {name}.default:80 HTTP/1.1\r\nHost: {name}.default:80\r\n\r\n");
    client.write_all(ask.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a head", client.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
    client
}

/// Says something, ends its half, and hears it all.
async fn says_and_hears(mut stream: impl AsyncRead + AsyncWrite + Unpin, greeting: &str) {
    stream.write_all(b"some words").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    soon("all of it", stream.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, format!("{greeting}some words"));
}

#[tokio::test]
async fn a_half_close_crosses_and_the_answer_comes_after_it() {
    for (name, server, greeting) in [
        ("parrot", Raw::start(parrot).await, ""),
        ("greeter", Raw::start(greeter).await, "220 ready\r\n"),
    ] {
        let world = World::new(&["edge-1", "edge-2"], &one(name, server.port)).await;
        let wires = &world.at("edge-1").wires;
        let length = (greeting.len() + 10).to_string();
        for (i, way) in [Way::Direct, Way::Hub].into_iter().enumerate() {
            wires.by("edge-2", way);
            let to = format!("{name}.default:80");
            let connection =
                soon("a connection", world.at("edge-1").mesh.connect(&to)).await.unwrap();
            says_and_hears(connection, greeting).await;
            says_and_hears(tunnel(&world, name).await, greeting).await;
            let told = log::of(name, 4 * (i + 1)).await.split_off(4 * i);
            for line in &told {
                let via = if line.contains_key("from") { "local" } else { way.name() };
                let got = [&line["outcome"], &line["via"], &line["up"], &line["down"]];
                assert_eq!(got, ["ok", via, "10", &length], "{line:?}");
                let same = told.iter().filter(|other| other["message"] == line["message"]).count();
                assert_eq!(same, 2, "{told:?}");
            }
        }
    }
}

/// A server that speaks first is heard though its client says nothing.
#[tokio::test]
async fn whoever_speaks_first_is_heard() {
    let server = Raw::start(greeter).await;
    let world = World::new(&["edge-1", "edge-2"], &one("first", server.port)).await;
    let mut client = tunnel(&world, "first").await;
    let mut greeting = [0; 11];
    soon("a greeting", client.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
    client.write_all(b"HELO").await.unwrap();
    soon("an answer", client.read_exact(&mut greeting[..4])).await.unwrap();
    assert_eq!(&greeting[..4], b"HELO");
}

#[tokio::test]
async fn a_reset_stays_a_reset_on_both_sides() {
    let server = Raw::start(resetter).await;
    let world = World::new(&["edge-1", "edge-2"], &one("reset", server.port)).await;
    let mut client = tunnel(&world, "reset").await;
    let mut bye = [0; 3];
    soon("its words", client.read_exact(&mut bye)).await.unwrap();
    client.write_all(b"!").await.unwrap();
    let error = soon("the reset", client.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let told = log::of("reset", 2).await;
    assert!(told.iter().all(|line| line["outcome"] == "failed"), "{told:?}");

    let server = Raw::start(echo).await;
    let world = World::new(&["edge-1", "edge-2"], &one("resets", server.port)).await;
    let client = tunnel(&world, "resets").await;
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let told = log::of("resets", 2).await;
    assert!(told.iter().all(|line| line["outcome"] == "cancelled"), "{told:?}");
}

#[tokio::test]
async fn a_link_that_breaks_is_a_reset_for_both() {
    let server = Raw::start(echo).await;
    let world = World::new(&["edge-1", "edge-2"], &one("snapped", server.port)).await;
    let mut client = tunnel(&world, "snapped").await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(soon("an echo", client.read_u8()).await.unwrap(), b'x');
    world.at("edge-1").wires.cut("edge-2");
    let error = soon("the reset", client.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let told = log::of("snapped", 2).await;
    for line in told {
        let want = if line.contains_key("from") { "cancelled" } else { "failed" };
        assert_eq!(line["outcome"], want, "{line:?}");
    }
    says_and_hears(tunnel(&world, "snapped").await, "").await;
}

#[tokio::test]
async fn a_server_that_closes_at_once_is_a_close() {
    let server = Raw::start(mute).await;
    let world = World::new(&["edge-1", "edge-2"], &one("mute", server.port)).await;
    let mut client = tunnel(&world, "mute").await;
    assert_eq!(soon("the end", client.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn bulk_crosses_both_ways_at_once() {
    const LENGTH: usize = 8 << 20;
    let server = Raw::start(echo).await;
    let world = World::new(&["edge-1", "edge-2"], &one("bulk", server.port)).await;
    let (mut from, mut to) = tunnel(&world, "bulk").await.into_split();
    let words: Vec<u8> = (0..LENGTH).map(|i| (i / 3) as u8).collect();
    let said = words.clone();
    let saying = async move {
        to.write_all(&said).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let mut heard = Vec::with_capacity(LENGTH);
    let ((), read) =
        soon("all of it", async { tokio::join!(saying, from.read_to_end(&mut heard)) }).await;
    assert_eq!(read.unwrap(), LENGTH);
    assert!(heard == words);
}

#[tokio::test]
async fn what_one_node_refuses_another_may_take() {
    let server = Raw::start(parrot).await;
    let records = |name: &str, policy: &str, second: u16| {
        format!(
            "service default/{name} 10.96.0.1 80
             policy default/{name} for={name} {policy}
             slice default/{name}-2 for={name} ports={second} 127.0.0.2@edge-2
             slice default/{name}-3 for={name} ports={} 127.0.0.3@edge-3",
            server.port
        )
    };
    let nodes = ["edge-1", "edge-2", "edge-3"];
    let world = World::new(&nodes, &records("other", "retries=1", nobody().await)).await;
    for _ in 0..2 {
        says_and_hears(tunnel(&world, "other").await, "").await;
    }
    let told = log::of("other", 5).await;
    let tries = |line: &&log::Line| line["attempts"] == "2";
    assert_eq!(told.iter().filter(tries).count(), 1, "{told:?}");
    assert_eq!(
        told.iter().filter(|line| line["outcome"] == "connectFailed").count(),
        1,
        "{told:?}"
    );
    let world = World::new(&nodes, &records("strict", "retries=0", nobody().await)).await;
    let error =
        soon("an answer", world.at("edge-1").mesh.connect("strict.default:80")).await.unwrap_err();
    assert_eq!(error.refusal, Refusal::ConnectFailed);
    let mut world = World::new(&nodes, &records("some", "retries=1", server.port)).await;
    for node in ["edge-2", "edge-3"] {
        world.put_at(node, "policy default/some for=some server=1/1");
    }
    for _ in 0..2 {
        soon("a connection", world.at("edge-1").mesh.connect("some.default:80")).await.unwrap();
    }
    let error =
        soon("an answer", world.at("edge-1").mesh.connect("some.default:80")).await.unwrap_err();
    assert!(matches!(error.refusal, Refusal::RateLimited { .. }), "{error}");
}

/// The agent of the Backend's node tells it who its client is, as the other node vouches.
#[tokio::test]
async fn proxy_protocol_is_spoken_where_the_backend_is() {
    let server = Raw::start(parrot).await;
    let records = format!(
        "service default/told 10.96.0.1 80 proxyProtocol
         slice default/told-1 for=told ports={} 127.0.0.1@edge-2",
        server.port
    );
    let world = World::new(&["edge-1", "edge-2"], &records).await;
    let mut client = tunnel(&world, "told").await;
    client.shutdown().await.unwrap();
    let mut heard = Vec::new();
    soon("all of it", client.read_to_end(&mut heard)).await.unwrap();
    // Version 2, TCP over IPv4, 127.0.0.1 from a port that the Message does not tell.
    assert_eq!(heard[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
    assert_eq!(heard[16..], [127, 0, 0, 1, 127, 0, 0, 1, 0, 0, heard[26], heard[27]]);
    assert_eq!(u16::from_be_bytes([heard[26], heard[27]]), server.port);
}

/// Each node knows its own loopback.
#[tokio::test]
async fn the_same_address_means_another_server_on_each_node() {
    let server = Raw::start(greeter).await;
    let records = format!(
        "service default/same 10.96.0.1 80
         policy default/same for=same locality=none
         slice default/same-1 for=same ports={} 127.0.0.1@edge-1 127.0.0.1@edge-2",
        server.port
    );
    let world = World::new(&["edge-1", "edge-2"], &records).await;
    for _ in 0..2 {
        says_and_hears(tunnel(&world, "same").await, "220 ready\r\n").await;
    }
    let told = log::of("same", 3).await;
    let via = |via: &str| told.iter().filter(|line| line["via"] == via).count();
    assert_eq!([via("local"), via("direct")], [2, 1], "{told:?}");
}

/// A client that had said everything and leaves in the middle of the answer is gone, at both ends.
#[tokio::test]
async fn a_client_that_leaves_after_its_half_close_has_not_ended_in_order() {
    let server = Raw::start(endless).await;
    let world = World::new(&["edge-1", "edge-2"], &one("endless", server.port)).await;
    let mut client = tunnel(&world, "endless").await;
    client.write_all(b"all").await.unwrap();
    client.shutdown().await.unwrap();
    soon("an answer", client.read_u8()).await.unwrap();
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let told = log::of("endless", 2).await;
    assert!(told.iter().all(|line| line["outcome"] == "cancelled"), "{told:?}");
}
