//! Tunnels are connections: they take a place, a drain waits for them and then cuts them, and
//! each has its account.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use edgemesh_core::config::AccessLog;
use edgemesh_core::dial::Dial;
use edgemesh_core::listen::Listener;
use edgemesh_core::mesh::{Folders, Mesh, Options};
use edgemesh_core::metrics::{Carried, Metrics};
use edgemesh_proto::record::NodeName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PATIENCE: Duration = Duration::from_secs(10);

/// A mesh with room for `room` connections that `lanes` serve, whose one Service `svc.default` has a
/// Backend at `backend`, and where its explicit proxy listens.
async fn mesh(
    folder: &std::path::Path,
    backend: u16,
    (room, lanes): (usize, usize),
) -> (Mesh, std::net::SocketAddr) {
    let manifests = folder.join("manifests");
    std::fs::create_dir(&manifests).unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{ name: svc, namespace: default }}\n\
         spec: {{ clusterIP: 10.96.0.1, ports: [{{ port: 80, targetPort: {backend} }}] }}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{ name: svc-1, namespace: default, labels: {{ kubernetes.io/service-name: svc }} }}\n\
         addressType: IPv4\nports: [{{ port: {backend} }}]\nendpoints: [{{ addresses: [127.0.0.1] }}]\n"
    );
    std::fs::write(manifests.join("svc.yaml"), text).unwrap();
    let mut mesh = Mesh::open(Options {
        node: NodeName("node-1".into()),
        zone: None,
        data_dir: folder.join("data"),
        folders: Folders { source: Some(manifests), ..Folders::default() },
        supply: None,
        virtual_range: Vec::new(),
        domain: "cluster.local".into(),
        dial: Dial::default(),
        access_log: AccessLog::All,
        max_connections: room,
        lanes,
        is_linked: false,
        is_synced: false,
    })
    .unwrap();
    mesh.follow_source().await;
    let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let at = mesh.listen(vec![listener])[0];
    (mesh, at)
}

/// Opens one tunnel by saying `request`, and exchanges four bytes for six through it.
async fn tunnel(
    proxy: std::net::SocketAddr,
    servers: &TcpListener,
    request: &str,
) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(proxy).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let (mut server, _) = servers.accept().await.unwrap();
    if !request.starts_with("CONNECT") {
        head(&mut server).await;
        let answer =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        server.write_all(answer.as_bytes()).await.unwrap();
    }
    let answered = head(&mut client).await;
    assert!(answered.starts_with("HTTP/1.1 101") || answered.starts_with("HTTP/1.1 200"));
    client.write_all(b"ping").await.unwrap();
    server.read_exact(&mut [0; 4]).await.unwrap();
    server.write_all(b"answer").await.unwrap();
    client.read_exact(&mut [0; 6]).await.unwrap();
    (client, server)
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

fn refused(metrics: &Arc<Metrics>, reason: &str) -> u64 {
    metrics.refusals().find(|(label, _)| *label == reason).unwrap().1
}

/// One Backend, and it is not there: the Policy would allow a retry, but there is nobody to retry at.
#[tokio::test]
async fn what_nobody_is_left_for_is_no_retry() {
    let folder = tempfile::tempdir().unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let (mesh, at) = mesh(folder.path(), gone, (10, 0)).await;
    for request in [
        "CONNECT svc.default:80 HTTP/1.1\r\nHost: svc.default:80\r\n\r\n",
        "GET http://svc.default/ HTTP/1.1\r\nHost: svc.default\r\n\r\n",
    ] {
        let mut client = TcpStream::connect(at).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        let answered = tokio::time::timeout(PATIENCE, head(&mut client)).await.expect("in time");
        assert!(answered.contains("x-edgemesh-refusal: connectFailed"), "{answered}");
        assert_eq!(mesh.metrics().retries.load(Relaxed), 0, "{request}");
    }
}

#[tokio::test]
async fn tunnels_are_connections() {
    let asked = [
        ("CONNECT svc.default:80 HTTP/1.1\r\nHost: svc.default:80\r\n\r\n", Carried::Opaque),
        (
            "GET http://svc.default/ HTTP/1.1\r\nHost: svc.default\r\nConnection: upgrade\r\n\
             Upgrade: websocket\r\n\r\n",
            Carried::Http1,
        ),
    ];
    for ((request, carried), lanes) in asked.into_iter().flat_map(|one| [(one, 0), (one, 2)]) {
        let folder = tempfile::tempdir().unwrap();
        let servers = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = servers.local_addr().unwrap().port();
        let (mesh, at) = mesh(folder.path(), port, (1, lanes)).await;
        let metrics = mesh.metrics();
        let all = tokio::time::timeout(PATIENCE, async {
            let (mut client, mut server) = tunnel(at, &servers, request).await;
            assert_eq!(metrics.connections_open.load(Relaxed), 1, "{request}");
            // It has the one place; a lane may be as quick as to reset the next one while it connects.
            let said = match TcpStream::connect(at).await {
                Ok(mut second) => second.read_u8().await,
                Err(error) => Err(error),
            };
            assert!(said.is_err(), "{request}");
            assert_eq!(refused(&metrics, "overloaded"), 1, "{request}");
            // It does not end by itself, and is cut.
            assert_eq!(mesh.drain(Duration::from_millis(100)).await, 1, "{request}");
            assert!(!matches!(client.read(&mut [0]).await, Ok(1)));
            assert!(!matches!(server.read(&mut [0]).await, Ok(1)));
        });
        all.await.expect("in time");
        assert_eq!(metrics.connections_open.load(Relaxed), 0, "{request}");
        assert_eq!(refused(&metrics, "draining"), 1, "{request}");
        assert!(metrics.calls[carried.index()].refused.load(Relaxed) > 0, "{request}");
        assert_eq!(metrics.bytes_up.load(Relaxed), 4, "{request}");
        assert_eq!(metrics.bytes_down.load(Relaxed), 6, "{request}");
    }
}
