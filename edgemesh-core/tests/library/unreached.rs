//! Backends that take no connection: how long calls wait for one, and who is to blame.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use edgemesh_core::mesh::Mesh;
use edgemesh_core::refusal::Refusal;
use futures_util::future::join_all;
use http::{Request, Version};
use http_body_util::Empty;
use socket2::{Domain, Socket, Type};
use tower_service::Service;

use crate::world::Folder;

/// A listener whose queue is full, so that nobody gets an answer.
struct Silent {
    address: SocketAddr,
    _listener: Socket,
    _queue: Vec<TcpStream>,
}

impl Silent {
    fn start() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let mut queue = Vec::new();
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
            queue.push(stream);
        }
        Self { address, _listener: listener, _queue: queue }
    }
}

fn get() -> Request<Empty<Bytes>> {
    let get = Request::get("http://svc.default/").version(Version::HTTP_2);
    get.body(Empty::new()).unwrap()
}

async fn refusal(mesh: &Mesh, request: Request<Empty<Bytes>>) -> Refusal {
    mesh.http().call(request).await.unwrap_err().refusal
}

async fn mesh(silent: &Silent, policy: &str) -> (Folder, Mesh) {
    let folder = Folder::new();
    let policy =
        format!("{policy}\n  retries: {{ attempts: 0 }}\n  timeouts: {{ connect: 500ms }}");
    folder.service("svc", &[silent.address], &policy);
    let mesh = folder.open().await;
    (folder, mesh)
}

#[tokio::test]
async fn calls_that_wait_for_one_dial_fail_with_it() {
    let silent = Silent::start();
    let (_folder, mesh) = mesh(&silent, "loadBalancer: { policy: roundRobin }").await;
    // One after the other they would take four seconds.
    let all = join_all((0..8).map(|_| refusal(&mesh, get())));
    let all = tokio::time::timeout(Duration::from_secs(2), all).await.unwrap();
    assert_eq!(all, [Refusal::ConnectTimeout; 8]);
}

#[tokio::test]
async fn an_impatient_client_blames_nobody() {
    let silent = Silent::start();
    let (_folder, mesh) = mesh(&silent, "circuitBreaker: { consecutiveFailures: 1 }").await;
    let mut impatient = get();
    impatient.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    impatient.headers_mut().insert("grpc-timeout", "20m".parse().unwrap());
    assert_eq!(refusal(&mesh, impatient).await, Refusal::RequestTimeout);
    assert_eq!(refusal(&mesh, get()).await, Refusal::ConnectTimeout, "it was not ejected");
}
