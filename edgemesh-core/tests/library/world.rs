//! A mesh opened from manifests, and Backends that behave as a test tells them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use edgemesh_core::mesh::Mesh;
use socket2::SockRef;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What a Backend does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Answers with its mark and the path.
    Answer,
    /// Resets the connection.
    Reset,
    /// Promises ten bytes, sends five and closes.
    Half,
    /// Answers when the time has come; see [`Backend::gated`].
    Wait,
}

/// A Backend that speaks HTTP/1.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    _tasks: JoinSet<()>,
}

/// What a Backend saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Requests, whole.
    pub(crate) requests: AtomicUsize,
    /// Requests that have no answer yet.
    pub(crate) open: tokio::sync::watch::Sender<usize>,
    /// Most of them at once.
    pub(crate) peak: AtomicUsize,
    /// Requests whose client left before the answer.
    pub(crate) left: tokio::sync::watch::Sender<usize>,
    /// Bodies, one after the other.
    pub(crate) bodies: parking_lot::Mutex<Vec<u8>>,
}

/// When a request that waits is answered: told its path and what the Backend saw.
pub(crate) type Gate = Arc<dyn Fn(&str, &Seen) -> bool + Send + Sync>;

impl Backend {
    /// One that does `act` with every request.
    pub(crate) async fn start(act: Act) -> Self {
        Self::gated(act, Arc::new(|_, _| true)).await
    }

    /// One that answers a request when `gate` holds.
    pub(crate) async fn gated(act: Act, gate: Gate) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), act, gate)
    }

    /// The same on a listener of the test's own.
    pub(crate) fn on(listener: TcpListener, act: Act, gate: Gate) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let mut tasks = JoinSet::new();
        let saw = seen.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(connection(stream, act, gate.clone(), saw.clone()));
            }
        });
        Self { address, seen, _tasks: tasks }
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(SeqCst)
    }
}

async fn connection(mut stream: TcpStream, act: Act, gate: Gate, seen: Arc<Seen>) {
    while let Some((path, body)) = request(&mut stream).await {
        seen.bodies.lock().extend_from_slice(&body);
        seen.requests.fetch_add(1, SeqCst);
        seen.open.send_modify(|open| *open += 1);
        seen.peak.fetch_max(*seen.open.borrow(), SeqCst);
        let port = stream.local_addr().unwrap().port();
        match act {
            Act::Answer => answer(&mut stream, &format!("{port}{path}")).await,
            Act::Reset => {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            Act::Half => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf!").await.ok();
                return;
            }
            Act::Wait => {
                let mut open = seen.open.subscribe();
                let ready = open.wait_for(|_| gate(&path, &seen));
                tokio::select! {
                    ready = ready => drop(ready.unwrap()),
                    _ = left(&stream) => {
                        seen.left.send_modify(|left| *left += 1);
                        return;
                    }
                }
                answer(&mut stream, &path).await;
            }
        }
        seen.open.send_modify(|open| *open -= 1);
    }
}

/// Ends when the client is gone.
async fn left(stream: &TcpStream) {
    while let Ok(1..) = stream.peek(&mut [0]).await {
        tokio::task::yield_now().await;
    }
}

async fn answer(stream: &mut TcpStream, text: &str) {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
    stream.write_all(head.as_bytes()).await.ok();
}

/// Path and body of the next request.
async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |n| n.trim().parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some((head.split(' ').nth(1)?.to_owned(), body))
}

/// A folder of manifests.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        self.0.path()
    }

    /// Service `default/NAME`, port 80, with these Backends and the lines of this Policy.
    pub(crate) fn service(&self, name: &str, backends: &[SocketAddr], policy: &str) {
        let mut text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: default }}\n\
             spec: {{ clusterIP: None, ports: [{{ port: 80 }}] }}\n"
        );
        for (i, backend) in backends.iter().enumerate() {
            write!(
                text,
                "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: {name}-{i}, \
                 namespace: default, labels: {{ kubernetes.io/service-name: {name} }} }}\n\
                 addressType: IPv4\nports: [{{ port: {} }}]\nendpoints: [{{ addresses: [{}] }}]\n",
                backend.port(),
                backend.ip(),
            )
            .unwrap();
        }
        if !policy.is_empty() {
            write!(
                text,
                "---\napiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\n\
                 metadata: {{ name: {name}, namespace: default }}\n\
                 spec:\n  targetRef: {{ kind: Service, name: {name} }}\n  {policy}\n"
            )
            .unwrap();
        }
        std::fs::write(self.0.path().join(format!("{name}.yaml")), text).unwrap();
    }

    /// An HTTPRoute of `default/svc` that sends everything to `http://other.default/`.
    pub(crate) fn redirect(&self) {
        let text = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
            metadata: { name: svc, namespace: default }\nspec:\n  \
            parentRefs: [{ group: '', kind: Service, name: svc }]\n  \
            rules: [{ filters: [{ type: RequestRedirect, requestRedirect: { hostname: other.default } }] }]\n";
        std::fs::write(self.0.path().join("route.yaml"), text).unwrap();
    }

    pub(crate) async fn open(&self) -> Mesh {
        let mesh = Mesh::builder().manifests(self.0.path()).open().await.unwrap();
        assert_eq!(mesh.status().get().remarks.len(), 0, "{:?}", mesh.status().get().remarks);
        mesh
    }
}

/// A mesh with the one Service `svc.default`.
pub(crate) async fn mesh(backends: &[&Backend], policy: &str) -> (Folder, Mesh) {
    let folder = Folder::new();
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    folder.service("svc", &addresses, policy);
    let mesh = folder.open().await;
    (folder, mesh)
}

/// An address at which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
