//! How long the store takes, for people: `cargo test -- --ignored --nocapture measure`.

use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use edgemesh_proto::record::{Backend, Body, Put, Record, Service, Slice, SlicePort, Transport};

use super::{EPOCH, folder, service};
use crate::store::database::Database;
use crate::store::{Change, Store};

fn slice(index: u32, last: u8) -> Record {
    let backend = |n| Backend {
        addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 0, n, last))],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        node: None,
        zone: None,
        workload: Some(format!("web-{index}-{n}").into()),
        weight: None,
    };
    let port = SlicePort {
        name: "http".into(),
        port: NonZeroU16::MIN,
        transport: Transport::Tcp,
        app_protocol: None,
    };
    let body = Body::Slice(Slice {
        service: format!("svc-{index}").into(),
        ports: vec![port],
        backends: (0..3).map(backend).collect(),
    });
    Record { namespace: "default".into(), name: format!("svc-{index}-x").into(), body }
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn measure() {
    for services in [1_000_u32, 10_000, 55_000] {
        let folder = folder();
        let (store, ..) = Store::open(folder.path()).unwrap();
        let put =
            (0..services).flat_map(|n| [Put::from(&named(n)), Put::from(&slice(n, 1))]).collect();
        let filling = now();
        store.commit(Change { epoch: EPOCH, revision: 1, put, ..<_>::default() }).await.unwrap();
        let filling = filling.elapsed();
        let copying = now();
        store.keep_good_copy().await.unwrap();
        let copying = copying.elapsed();
        store.close().await;
        let database = Database::open(&folder.path().join("meta.db")).unwrap();
        let checking = now();
        let sql = "PRAGMA quick_check(1)";
        database.connection.query_row(sql, [], |_| Ok(())).unwrap();
        let checking = checking.elapsed();
        database.close().unwrap();
        let opening = now();
        let (store, loaded, _) = Store::open(folder.path()).unwrap();
        let opening = opening.elapsed();
        let mut commits: Vec<Duration> = Vec::new();
        for revision in 2..=501 {
            let put = vec![Put::from(&slice(revision * 97 % services, 2 + (revision % 200) as u8))];
            let change = Change { epoch: EPOCH, revision: revision.into(), put, ..<_>::default() };
            let begun = now();
            store.commit(change).await.unwrap();
            commits.push(begun.elapsed());
        }
        commits.sort_unstable();
        println!(
            "{} records: fill {filling:?}, copy {copying:?}, open {opening:?} (quick_check {checking:?}); commit of a Slice p50 {:?} p99 {:?} max {:?}",
            loaded.records.len(),
            commits[250],
            commits[494],
            commits[499],
        );
        store.close().await;
    }
}

fn named(index: u32) -> Record {
    let Record { namespace, body, .. } = service(1, index.into());
    let Body::Service(body) = body else { unreachable!("service() makes Services") };
    Record {
        namespace,
        name: format!("svc-{index}").into(),
        body: Body::Service(Service { ..body }),
    }
}
