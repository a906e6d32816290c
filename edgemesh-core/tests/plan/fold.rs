//! Law: the Snapshot of all records is the one that a history of changes leads to.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use edgemesh_core::snapshot::{Builder, Change, Host};
use edgemesh_proto::record::{Key, NodeName, Record, ServiceName};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use crate::grammar::{Words, host as grammar_host, record};
use crate::world::{HERE, World};

/// One line of a change.
#[derive(Clone, Debug)]
enum Step {
    Put(Record),
    /// Deletes what this record is called.
    Delete(Record),
    Addresses(ServiceName, Vec<IpAddr>),
    Hosts(ServiceName, Vec<Host>),
}

/// The records as a plain map, which is right by its simplicity.
#[derive(Default)]
struct Model {
    records: BTreeMap<Key, Record>,
    addresses: BTreeMap<ServiceName, Vec<IpAddr>>,
    hosts: BTreeMap<ServiceName, Vec<Host>>,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn building_all_equals_folding_the_changes(
        batches in vec(vec(step(), 0..6), 0..12),
        backwards in any::<bool>(),
    ) {
        let now = World::default().now();
        let (mut model, mut builder) = (Model::default(), builder());
        let mut folded = builder.apply(Change::default(), now);
        for (revision, batch) in batches.into_iter().enumerate() {
            let change = model.take(batch, revision as u64);
            folded = builder.apply(change, now);
            prop_assert_eq!(folded.revision, revision as u64);
            // Each step on the way, not only the end, or two faults could make up for each other.
            prop_assert_eq!(folded.to_string(), model.build(backwards, now));
        }
        let names: Vec<_> = folded.services().iter().map(|s| s.name.clone()).collect();
        prop_assert!(names.is_sorted(), "{:?}", names);
    }
}

impl Model {
    /// Takes a batch in, and says it as a change: deletes come before puts.
    fn take(&mut self, batch: Vec<Step>, revision: u64) -> Change {
        let mut change = Change { revision, ..Change::default() };
        for step in batch {
            match step {
                Step::Put(record) => change.put.push(record),
                Step::Delete(record) => change.delete.push(record.key()),
                Step::Addresses(service, addresses) => change.addresses.push((service, addresses)),
                Step::Hosts(service, hosts) => change.hosts.push((service, hosts)),
            }
        }
        for key in &change.delete {
            self.records.remove(key);
        }
        for record in &change.put {
            self.records.insert(record.key(), record.clone());
        }
        for (service, addresses) in &change.addresses {
            self.addresses.insert(service.clone(), addresses.clone());
        }
        self.hosts.extend(change.hosts.iter().cloned());
        change
    }

    fn build(&self, backwards: bool, now: Instant) -> String {
        let mut put: Vec<_> = self.records.values().cloned().collect();
        if backwards {
            put.reverse();
        }
        let there = self.addresses.iter().filter(|(_, addresses)| !addresses.is_empty());
        let addresses = there.map(|(name, addresses)| (name.clone(), addresses.clone())).collect();
        let hosts = self.hosts.clone().into_iter().collect();
        builder().apply(Change { put, addresses, hosts, ..Change::default() }, now).to_string()
    }
}

fn builder() -> Builder {
    Builder::new(NodeName(HERE.into()), None)
}

fn step() -> impl Strategy<Value = Step> {
    let addresses = subsequence(vec!["198.18.0.1", "198.18.0.2", "fd96::1"], 0..=2);
    let hosts = subsequence(vec!["h1=198.18.0.2", "h2=198.18.0.3,fd96::3"], 0..=2);
    prop_oneof![
        8 => line().prop_map(|line| Step::Put(read(&line))),
        4 => line().prop_map(|line| Step::Delete(read(&line))),
        1 => (service_name(), addresses).prop_map(|(name, addresses)| {
            let addresses = addresses.iter().map(|a| a.parse().expect("an address")).collect();
            Step::Addresses(ServiceName::new("ns", name), addresses)
        }),
        1 => (service_name(), hosts).prop_map(|(name, hosts)| {
            let hosts = hosts.into_iter().map(|host| grammar_host(host).expect("a host"));
            Step::Hosts(ServiceName::new("ns", name), hosts.collect())
        }),
    ]
}

fn read(line: &str) -> Record {
    let mut words = Words(line.split_whitespace().collect());
    let verb = words.next("a verb").expect("a line has words");
    record(verb, words).unwrap_or_else(|wrong| panic!("{line}: {wrong}"))
}

/// Few names and values, so that they meet.
fn line() -> impl Strategy<Value = String> {
    let small = 1..4u8;
    let service = (
        service_name(),
        select(vec!["-", "10.96.0.1", "10.96.0.2", "10.96.0.1,fd00::1"]),
        select(vec!["80", "a:80,b:81", "a:81>http", "a:80/udp,b:80>8080"]),
        select(vec![
            "",
            " selector=app:x",
            " selector=app:y publishNotReady",
            " selector=app:x affinity=9s",
        ]),
    );
    let slice = (
        small.clone(),
        service_name(),
        select(vec!["80", "a:8080", "a:8080,b:8081", "b:9/udp,a:1"]),
        vec(backend(), 0..4),
    );
    let workload = (
        small.clone(),
        backend(),
        select(vec!["app:x", "app:y", "app:x,more:z", "app:x,edgemesh.io/weight:5"]),
        select(vec!["", " ports=http:8000"]),
    );
    let policy = (
        small.clone(),
        service_name(),
        0..3u8,
        select(vec![
            "",
            " origin=DestinationRule",
            " client=5/5",
            " balance=random locality=none",
            " allow=service:api,namespace:ns",
            " client=5/5/workload",
            " balance=consistentHash by=cookie:sid",
        ]),
    );
    let route = (
        select(vec!["ns/route-1", "ns/route-2", "other/route-1"]),
        service_name(),
        service_name(),
        0..3u8,
        select(vec!["", " path=/a", " path=/a/b"]),
    );
    let node = (
        select(vec!["edge-1", "edge-2", "far"]),
        select(vec!["", " zone=a", " zone=b", " agent", " agent zone=a", " viaCloud"]),
    );
    prop_oneof![
        3 => service.prop_map(|(s, ips, ports, more)| format!("service ns/{s} {ips} {ports}{more}")),
        4 => slice.prop_map(|(n, s, ports, backends)| {
            format!("slice ns/slice-{n} for={s} ports={ports} {}", backends.join(" "))
        }),
        3 => workload.prop_map(|(n, backend, labels, more)| {
            format!("workload ns/pod-{n} {backend} labels={labels}{more}")
        }),
        2 => policy.prop_map(|(n, s, created, more)| {
            format!("policy ns/policy-{n} for={s} created={created}{more}")
        }),
        3 => route.prop_map(|(name, s, to, created, more)| {
            format!("route {name} for=ns/{s} to=ns/{to} created={created}{more}")
        }),
        3 => node.prop_map(|(name, zone)| format!("node {name}{zone}")),
    ]
}

fn service_name() -> impl Strategy<Value = &'static str> {
    select(vec!["web", "api", "db"])
}

fn backend() -> impl Strategy<Value = String> {
    let state = select(vec![
        "",
        "",
        "*0",
        "=pod-1",
        "=pod-2*7",
        "~h1",
        "~h1!leaving",
        "~h2",
        "!notReady",
        "!leaving",
        "!gone",
    ]);
    let place = select(vec!["", "@edge-1", "@edge-2", "@far", "@far/a", "/b"]);
    let address = select(vec!["10.1.0.1", "10.1.0.2", "fd01::1", "10.1.0.3+fd01::3", "127.0.0.1"]);
    (address, place, state).prop_map(|(address, place, state)| format!("{address}{place}{state}"))
}
