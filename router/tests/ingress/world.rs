//! A mesh with an ingress, opened from manifests.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use edgemesh_core::listen::Listener;
use edgemesh_core::mesh::Mesh;
use edgemesh_router::ingress::{Auth, Ingress, IngressConfig};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backend::{self, Behave};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// A node that the ingress knows.
pub(crate) const NODE: &str = "edge-1";

/// See the module. Its tasks end with it.
pub(crate) struct World {
    pub(crate) mesh: Mesh,
    pub(crate) ingress: Ingress,
    /// Where it listens.
    pub(crate) at: SocketAddr,
    /// How the clients of `bytes` ended.
    pub(crate) ends: watch::Receiver<Vec<String>>,
    _folder: TempDir,
    _tasks: JoinSet<()>,
}

impl World {
    /// In the clear, for everybody.
    pub(crate) async fn open() -> Self {
        Self::with(IngressConfig { tls: None, auth: Auth::None, room: 64 }).await
    }

    /// As `config` says.
    pub(crate) async fn with(config: IngressConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let at = listener.address();
        let mut tasks = JoinSet::new();
        let (told, ends) = watch::channel(Vec::new());
        services(folder.path(), (at, told), &mut tasks).await;
        let mesh = Mesh::builder().manifests(folder.path()).open().await.unwrap();
        let remarks = &mesh.status().get().remarks;
        assert!(remarks.is_empty(), "{remarks:?}");
        let ingress = Ingress::new(config, Arc::new(|node| node == NODE)).unwrap();
        tasks.spawn(ingress.run(&mesh, listener));
        Self { mesh, ingress, at, ends, _folder: folder, _tasks: tasks }
    }

    /// Flows that have ended, and how many of them were refused with this label.
    pub(crate) fn ended(&self, label: &str) -> (u64, u64) {
        let metrics = self.mesh.metrics();
        let each = |calls: &edgemesh_core::metrics::Calls| {
            [&calls.ok, &calls.failed, &calls.cancelled, &calls.refused]
                .map(|count| count.load(Relaxed))
                .iter()
                .sum::<u64>()
        };
        let all = metrics.calls.iter().map(each).sum();
        let refused = metrics.refusals().find(|(known, _)| *known == label);
        (all, refused.map_or(0, |(_, count)| count))
    }
}

/// Writes the manifests of every Service, and starts their Backends.
async fn services(
    folder: &Path,
    (ingress, told): (SocketAddr, watch::Sender<Vec<String>>),
    tasks: &mut JoinSet<()>,
) {
    let a = backend::start(Behave::Http("a"), tasks).await;
    let b = backend::start(Behave::Http("b"), tasks).await;
    let bytes = backend::start(Behave::Bytes(told), tasks).await;
    let spent = "rateLimit: { client: { qps: 1, burst: 1 } }";
    let mut text = String::new();
    for (namespace, name, ports, policy) in [
        ("default", "echo", &[(80, a)][..], ""),
        ("shop", "echo", &[(80, b)], ""),
        ("default", "only", &[(8080, a)], ""),
        ("default", "two", &[(80, a), (8080, b)], ""),
        ("default", "bytes", &[(6379, bytes)], ""),
        ("default", "spent", &[(80, a)], spent),
        ("default", "spent-grpc", &[(80, a)], spent),
        ("default", "us", &[(80, ingress)], ""),
        ("default", "dead", &[(80, nobody().await)], ""),
        // Those of deploy/istio.
        ("default", "hello", &[(80, a)], ""),
        ("default", "chat", &[(80, a)], ""),
        ("default", "redis", &[(6379, bytes)], ""),
    ] {
        service(&mut text, namespace, name, ports, policy);
    }
    std::fs::write(folder.join("all.yaml"), text).unwrap();
}

fn service(
    text: &mut String,
    namespace: &str,
    name: &str,
    ports: &[(u16, SocketAddr)],
    policy: &str,
) {
    let list: Vec<_> =
        ports.iter().map(|(port, _)| format!("{{ name: p{port}, port: {port} }}")).collect();
    write!(
        text,
        "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: {namespace} }}\n\
         spec: {{ clusterIP: None, ports: [{}] }}\n",
        list.join(", ")
    )
    .unwrap();
    for (port, backend) in ports {
        write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{ name: {name}-{port}, namespace: {namespace}, labels: {{ kubernetes.io/service-name: {name} }} }}\n\
             addressType: IPv4\nports: [{{ name: p{port}, port: {} }}]\nendpoints: [{{ addresses: [{}] }}]\n",
            backend.port(),
            backend.ip(),
        )
        .unwrap();
    }
    if !policy.is_empty() {
        write!(
            text,
            "---\napiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\n\
             metadata: {{ name: {name}, namespace: {namespace} }}\n\
             spec:\n  targetRef: {{ kind: Service, name: {name} }}\n  {policy}\n"
        )
        .unwrap();
    }
}

/// An address at which nobody listens.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}
