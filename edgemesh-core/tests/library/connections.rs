//! Connections of bytes by name, and what each end of one counts as.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use edgemesh_core::mesh::Mesh;
use edgemesh_core::metrics::Carried;
use edgemesh_core::refusal::Refusal;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::world::{Folder, PATIENCE, nobody};

/// A server that speaks first, echoes four bytes, then does what they say.
async fn server(mut stream: TcpStream) {
    stream.write_all(b"+hello").await.unwrap();
    let mut word = [0; 4];
    if stream.read_exact(&mut word).await.is_err() {
        return;
    }
    stream.write_all(&word).await.unwrap();
    match &word {
        b"ends" => {}
        b"dies" => SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
        b"hear" => drop(stream.read_to_end(&mut Vec::new()).await),
        _ => drop(stream.read(&mut [0]).await), // until the client goes
    }
}

/// What the client does before it drops the connection.
async fn client(mesh: &Mesh, word: &[u8; 4]) {
    let mut connection = mesh.connect("svc.default:80").await.unwrap();
    let mut hello = [0; 6];
    connection.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"+hello", "before the client said a word");
    connection.write_all(word).await.unwrap();
    connection.read_exact(&mut [0; 4]).await.unwrap();
    match word {
        b"ends" => assert_eq!(connection.read(&mut [0]).await.unwrap(), 0),
        b"dies" => drop(connection.read(&mut [0]).await.unwrap_err()),
        b"hear" => {
            connection.shutdown().await.unwrap(); // a half-close, and its answer
            assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
        }
        _ => {}
    }
}

#[tokio::test]
async fn each_end_counts_as_what_it_was() {
    for (word, want) in
        [(b"ends", [1, 0, 0]), (b"hear", [1, 0, 0]), (b"dies", [0, 1, 0]), (b"drop", [0, 0, 1])]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let folder = Folder::new();
        folder.service("svc", &[listener.local_addr().unwrap()], "");
        let mesh = folder.open().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { server(listener.accept().await.unwrap().0).await });
        tokio::time::timeout(PATIENCE, client(&mesh, word)).await.expect("in time");
        let metrics = mesh.metrics();
        let calls = &metrics.calls[Carried::Opaque.index()];
        let got = [&calls.ok, &calls.failed, &calls.cancelled].map(|count| count.load(Relaxed));
        assert_eq!(got, want, "{}", String::from_utf8_lossy(word));
        assert_eq!(metrics.bytes_up.load(Relaxed), 4);
        assert_eq!(metrics.bytes_down.load(Relaxed), 10);
        let hop = mesh.plan(&mesh.towards("svc.default")).unwrap();
        assert_eq!(hop.backend().live.in_flight.load(Relaxed), 1, "nothing but this hop");
    }
}

#[tokio::test]
async fn no_connection_says_why() {
    let folder = Folder::new();
    folder.service("dead", &[nobody().await, nobody().await], "");
    let mesh = folder.open().await;
    for (name, want) in [
        ("dead.default:80", Refusal::ConnectFailed),
        ("dead.default", Refusal::ConnectFailed),
        ("dead.default:81", Refusal::NoPort),
        ("gone.default:80", Refusal::NoService),
    ] {
        let refused = mesh.connect(name).await.unwrap_err();
        assert_eq!((refused.refusal, &*refused.to), (want, name));
    }
}
