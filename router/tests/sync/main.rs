//! Agents and the registry, word by word.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod ahead;
mod laws;
mod measure;
mod shared;
mod steps;
mod views;

use std::collections::BTreeMap;
use std::time::Instant;

use bytes::Bytes;
use edgemesh_core::sync::replica::{Reaction, Replica, Step};
use edgemesh_proto::message::{Body, Hello, Selector};
use edgemesh_proto::record::{
    Backend, Body as Of, Delta, Key, Node, NodeName, Record, Service, Slice, Workload,
};
use edgemesh_router::registry::Registry;
use edgemesh_router::registry::session::{Said, Session};

#[expect(clippy::disallowed_methods, reason = "a test's beginning of time, and measurements")]
fn now() -> Instant {
    Instant::now()
}

/// An agent that stores everything at once.
struct Agent {
    replica: Replica,
    records: BTreeMap<Key, Bytes>,
    selector: Selector,
}

impl Agent {
    fn new(selector: Selector) -> Self {
        Self { replica: Replica::new([0; 16], 0, []), records: BTreeMap::new(), selector }
    }

    fn hello(&mut self) -> Hello {
        let held = self.replica.begin();
        Hello {
            node: NodeName("edge-1".into()),
            instance: [0; 16],
            generation: 1,
            version: String::new(),
            epoch: held.epoch,
            revision: held.revision,
            digest: held.digest,
            selector: self.selector.clone(),
            links: Vec::new(),
            takes_over: false,
        }
    }

    fn begin(&mut self, registry: &mut Registry) -> Session {
        let hello = self.hello();
        Session::begin(registry, &hello, now()).unwrap()
    }

    /// Hears one word; gives the answer, if one is due.
    fn hear(&mut self, body: Body) -> Option<Body> {
        match self.replica.on(body).unwrap() {
            Reaction::Nothing => None,
            Reaction::Say(body) => Some(body),
            Reaction::Apply(Step { put, delete, .. }) => {
                delete.iter().for_each(|key| assert!(self.records.remove(key).is_some()));
                self.records.extend(put.into_iter().map(|put| (put.key, put.body)));
                Some(self.replica.done(true))
            }
        }
    }

    /// Lets both talk until nobody has anything to say. Returns what the registry said.
    fn talk(&mut self, session: &mut Session, registry: &mut Registry) -> Vec<Body> {
        self.talk_at(session, registry, now())
    }

    fn talk_at(
        &mut self,
        session: &mut Session,
        registry: &mut Registry,
        at: Instant,
    ) -> Vec<Body> {
        let mut heard = Vec::new();
        while let Some(said) = session.next(registry, at) {
            let body = body(said);
            heard.push(body.clone());
            if let Some(answer) = self.hear(body) {
                session.on(registry, &answer, at).unwrap();
            }
        }
        assert!(session.is_settled(registry));
        assert_eq!(self.records, registry.seen_by(&self.selector));
        assert_eq!(self.replica.holding().digest, registry.digest_of(&self.selector));
        heard
    }
}

fn body(said: Said) -> Body {
    match said {
        Said::Delta(bytes) => {
            let (delta, bad) = Delta::decode(bytes).unwrap();
            assert_eq!(bad, []);
            Body::Delta(delta)
        }
        Said::Held(held) => Body::Held(held),
    }
}

/// What a conversation was made of: `everything`, `buckets`, `changes`, `digest`, with how many
/// puts and deletes in how many parts.
fn shape(heard: &[Body]) -> Vec<String> {
    let (mut out, mut parts, mut what) = (Vec::new(), (0, 0, 0), "changes");
    for body in heard {
        let Body::Delta(delta) = body else {
            out.push("digest".to_owned());
            continue;
        };
        if delta.reset {
            what = "everything";
        } else if !delta.buckets.is_empty() {
            what = "buckets";
        }
        parts = (parts.0 + 1, parts.1 + delta.put.len(), parts.2 + delta.delete.len());
        if !delta.more {
            out.push(format!("{what} +{} -{} in {}", parts.1, parts.2, parts.0));
            (parts, what) = ((0, 0, 0), "changes");
        }
    }
    out
}

fn record(namespace: &str, name: &str, body: Of) -> Record {
    Record { namespace: namespace.into(), name: name.into(), body }
}

fn service(name: &str, created: i64) -> Record {
    record("default", name, Of::Service(Service { created, ..Service::default() }))
}

/// A Slice with one Backend on each of the nodes; on none where the name is empty.
fn slice(name: &str, nodes: &[&str]) -> Record {
    let backend = |node: &&str| Backend {
        addresses: vec![[10, 0, 0, 1].into()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: Some(*node).filter(|node| !node.is_empty()).map(|node| NodeName(node.into())),
        zone: None,
        workload: None,
        weight: None,
    };
    let backends = nodes.iter().map(backend).collect();
    let body = Of::Slice(Slice { service: "s".into(), ports: Vec::new(), backends });
    record("default", name, body)
}

fn workload(name: &str, node: &str) -> Record {
    let node = Some(node).filter(|node| !node.is_empty()).map(|node| NodeName(node.into()));
    record("default", name, Of::Workload(Workload { node, ..Workload::default() }))
}

fn node(name: &str, zone: &str, labels: &[(&str, &str)]) -> Record {
    let zone = Some(zone).filter(|zone| !zone.is_empty()).map(Into::into);
    let labels = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    record("", name, Of::Node(Node { zone, labels, ..Node::default() }))
}

fn manifests(records: &[Record]) -> BTreeMap<Key, Bytes> {
    records.iter().map(|record| (record.key(), record.encode_body().into())).collect()
}

fn zone(name: &str) -> Selector {
    Selector { zones: vec![name.into()], ..Selector::default() }
}
