//! Rules in force on a node, and a box in which their messages land.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgemesh_core::dial::Dial;
use edgemesh_core::forward::inbox::{AnswerBody, TOPIC};
use edgemesh_core::io::now;
use edgemesh_core::snapshot::rules::Rule;
use edgemesh_core::snapshot::{Builder, Change, Snapshot};
use edgemesh_proto::record::{
    Body, Endpoint, EndpointName, Key, Kind, NodeName, Record, Rule as RuleRecord, RuleName,
};
use edgemesh_proto::rule::{DomainId, Name, Properties, ResourceMap, object_id, project_id};
use edgemesh_router::providers::connect::{Connect, Roots};
use edgemesh_router::providers::rest::Rest;
use edgemesh_router::providers::{Deliver, Failure, Here, Providers, Sending};
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// The node.
pub(crate) const NODE: &str = "edge-1";
/// Types of Endpoints; each has one of this name in the namespace `n`.
const TYPES: [&str; 3] = ["rest", "eventbus", "servicebus"];

/// See the module. Its tasks end with it.
pub(crate) struct World {
    pub(crate) live: Arc<ArcSwap<Snapshot>>,
    pub(crate) messages: Arc<Messages>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    builder: Mutex<Builder>,
    changed: watch::Sender<u64>,
    _end: DropGuard,
}

/// A message that landed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) rule: String,
    pub(crate) method: String,
    pub(crate) topic: String,
    pub(crate) retained: bool,
    pub(crate) json: bool,
    pub(crate) body: Bytes,
}

/// What landed, and what becomes of it.
#[derive(Debug)]
pub(crate) struct Messages {
    all: watch::Sender<Vec<Message>>,
    answer: Mutex<Answer>,
    /// Messages are answered while this is true.
    pub(crate) open: watch::Sender<bool>,
}

/// What a message is answered with.
#[derive(Clone)]
pub(crate) enum Answer {
    With(u16, Bytes),
    Fails(Failure),
    /// What the target of the Rule says.
    Targets(Providers, Arc<ArcSwap<Snapshot>>),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answer")
    }
}

impl World {
    /// With these Rules; see [`World::rules`].
    pub(crate) fn with(rules: &str) -> Self {
        let stop = CancellationToken::new();
        let builder = Mutex::new(Builder::new(NodeName(NODE.into()), None));
        let world = Self {
            live: Arc::default(),
            messages: Arc::new(Messages::new()),
            tasks: TaskTracker::new(),
            builder,
            changed: watch::Sender::new(0),
            _end: stop.clone().drop_guard(),
            stop,
        };
        world.rules(rules);
        world
    }

    /// Puts exactly these Rules in force, one a line: `name: eventbus topic=a/+ -> rest resource=URL`.
    /// A name that ends with `!` is paused.
    pub(crate) fn rules(&self, text: &str) {
        let wanted: Vec<Record> = text.lines().filter_map(record).collect();
        let live = self.live.load();
        let gone = live.rules.all().map(|rule| &rule.name);
        let gone = gone.filter(|name| !wanted.iter().any(|record| record.name == name.name));
        let key = |name: &RuleName| Key {
            kind: Kind::Rule,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        };
        let delete = gone.map(key).collect();
        let put = TYPES.iter().map(|kind| endpoint(kind)).chain(wanted).collect();
        let change = Change { put, delete, ..Change::default() };
        self.live.store(self.builder.lock().apply(change, now()));
        self.changed.send_modify(|ticks| *ticks += 1);
    }

    /// The Rule of this name.
    pub(crate) fn rule(&self, name: &str) -> Arc<Rule> {
        self.live.load().rules.get(&RuleName::new("n", name)).unwrap().clone()
    }

    pub(crate) fn here(&self) -> Here {
        Here {
            node: NodeName(NODE.into()),
            live: self.live.clone(),
            changed: self.changed.subscribe(),
            deliver: self.messages.clone(),
        }
    }

    /// A client of URLs that trusts nobody in particular.
    pub(crate) fn call(&self) -> Rest {
        Rest::new(connect(), &self.tasks, self.stop.clone())
    }
}

pub(crate) fn connect() -> Connect {
    Connect::new(Dial::default(), Roots::Machine)
}

impl Messages {
    fn new() -> Self {
        Self {
            all: watch::Sender::default(),
            answer: Mutex::new(Answer::With(200, Bytes::new())),
            open: watch::Sender::new(true),
        }
    }

    /// From now on they are answered so.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.answer.lock() = answer;
    }

    /// Waits for so many, and gives them.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Message> {
        let mut all = self.all.subscribe();
        let landed = timeout(PATIENCE, all.wait_for(|all| all.len() >= count)).await;
        match landed {
            Ok(all) => all.unwrap().clone(),
            Err(_) => panic!("{count} wanted: {:?}", self.all()),
        }
    }

    pub(crate) fn all(&self) -> Vec<Message> {
        self.all.borrow().clone()
    }

    /// As `rule topic text`, without those before.
    pub(crate) async fn texts(&self, count: usize) -> Vec<String> {
        self.wait_for(count).await.iter().map(Message::text).collect()
    }
}

impl Message {
    pub(crate) fn text(&self) -> String {
        let retained = if self.retained { " retained" } else { "" };
        format!("{} {} {}{retained}", self.rule, self.topic, self.body.escape_ascii())
    }
}

impl Deliver for Messages {
    fn send(&self, rule: RuleName, request: Request<Full<Bytes>>) -> Sending {
        let (head, body) = request.into_parts();
        let (all, answer) = (self.all.clone(), self.answer.lock().clone());
        let mut open = self.open.subscribe();
        Box::pin(async move {
            let body = body.collect().await.unwrap().to_bytes();
            let text = |name: &str| head.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
            all.send_modify(|all| {
                all.push(Message {
                    rule: rule.name.to_string(),
                    method: head.method.to_string(),
                    topic: text(TOPIC.as_str()).unwrap_or_default(),
                    retained: text("x-edgemesh-retained").is_some_and(|v| v == "true"),
                    json: text(CONTENT_TYPE.as_str()).is_some_and(|v| v == "application/json"),
                    body: body.clone(),
                });
            });
            open.wait_for(|open| *open).await.unwrap();
            match answer {
                Answer::With(status, body) => {
                    Ok(Response::builder().status(status).body(answered(body)).unwrap())
                }
                Answer::Fails(failure) => Err(failure),
                Answer::Targets(providers, live) => {
                    let rule = live.load().rules.get(&rule).unwrap().clone();
                    let path = rule.onto_target(head.uri.path(), None).unwrap();
                    let mut request = Request::from_parts(head, Full::new(body));
                    *request.uri_mut() = path.parse().unwrap();
                    let sent = providers.send(&rule, request).await;
                    sent.map_err(|e| Failure { refusal: e.refusal, reason: e.reason })
                }
            }
        })
    }
}

fn answered(body: Bytes) -> AnswerBody {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn endpoint(kind: &str) -> Record {
    let body = Endpoint {
        id: object_id(Kind::Endpoint, "n", kind),
        endpoint_type: Name::new("type", kind).unwrap(),
        project_id: Some(project_id("n")),
        is_shared: false,
        properties: Properties::new("properties", BTreeMap::new()).unwrap(),
        created_at: 0,
        updated_at: 0,
    };
    Record { namespace: "n".into(), name: kind.into(), body: Body::Endpoint(body) }
}

fn record(line: &str) -> Option<Record> {
    let (name, rest) = line.trim().split_once(": ")?;
    let (source, target) = rest.split_once(" -> ").unwrap();
    let (in_use, name) = (!name.ends_with('!'), name.trim_end_matches('!'));
    let side = |text: &str| {
        let mut words = text.split_whitespace();
        let endpoint = EndpointName::new("n", words.next().unwrap());
        let pair = |word: &str| {
            let (key, value) = word.split_once('=').unwrap();
            (key.to_owned(), value.to_owned())
        };
        (endpoint, ResourceMap::new("resource", words.map(pair).collect()).unwrap())
    };
    let ((source, source_resource), (target, target_resource)) = (side(source), side(target));
    let body = RuleRecord {
        id: object_id(Kind::Rule, "n", name),
        project_id: project_id("n"),
        domain_id: DomainId::new("domain_id", "").unwrap(),
        source,
        source_resource,
        target,
        target_resource,
        in_use,
        is_deleted: false,
        created_at: 0,
        updated_at: 0,
    };
    Some(Record { namespace: "n".into(), name: name.into(), body: Body::Rule(body) })
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = now() + PATIENCE;
    while !condition() {
        assert!(now() < end, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An address at which nobody listens.
pub(crate) fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
