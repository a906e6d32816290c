//! An API server in miniature: lists in parts, watches, bookmarks, versions that grow too old, and
//! whatever else a test asks it to do wrong.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::http::{Asked, Serve, answer, begin_chunks, chunk};

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub(crate) enum Trick {
    /// This answer: status, content type, body.
    Answer(u16, &'static str, String),
    /// The connection breaks after so many bytes of the answer.
    Cut(usize),
    /// Nothing comes after so many bytes, and the connection stays.
    Stall(usize),
}

/// See [`Api::tricks`].
type Tricks = Box<dyn FnMut(&Asked, usize) -> Option<Trick> + Send>;

/// See the module.
pub(crate) struct Api {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    /// Decides about a request; the number counts requests.
    pub(crate) tricks: Mutex<Tricks>,
    pub(crate) minor: &'static str,
    pub(crate) knows_streams: bool,
}

#[derive(Default)]
struct State {
    version: u64,
    asked: usize,
    objects: BTreeMap<String, BTreeMap<(String, String), Value>>,
    /// Version, path, event.
    events: VecDeque<(u64, String, Value)>,
    /// Events up to this version are forgotten.
    compacted: u64,
    /// Grows when watches are to end.
    hung_up: u64,
    /// Requests by `list`, `watch` and `stream`.
    counts: BTreeMap<&'static str, usize>,
}

pub(crate) const SERVICES: &str = "/api/v1/services";
pub(crate) const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
/// Kinds that there are without being defined first.
const BUILT_IN: [&str; 4] = [SERVICES, SLICES, "/api/v1/nodes", "/api/v1/pods"];

impl Api {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { version: 100, ..State::default() }),
            changed: watch::Sender::new(100),
            tricks: Mutex::new(Box::new(|_, _| None)),
            minor: "30",
            knows_streams: false,
        }
    }

    pub(crate) fn streaming(minor: &'static str, knows_streams: bool) -> Self {
        Self { minor, knows_streams, ..Self::new() }
    }

    /// Makes or changes an object.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut state = self.state.lock();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let of = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
        let name = (of("namespace"), of("name"));
        let objects = state.objects.entry(path.into()).or_default();
        let kind =
            if objects.insert(name, object.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.events.push_back((version, path.into(), json!({"type": kind, "object": object})));
        self.changed.send_replace(version);
    }

    pub(crate) fn delete(&self, path: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock();
        let objects = state.objects.entry(path.into()).or_default();
        let Some(mut object) = objects.remove(&(namespace.into(), name.into())) else { return };
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let event = json!({"type": "DELETED", "object": object});
        state.events.push_back((version, path.into(), event));
        self.changed.send_replace(version);
    }

    /// Forgets every event so far.
    pub(crate) fn compact(&self) {
        let mut state = self.state.lock();
        state.compacted = state.version;
        state.events.clear();
    }

    /// Ends every watch.
    pub(crate) fn hang_up(&self) {
        self.state.lock().hung_up += 1;
        self.changed.send_modify(|_| {});
    }

    pub(crate) fn objects(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock();
        state.objects.get(path).map(|all| all.values().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn count(&self, what: &str) -> usize {
        self.state.lock().counts.get(what).copied().unwrap_or(0)
    }

    fn counted(&self, what: &'static str) {
        *self.state.lock().counts.entry(what).or_default() += 1;
    }

    /// A page of a list, or why there is none.
    fn list(&self, asked: &Asked) -> (u16, Value) {
        let state = self.state.lock();
        let all = state.objects.get(&asked.path);
        if all.is_none() && !BUILT_IN.contains(&&*asked.path) {
            return (
                404,
                status(404, "NotFound", "the server could not find the requested resource"),
            );
        }
        let (version, from) = match asked.get("continue").and_then(|token| token.split_once('-')) {
            Some((version, from)) => (version.parse().unwrap(), from.parse().unwrap()),
            None => (state.version, 0_usize),
        };
        if version < state.compacted {
            return (410, status(410, "Expired", "The provided continue parameter is too old"));
        }
        let limit = asked.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(usize::MAX);
        let all: Vec<Value> = all.map(|all| all.values().cloned().collect()).unwrap_or_default();
        let part: Vec<Value> = all.iter().skip(from).take(limit).cloned().collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if from + part.len() < all.len() {
            metadata["continue"] = format!("{version}-{}", from + part.len()).into();
        }
        (200, json!({"kind": "XList", "apiVersion": "v1", "metadata": metadata, "items": part}))
    }

    /// Events after a version, and the version up to which they go. `None`: it is too old.
    fn events(&self, path: &str, after: u64) -> Option<(Vec<Value>, u64)> {
        let state = self.state.lock();
        let is_new = |(version, of, _): &&(u64, String, Value)| *version > after && of == path;
        let new = state.events.iter().filter(is_new).map(|(.., event)| event.clone()).collect();
        (after >= state.compacted).then_some((new, state.version))
    }

    /// Server-side apply of a status.
    fn patch(&self, asked: &Asked) -> (u16, Value) {
        self.counted("patch");
        let parts: Vec<&str> = asked.path.split('/').collect();
        let [rest @ .., "namespaces", namespace, plural, name, "status"] = &parts[..] else {
            return (
                404,
                status(404, "NotFound", "the server could not find the requested resource"),
            );
        };
        assert_eq!(
            (asked.get("fieldManager"), asked.get("force")),
            (Some("edgemesh"), Some("true"))
        );
        let path = format!("{}/{plural}", rest.join("/"));
        let said: Value = serde_json::from_slice(&asked.body).unwrap();
        let named = ((*namespace).to_owned(), (*name).to_owned());
        let held = self.state.lock().objects.get(&path).and_then(|all| all.get(&named).cloned());
        let Some(mut object) = held else {
            return (404, status(404, "NotFound", &format!("{plural} \"{name}\" not found")));
        };
        for (key, value) in said["status"].as_object().unwrap() {
            if key != "conditions" {
                object["status"][key] = value.clone();
                continue;
            }
            // A list that is a map by type: those of others stay.
            let ours = value.as_array().unwrap();
            let held = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is_ours = |held: &Value| ours.iter().any(|one| one["type"] == held["type"]);
            let others = held.into_iter().filter(|held| !is_ours(held));
            object["status"]["conditions"] = others.chain(ours.iter().cloned()).collect();
        }
        self.put(&path, object.clone());
        (200, object)
    }

    /// The status of an object.
    pub(crate) fn status_of(&self, path: &str, name: &str) -> Value {
        let all = self.objects(path);
        let found = all.iter().find(|object| object["metadata"]["name"] == name);
        found.map(|object| object["status"].clone()).unwrap_or_default()
    }

    async fn watch(&self, asked: &Asked, mut out: Cutter) -> std::io::Result<()> {
        let streams = asked.get("sendInitialEvents") == Some("true");
        self.counted(if streams { "stream" } else { "watch" });
        let mut at = asked.get("resourceVersion").and_then(|v| v.parse().ok()).unwrap_or(0);
        let too_old = status(410, "Expired", "too old resource version");
        // Some servers say it at once, others in the stream.
        if !streams && self.events(&asked.path, at).is_none() && at.is_multiple_of(2) {
            return answer(&mut out.out, 410, "application/json", too_old.to_string().as_bytes())
                .await;
        }
        begin_chunks(&mut out.out).await?;
        let mut changed = self.changed.subscribe();
        let hung_up = self.state.lock().hung_up;
        if streams {
            at = self.state.lock().version;
            for object in self.objects(&asked.path) {
                out.event(&json!({"type": "ADDED", "object": object})).await?;
            }
            let annotations = json!({"k8s.io/initial-events-end": "true"});
            let metadata = json!({"resourceVersion": at.to_string(), "annotations": annotations});
            let object = json!({"kind": "X", "apiVersion": "v1", "metadata": metadata});
            out.event(&json!({"type": "BOOKMARK", "object": object})).await?;
        }
        loop {
            changed.mark_unchanged();
            let Some((events, to)) = self.events(&asked.path, at) else {
                return out.event(&json!({"type": "ERROR", "object": too_old})).await;
            };
            for event in events {
                out.event(&event).await?;
            }
            at = to;
            if changed.changed().await.is_err() || self.state.lock().hung_up != hung_up {
                return Ok(());
            }
        }
    }
}

/// Writes until it is to break.
struct Cutter {
    out: TcpStream,
    left: Option<(usize, bool)>,
}

impl Cutter {
    async fn event(&mut self, event: &Value) -> std::io::Result<()> {
        self.write(&chunk(format!("{event}\n").as_bytes())).await
    }

    async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let Some((left, stalls)) = &mut self.left else { return self.out.write_all(bytes).await };
        if bytes.len() <= *left {
            *left -= bytes.len();
            return self.out.write_all(bytes).await;
        }
        self.out.write_all(&bytes[..*left]).await?;
        match stalls {
            true => std::future::pending().await,
            false => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Serve for Api {
    async fn serve(self: Arc<Self>, asked: Asked, mut out: TcpStream) -> std::io::Result<()> {
        let number = {
            let mut state = self.state.lock();
            state.asked += 1;
            state.asked
        };
        let json = "application/json";
        match &*asked.path {
            "/version" => {
                let version = json!({"major": "1", "minor": self.minor}).to_string();
                return answer(&mut out, 200, json, version.as_bytes()).await;
            }
            "/apis" => return answer(&mut out, 200, json, br#"{"kind": "APIGroupList"}"#).await,
            _ => {}
        }
        if asked.method == "PATCH" {
            let (code, body) = self.patch(&asked);
            return answer(&mut out, code, json, body.to_string().as_bytes()).await;
        }
        let trick = self.tricks.lock()(&asked, number);
        let left = match trick {
            None => None,
            Some(Trick::Answer(status, kind, body)) => {
                return answer(&mut out, status, kind, body.as_bytes()).await;
            }
            Some(Trick::Cut(after)) => Some((after, false)),
            Some(Trick::Stall(after)) => Some((after, true)),
        };
        if asked.get("sendInitialEvents").is_some() && !self.knows_streams {
            let said =
                status(422, "Invalid", "sendInitialEvents is forbidden for watch").to_string();
            return answer(&mut out, 422, json, said.as_bytes()).await;
        }
        let known = self.state.lock().objects.contains_key(&asked.path);
        if asked.is_watch() && (known || BUILT_IN.contains(&&*asked.path)) {
            return self.watch(&asked, Cutter { out, left }).await;
        }
        self.counted("list");
        let (code, body) = self.list(&asked);
        let body = body.to_string();
        let mut cutter = Cutter { out, left };
        let head = format!(
            "HTTP/1.1 {code} X\r\ncontent-type: {json}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        cutter.out.write_all(head.as_bytes()).await?;
        cutter.write(body.as_bytes()).await
    }
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code})
}

pub(crate) fn service(name: &str, ip: &str) -> Value {
    json!({"metadata": {"namespace": "demo", "name": name, "uid": name},
        "spec": {"clusterIP": ip, "ports": [{"port": 80, "targetPort": 8080}]}})
}

pub(crate) fn slice(name: &str, service: &str, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> =
        addresses.iter().map(|address| json!({"addresses": [address]})).collect();
    json!({"metadata": {"namespace": "demo", "name": name,
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints})
}
