//! How long a change takes, for people: `cargo test --release -- --ignored --nocapture sync::tests::measure`.

use std::time::Duration;

use edgemesh_proto::message::Body as Word;
use edgemesh_proto::record::{Delta, SlicePort};

use super::{open as lone, service, set, synced};

use super::*;

const SERVICES: usize = 10_000;
const BACKENDS: u8 = 10;
const CHANGES: usize = 300;

fn slice(n: usize, last: u8) -> Record {
    let backend = |b: u8| Backend {
        addresses: vec![[10, (n >> 8) as u8, n as u8, last.wrapping_add(b)].into()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: Some(NodeName(format!("node-{}", (n + usize::from(b)) % 500).into())),
        zone: None,
        workload: Some(format!("s{n}-7d9f8b6c5-{b}").into()),
        weight: None,
    };
    let port = SlicePort {
        name: "".into(),
        port: 8000.try_into().unwrap(),
        transport: Transport::Tcp,
        app_protocol: None,
    };
    let backends = (0..BACKENDS).map(backend).collect();
    let body = Body::Slice(Slice { service: format!("s{n}").into(), ports: vec![port], backends });
    Record { namespace: "default".into(), name: format!("s{n}-abcde").into(), body }
}

fn all() -> Vec<Record> {
    let address = |n: usize| format!("10.96.{}.{}", n >> 8, n & 255);
    let of = |n: usize| [service(&format!("s{n}"), Some(&address(n))), slice(n, 0)];
    (0..SERVICES).flat_map(of).collect()
}

fn changed(n: usize) -> Record {
    slice(n * 97 % SERVICES, (n % 200) as u8 + 1)
}

fn told(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let (half, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{what}: p50 {half:?} p99 {most:?}");
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let records = all();
    let (mut sync, _live) = synced::open(folder.path());
    let put: Vec<Put> = records.iter().map(Put::from).collect();
    let whole = Delta { epoch: [7; 16], to: 1, reset: true, put, ..Delta::default() };
    let begun = now();
    sync.hear(Word::Delta(whole), now()).await.unwrap();
    println!("{} records from a registry, stored and shown: {:?}", records.len(), begun.elapsed());
    let mut took = Vec::new();
    for n in 1..=CHANGES {
        let (put, from, to) = (vec![Put::from(&changed(n))], n as u64, n as u64 + 1);
        let step = Delta { epoch: [7; 16], from, to, put, ..Delta::default() };
        let begun = now();
        sync.hear(Word::Delta(step), now()).await.unwrap();
        took.push(begun.elapsed());
    }
    told("one Slice of a registry changes", took);
    sync.into_store().close().await;
    let begun = now();
    let (sync, _live) = synced::open(folder.path());
    println!("opened again: {:?}", begun.elapsed());
    sync.into_store().close().await;

    let folder = tempfile::tempdir().unwrap();
    let (mut sync, _live) = lone(folder.path());
    let mut records = set(&records);
    sync.observe(records.clone(), now()).await;
    let mut took = Vec::new();
    for n in 1..=CHANGES / 10 {
        let record = changed(n);
        records.insert(record.key(), record);
        let observed = records.clone();
        let begun = now();
        sync.observe(observed, now()).await;
        took.push(begun.elapsed());
    }
    told("one Slice of the manifests changes", took);
    sync.into_store().close().await;
}
