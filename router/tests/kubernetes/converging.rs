//! Whatever happens to streams and lists, what counts in the end is what the server holds.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::manifests::{Document, parse_object};
use edgemesh_proto::record::{Key, Record};
use edgemesh_router::kubernetes::Access;
use edgemesh_router::registry::shared::Shared as Registry;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use crate::api::{Api, SERVICES, SLICES, Trick, service, slice};
use crate::http::Server;
use crate::world::{PATIENCE, World};

/// What the objects of a server say, read without any of the code that follows it.
fn held(api: &Api) -> BTreeMap<Key, Record> {
    let mut records = BTreeMap::new();
    for (path, version, kind) in
        [(SERVICES, "v1", "Service"), (SLICES, "discovery.k8s.io/v1", "EndpointSlice")]
    {
        for mut object in api.objects(path) {
            (object["apiVersion"], object["kind"]) = (version.into(), kind.into());
            let parsed = parse_object(Path::new("x"), object);
            for Document { records: all, .. } in parsed.documents {
                records.extend(all.into_iter().map(|record| (record.key(), record)));
            }
        }
    }
    records
}

async fn converges(world: &World, api: &Api) {
    world.until("the records are what the server holds", |w| w.records() == held(api)).await;
}

fn address(n: usize) -> String {
    format!("10.96.{}.{}", n / 250, n % 250 + 1)
}

#[tokio::test]
async fn lists_of_many_parts_and_changes() {
    let api = Arc::new(Api::new());
    for n in 0..600 {
        api.put(SERVICES, service(&format!("s{n}"), &address(n)));
    }
    let server = Server::start(api.clone()).await;
    let world = World::at(server.url());
    converges(&world, &api).await;
    assert!(api.count("list") > 3, "in parts");
    api.put(SLICES, slice("s1-a", "s1", &["10.0.0.1"]));
    api.delete(SERVICES, "demo", "s7");
    converges(&world, &api).await;
    api.put(SLICES, slice("s1-a", "s1", &["10.0.0.1", "10.0.0.2"]));
    converges(&world, &api).await;
    let followed = world.followed();
    assert_eq!(followed.kinds["Service"].objects, 599);
    assert!(followed.kinds["HTTPRoute"].absent && !followed.kinds["Service"].absent);
    assert_eq!(world.said().trouble, None, "what is not installed is no trouble");
}

#[tokio::test]
async fn lists_come_as_streams_where_servers_tell_them_so() {
    for (minor, knows) in [("36", true), ("36+", false), ("30", false)] {
        let api = Arc::new(Api::streaming(minor, knows));
        api.put(SERVICES, service("web", "10.96.0.1"));
        let server = Server::start(api.clone()).await;
        let world = World::at(server.url());
        converges(&world, &api).await;
        api.put(SERVICES, service("shop", "10.96.0.2"));
        converges(&world, &api).await;
        assert_eq!(api.count("stream") > 0, knows, "{minor}");
        assert_eq!(world.said().trouble, None, "{minor}");
    }
}

/// A first list that takes longer as a stream than a watch may last comes in parts.
#[tokio::test]
async fn streams_that_are_too_long_become_parts() {
    let api = Arc::new(Api::streaming("36", true));
    for n in 0..20 {
        api.put(SERVICES, service(&format!("s{n}"), &address(n)));
    }
    *api.tricks.lock() =
        Box::new(|asked, _| asked.get("sendInitialEvents").map(|_| Trick::Cut(900)));
    let server = Server::start(api.clone()).await;
    let world = World::at(server.url());
    converges(&world, &api).await;
    assert!(api.count("list") > 0 && world.said().trouble.is_none());
}

/// KubeEdge's EdgeMesh brings DestinationRules of an older version, and no newer one.
#[tokio::test]
async fn older_versions_are_asked_for_where_there_is_no_newer_one() {
    let api = Arc::new(Api::new());
    let metadata = |name: &str| json!({"namespace": "demo", "name": name});
    let spec = json!({"host": "web", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}});
    let rule = json!({"metadata": metadata("web"), "spec": spec});
    api.put("/apis/networking.istio.io/v1alpha3/destinationrules", rule);
    let parents = json!([{"group": "", "kind": "Service", "name": "web"}]);
    let spec =
        json!({"parentRefs": parents, "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]});
    let route = json!({"metadata": metadata("web"), "spec": spec});
    api.put("/apis/gateway.networking.k8s.io/v1beta1/httproutes", route);
    let server = Server::start(api.clone()).await;
    let world = World::at(server.url());
    let want = ["policy demo/istio:web", "route demo/web"];
    world.until("both are there", |w| w.names() == want).await;
    assert_eq!(world.said().trouble, None);
}

/// Changes during a list in parts, so that its token is too old; then of a watch, in both forms.
#[tokio::test]
async fn what_is_too_old_is_listed_anew() {
    let api = Arc::new(Api::new());
    for n in 0..300 {
        api.put(SERVICES, service(&format!("s{n}"), &address(n)));
    }
    let compacting = api.clone();
    let mut compacted = 0;
    *api.tricks.lock() = Box::new(move |asked, _| {
        if asked.get("continue").is_some() && compacted < 2 {
            compacted += 1;
            compacting.put(SERVICES, service("s5", "10.97.0.9"));
            compacting.compact();
        }
        // Watches of Services break off soon, so that they begin anew at what they know.
        (asked.is_watch() && asked.path == SERVICES).then_some(Trick::Cut(400))
    });
    let server = Server::start(api.clone()).await;
    let world = World::at(server.url());
    converges(&world, &api).await;
    for n in 0..8 {
        api.put(SERVICES, service("s6", &format!("10.97.1.{}", n + 1)));
        api.compact();
        converges(&world, &api).await;
    }
    *api.tricks.lock() = Box::new(|_, _| None);
}

/// A server that is away at the start, and one that goes and comes back with less.
#[tokio::test]
async fn servers_come_and_go() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    api.put(SERVICES, service("shop", "10.96.0.2"));
    let server = Server::start(api.clone()).await;
    let address = server.address;
    server.stop().await;
    let world = World::at(format!("http://{address}"));
    world.until("it is said that nobody answers", |w| w.said().trouble.is_some()).await;
    assert!(world.said().trouble.unwrap().contains(&address.to_string()));
    let server = Server::at(address, api.clone()).await;
    converges(&world, &api).await;
    world.until("the trouble is over", |w| w.said().trouble.is_none()).await;
    server.stop().await;
    api.delete(SERVICES, "demo", "shop");
    api.compact();
    let _server = Server::at(address, api.clone()).await;
    converges(&world, &api).await;
}

/// A kubeconfig that names another server is read again when the old one is gone; what it held stays until then.
#[tokio::test]
async fn a_server_that_moves_is_found_where_its_kubeconfig_says() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    let old = Server::start(api.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    let write = |url: &str| {
        let named = |name: &str, of: Value| json!([{"name": name, name: of}]);
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "context",
            "clusters": named("cluster", json!({"server": url})), "users": named("user", json!({})),
            "contexts": named("context", json!({"cluster": "cluster", "user": "user"}))});
        std::fs::write(&file, config.to_string()).unwrap();
    };
    write(&old.url());
    let access = Access::Kubeconfig { file: file.clone(), context: None };
    let soon = Duration::from_millis(200);
    let world = World::by(Registry::in_memory([1; 16]), access, (PATIENCE, soon));
    converges(&world, &api).await;
    old.stop().await;
    let new = Server::start(api.clone()).await;
    api.put(SERVICES, service("shop", "10.96.0.2"));
    let names = world.names();
    write(&new.url());
    assert_eq!(names, ["service demo/web"]);
    converges(&world, &api).await;
    world.until("no trouble is left", |w| w.said().trouble.is_none()).await;
    assert_eq!(*world.followed().server, *new.url());
}

/// Restarted beside a registry that has records of a former life.
#[tokio::test]
async fn what_is_gone_meanwhile_goes_and_what_nobody_tells_of_stays() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    api.put(SLICES, slice("web-a", "web", &["10.0.0.1"]));
    let server = Server::start(api.clone()).await;
    let first = World::at(server.url());
    converges(&first, &api).await;
    let registry = first.registry.clone();
    drop(first);
    api.delete(SERVICES, "demo", "web");
    api.put(SERVICES, service("shop", "10.96.0.2"));
    *api.tricks.lock() = Box::new(|asked, _| {
        (asked.path == SLICES).then(|| Trick::Answer(500, "text/plain", "etcd is ill".into()))
    });
    let second = World::with(registry, server.url());
    let want = ["service demo/shop", "slice demo/web-a"];
    second.until("Slices stay as they were", |w| w.names() == want).await;
    let trouble = second.said().trouble.unwrap();
    assert!(trouble.contains("EndpointSlice: 500 etcd is ill"), "{trouble}");
    *api.tricks.lock() = Box::new(|_, _| None);
    api.delete(SLICES, "demo", "web-a");
    second.until("and go when that is told", |w| w.names() == want[..1]).await;
}

#[derive(Clone, Debug)]
enum Act {
    Put(u8, u8),
    Delete(u8),
    Backends(u8, u8),
    Compact,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0..12_u8, 1..200_u8).prop_map(|(name, ip)| Act::Put(name, ip)),
        2 => (0..12_u8).prop_map(Act::Delete),
        4 => (0..12_u8, 0..4_u8).prop_map(|(name, many)| Act::Backends(name, many)),
        1 => Just(Act::Compact),
    ];
    prop::collection::vec(act, 1..40)
}

fn act(api: &Api, act: &Act) {
    match act {
        // Each name has addresses of its own: who has whose is not what is tested here.
        Act::Put(name, ip) => {
            api.put(SERVICES, service(&format!("s{name}"), &format!("10.{}.0.{ip}", name + 1)));
        }
        Act::Delete(name) => api.delete(SERVICES, "demo", &format!("s{name}")),
        Act::Backends(name, many) => {
            let addresses: Vec<String> = (0..*many).map(|n| format!("10.1.{name}.{n}")).collect();
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            api.put(SLICES, slice(&format!("s{name}-a"), &format!("s{name}"), &addresses));
        }
        Act::Compact => api.compact(),
    }
}

/// Lists and watches, as parts and as streams, cut at any byte while objects change.
#[test]
fn cut_anywhere_they_converge() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { cases: 24, failure_persistence: None, ..Config::default() };
    let cases = (acts(), acts(), prop::collection::vec(0..1500_usize, 0..25), any::<bool>());
    let run = |(before, after, cuts, streams): (Vec<Act>, Vec<Act>, Vec<usize>, bool)| {
        runtime.block_on(async {
            let minor = if streams { "36" } else { "30" };
            let api = Arc::new(Api::streaming(minor, streams));
            before.iter().for_each(|one| act(&api, one));
            let mut cuts = cuts.into_iter();
            *api.tricks.lock() = Box::new(move |_, _| cuts.next().map(Trick::Cut));
            let server = Server::start(api.clone()).await;
            let world = World::at(server.url());
            for one in &after {
                act(&api, one);
                tokio::task::yield_now().await;
            }
            converges(&world, &api).await;
        });
        Ok(())
    };
    TestRunner::new(config).run(&cases, run).unwrap();
}

/// A bad version of an object changes nothing but what is said of it.
#[tokio::test]
async fn the_last_good_version_stays() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    api.put(SLICES, slice("web-a", "web", &["10.0.0.1"]));
    let server = Server::start(api.clone()).await;
    let world = World::at(server.url());
    converges(&world, &api).await;
    let good = world.records();
    let bad: [(&str, Value, &str); 5] = [
        (SERVICES, json!({"spec": {"ports": "many"}}), "spec.ports"),
        (SERVICES, json!({"spec": {"type": "Teleport", "ports": [{"port": 80}]}}), "spec.type"),
        (SERVICES, json!({"spec": {"ports": [{"port": 80}]}}), "spec.clusterIP"),
        (
            SERVICES,
            json!({"metadata": {"labels": 7}, "spec": {"clusterIP": "10.96.0.1",
            "ports": [{"port": 80}]}}),
            "metadata.labels",
        ),
        (
            SLICES,
            json!({"addressType": "IPv4", "ports": [{"port": 8080}],
            "endpoints": [{"addresses": ["not an address"]}]}),
            "endpoints[0].addresses[0]",
        ),
    ];
    for (path, mut object, field) in bad {
        let name = if path == SERVICES { "web" } else { "web-a" };
        object["metadata"]["namespace"] = "demo".into();
        object["metadata"]["name"] = name.into();
        if path == SLICES {
            object["metadata"]["labels"] = json!({"kubernetes.io/service-name": "web"});
        }
        api.put(path, object);
        let is_said = |w: &World| w.said().remarks.iter().any(|remark| remark.field == field);
        world.until(field, is_said).await;
        assert_eq!(world.records(), good, "{field}");
        let said = world.said().remarks;
        assert!(said[0].reason.ends_with("stays in force"), "{said:?}");
        // And with it, the remark goes.
        let fresh = if path == SERVICES {
            service("web", "10.96.0.1")
        } else {
            slice("web-a", "web", &["10.0.0.1"])
        };
        api.put(path, fresh);
        world.until("nothing is said any more", |w| w.said().remarks.is_empty()).await;
    }
}
