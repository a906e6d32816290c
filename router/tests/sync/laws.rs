//! Laws: whatever the steps, folding them gives the state; views are what their definition says.

use std::collections::BTreeSet;

use edgemesh_proto::record::Kind;
use edgemesh_router::registry::Bounds;
use proptest::prelude::*;

use super::*;

/// A change of the manifests.
#[derive(Clone, Debug)]
enum Change {
    Put(Box<Record>),
    Delete(Key),
}

fn record_of_any_kind() -> impl Strategy<Value = Record> {
    let name = (0..6_usize).prop_map(|n| format!("r{n}"));
    let on = proptest::sample::subsequence(vec!["n0", "n1", "n2", "n3", ""], 0..3);
    let zone = prop_oneof![Just(""), Just("z0"), Just("z1")];
    prop_oneof![
        (name.clone(), 0..4_i64).prop_map(|(name, v)| service(&name, v)),
        (name.clone(), on).prop_map(|(name, nodes)| slice(&name, &nodes)),
        (name, 0..5_usize)
            .prop_map(|(name, n)| { workload(&name, ["n0", "n1", "n2", "n3", ""][n]) }),
        (0..4_usize, zone, any::<bool>()).prop_map(|(n, zone, ssd)| {
            let labels: &[(&str, &str)] = if ssd { &[("disk", "ssd")] } else { &[] };
            node(&format!("n{n}"), zone, labels)
        }),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => record_of_any_kind().prop_map(|record| Change::Put(Box::new(record))),
        1 => record_of_any_kind().prop_map(|record| Change::Delete(record.key())),
    ]
}

fn selectors() -> [Selector; 4] {
    let ssd = Selector { labels: [("disk".into(), "ssd".into())].into(), ..Selector::default() };
    [Selector::default(), zone("z0"), zone("z1"), ssd]
}

/// The definition, read off the page.
fn seen(records: &BTreeMap<Key, Record>, selector: &Selector) -> BTreeSet<Key> {
    let selected = |name: &NodeName| {
        let key = Key { kind: Kind::Node, namespace: "".into(), name: name.0.clone() };
        match records.get(&key).map(|record| &record.body) {
            Some(Of::Node(node)) => selector.selects(node),
            _ => false,
        }
    };
    let of = |record: &Record| match &record.body {
        Of::Slice(slice) => {
            let nodes: Option<Vec<_>> = slice.backends.iter().map(|b| b.node.as_ref()).collect();
            nodes.is_none_or(|nodes| nodes.is_empty() || nodes.into_iter().any(selected))
        }
        Of::Workload(workload) => workload.node.as_ref().is_none_or(selected),
        Of::Node(node) => selector.selects(node),
        _ => true,
    };
    let seen = records.iter().filter(|(_, record)| selector.is_everything() || of(record));
    seen.map(|(key, _)| key.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Agents that listen to every step, to some, or come only in the end, hold the same.
    #[test]
    fn folding_the_steps_gives_the_state(
        changes in proptest::collection::vec((change(), 0..8_u8), 1..60),
        part_bytes in prop_oneof![Just(60_usize), Just(1_000_000)],
    ) {
        let bounds = Bounds { deletes: 6, part_bytes, step_bytes: 4 * part_bytes };
        let mut registry = Registry::within(bounds, [1; 16], []);
        let mut agents: Vec<_> = selectors()
            .into_iter()
            .map(|selector| {
                let mut agent = Agent::new(selector);
                let session = agent.begin(&mut registry);
                (agent, session)
            })
            .collect();
        let mut records = BTreeMap::new();
        for (change, who) in changes {
            match change {
                Change::Put(record) => drop(records.insert(record.key(), *record)),
                Change::Delete(key) => drop(records.remove(&key)),
            }
            let all: Vec<Record> = records.values().cloned().collect();
            registry.observe(&manifests(&all));
            if let Some((agent, session)) = agents.get_mut(usize::from(who)) {
                agent.talk(session, &mut registry); // and compares with the registry's own view
            }
        }
        for (agent, session) in &mut agents {
            agent.talk(session, &mut registry);
            let keys: BTreeSet<Key> = agent.records.keys().cloned().collect();
            prop_assert_eq!(keys, seen(&records, &agent.selector), "{:?}", &agent.selector);
            let mut late = Agent::new(agent.selector.clone());
            let mut session = late.begin(&mut registry);
            late.talk(&mut session, &mut registry);
            prop_assert_eq!(&late.records, &agent.records);
            session.end(&mut registry);
        }
    }
}
