//! Who gets an address, and who gives it back.

use std::collections::HashSet;

use edgemesh_proto::record::{Backend, Body, Key, NodeName, Record, Slice, TargetPort};

use super::*;

fn name(of: &str) -> Name {
    Name { service: ServiceName::new("default", of), hostname: "".into() }
}

#[test]
fn candidates_cover_the_range_once() {
    let range: IpNet = "198.18.0.0/28".parse().unwrap();
    let all: HashSet<IpAddr> = candidates(&range, &name("a")).collect();
    assert_eq!(all.len(), 14);
    assert!(!all.contains(&range.network()) && !all.contains(&range.broadcast()));
}

/// Ports as letters (TCP, UDP, SCTP), ClusterIPs, ExternalName, hostnames → who got addresses.
#[test]
fn who_gets_an_address() {
    type Row<'r> = (&'r str, &'r [&'r str], bool, &'r [&'r str], &'r [&'r str]);
    let rows: &[Row<'_>] = &[
        ("T", &[], false, &[], &["default/a"]),
        ("U", &[], false, &[], &["default/a"]),
        ("S", &[], false, &["h"], &[]),
        ("", &[], true, &["h"], &[]),
        ("T", &["10.96.0.1"], false, &[], &[]),
        ("T", &[], false, &["h1", "h0"], &["default/a", "default/a/h0", "default/a/h1"]),
        ("U", &["10.96.0.1"], false, &["h"], &["default/a/h"]),
        // they were those of the range a moment ago
        ("T", &["198.18.0.1", "198.18.0.2", "198.18.0.3"], false, &["h"], &["default/a/h"]),
    ];
    let mut world = World::new();
    let mut addresses = known(&["198.18.0.0/29".parse().unwrap()], Vec::new(), &world.builder);
    let mut held = HashMap::new();
    for (ports, ips, external, hostnames, want) in rows {
        let moved = world.step(&mut addresses, records(ports, ips, *external, hostnames));
        let got: Vec<String> = addresses.by_name.keys().map(Name::to_string).collect();
        assert_eq!(got, *want, "{ports} {ips:?} {hostnames:?}");
        for gone in moved.delete {
            assert_eq!(held.remove(&gone.address), Some(gone.hostname));
        }
        for new in moved.put {
            assert!(!ips.contains(&new.address.to_string().as_str()), "{new:?} is taken");
            assert_eq!(held.insert(new.address, new.hostname), None);
        }
        // What the store holds leads to the same.
        assert_eq!(held.len(), addresses.entries().len());
        let again = known(&addresses.ranges, addresses.entries(), &world.builder);
        assert_eq!(again.by_name, addresses.by_name);
        assert_eq!(again.taken, addresses.taken);
        assert!(again.review.is_subset(&addresses.starving), "{:?}", again.review);
        assert_eq!(again.hosts().iter().flat_map(|(_, hosts)| hosts).count(), hosts(want));
    }
}

fn hosts(names: &[&str]) -> usize {
    names.iter().filter(|name| name.matches('/').count() == 2).count()
}

fn records(ports: &str, ips: &[&str], external: bool, hostnames: &[&str]) -> BTreeMap<Key, Record> {
    let port = |(at, letter): (usize, char)| ServicePort {
        name: letter.to_string().into(),
        port: (at as u16 + 1).try_into().unwrap(),
        target: TargetPort::Same,
        transport: match letter {
            'T' => Transport::Tcp,
            'U' => Transport::Udp,
            _ => Transport::Sctp,
        },
        app_protocol: None,
        node_port: None,
    };
    let service = Service {
        ports: ports.chars().enumerate().map(port).collect(),
        cluster_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        external_name: external.then(|| "example.com".into()),
        ..Service::default()
    };
    let backend = |hostname: &&str| Backend {
        addresses: vec![IpAddr::from([10, 1, 0, 1])],
        hostname: Some((*hostname).into()),
        ready: true,
        serving: true,
        terminating: false,
        node: None,
        zone: None,
        workload: None,
        weight: None,
    };
    let backends = hostnames.iter().map(backend).collect();
    let slice = Slice { service: "a".into(), ports: Vec::new(), backends };
    let record = |name: &str, body| Record { namespace: "default".into(), name: name.into(), body };
    let all = [record("a", Body::Service(service)), record("a-1", Body::Slice(slice))];
    all.into_iter().map(|record| (record.key(), record)).collect()
}

#[test]
fn a_full_range_leaves_the_rest_without() {
    let mut world = World::new();
    let ranges = ["10.0.0.0/30".parse().unwrap()];
    let mut addresses = known(&ranges, Vec::new(), &world.builder);
    let service = |name: &str| {
        let mut all = records("T", &[], false, &[]).into_values();
        let record = all.find(|record| matches!(record.body, Body::Service(_))).unwrap();
        let record = Record { name: name.into(), ..record };
        (record.key(), record)
    };
    let all: BTreeMap<_, _> = ["a", "b", "c"].map(service).into();
    let moved = world.step(&mut addresses, all.clone());
    assert_eq!(moved.put.len(), 2);
    // Who leaves makes room for who found none.
    let (gone, _) = service("a");
    let rest = all.into_iter().filter(|(key, _)| *key != gone).collect();
    let moved = world.step(&mut addresses, rest);
    assert_eq!((moved.put.len(), moved.delete.len()), (1, 1));
    assert_eq!(&*moved.put[0].service.name, "c");
}

#[test]
fn other_ranges_are_moved_to_without_a_change_of_the_records() {
    let mut world = World::new();
    let mut addresses = known(&["10.0.0.0/30".parse().unwrap()], Vec::new(), &world.builder);
    let all = records("T", &[], false, &["h"]);
    assert_eq!(world.step(&mut addresses, all.clone()).put.len(), 2);
    let ranges = ["10.9.0.0/24".parse().unwrap(), "fd96::/112".parse().unwrap()];
    let mut addresses = known(&ranges, addresses.entries(), &world.builder);
    let moved = world.step(&mut addresses, all.clone());
    assert_eq!((moved.put.len(), moved.delete.len()), (4, 2));
    assert!(world.step(&mut addresses, all).is_empty());
}

fn known(ranges: &[IpNet], stored: Vec<VirtualAddress>, builder: &Builder) -> Addresses {
    let mut addresses = Addresses::new(ranges, stored);
    addresses.review(builder);
    addresses
}

/// The records as a Builder keeps them.
struct World {
    builder: Builder,
    all: BTreeMap<Key, Record>,
}

impl World {
    fn new() -> Self {
        Self { builder: Builder::new(NodeName("a".into()), None), all: BTreeMap::new() }
    }

    /// Makes the records `all`.
    fn step(&mut self, addresses: &mut Addresses, all: BTreeMap<Key, Record>) -> Moved {
        let gone = self.all.keys().filter(|key| !all.contains_key(*key));
        let delete: Vec<Key> = gone.cloned().collect();
        let fresh = all.iter().filter(|(key, record)| self.all.get(*key) != Some(*record));
        let put: Vec<Record> = fresh.map(|(_, record)| record.clone()).collect();
        let moved = addresses.settle(&After::new(&self.builder, &put, &delete));
        let change = crate::snapshot::Change { put, delete, ..Default::default() };
        self.builder.apply(change, crate::io::now());
        self.all = all;
        moved
    }
}
