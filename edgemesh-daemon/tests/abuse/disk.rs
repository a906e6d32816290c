//! A data folder that is full, or gone: traffic goes on, `status` says so, and it heals.

use crate::agent::{Agent, PATIENCE};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::run;
use crate::common::wait::eventually;
use crate::world::{ONE, World};

fn ask(name: &str) -> String {
    run("pod", &format!("curl -sS -m 2 http://{name}.default.svc.cluster.local./")).out
}

fn store(agent: &Agent, want: &str) {
    eventually(&format!("store: {want}"), PATIENCE, || {
        (agent.get("/v1/status")["store"] == want).then_some(())
    });
}

#[test]
fn a_full_disk_and_none_at_all() {
    in_namespace("disk::a_full_disk_and_none_at_all", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        let data = world.path("data").display().to_string();
        sh(&format!(
            "mkdir {data}; chmod 700 {data}; mount -t tmpfs -o size=1m,mode=700 none {data}"
        ));
        let agent = Agent::start(&world);
        assert_eq!(ask("one"), "one");
        sh(&format!("dd if=/dev/zero of={data}/fill bs=4k 2>/dev/null || :"));
        for number in 0..40 {
            let name = format!("new{number}");
            world.service(&name, &[&format!("10.96.1.{number}")], &[":80:8080"], &[ONE]);
        }
        eventually("new Services are served", PATIENCE, || (ask("new39") == "one").then_some(()));
        store(&agent, "storeReadOnly");
        assert_eq!(ask("one"), "one");
        // Freed: it heals by itself, with nothing else changed.
        sh(&format!("rm {data}/fill"));
        store(&agent, "ok");
        let revision = agent.get("/v1/status")["revision"].as_u64();
        agent.kill_all();
        std::fs::rename(world.path("manifests"), world.path("away")).unwrap();
        let agent = Agent::start(&world);
        assert_eq!(ask("new39"), "one", "what the disk refused at first is on it");
        assert_eq!(agent.get("/v1/status")["revision"].as_u64(), revision);
        std::fs::rename(world.path("away"), world.path("manifests")).unwrap();
        // And gone altogether.
        sh(&format!("umount -l {data}; rm -rf {data}"));
        world.service("late", &["10.96.2.1"], &[":80:8080"], &[ONE]);
        eventually("a new Service is served", PATIENCE, || (ask("late") == "one").then_some(()));
        assert_eq!(ask("one"), "one");
        assert!(!agent.log().contains("panicked"), "{}", agent.log());
    });
}
