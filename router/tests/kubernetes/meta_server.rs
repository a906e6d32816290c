//! KubeEdge's MetaServer, as it was recorded (`vectors/kubernetes/metaserver`) and in its odd ways.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_proto::record::Body;
use edgemesh_router::kubernetes::LOOK_EVERY;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::api::service;
use crate::http::{Asked, Serve, Server, answer, begin_chunks, chunk};
use crate::replayed::recorded;
use crate::world::World;

/// Tells what was recorded; notes what is asked for.
#[derive(Default)]
struct Recorded {
    asked: Mutex<Vec<String>>,
}

impl Serve for Recorded {
    async fn serve(self: Arc<Self>, asked: Asked, mut out: TcpStream) -> std::io::Result<()> {
        self.asked.lock().push(asked.path.clone());
        let name = match (&*asked.path, asked.is_watch()) {
            ("/apis", _) => "get-apis",
            ("/api/v1/services", false) => "list-services-all",
            ("/api/v1/services", true) => "watch-services-all",
            ("/api/v1/endpoints", false) => "list-endpoints-all",
            ("/api/v1/endpoints", true) => "watch-endpoints-all",
            ("/api/v1/nodes", false) => "list-nodes",
            ("/api/v1/nodes", true) => "watch-nodes",
            ("/api/v1/pods", false) => "list-pods-fieldselector-nodename",
            ("/api/v1/pods", true) => "watch-pods-all",
            (_, false) => "list-unknown-resource",
            (_, true) => return std::future::pending().await,
        };
        let bytes = recorded("metaserver", name);
        if !asked.is_watch() {
            return out.write_all(&bytes).await;
        }
        // Without the end, which it has because the recording ended.
        out.write_all(bytes.strip_suffix(b"0\r\n\r\n").unwrap_or(&bytes)).await?;
        std::future::pending().await
    }
}

fn addresses(world: &World, service: &str) -> Vec<String> {
    let slice = |body: &Body| body.slice().filter(|s| &*s.service == service).cloned();
    let slices: Vec<_> = world.records().values().filter_map(|r| slice(&r.body)).collect();
    let all = slices.iter().flat_map(|slice| &slice.backends).flat_map(|b| &b.addresses);
    all.map(ToString::to_string).collect()
}

/// Its lists of EndpointSlices have other addresses than there are: they are not asked for.
#[tokio::test]
async fn as_recorded() {
    let meta = Arc::new(Recorded::default());
    let server = Server::start(meta.clone()).await;
    let world = World::at(server.url());
    world.until("Backends are told", |w| addresses(w, "external").len() == 3).await;
    let mut external = addresses(&world, "external");
    external.sort_unstable();
    assert_eq!(external, ["192.0.2.10", "192.0.2.11", "192.0.2.12"]);
    let services: Vec<_> =
        world.names().into_iter().filter(|name| name.starts_with("service")).collect();
    let want = ["default/kubernetes", "demo/external", "demo/headless", "demo/web"];
    assert_eq!(services, want.map(|name| format!("service {name}")));
    assert!(!meta.asked.lock().iter().any(|path| path.contains("endpointslices")));
    assert_eq!(world.said().trouble, None);
    let absent = world.followed().kinds.iter().filter(|(_, kind)| kind.absent).count();
    assert_eq!(absent, 6, "kinds that are not installed there");
}

/// An edge node: the cloud's objects, what the node has stored of them, and whether they are in touch.
struct Meta {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    version: u64,
    is_away: bool,
    cloud: BTreeMap<String, Value>,
    stored: BTreeMap<String, Value>,
    /// The other end of the watch is there.
    is_heard: bool,
    pushed: Vec<Value>,
    opened: usize,
}

impl Meta {
    fn new() -> Arc<Self> {
        let state = Mutex::new(State { version: 100, ..State::default() });
        Arc::new(Self { state, changed: watch::Sender::new(0) })
    }

    fn change(&self, name: &str, object: Option<Value>) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        let (kind, mut object) = match object {
            Some(object) => ("MODIFIED", object),
            None => ("DELETED", state.cloud[name].clone()),
        };
        object["apiVersion"] = "v1".into();
        object["kind"] = "Service".into();
        object["metadata"]["resourceVersion"] = version.to_string().into();
        match kind {
            "DELETED" => state.cloud.remove(name),
            _ => state.cloud.insert(name.into(), object.clone()),
        };
        if state.is_heard && !state.is_away {
            match kind {
                "DELETED" => state.stored.remove(name),
                _ => state.stored.insert(name.into(), object.clone()),
            };
            state.pushed.push(json!({"type": kind, "object": object}));
        }
        self.changed.send_modify(|n| *n += 1);
    }

    fn put(&self, name: &str, ip: &str) {
        self.change(name, Some(service(name, ip)));
    }

    /// The cloud is cut off, or comes back without the watches it had.
    fn cut(&self, is_away: bool) {
        let mut state = self.state.lock();
        (state.is_away, state.is_heard) = (is_away, false);
    }

    fn list(&self, path: &str) -> Value {
        let state = self.state.lock();
        let items = |objects: &BTreeMap<String, Value>| objects.values().cloned().collect();
        let items: Vec<Value> = match path == "/api/v1/services" {
            true if state.is_away => items(&state.stored),
            true => items(&state.cloud),
            false => Vec::new(),
        };
        let is_known = ["services", "endpoints", "nodes", "pods"].iter().any(|k| path.ends_with(k));
        let mut list = json!({"apiVersion": "v1", "kind": "XList", "items": items});
        if is_known {
            list["metadata"] = json!({"resourceVersion": state.version.to_string()});
        }
        if is_known && state.is_away {
            list["metadata"]["selfLink"] = "/core/v1/services/null/null".into();
        }
        list
    }

    /// Replays what is stored, then what is pushed.
    async fn watch(&self, mut out: TcpStream) -> std::io::Result<()> {
        begin_chunks(&mut out).await?;
        let (stored, mut next) = {
            let mut state = self.state.lock();
            state.is_heard |= !state.is_away;
            state.opened += 1;
            (state.stored.values().cloned().collect::<Vec<_>>(), state.pushed.len())
        };
        for object in stored {
            let event = json!({"type": "ADDED", "object": object});
            out.write_all(&chunk(format!("{event}\n").as_bytes())).await?;
        }
        let mut changed = self.changed.subscribe();
        loop {
            changed.mark_unchanged();
            let events: Vec<Value> = self.state.lock().pushed[next..].to_vec();
            next += events.len();
            for event in events {
                out.write_all(&chunk(format!("{event}\n").as_bytes())).await?;
            }
            if changed.changed().await.is_err() {
                return Ok(());
            }
        }
    }
}

impl Serve for Meta {
    async fn serve(self: Arc<Self>, asked: Asked, mut out: TcpStream) -> std::io::Result<()> {
        if asked.path == "/apis" {
            return answer(&mut out, 200, "application/json", b"k8s\0\n\x0c\n\x02v1").await;
        }
        match asked.is_watch() {
            true if asked.path == "/api/v1/services" => self.watch(out).await,
            true => std::future::pending().await,
            false => {
                let list = self.list(&asked.path).to_string();
                answer(&mut out, 200, "application/json", list.as_bytes()).await
            }
        }
    }
}

/// A watch tells what is stored, which is old; the list knows better.
#[tokio::test]
async fn what_the_node_has_stored_is_no_news() {
    let meta = Meta::new();
    meta.put("web", "10.96.0.1");
    meta.put("gone", "10.96.0.3");
    {
        let mut state = meta.state.lock();
        state.stored = state.cloud.clone();
    }
    meta.put("web", "10.96.0.2");
    meta.put("new", "10.96.0.4");
    meta.change("gone", None);
    let server = Server::start(meta.clone()).await;
    let world = World::at(server.url());
    let ips = |w: &World| {
        let ip = |body: &Body| body.service().map(|service| service.cluster_ips[0].to_string());
        w.records().values().filter_map(|r| ip(&r.body)).collect::<Vec<_>>()
    };
    world.until("what the cloud has", |w| ips(w) == ["10.96.0.4", "10.96.0.2"]).await;
    meta.put("web", "10.96.0.5");
    world.until("changes come", |w| ips(w) == ["10.96.0.4", "10.96.0.5"]).await;
    meta.change("new", None);
    world.until("ends come", |w| ips(w) == ["10.96.0.5"]).await;
    assert_eq!(world.said().trouble, None);
}

/// Cut off, the node keeps what it knows, also over a restart; back in touch, it is told what it missed,
/// although the cloud has forgotten its watches.
#[tokio::test]
async fn a_node_that_is_cut_off_loses_nothing() {
    let meta = Meta::new();
    meta.put("web", "10.96.0.1");
    meta.put("shop", "10.96.0.2");
    let server = Server::start(meta.clone()).await;
    let first = World::at(server.url());
    let both = ["service demo/shop", "service demo/web"];
    first.until("both are there", |w| w.names() == both).await;
    let registry = first.registry.clone();
    drop(first);
    meta.cut(true);
    let second = World::with(registry, server.url());
    second.until("it has answered", |w| w.followed().kinds.contains_key("Service")).await;
    second.until("its watch is open", |_| meta.state.lock().opened >= 2).await;
    assert_eq!(second.names(), both, "what is not stored there is not gone");
    // Nobody tells the node of these.
    meta.change("shop", None);
    meta.put("new", "10.96.0.3");
    let looked = meta.state.lock().opened;
    // It has looked by then, also on a slow machine, and seen that the cloud is away.
    tokio::time::sleep(LOOK_EVERY + Duration::from_secs(3)).await;
    assert_eq!((second.names(), second.said().trouble), (both.map(String::from).into(), None));
    meta.cut(false);
    let want = ["service demo/new", "service demo/web"];
    second.until("it is told what it missed", |w| w.names() == want).await;
    second.until("its watch is opened anew", |_| meta.state.lock().opened > looked).await;
    meta.put("web", "10.96.0.9");
    let is_new = |w: &World| {
        let ip = |body: &Body| body.service().map(|service| service.cluster_ips[0].to_string());
        w.records().values().any(|r| ip(&r.body).as_deref() == Some("10.96.0.9"))
    };
    second.until("and of changes again", is_new).await;
}
