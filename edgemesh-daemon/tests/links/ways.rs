//! The four ways, each by what clients speak, each direct and through the hub.

use crate::common::namespace::in_namespace;
use crate::nodes::{agent, cloud};
use crate::world::{A1, B1, World};

#[test]
fn nodes_join_and_are_in_step() {
    in_namespace("ways::nodes_join_and_are_in_step", || {
        let world = World::new();
        world.service("hello", "10.96.0.1", "http:80:8080", &[B1]);
        let cloud = cloud(&world);
        let (a1, b1) = (agent(&world, A1), agent(&world, B1));
        for node in [&a1, &b1] {
            let services = node.get("/v1/services");
            assert_eq!(services[0]["name"], "hello", "{services:#}");
        }
        let nodes = cloud.get("/v1/nodes");
        let b2 = nodes.as_array().unwrap().iter().find(|node| node["name"] == "b2").unwrap();
        assert_eq!((b2["zone"].as_str(), b2["agent"].as_bool()), (Some("site-b"), Some(false)));
        let certificate = &a1.get("/v1/status")["links"]["cloud"]["certificate"];
        assert_eq!(certificate["node"], "a1");
    });
}
