//! The records of the little world: each has a few bodies, encoded once for all seeds.

use std::sync::OnceLock;

use bytes::Bytes;
use edgemesh_core::sync::offer;
use edgemesh_proto::record::{
    Backend, Body, Key, Kind, Node, NodeName, Policy, Put, Record, Service, Slice, Workload,
};

/// Its nodes; the first ones have agents. One's name is the beginning of another's.
pub(crate) const NODES: [&str; 4] = ["a", "b", "a.c", "d"];
/// Bodies of each record.
const BODIES: usize = 4;
const EACH: usize = 7;

/// Everything that the manifests may say: a key with its bodies.
pub(crate) fn manifests() -> &'static [(Key, Vec<Bytes>)] {
    static ALL: OnceLock<Vec<(Key, Vec<Bytes>)>> = OnceLock::new();
    ALL.get_or_init(|| {
        let mut all = Vec::new();
        for n in 0..EACH {
            all.push(bodies("default", &format!("s{n}"), service));
            all.push(bodies("default", &format!("s{n}-x"), |v| slice(n, v)));
            all.push(bodies("shop", &format!("p{n}"), workload));
        }
        all.push(bodies("default", "pol", policy));
        for name in NODES {
            all.push(bodies("", name, node));
        }
        // A kind that this version does not read is carried all the same.
        let key = Key { kind: Kind::Rule, namespace: "default".into(), name: "r".into() };
        all.push((key, (0..BODIES).map(|v| Bytes::from(vec![0xff, v as u8])).collect()));
        all
    })
}

/// Everything that a node may offer, with some that it may not.
pub(crate) fn offers(of: usize) -> &'static [Put] {
    static ALL: OnceLock<Vec<Vec<Put>>> = OnceLock::new();
    let all = ALL.get_or_init(|| NODES.iter().map(|name| offered(name)).collect());
    &all[of]
}

fn offered(node: &str) -> Vec<Put> {
    let name = NodeName(node.into());
    let own = |v: usize| Slice {
        service: format!("s{}", v % 3).into(),
        ports: Vec::new(),
        backends: vec![backend(Some(node), v as u8)],
    };
    let mut all = Vec::new();
    for v in 0..BODIES {
        let slice = Body::Slice(own(v));
        all.push(Put::from(&record(
            "default",
            &format!("{}s.{}", offer::prefix(&name), v % 2),
            slice,
        )));
        all.push(Put::from(&record("default", &format!("mine{}", v % 2), service(v))));
        let pod =
            Workload { node: Some(name.clone()), owner: format!("o{v}").into(), ..<_>::default() };
        all.push(Put::from(&record("shop", "p1", Body::Workload(pod))));
        let zone = Some(format!("z{}", v % 2).into());
        all.push(Put::from(&record("", node, Body::Node(Node { zone, ..Node::default() }))));
    }
    // Another's name, and a name of its own under another's prefix.
    all.push(Put::from(&record("", "d", Body::Node(Node::default()))));
    all.push(Put::from(&record("default", "edgemesh-node.a.c.s.0", Body::Slice(own(9)))));
    all
}

fn bodies(namespace: &str, name: &str, body: impl Fn(usize) -> Body) -> (Key, Vec<Bytes>) {
    let all = (0..BODIES).map(|v| record(namespace, name, body(v)));
    let bodies = all.clone().map(|record| record.encode_body().into()).collect();
    (record(namespace, name, body(0)).key(), bodies)
}

fn record(namespace: &str, name: &str, body: Body) -> Record {
    Record { namespace: namespace.into(), name: name.into(), body }
}

fn service(v: usize) -> Body {
    Body::Service(Service { created: v as i64, ..Service::default() })
}

fn policy(v: usize) -> Body {
    Body::Policy(Policy { service: "s0".into(), created: v as i64, ..Policy::default() })
}

/// On a node that depends on the version, or on none, or on two.
fn slice(n: usize, v: usize) -> Body {
    let mut backends = vec![backend(NODES.get((n + v) % 5).copied(), v as u8)];
    if v == 3 {
        backends.push(backend(NODES.get(n % 4).copied(), 9));
    }
    Body::Slice(Slice { service: format!("s{n}").into(), ports: Vec::new(), backends })
}

fn workload(v: usize) -> Body {
    let node = NODES.get(v).map(|name| NodeName((*name).into()));
    Body::Workload(Workload { node, ..Workload::default() })
}

fn node(v: usize) -> Body {
    let zone = (v < 3).then(|| format!("z{}", v % 2).into());
    let labels = if v == 2 { [("disk".into(), "ssd".into())].into() } else { <_>::default() };
    Body::Node(Node { zone, labels, ..Node::default() })
}

fn backend(node: Option<&str>, last: u8) -> Backend {
    Backend {
        addresses: vec![[10, 0, 0, last].into()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: node.map(|name| NodeName(name.into())),
        zone: None,
        workload: None,
        weight: None,
    }
}
