//! One agent and the registry, word by word.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::time::Instant;

use edgemesh_core::sync::replica::{Reaction, Replica};
use edgemesh_proto::message::{Body, Hello, Selector};
use edgemesh_proto::record::{Body as Of, Delta, Key, NodeName, Record, Service};
use edgemesh_router::registry::Registry;
use edgemesh_router::registry::session::{Said, Session};

#[expect(clippy::disallowed_methods, reason = "a test's beginning of time")]
fn start() -> Instant {
    Instant::now()
}

fn hello(replica: &mut Replica) -> Hello {
    let held = replica.begin();
    Hello {
        node: NodeName("edge-1".into()),
        instance: [0; 16],
        generation: 1,
        version: String::new(),
        epoch: held.epoch,
        revision: held.revision,
        digest: held.digest,
        selector: Selector::default(),
        links: Vec::new(),
        takes_over: false,
    }
}

/// Lets both talk until nobody has anything to say. Returns what the registry said.
fn talk(session: &mut Session, registry: &mut Registry, replica: &mut Replica) -> Vec<Body> {
    let mut heard = Vec::new();
    while let Some(said) = session.next(registry, start()) {
        let body = match said {
            Said::Delta(bytes) => Body::Delta(Delta::decode(bytes).unwrap().0),
            Said::Held(held) => Body::Held(held),
        };
        heard.push(body.clone());
        let answer = match replica.on(body).unwrap() {
            Reaction::Nothing => continue,
            Reaction::Apply(_) => replica.done(true),
            Reaction::Say(body) => body,
        };
        session.on(registry, &answer, start()).unwrap();
    }
    heard
}

fn service(name: &str, created: i64) -> Record {
    let body = Of::Service(Service { created, ..Service::default() });
    Record { namespace: "default".into(), name: name.into(), body }
}

fn manifests(records: &[Record]) -> BTreeMap<Key, bytes::Bytes> {
    records.iter().map(|record| (record.key(), record.encode_body().into())).collect()
}

#[test]
fn an_empty_agent_gets_everything_then_changes_then_nothing() {
    let mut registry = Registry::new([1; 16], []);
    registry.observe(&manifests(&[service("a", 1), service("b", 1)]));
    let mut replica = Replica::new([0; 16], 0, []);
    let mut session = Session::begin(&mut registry, &hello(&mut replica), start()).unwrap();
    let heard = talk(&mut session, &mut registry, &mut replica);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert_eq!(session.acknowledged(), 2);
    registry.observe(&manifests(&[service("a", 2)]));
    let heard = talk(&mut session, &mut registry, &mut replica);
    let [Body::Delta(delta)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((delta.put.len(), delta.delete.len(), delta.from, delta.to), (1, 1, 2, 4));
    assert!(talk(&mut session, &mut registry, &mut replica).is_empty());
    assert!(session.is_settled(&registry));
}
