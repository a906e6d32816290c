//! What a real kube-apiserver said (`vectors/kubernetes/apiserver`), told again, also in pieces.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use edgemesh_core::manifests::parse_object;
use edgemesh_proto::record::{Body, Key, Record};
use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::api::{SERVICES, SLICES};
use crate::http::{Asked, Serve, Server, answer, begin_chunks, chunk};
use crate::world::World;

/// Path, `apiVersion`, kind, recorded list, recorded watch of changes, recorded list as a stream.
const KINDS: [(&str, &str, &str, &str, &str, &str); 2] = [
    (
        SERVICES,
        "v1",
        "Service",
        "list-services-all",
        "watch-services-from-rv",
        "watch-services-watchlist",
    ),
    (
        SLICES,
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "list-endpointslices-all",
        "watch-endpointslices-from-rv",
        "watch-endpointslices-watchlist",
    ),
];

pub(crate) fn recorded(server: &str, name: &str) -> Vec<u8> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/kubernetes");
    let file = folder.join(server).join(format!("{name}.http"));
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The body of a recorded answer, without its chunks.
pub(crate) fn body(server: &str, name: &str) -> String {
    let bytes = recorded(server, name);
    let text = String::from_utf8(bytes).unwrap();
    let (head, mut rest) = text.split_once("\r\n\r\n").unwrap();
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return rest.to_owned();
    }
    let mut body = String::new();
    while let Some((size, more)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        body.push_str(&more[..size]);
        rest = more[size..].trim_start_matches("\r\n");
        if size == 0 {
            break;
        }
    }
    body
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// Tells recorded lists, and of recorded changes `events` and what is newer than asked for.
struct Replay {
    minor: &'static str,
    events: usize,
    /// After so many bytes answers break, one after another.
    cuts: Mutex<Vec<usize>>,
}

impl Replay {
    fn lines(&self, name: &str) -> Vec<Value> {
        let body = body("apiserver", name);
        body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What the server held after that many changes.
    fn held(&self) -> BTreeMap<Key, Record> {
        let mut records = BTreeMap::new();
        for (_, api, kind, list, watch, _) in KINDS {
            let list: Value = serde_json::from_str(&body("apiserver", list)).unwrap();
            let mut objects: BTreeMap<String, Value> = BTreeMap::new();
            let name = |object: &Value| object["metadata"]["name"].to_string();
            for object in list["items"].as_array().unwrap() {
                objects.insert(name(object), object.clone());
            }
            for event in self.lines(watch).into_iter().take(self.events) {
                let object = &event["object"];
                match event["type"].as_str().unwrap() {
                    "ADDED" | "MODIFIED" => drop(objects.insert(name(object), object.clone())),
                    "DELETED" => drop(objects.remove(&name(object))),
                    _ => {}
                }
            }
            for mut object in objects.into_values() {
                (object["apiVersion"], object["kind"]) = (api.into(), kind.into());
                for document in parse_object(Path::new("x"), object).documents {
                    records.extend(document.records.into_iter().map(|r| (r.key(), r)));
                }
            }
        }
        records
    }

    async fn write(&self, out: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
        let cut = self.cuts.lock().pop().filter(|cut| *cut < bytes.len());
        out.write_all(&bytes[..cut.unwrap_or(bytes.len())]).await?;
        match cut {
            Some(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
            None => Ok(()),
        }
    }

    /// The stream was recorded before the watch: what it tells after its list comes first.
    async fn watch(
        &self,
        (stream, watch): (&str, &str),
        after: u64,
        mut out: TcpStream,
    ) -> std::io::Result<()> {
        begin_chunks(&mut out).await?;
        let watched = self.lines(watch).into_iter().take(self.events);
        let all = self.lines(stream).into_iter().chain(watched);
        for event in all.filter(|event| version(&event["object"]) > after) {
            self.write(&mut out, &chunk(format!("{event}\n").as_bytes())).await?;
        }
        std::future::pending().await
    }
}

impl Serve for Replay {
    async fn serve(self: Arc<Self>, asked: Asked, mut out: TcpStream) -> std::io::Result<()> {
        let json = "application/json";
        if asked.path == "/version" {
            let version = body("apiserver", "get-version");
            let version =
                version.replace("\"minor\": \"36\"", &format!("\"minor\": \"{}\"", self.minor));
            return answer(&mut out, 200, json, version.as_bytes()).await;
        }
        if asked.path == "/apis" {
            return out.write_all(&recorded("apiserver", "get-apis")).await;
        }
        let Some((.., list, watch, stream)) = KINDS.iter().find(|kind| kind.0 == asked.path) else {
            let unknown = recorded("apiserver", "list-unknown-resource-404");
            return out.write_all(&unknown).await;
        };
        if asked.get("sendInitialEvents").is_some() {
            return self.write(&mut out, &recorded("apiserver", stream)).await;
        }
        match asked.is_watch() {
            false => self.write(&mut out, &recorded("apiserver", list)).await,
            true => {
                let after = asked.get("resourceVersion").unwrap().parse().unwrap();
                self.watch((stream, watch), after, out).await
            }
        }
    }
}

fn addresses(world: &World, name: &str) -> Vec<String> {
    let records = world.records();
    let found = records.values().find(|record| &*record.name == name);
    match &found.expect("it is there").body {
        Body::Service(service) => service.cluster_ips.iter().map(ToString::to_string).collect(),
        Body::Slice(slice) => {
            slice.backends.iter().flat_map(|b| &b.addresses).map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// After no change, each change, and all of them, the records are what the server held.
#[tokio::test]
async fn lists_and_changes_as_recorded() {
    for events in 0..=8 {
        let replay = Arc::new(Replay { minor: "30", events, cuts: Mutex::default() });
        let server = Server::start(replay.clone()).await;
        let world = World::at(server.url());
        let held = replay.held();
        let shown = format!("after {events} changes");
        world.until(&shown, |world| world.records() == held).await;
        assert_eq!(world.said().remarks, [], "{shown}");
    }
}

#[tokio::test]
async fn lists_as_streams_as_recorded() {
    let replay = Arc::new(Replay { minor: "36", events: 0, cuts: Mutex::default() });
    let server = Server::start(replay.clone()).await;
    let world = World::at(server.url());
    let want = [
        "service default/kubernetes",
        "service demo/external",
        "service demo/headless",
        "service demo/web",
    ];
    world
        .until("Services", |w| {
            w.names().iter().filter(|n| n.starts_with("service")).eq(want.iter())
        })
        .await;
    world.until("Slices", |world| world.names().len() == 7).await;
    assert_eq!(addresses(&world, "web"), ["10.96.178.248"]);
    let mut external = addresses(&world, "external-5v6mf");
    external.sort_unstable();
    assert_eq!(external, ["192.0.2.10", "192.0.2.11", "192.0.2.12"]);
}

/// Recorded answers cut at any byte end in the same records.
#[test]
fn cut_anywhere_recordings_converge() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let cases = (prop::collection::vec(0..12_000_usize, 0..12), 0..=8_usize, any::<bool>());
    let run = |(cuts, events, streams): (Vec<usize>, usize, bool)| {
        runtime.block_on(async {
            let minor = if streams { "36" } else { "30" };
            let replay = Arc::new(Replay { minor, events, cuts: Mutex::new(cuts) });
            let server = Server::start(replay.clone()).await;
            let world = World::at(server.url());
            let held = replay.held();
            world.until("the records are what the server held", |w| w.records() == held).await;
        });
        Ok(())
    };
    TestRunner::new(config).run(&cases, run).unwrap();
}

/// Tells one recorded answer to whatever is asked of Services.
struct Refusing(&'static str);

impl Serve for Refusing {
    async fn serve(self: Arc<Self>, asked: Asked, mut out: TcpStream) -> std::io::Result<()> {
        let name = match &*asked.path {
            "/version" => "get-version",
            SERVICES => self.0,
            _ => "list-unknown-resource-404",
        };
        out.write_all(&recorded("apiserver", name)).await
    }
}

#[tokio::test]
async fn recorded_refusals_are_told() {
    for (name, want) in [
        ("list-services-anonymous-403", "services is forbidden: User \"system:anonymous\""),
        ("list-services-badtoken-401", "does not accept the credentials (401 Unauthorized)"),
        ("list-services-rv-future-504", "Too large resource version"),
        ("list-services-rv-invalid-400", "400 "),
        ("get-service-protobuf", "is the URL right?"),
    ] {
        let server = Server::start(Arc::new(Refusing(name))).await;
        let world = World::at(server.url());
        let is_said = |w: &World| w.said().trouble.is_some_and(|said| said.contains(want));
        world.until(&format!("{name}: {want}"), is_said).await;
    }
}
