//! What becomes of calls that are under way when the cloud stops.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use edgemesh_core::config::AccessLog;
use edgemesh_core::dial::Dial;
use edgemesh_core::identity::OFFLINE_GRACE;
use edgemesh_core::listen::Listener;
use edgemesh_router::cloud::{Cloud, CloudOptions, Records};
use edgemesh_router::ingress::{Auth, Ingress, IngressConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);
/// A cloud that does not wait for calls stops sooner: it serves for 1 s what was accepted last.
const UNTIL_SEEN: Duration = Duration::from_millis(2500);

const REQUEST: &[u8] = b"GET /_svc/default/slow/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate";

fn manifests(folder: &Path, backend: SocketAddr) {
    let (ip, port) = (backend.ip(), backend.port());
    let text = format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{ name: here, labels: {{ topology.kubernetes.io/zone: cloud }} }}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{ name: slow, namespace: default }}\n\
         spec: {{ clusterIP: 10.96.0.1, ports: [{{ name: http, port: 80, targetPort: {port} }}] }}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{ name: slow-1, namespace: default, labels: {{ kubernetes.io/service-name: slow }} }}\n\
         addressType: IPv4\nports: [{{ name: http, port: {port} }}]\n\
         endpoints: [{{ addresses: [\"{ip}\"], conditions: {{ ready: true }}, nodeName: here, zone: cloud }}]\n"
    );
    std::fs::write(folder.join("slow.yaml"), text).unwrap();
}

fn loopback() -> Listener {
    Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Calls until the Service is known.
async fn called(ingress: SocketAddr, backend: &TcpListener) -> (TcpStream, TcpStream) {
    loop {
        let mut client = TcpStream::connect(ingress).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        let mut answer = [0];
        tokio::select! {
            taken = backend.accept() => return (client, taken.unwrap().0),
            _ = client.read(&mut answer) => {} // not yet
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_through_the_ingress_ends_before_the_cloud_does() {
    let (data, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    manifests(folder.path(), backend.local_addr().unwrap());
    let options = CloudOptions {
        data_dir: data.path().into(),
        zone: "cloud".into(),
        records: Records::Manifests(folder.path().into()),
        names: vec!["localhost".into()],
        domain: "cluster.local".into(),
        dial: Dial::default(),
        access_log: AccessLog::Off,
        grace: OFFLINE_GRACE,
    };
    let stop = CancellationToken::new();
    let cloud = Cloud::open(options, stop.clone()).unwrap();
    let config = IngressConfig { tls: None, auth: Auth::None, room: 10 };
    let ingress = Ingress::new(config, cloud.known_nodes()).unwrap();
    let router = loopback();
    let at = router.address();
    cloud.open_ingress(&ingress, router);
    let tasks = TaskTracker::new();
    let mut running = tasks.spawn(cloud.run(loopback()));

    let (mut client, mut taken) = timeout(PATIENCE, called(at, &backend)).await.unwrap();
    stop.cancel();
    assert!(timeout(UNTIL_SEEN, &mut running).await.is_err(), "it stops with a call under way");
    taken.write_all(ANSWER).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("late"), "{answer}");
    drop(taken);
    timeout(PATIENCE, running).await.expect("it stops when the call is over").unwrap();
}
