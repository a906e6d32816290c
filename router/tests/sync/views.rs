//! Who sees what, and on whose word.

use edgemesh_core::sync::offer;
use edgemesh_proto::record::{Agent as LinkAgent, Kind, Put, Revocation};
use edgemesh_router::registry::Owner;

use super::*;

fn names(registry: &mut Registry, selector: &Selector) -> Vec<String> {
    registry.seen_by(selector).into_keys().map(|key| key.to_string()).collect()
}

#[test]
fn a_selector_selects_nodes_and_what_lives_there() {
    let mut registry = Registry::new([1; 16], []);
    let all = [
        node("n1", "z1", &[("disk", "ssd")]),
        node("n2", "z2", &[("disk", "ssd"), ("gpu", "yes")]),
        node("n3", "", &[]),
        service("everywhere", 1),
        slice("on-1", &["n1"]),
        slice("on-2", &["n2"]),
        slice("on-1-2", &["n1", "n2"]),
        slice("on-3", &["n3"]),
        slice("on-unknown", &["n9"]),
        slice("on-none", &[]),
        slice("on-1-and-none", &["n1", ""]),
        workload("pod-1", "n1"),
        workload("pod-none", ""),
    ];
    registry.observe(&manifests(&all));
    let label = |labels: &[(&str, &str)]| Selector {
        zones: Vec::new(),
        labels: labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
    };
    let both = Selector { zones: vec!["z1".into(), "z2".into()], ..label(&[("gpu", "yes")]) };
    // selector → what is seen beside what lives on no node
    let rows: &[(Selector, &[&str])] = &[
        (zone("z1"), &["slice on-1", "slice on-1-2", "node n1", "workload pod-1"]),
        (zone("z2"), &["slice on-1-2", "slice on-2", "node n2"]),
        (zone("z9"), &[]),
        (label(&[("gpu", "yes")]), &["slice on-1-2", "slice on-2", "node n2"]),
        (both, &["slice on-1-2", "slice on-2", "node n2"]),
        (label(&[("gpu", "no")]), &[]),
    ];
    let always =
        ["service everywhere", "slice on-none", "slice on-1-and-none", "workload pod-none"];
    for (selector, want) in rows {
        let seen = names(&mut registry, selector);
        let seen: Vec<_> = seen.iter().map(|name| name.replace("default/", "")).collect();
        let mut want: Vec<_> = want.iter().chain(&always).map(|s| (*s).to_owned()).collect();
        let mut sorted = seen.clone();
        sorted.sort();
        want.sort();
        assert_eq!(sorted, want, "{selector:?}");
    }
    assert_eq!(names(&mut registry, &Selector::default()).len(), all.len());
    assert_eq!(registry.views(), 0, "nobody uses one any more");
}

#[test]
fn what_a_node_moves_out_of_a_view_is_told() {
    let mut registry = Registry::new([1; 16], []);
    let world = |zone: &str, on: &str| {
        manifests(&[node("n1", zone, &[]), node("n2", "z2", &[]), slice("s", &[on])])
    };
    registry.observe(&world("z1", "n1"));
    let mut agent = Agent::new(zone("z1"));
    let mut session = agent.begin(&mut registry);
    assert_eq!(shape(&agent.talk(&mut session, &mut registry)), ["everything +2 -0 in 2"]);
    // zone of n1, where the Slice is → what is said
    let steps = [
        ("z9", "n1", "changes +0 -2 in 1"),
        ("z1", "n1", "changes +2 -0 in 1"),
        ("z1", "n2", "changes +0 -1 in 1"),
        ("z1", "n1", "changes +1 -0 in 1"),
        ("z9", "n2", "changes +0 -2 in 1"),
    ];
    for (zone, on, want) in steps {
        registry.observe(&world(zone, on));
        assert_eq!(shape(&agent.talk(&mut session, &mut registry)), [want], "{zone} {on}");
    }
    // What happens elsewhere is not told.
    registry.observe(&manifests(&[
        node("n1", "z9", &[]),
        node("n2", "z2", &[]),
        slice("t", &["n2"]),
    ]));
    assert!(agent.talk(&mut session, &mut registry).len() <= 1);
    session.end(&mut registry);
}

fn of_node(registry: &Registry, name: &str) -> Option<Node> {
    let key = Key { kind: Kind::Node, namespace: "".into(), name: name.into() };
    let (_, body) = registry.records().find(|(known, _)| **known == key)?;
    match Record::decode(Kind::Node, "", name, body).unwrap().body {
        Of::Node(node) => Some(node),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_is_what_the_manifests_and_itself_say() {
    let mut registry = Registry::new([1; 16], []);
    let n1 = NodeName("n1".into());
    registry.joined(&n1, vec!["10.0.0.1:15008".into()]);
    let agent = Some(LinkAgent { links: vec!["10.0.0.1:15008".into()] });
    assert_eq!(of_node(&registry, "n1"), Some(Node { agent: agent.clone(), ..Node::default() }));
    registry.offer(&n1, &manifests(&[node("n1", "z-own", &[("a", "own"), ("b", "own")])]));
    registry.observe(&manifests(&[node("n1", "", &[("a", "manifest")])]));
    let merged = of_node(&registry, "n1").unwrap();
    assert_eq!((merged.zone.as_deref(), &merged.agent), (Some("z-own"), &agent));
    let labels: Vec<_> = merged.labels.values().map(|value| &**value).collect();
    assert_eq!(labels, ["manifest", "own"]);
    registry.observe(&manifests(&[node("n1", "z-manifest", &[])]));
    assert_eq!(of_node(&registry, "n1").unwrap().zone.as_deref(), Some("z-manifest"));
    // A newer address, then nothing of it but the manifest.
    registry.joined(&n1, Vec::new());
    assert_eq!(of_node(&registry, "n1").unwrap().agent, Some(LinkAgent::default()));
    registry.revoke(&n1, 77);
    registry.forget(&n1);
    assert_eq!(
        of_node(&registry, "n1"),
        Some(Node { zone: Some("z-manifest".into()), ..<_>::default() })
    );
    assert_eq!(registry.revocations().get(&n1), Some(&77), "stays");
    let key = record("", "n1", Of::Revocation(Revocation { before: 77 })).key();
    assert!(registry.records().any(|(known, _)| *known == key), "and is told to all");
}

#[test]
fn of_several_owners_one_counts() {
    let [a, b] = ["a", "b"].map(|name| NodeName(name.into()));
    let ac = NodeName("a.c".into());
    let counts = |registry: &Registry, like: &Record| {
        let found = registry.records().find(|(key, _)| **key == like.key());
        found.map(|(_, body)| body.clone())
    };
    let bytes = |record: &Record| Some(Bytes::from(record.encode_body()));
    let mut registry = Registry::new([1; 16], []);
    // A Service: the manifests', else the first node's.
    let [first, second, manifest] = [1, 2, 3].map(|created| service("s", created));
    registry.offer(&b, &manifests(std::slice::from_ref(&second)));
    assert_eq!(counts(&registry, &first), bytes(&second));
    registry.offer(&a, &manifests(std::slice::from_ref(&first)));
    assert_eq!(counts(&registry, &first), bytes(&first));
    registry.observe(&manifests(std::slice::from_ref(&manifest)));
    assert_eq!(counts(&registry, &first), bytes(&manifest));
    registry.observe(&BTreeMap::new());
    registry.forget(&a);
    assert_eq!(counts(&registry, &first), bytes(&second));
    registry.forget(&b);
    assert_eq!(counts(&registry, &first), None);
    // A Pod: the node's own word, as long as it is still there.
    let (pod, mut own) = (workload("p", "a"), workload("p", "a"));
    if let Of::Workload(workload) = &mut own.body {
        workload.owner = "own".into();
    }
    registry.observe(&manifests(std::slice::from_ref(&pod)));
    registry.offer(&a, &manifests(std::slice::from_ref(&own)));
    assert_eq!(counts(&registry, &pod), bytes(&own));
    let moved = workload("p", "b");
    registry.observe(&manifests(std::slice::from_ref(&moved)));
    assert_eq!(counts(&registry, &pod), bytes(&moved), "it moved away");
    // A name that is another node's by right.
    let name = "edgemesh-node.a.c.x";
    let (thief, rightful) = (slice(name, &["a"]), slice(name, &["a.c"]));
    registry.offer(&a, &manifests(std::slice::from_ref(&thief)));
    registry.offer(&ac, &manifests(std::slice::from_ref(&rightful)));
    assert_eq!(counts(&registry, &thief), bytes(&rightful));
    let owners: Vec<_> = registry.owners().cloned().collect();
    assert_eq!(owners, [Owner::Manifests, Owner::Node(a), Owner::Node(ac)]);
}

/// What a node may say of itself.
#[test]
fn offers_are_checked() {
    let me = NodeName("edge-1".into());
    let own = |nodes: &[&str]| slice("edgemesh-node.edge-1.x", nodes);
    let with = |change: fn(&mut Service)| {
        let mut service = Service::default();
        change(&mut service);
        record("default", "s", Of::Service(service))
    };
    let mut address = node("edge-1", "z", &[]);
    if let Of::Node(node) = &mut address.body {
        node.addresses = vec![[10, 0, 0, 1].into()];
    }
    let revocation = record("", "edge-2", Of::Revocation(Revocation { before: 1 }));
    let rows = [
        (own(&["edge-1"]), ""),
        (own(&[]), ""),
        (own(&["edge-1", "edge-2"]), "are on another node"),
        (own(&["edge-1", ""]), "are on another node"),
        (slice("x", &["edge-1"]), "begin with its own name"),
        (slice("edgemesh-node.edge-2.x", &["edge-1"]), "begin with its own name"),
        (service("s", 1), ""),
        (with(|s| s.cluster_ips = vec![[10, 96, 0, 1].into()]), "virtual ones"),
        (with(|s| s.external_ips = vec![[10, 96, 0, 1].into()]), "virtual ones"),
        (with(|s| s.external_name = Some("example.com".into())), "not on this node"),
        (workload("p", "edge-1"), ""),
        (workload("p", "edge-2"), "another one"),
        (workload("p", ""), "another one"),
        (node("edge-1", "z", &[("a", "b")]), ""),
        (node("edge-2", "z", &[]), "another node's"),
        (address, "only zone and labels"),
        (revocation, "offers Services"),
    ];
    for (record, want) in &rows {
        let (fine, bad) = offer::accepted(&me, vec![Put::from(record)]);
        let said = bad.first().map(ToString::to_string).unwrap_or_default();
        assert_eq!(fine.is_empty(), !want.is_empty(), "{record:?}: {said}");
        assert!(said.contains(want), "{record:?}: {said}");
    }
    // A bad one harms only itself, and there is an end to it.
    let all = rows.iter().map(|(record, _)| Put::from(record)).collect();
    let (fine, bad) = offer::accepted(&me, all);
    assert_eq!((fine.len(), bad.len()), (4, 12), "{bad:#?}");
    let many = (0..5000).map(|n| Put::from(&service(&format!("s{n}"), 1))).collect();
    let (fine, bad) = offer::accepted(&me, many);
    assert_eq!((fine.len(), bad.len()), (offer::MAX_OFFERED, 1));
}
