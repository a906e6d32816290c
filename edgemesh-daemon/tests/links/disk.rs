//! A cloud whose data folder is full: it serves on, says so, and heals.

use crate::PATIENCE;
use crate::common::namespace::{in_namespace, sh};
use crate::common::wait::eventually;
use crate::nodes::{agent, cloud, cloud_again};
use crate::world::{A1, World};

/// Services that are made while the disk is full, and afterwards.
const NEW: usize = 60;

#[test]
fn a_cloud_with_a_full_disk() {
    in_namespace("disk::a_cloud_with_a_full_disk", || {
        let world = World::new();
        let data = world.path("cloud").display().to_string();
        sh(&format!(
            "mkdir -p {data}; chmod 700 {data}; mount -t tmpfs -o size=2m,mode=700 none {data}"
        ));
        world.service("first", "10.96.6.1", "x:80:80", &[A1]);
        let cloud = cloud(&world);
        let store = |want: &str| {
            eventually(&format!("store: {want}"), PATIENCE, || {
                (cloud.get("/v1/status")["store"] == want).then_some(())
            });
        };
        let node = agent(&world, A1);
        let heard = |name: &str| {
            eventually(&format!("{name} is known at the node"), PATIENCE, || {
                node.get("/v1/services").to_string().contains(name).then_some(())
            });
        };
        store("ok");
        sh(&format!("dd if=/dev/zero of={data}/fill bs=4k 2>/dev/null || :"));
        for number in 0..NEW {
            world.service(
                &format!("new{number}-end"),
                &format!("10.96.7.{number}"),
                "x:80:80",
                &[A1],
            );
        }
        heard("new59-end");
        store("storeReadOnly");
        sh(&format!("rm {data}/fill"));
        world.service("late-end", "10.96.8.1", "x:80:80", &[A1]);
        heard("late-end");
        store("ok");
        // What was refused at first is kept with what came later.
        cloud.kill();
        std::fs::rename(world.path("manifests"), world.path("away")).unwrap();
        let cloud = cloud_again(&world);
        let services = cloud.get("/v1/services").to_string();
        assert!(services.contains("new59-end") && services.contains("late-end"), "{services}");
    });
}
