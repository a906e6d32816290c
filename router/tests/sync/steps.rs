//! One conversation after the other: what is said, and how much of it.

use edgemesh_proto::message::{Ack, Held};
use edgemesh_proto::record::Put;
use edgemesh_router::registry::session::{DIGEST_EVERY, Violation};
use edgemesh_router::registry::{Bounds, Owner};

use super::*;

const EPOCH: [u8; 16] = [1; 16];

fn many(n: usize) -> Vec<Record> {
    (0..n).map(|n| service(&format!("s{n}"), 1)).collect()
}

fn world(n: usize) -> (Registry, Agent, Session) {
    let mut registry = Registry::new(EPOCH, []);
    registry.observe(&manifests(&many(n)));
    let mut agent = Agent::new(Selector::default());
    let session = agent.begin(&mut registry);
    (registry, agent, session)
}

fn ack(revision: u64) -> Body {
    Body::Ack(Ack { epoch: EPOCH, revision })
}

#[test]
fn everything_then_changes_then_nothing() {
    let (mut registry, mut agent, mut session) = world(2);
    let heard = agent.talk(&mut session, &mut registry);
    assert_eq!(shape(&heard), ["everything +2 -0 in 2"]);
    assert_eq!(session.acknowledged(), 2);
    registry.observe(&manifests(&[service("s0", 2)]));
    let heard = agent.talk(&mut session, &mut registry);
    assert_eq!(shape(&heard), ["changes +1 -1 in 1"]);
    assert!(agent.talk(&mut session, &mut registry).is_empty());
    // The same again is no change.
    registry.observe(&manifests(&[service("s0", 2)]));
    assert!(agent.talk(&mut session, &mut registry).is_empty());
    // A new conversation goes on where the last one ended.
    registry.observe(&manifests(&[service("s0", 3)]));
    let mut session = agent.begin(&mut registry);
    assert_eq!(shape(&agent.talk(&mut session, &mut registry)), ["changes +1 -0 in 1"]);
}

#[test]
fn a_slow_agent_gets_the_last_change_of_each_record() {
    let (mut registry, mut agent, mut session) = world(3);
    agent.talk(&mut session, &mut registry);
    registry.observe(&manifests(&[service("s0", 2), service("s1", 1), service("s2", 1)]));
    let first = body(session.next(&mut registry, now()).unwrap());
    for created in 3..1000 {
        let temporary = service(&format!("t{created}"), 1);
        registry.observe(&manifests(&[service("s0", created), service("s1", 1), temporary]));
        assert_eq!(session.next(&mut registry, now()), None, "one step is out at a time");
    }
    let answer = agent.hear(first).unwrap();
    session.on(&mut registry, &answer, now()).unwrap();
    let heard = agent.talk(&mut session, &mut registry);
    // s0, the last temporary one, and deletes of s2 and of those that came and went.
    assert_eq!(shape(&heard), ["changes +2 -997 in 1"]);
}

#[test]
fn parts_are_small_and_applied_together() {
    let mut registry = Registry::new(EPOCH, []);
    let rule = |n: usize, bytes: usize| {
        let name = format!("r{n}").into();
        let key = Key { kind: edgemesh_proto::record::Kind::Rule, namespace: "x".into(), name };
        (key, Bytes::from(vec![n as u8; bytes]))
    };
    let mut all: BTreeMap<_, _> = (0..300).map(|n| rule(n, 20_000)).collect();
    all.extend([rule(900, 1_900_000)]); // one is larger by itself
    registry.observe(&all);
    let mut agent = Agent::new(Selector::default());
    let mut session = agent.begin(&mut registry);
    let (mut sizes, mut shown) = (Vec::new(), Vec::new());
    while let Some(said) = session.next(&mut registry, now()) {
        let Said::Delta(bytes) = &said else { panic!("{said:?}") };
        sizes.push(bytes.len());
        let answer = agent.hear(body(said));
        shown.push(agent.records.len());
        if let Some(answer) = answer {
            session.on(&mut registry, &answer, now()).unwrap();
        }
    }
    assert!(sizes.len() >= 8, "{sizes:?}");
    let large = sizes.iter().filter(|size| **size > 1 << 20).count();
    assert_eq!(large, 1, "{sizes:?}");
    let (last, before) = shown.split_last().unwrap();
    assert!(*last == 301 && before.iter().all(|shown| *shown == 0), "{shown:?}");
}

#[test]
fn agents_that_need_the_same_get_the_same_bytes() {
    let (mut registry, mut first, mut one) = world(500);
    let mut second = Agent::new(Selector::default());
    let mut two = second.begin(&mut registry);
    loop {
        let (a, b) = (one.next(&mut registry, now()), two.next(&mut registry, now()));
        let (Some(Said::Delta(a)), Some(Said::Delta(b))) = (a, b) else { break };
        let is_last = !Delta::decode(a.clone()).unwrap().0.more;
        assert!(a.as_ptr() == b.as_ptr() || is_last, "encoded twice");
        for (agent, session, bytes) in [(&mut first, &mut one, a), (&mut second, &mut two, b)] {
            if let Some(answer) = agent.hear(body(Said::Delta(bytes))) {
                session.on(&mut registry, &answer, now()).unwrap();
            }
        }
    }
    registry.observe(&manifests(&many(3)));
    let (a, b) = (one.next(&mut registry, now()), two.next(&mut registry, now()));
    let (Some(Said::Delta(a)), Some(Said::Delta(b))) = (a, b) else { panic!("no step") };
    assert_eq!(a.as_ptr(), b.as_ptr(), "a change is encoded once for all");
}

/// What an agent comes with → what it hears.
#[test]
fn a_conversation_begins_where_both_are() {
    let bounds = Bounds { deletes: 2, ..Bounds::default() };
    let kept = |registry: &Registry| -> Vec<(Owner, Put)> {
        let put = |(key, body): (&Key, &Bytes)| {
            (Owner::Manifests, Put { key: key.clone(), body: body.clone() })
        };
        registry.records().map(put).collect()
    };
    // 40 Services; then one more; then five fewer, of which two deletes are remembered.
    let mut registry = Registry::within(bounds, EPOCH, []);
    registry.observe(&manifests(&many(40)));
    let mut agent = Agent::new(Selector::default());
    let mut session = agent.begin(&mut registry);
    assert_eq!(shape(&agent.talk(&mut session, &mut registry)), ["everything +40 -0 in 2"]);
    registry.observe(&manifests(&many(41)));
    assert_eq!(shape(&agent.talk(&mut session, &mut registry)), ["changes +1 -0 in 1"]);
    registry.observe(&manifests(&many(36)));
    let heard = agent.talk(&mut session, &mut registry);
    let [compared, mended] = &shape(&heard)[..] else { panic!("{heard:?}") };
    assert_eq!(compared, "digest", "too far behind: what differs is found out");
    assert!(mended.starts_with("buckets +"), "{mended}");
    let puts: usize =
        heard.iter().map(|b| if let Body::Delta(d) = b { d.put.len() } else { 0 }).sum();
    assert!(puts < 20, "only the buckets that differ: {mended}");

    // Another epoch with the same records: a number, no data.
    let mut registry = Registry::within(bounds, [2; 16], kept(&registry));
    let mut session = agent.begin(&mut registry);
    assert_eq!(shape(&agent.talk(&mut session, &mut registry)), ["changes +0 -0 in 1"]);
    assert_eq!(agent.replica.holding().epoch, [2; 16]);
    // Another epoch with others, and a number that is lower.
    let mut registry = Registry::within(bounds, [3; 16], kept(&registry));
    let mut less = many(36);
    less.pop();
    registry.observe(&manifests(&less));
    let mut session = agent.begin(&mut registry);
    let heard = agent.talk(&mut session, &mut registry);
    assert_eq!(shape(&heard)[0], "digest");
    assert!(shape(&heard)[1].starts_with("buckets +"), "{:?}", shape(&heard));
    // A number of this epoch that nobody gave out.
    let mut hello = agent.hello();
    (hello.revision, hello.digest) = (hello.revision + 100, [9; 32]);
    let mut session = Session::begin(&mut registry, &hello, now()).unwrap();
    assert_eq!(shape(&agent.talk(&mut session, &mut registry)), ["everything +35 -0 in 2"]);
}

#[test]
fn acknowledgements_are_judged() {
    let (mut registry, mut agent, mut session) = world(3);
    agent.talk(&mut session, &mut registry);
    // Beyond what there is: it starts anew.
    session.on(&mut registry, &ack(99), now()).unwrap();
    assert_eq!(shape(&agent.talk(&mut session, &mut registry)), ["everything +3 -0 in 2"]);
    let backwards = session.on(&mut registry, &ack(2), now()).unwrap_err();
    assert_eq!(backwards, Violation::Backwards { known: 3, told: 2 });
    let refused = backwards.refused();
    assert_eq!(refused.label, "revisionBackwards");
    assert!(refused.text.contains("2 after 3"), "{}", refused.text);
    let held = Held { epoch: EPOCH, revision: 1, digest: [0; 32], buckets: vec![[0; 32]; 256] };
    let backwards = session.on(&mut registry, &Body::Held(held), now()).unwrap_err();
    assert_eq!(backwards, Violation::Backwards { known: 3, told: 1 });
    let delta = Body::Delta(Delta::default());
    let unexpected = session.on(&mut registry, &delta, now()).unwrap_err();
    assert_eq!(unexpected, Violation::Unexpected("delta"));
    // A repetition, and what it had before this conversation, say nothing new.
    session.on(&mut registry, &ack(3), now()).unwrap();
    let other = Body::Ack(Ack { epoch: [8; 16], revision: 77 });
    session.on(&mut registry, &other, now()).unwrap();
    assert!(session.is_settled(&registry) && session.acknowledged() == 3);
    let mut hello = agent.hello();
    hello.selector.zones = (0..65).map(|n| n.to_string().into()).collect();
    let error = Session::begin(&mut registry, &hello, now()).unwrap_err();
    assert_eq!(error, Violation::Selector(65));
}

#[test]
fn what_is_shown_but_not_stored_is_not_acknowledged_and_goes_on() {
    let (mut registry, mut agent, mut session) = world(1);
    agent.talk(&mut session, &mut registry);
    for created in 2..5 {
        registry.observe(&manifests(&[service("s0", created)]));
        let said = body(session.next(&mut registry, now()).unwrap());
        let Reaction::Apply(step) = agent.replica.on(said).unwrap() else { panic!("no step") };
        agent.records.extend(step.put.into_iter().map(|put| (put.key, put.body)));
        let visible = agent.replica.done(false);
        assert!(matches!(&visible, Body::Held(held) if held.buckets.is_empty()));
        session.on(&mut registry, &visible, now()).unwrap();
        assert_eq!(session.acknowledged(), 1);
    }
    session.on(&mut registry, &agent.replica.saved(), now()).unwrap();
    assert_eq!(session.acknowledged(), 4);
    assert!(agent.talk(&mut session, &mut registry).is_empty());
}

#[test]
fn a_digest_now_and_then_heals_what_nobody_noticed() {
    let (mut registry, mut agent, mut session) = world(100);
    agent.talk(&mut session, &mut registry);
    let later = session.due();
    assert!(later <= now() + DIGEST_EVERY);
    assert_eq!(shape(&agent.talk_at(&mut session, &mut registry, later)), ["digest"]);
    // A record that is lost, one that is another, one too many.
    let mut altered = agent.records.clone();
    let (lost, _) = altered.pop_first().unwrap();
    altered.insert(service("s5", 0).key(), service("s5", 9).encode_body().into());
    altered.insert(service("zz", 0).key(), service("zz", 9).encode_body().into());
    let mut hasher = edgemesh_core::digest::Hasher::default();
    let all: Vec<_> =
        altered.iter().map(|(key, body)| (key.clone(), hasher.of(key, body))).collect();
    agent.replica = Replica::new(EPOCH, agent.replica.holding().revision, all);
    agent.records = altered;
    let later = session.due();
    let heard = agent.talk_at(&mut session, &mut registry, later);
    let [digest, mended] = &shape(&heard)[..] else { panic!("{heard:?}") };
    assert!(digest == "digest" && mended.starts_with("buckets +"), "{mended}");
    assert!(agent.records.contains_key(&lost));
}
