//! The table, its file, and the records it becomes.

use edgemesh_proto::record::{
    Backend, Body, Key, Kind, NodeName, Record, Service, ServicePort, Slice, SlicePort, TargetPort,
    Transport, Workload,
};

use super::*;
use crate::io::now;
use crate::snapshot::{Builder, Change};

fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn name(service: &str, id: &str) -> Name {
    Name::new("default", service, id).unwrap()
}

fn json(text: &str) -> Registration {
    serde_json::from_str(text).unwrap()
}

fn listed(service: &str, id: &str, text: &str) -> Listed {
    Listed { name: name(service, id), registration: json(text), expires: None }
}

/// A Service of another source.
fn service(name: &str, ports: &[(&str, u16)]) -> Record {
    let port = |(name, number): &(&str, u16)| ServicePort {
        name: (*name).into(),
        port: port(*number),
        target: TargetPort::Same,
        transport: Transport::Tcp,
        app_protocol: None,
        node_port: None,
    };
    let ports = ports.iter().map(port).collect();
    let body = Body::Service(Service { ports, ..Service::default() });
    Record { namespace: "default".into(), name: name.into(), body }
}

/// Each port of a Service with what it leads to, `80→8000`, and what is said.
fn merged(others: &[Record], registered: &[Listed]) -> (Vec<String>, Vec<String>) {
    let mut records: BTreeMap<Key, Record> = others.iter().map(|r| (r.key(), r.clone())).collect();
    let said = merge(&mut records, registered, &NodeName("edge-1".into()), |_| true);
    let mut out = Vec::new();
    for record in records.values() {
        let Body::Slice(slice) = &record.body else { continue };
        let key = Key {
            kind: Kind::Service,
            namespace: record.namespace.clone(),
            name: slice.service.clone(),
        };
        let Some(Body::Service(service)) = records.get(&key).map(|r| &r.body) else {
            panic!("{key} is missing")
        };
        for port in &slice.ports {
            let of = service.ports.iter().find(|p| p.name == port.name).unwrap();
            let backend = &slice.backends[0];
            let at = SocketAddr::new(backend.addresses[0], port.port.get());
            out.push(format!("{}:{}→{at}", slice.service, of.port));
        }
    }
    (out, said.into_iter().map(|said| format!("{}: {}", said.name.id(), said.reason)).collect())
}

#[test]
fn registrations_become_backends() {
    let two = || vec![service("hello", &[("http", 80), ("admin", 9000)])];
    for (others, registered, want, says) in [
        // Nobody has the name.
        (
            vec![],
            vec![listed("hello", "a", r#"{"port": 8000}"#)],
            vec!["hello:80→127.0.0.1:8000", "hello:8000→127.0.0.1:8000"],
            "",
        ),
        (vec![], vec![listed("hello", "a", r#"{"port": 80}"#)], vec!["hello:80→127.0.0.1:80"], ""),
        (
            vec![],
            vec![
                listed("db", "a", r#"{"port": 6380, "servicePort": 6379}"#),
                listed("db", "b", r#"{"port": 6381, "servicePort": 6379, "address": "::1"}"#),
            ],
            vec!["db:6379→127.0.0.1:6380", "db:6379→[::1]:6381"],
            "",
        ),
        // Another source has it.
        (
            vec![service("hello", &[("", 8080)])],
            vec![listed("hello", "a", r#"{"port": 8000}"#)],
            vec!["hello:8080→127.0.0.1:8000"],
            "",
        ),
        (
            two(),
            vec![listed("hello", "a", r#"{"port": 9000}"#)],
            vec!["hello:9000→127.0.0.1:9000"],
            "",
        ),
        (
            two(),
            vec![listed("hello", "a", r#"{"port": 8000, "servicePort": 80}"#)],
            vec!["hello:80→127.0.0.1:8000"],
            "",
        ),
        (
            two(),
            vec![listed("hello", "a", r#"{"port": 8000}"#)],
            vec![],
            "a: servicePort: is missing; the Service has 80, 9000",
        ),
        (
            two(),
            vec![listed("hello", "a", r#"{"port": 8000, "servicePort": 81}"#)],
            vec![],
            "a: servicePort: the Service has no TCP port 81; it has 80, 9000",
        ),
    ] {
        let (have, said) = merged(&others, &registered);
        assert_eq!((have, said.join("\n")), (strings(&want), says.to_owned()));
    }
}

/// A Pod that the selector finds stays when a process joins; what a Slice says of this node goes.
#[test]
fn processes_join_pods_and_stand_for_their_node() {
    let node = NodeName("edge-1".into());
    let pod = |address: &str| Workload {
        addresses: vec![address.parse().unwrap()],
        node: Some(node.clone()),
        labels: [("app".into(), "web".into())].into(),
        ready: true,
        ..Workload::default()
    };
    let mut web = service("web", &[("", 80)]);
    let Body::Service(body) = &mut web.body else { panic!("a Service") };
    body.selector = [("app".into(), "web".into())].into();
    let pod = Record {
        namespace: "default".into(),
        name: "web-1".into(),
        body: Body::Workload(pod("10.1.0.1")),
    };
    let slice = Record {
        namespace: "default".into(),
        name: "fixed-1".into(),
        body: Body::Slice(Slice {
            service: "fixed".into(),
            ports: vec![SlicePort {
                name: "".into(),
                port: port(80),
                transport: Transport::Tcp,
                app_protocol: None,
            }],
            backends: [
                ("10.4.0.1", Some("edge-1")),
                ("10.4.0.2", Some("edge-2")),
                ("10.4.0.3", None),
            ]
            .map(|(address, node)| Backend {
                addresses: vec![address.parse().unwrap()],
                ready: true,
                serving: true,
                terminating: false,
                hostname: None,
                node: node.map(|node| NodeName(node.into())),
                zone: None,
                workload: None,
                weight: None,
            })
            .into(),
        }),
    };
    let others = [web, pod, service("fixed", &[("", 80)]), slice];
    for (registered, web, fixed) in [
        (vec![], vec!["10.1.0.1:80"], vec!["10.4.0.1:80", "10.4.0.2:80", "10.4.0.3:80"]),
        (
            vec![
                listed("web", "a", r#"{"port": 8000}"#),
                listed("fixed", "a", r#"{"port": 8001}"#),
            ],
            vec!["10.1.0.1:80", "127.0.0.1:8000"],
            vec!["10.4.0.2:80", "10.4.0.3:80", "127.0.0.1:8001"],
        ),
    ] {
        let mut records = others.iter().map(|r| (r.key(), r.clone())).collect();
        merge(&mut records, &registered, &node, |_| true);
        let put = records.into_values().collect();
        let mut builder = Builder::new(node.clone(), None);
        let snapshot = builder.apply(Change { put, ..Change::default() }, now());
        let of = |name: &str| {
            let service = snapshot.by_name("default", name).unwrap();
            let backends = &service.ports[0].pools[0].backends;
            let mut all: Vec<_> = backends.iter().map(|b| b.address.to_string()).collect();
            all.sort();
            all
        };
        assert_eq!((of("web"), of("fixed")), (strings(&web), strings(&fixed)));
    }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[test]
fn what_was_made_here_is_known_again() {
    let mut records: BTreeMap<_, _> = [service("other", &[("", 80)])].map(|r| (r.key(), r)).into();
    let all = [listed("hello", "a", r#"{"port": 1}"#), listed("other", "b", r#"{"port": 2}"#)];
    merge(&mut records, &all, &NodeName("edge-1".into()), |_| true);
    assert_eq!(records.len(), 4);
    records.retain(|_, record| !is_local(record));
    assert_eq!(
        records.into_keys().map(|k| k.to_string()).collect::<Vec<_>>(),
        ["service default/other"]
    );
}

#[tokio::test]
async fn what_does_not_fit_is_rejected_by_field() {
    let folder = tempfile::tempdir().unwrap();
    let table = Registrations::open(folder.path(), now());
    table.settled(u64::MAX);
    for (text, want) in [
        (
            r#"{"port": 1, "address": "192.0.2.7"}"#,
            "address: 192.0.2.7 is not an address of this machine",
        ),
        (r#"{"port": 1, "address": "0.0.0.0"}"#, "address: 0.0.0.0 is every address"),
        (r#"{"port": 1, "address": "fe80::1"}"#, "address: fe80::1 is link-local"),
        (r#"{"port": 1, "ttlSeconds": 86401}"#, "ttlSeconds: at most 86400"),
        (r#"{"port": 1, "protocol": "a b"}"#, "protocol: wants"),
        (r#"{"port": 1, "zone": ""}"#, "zone: wants"),
    ] {
        let error = table.put(name("hello", "a"), json(text), now()).await.unwrap_err();
        assert!(error.to_string().starts_with(want), "{error}");
    }
    for (text, want) in [
        (r#"{}"#, "missing field `port`"),
        (r#"{"port": 0}"#, "nonzero"),
        (r#"{"port": 1, "prot": 2}"#, "unknown field `prot`"),
        (r#"{"port": 1, "check": "ping"}"#, "`ping` is none of tcp"),
        (r#"{"port": 1, "ttlSeconds": 0}"#, "nonzero"),
    ] {
        let error = serde_json::from_str::<Registration>(text).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    for (namespace, service, id, field) in [
        ("Default", "a", "b", "namespace"),
        ("default", "a.b", "b", "service"),
        ("default", "a", "", "id"),
        ("default", "a", "../x", "id"),
    ] {
        assert_eq!(Name::new(namespace, service, id).unwrap_err().field, field);
    }
    let mapped = json(r#"{"port": 1, "address": "::ffff:127.0.0.1"}"#);
    table.put(name("hello", "a"), mapped, now()).await.unwrap().unwrap();
    assert_eq!(table.list()[0].registration.address, loopback());
}

#[tokio::test]
async fn times_to_live_end_and_begin_anew_with_the_agent() {
    let (folder, start) = (tempfile::tempdir().unwrap(), now());
    let table = Registrations::open(folder.path(), start);
    table.settled(u64::MAX);
    let after = |seconds| start + Duration::from_secs(seconds);
    let put = async |id, ttl, at| {
        let ttl = NonZeroU32::new(ttl);
        let one = Registration { ttl, ..Registration::at(port(80)) };
        table.put(name("hello", id), one, at).await.unwrap().unwrap();
    };
    put("for-ever", 0, start).await;
    put("short", 10, start).await;
    put("renewed", 10, start).await;
    let mut changes = table.changes();
    changes.mark_unchanged();
    put("renewed", 10, after(9)).await;
    assert!(!changes.has_changed().unwrap(), "a renewal is no change");
    assert_eq!(table.next_expiry(), Some(after(10)));
    assert!(table.expire(after(9)).is_empty());
    assert_eq!(table.expire(after(10)), [name("hello", "short")]);
    assert!(changes.has_changed().unwrap());
    table.save().unwrap();

    let again = Registrations::open(folder.path(), after(1000));
    let ids: Vec<_> = again.list().iter().map(|l| l.name.id().to_owned()).collect();
    assert_eq!(ids, ["for-ever", "renewed"]);
    assert_eq!(again.next_expiry(), Some(after(1010)));
    assert!(table.remove(&name("hello", "for-ever")).await);
    assert!(!table.remove(&name("hello", "for-ever")).await);
    assert_eq!(Registrations::open(folder.path(), start).list().len(), 1);
}

#[tokio::test]
async fn a_damaged_file_is_no_end_and_a_full_disk_is_told() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("registrations.json"), "[{\"namespace\": 3").unwrap();
    let table = Registrations::open(folder.path(), now());
    assert!(table.list().is_empty());
    table.settled(u64::MAX);
    let missing = Registrations::open(&folder.path().join("missing"), now());
    missing.settled(u64::MAX);
    let kept = missing.put(name("hello", "a"), Registration::at(port(80)), now()).await.unwrap();
    assert!(kept.unwrap_err().to_string().contains("registrations.json"));
    assert_eq!(missing.list().len(), 1, "it counts all the same");
}
