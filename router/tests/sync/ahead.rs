//! Agents that count further than the registry does, as after a cloud's machine was put back to an
//! older state of itself.

use super::*;

const EPOCH: [u8; 16] = [1; 16];

fn rules(range: std::ops::Range<usize>) -> BTreeMap<Key, Bytes> {
    let rule = |n: usize| {
        let name = format!("r{n}").into();
        let key = Key { kind: edgemesh_proto::record::Kind::Rule, namespace: "x".into(), name };
        (key, Bytes::from(vec![n as u8; 20_000]))
    };
    range.map(rule).collect()
}

/// How much the registry knew when the copy was made; how the agent's way back looks.
#[test]
fn an_agent_that_is_ahead_is_led_back() {
    for (then, now_known, what) in [
        (0..300, 0..310, "many parts, other records"),
        (0..3, 0..300, "few parts, other records"),
        (0..300, 5..300, "fewer records"),
        (0..0, 0..300, "no records"),
    ] {
        let mut registry = Registry::new(EPOCH, []);
        registry.observe(&rules(then.clone()));
        registry.observe(&rules(now_known));
        let mut agent = Agent::new(Selector::default());
        let mut session = agent.begin(&mut registry);
        agent.talk(&mut session, &mut registry);
        let ahead = agent.replica.holding().revision;

        let mut restored = Registry::new(EPOCH, []);
        restored.observe(&rules(then));
        assert!(restored.revision() < ahead, "{what}");
        let mut session = agent.begin(&mut restored);
        let heard = agent.talk(&mut session, &mut restored);
        assert!(shape(&heard)[0].starts_with("everything"), "{what}: {:?}", shape(&heard));
        assert_eq!(agent.replica.holding().revision, restored.revision(), "{what}");
    }
}

/// The same records under a higher number: a step from nothing would be one backwards.
#[test]
fn an_agent_that_is_ahead_with_the_same_records_is_led_back_too() {
    let mut registry = Registry::new(EPOCH, []);
    for known in [0..300, 0..310, 0..300] {
        registry.observe(&rules(known));
    }
    let mut agent = Agent::new(Selector::default());
    let mut session = agent.begin(&mut registry);
    agent.talk(&mut session, &mut registry);

    let mut restored = Registry::new(EPOCH, []);
    restored.observe(&rules(0..300));
    assert!(restored.revision() < agent.replica.holding().revision);
    let mut session = agent.begin(&mut restored);
    agent.talk(&mut session, &mut restored);
    assert_eq!(agent.replica.holding().revision, restored.revision());
}
