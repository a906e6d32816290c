//! ServiceCIDRs: where addresses of Services lie, as the server says and changes it.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::api::{Api, SERVICES, Trick, service, status};
use crate::http::Server;
use crate::world::World;

const NEWER: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const OLDER: &str = "/apis/networking.k8s.io/v1beta1/servicecidrs";

fn cidr(name: &str, cidrs: &[&str]) -> Value {
    json!({"metadata": {"name": name}, "spec": {"cidrs": cidrs}})
}

/// What is told to whoever asks; `None`: it is not known.
fn told(world: &World) -> Option<Vec<String>> {
    let ranges = world.registry.ranges().follow().borrow().clone()?;
    Some(ranges.iter().map(ToString::to_string).collect())
}

async fn until(world: &World, want: &[&str]) {
    let is = |world: &World| told(world).is_some_and(|told| told == want);
    world.until(&format!("{want:?}"), is).await;
}

#[tokio::test]
async fn ranges_are_listed_and_followed() {
    for path in [NEWER, OLDER] {
        let api = Arc::new(Api::new());
        api.put(path, cidr("kubernetes", &["10.96.0.0/12", "fd00:10:96::/112"]));
        let server = Server::start(api.clone()).await;
        let world = World::at(server.url());
        until(&world, &["10.96.0.0/12", "fd00:10:96::/112"]).await;
        api.put(path, cidr("more", &["10.200.0.0/16"]));
        until(&world, &["10.96.0.0/12", "10.200.0.0/16", "fd00:10:96::/112"]).await;
        assert_eq!(world.followed().kinds["ServiceCIDR"].objects, 2);
        // A bad version of one changes nothing but what is said of it.
        api.put(path, cidr("more", &["0.0.0.0/0"]));
        world.until("it is said", |w| w.said().remarks.len() == 1).await;
        let remark = &world.said().remarks[0];
        assert_eq!((&*remark.object, &*remark.field), ("ServiceCIDR more", "spec.cidrs[0]"));
        assert!(remark.reason.ends_with("what it said before stays in force"), "{remark:?}");
        until(&world, &["10.96.0.0/12", "10.200.0.0/16", "fd00:10:96::/112"]).await;
        api.delete(path, "", "more");
        until(&world, &["10.96.0.0/12", "fd00:10:96::/112"]).await;
        world.until("nothing is left to say", |w| w.said().remarks.is_empty()).await;
        assert_eq!(world.said().trouble, None);
    }
}

#[tokio::test]
async fn a_server_without_the_kind_has_none() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    let server = Server::start(api).await;
    let world = World::at(server.url());
    until(&world, &[]).await;
    assert!(world.followed().kinds["ServiceCIDR"].absent);
    assert_eq!(world.said().trouble, None);
}

/// The role of an earlier version does not allow them to be read: that keeps nobody from the records.
#[tokio::test]
async fn who_may_not_read_them_does_not_know_them() {
    let api = Arc::new(Api::new());
    api.put(SERVICES, service("web", "10.96.0.1"));
    api.put(NEWER, cidr("kubernetes", &["10.96.0.0/12"]));
    *api.tricks.lock() = Box::new(|asked, _| {
        let said = status(403, "Forbidden", "servicecidrs is forbidden").to_string();
        let answer = Trick::Answer(403, "application/json", said);
        asked.path.contains("servicecidrs").then_some(answer)
    });
    let server = Server::start(api.clone()).await;
    let world = World::at(server.url());
    world.until("Services are told", |w| w.names() == ["service demo/web"]).await;
    let why = |w: &World| w.followed().kinds["ServiceCIDR"].trouble.clone();
    world.until("it is said of the kind", |w| why(w).is_some()).await;
    assert!(why(&world).unwrap().contains("grant get, list and watch (RBAC)"));
    assert_eq!((told(&world), world.said().trouble), (None, None));
    *api.tricks.lock() = Box::new(|_, _| None);
    until(&world, &["10.96.0.0/12"]).await;
}
