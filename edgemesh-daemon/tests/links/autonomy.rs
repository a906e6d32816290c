//! Sites without their cloud: lost, away at boot, back with another epoch or an old disk.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::PATIENCE;
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::wait::eventually;
use crate::load::Load;
use crate::nodes::{EDGEMESH, Node, agent, agent_again, cloud, cloud_again};
use crate::world::{A1, A2, B1, B2, Cable, Place, World};

/// How often the cloud is killed while it pushes changes. `KILLS=50` is what the project promises.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the daemon's")]
fn kills() -> usize {
    std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(8)
}

/// The records of a node as far as calls depend on them.
fn records(node: &Node) -> Option<BTreeSet<String>> {
    let (services, backends) = (node.try_get("/v1/services")?, node.try_get("/v1/backends")?);
    let (policies, nodes) = (node.try_get("/v1/policies")?, node.try_get("/v1/nodes")?);
    let line = |value: &serde_json::Value, fields: &[&str]| {
        fields.iter().map(|field| value[*field].to_string() + " ").collect::<String>()
    };
    let mut all = BTreeSet::new();
    for service in services.as_array()? {
        all.insert(line(service, &["namespace", "name", "addresses", "source"]));
    }
    for backend in backends.as_array()? {
        all.insert(line(backend, &["namespace", "service", "address", "node"]));
    }
    for policy in policies.as_array()? {
        all.insert(line(policy, &["namespace", "name", "rateLimit"]));
    }
    for node in nodes.as_array()? {
        all.insert(line(node, &["name", "zone", "agent"]));
    }
    Some(all)
}

/// Waits until every node has the cloud's records, `with` among them.
#[track_caller]
fn in_step(cloud: &Node, nodes: &[&Node], with: &str) {
    let mut differ = String::new();
    let look = || {
        let there = records(cloud)?;
        differ = format!("the cloud knows {} of {with}: {there:#?}", there.len());
        if !there.iter().any(|record| record.contains(with)) {
            return None;
        }
        for node in nodes {
            let here = records(node)?;
            if here != there {
                let (more, less) = (here.difference(&there), there.difference(&here));
                let (more, less): (Vec<_>, Vec<_>) = (more.collect(), less.collect());
                differ = format!("{} has {more:?} and lacks {less:?}", node.place.name);
                return None;
            }
        }
        Some(())
    };
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("all are in step", PATIENCE, look);
    }));
    assert!(found.is_ok(), "{differ}");
}

/// A web server of that name at each place, and its Service `at-NAME`.
fn services(world: &World, places: &[Place]) {
    for (number, at) in places.iter().enumerate() {
        Backend::start(at.name, at.name, [at.ip, "::1"], 8080);
        let ip = format!("10.96.0.{}", number + 1);
        world.service(&format!("at-{}", at.name), &ip, "web:80:8080", &[*at]);
    }
}

/// What `url` says to `node`, and which way the call took.
#[track_caller]
fn call(node: &Node, url: &str) -> (String, String) {
    let before = node.access().len();
    let ran = node.sh(&format!("curl -sS -m 10 {url}"));
    let line = &node.lines(url, before, 1, |_| true)[0];
    (ran.out, line["via"].as_str().unwrap_or_default().to_owned())
}

fn answers(what: &str, via: &str) -> (String, String) {
    (what.to_owned(), via.to_owned())
}

/// Nodes that boot while nobody can reach the cloud serve the last state, dial each other where
/// they were last, and know best what runs on themselves.
#[test]
fn a_site_that_boots_cut_off() {
    in_namespace("autonomy::a_site_that_boots_cut_off", || {
        let world = World::new();
        services(&world, &[A1, A2, B1]);
        // The process at this address is gone after the reboot.
        world.service("moves", "10.96.0.9", "web:80:8099", &[A2]);
        let cloud = cloud(&world);
        let (a1, a2, b1) = (agent(&world, A1), agent(&world, A2), agent(&world, B1));
        in_step(&cloud, &[&a1, &a2, &b1], "moves");
        a1.kill();
        a2.kill();
        Cable::SiteA.drop_packets();
        let (a1, a2) = (agent_again(&world, A1), agent_again(&world, A2));
        for node in [&a1, &a2] {
            assert_ne!(node.get("/v1/status")["links"]["cloud"]["state"], "linked");
        }
        assert_eq!(call(&a1, "http://at-a1.default/"), answers("a1", "local"));
        assert_eq!(call(&a1, "http://at-a2.default/"), answers("a2", "direct"));
        assert_eq!(call(&a2, "http://at-a1.default/"), answers("a1", "direct"));
        // Another address of a Backend of its own, and a Service of which nobody ever heard.
        Backend::start("a2", "moved", ["127.0.0.1", "::1"], 8098);
        for name in ["moves", "fresh"] {
            let ran = a2.sh(&format!("{EDGEMESH} expose {name} --to 127.0.0.1:8098"));
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        assert_eq!(call(&a2, "http://moves.default/"), answers("moved", "local"));
        assert_eq!(call(&a1, "http://moves.default/"), answers("moved", "direct"));
        eventually("a1 hears of what runs on a2", PATIENCE, || {
            let ran = a1.sh("curl -sS -m 5 http://fresh.default/");
            (ran.out == "moved").then_some(())
        });
        Cable::SiteA.pass_packets();
        a1.wait_linked();
        a2.wait_linked();
        eventually("the other site hears of it", PATIENCE, || {
            let ran = b1.sh("curl -sS -m 5 http://fresh.default/");
            (ran.out == "moved").then_some(())
        });
        assert_eq!(b1.sh("curl -sS -m 5 http://moves.default/").out, "moved");
    });
}

fn epoch(node: &Node) -> String {
    node.get("/v1/status")["links"]["cloud"]["epoch"].as_str().unwrap_or_default().to_owned()
}

/// The cloud comes back: with another epoch, with what changed meanwhile, with an old disk.
#[test]
fn a_cloud_that_comes_back() {
    in_namespace("autonomy::a_cloud_that_comes_back", || {
        let world = World::new();
        services(&world, &[A1, A2]);
        let first = cloud(&world);
        let (a1, a2) = (agent(&world, A1), agent(&world, A2));
        in_step(&first, &[&a1, &a2], "at-a2");
        // The direct ways stand before anything happens.
        for (from, to, says) in [(&a1, "at-a2", "a2"), (&a2, "at-a1", "a1")] {
            eventually("a direct Link", PATIENCE, || {
                let called = call(from, &format!("http://{to}.default/"));
                (called == answers(says, "direct")).then_some(())
            });
        }
        let (old, data) = (world.path("cloud-old"), world.path("cloud"));
        let (old, data) = (old.display(), data.display());
        let load = Load::start(&[("a1", "10.96.0.2:80"), ("a2", "10.96.0.1:80")]);
        let before = epoch(&a1);

        first.kill();
        sh(&format!("cp -a {data} {old}"));
        world.service("late", "10.96.0.20", "web:80:8080", &[A1]);
        let second = cloud_again(&world);
        in_step(&second, &[&a1, &a2], "late");
        assert_ne!(epoch(&a1), before, "each start of a registry is an epoch of its own");

        // What happened since the copy: another Service, one less, and a node that joined.
        world.service("later", "10.96.0.21", "web:80:8080", &[A2]);
        world.remove_manifest("late");
        let b1 = agent(&world, B1);
        in_step(&second, &[&a1, &a2, &b1], "later");
        second.kill();
        sh(&format!("rm -r {data}; cp -a {old} {data}"));
        let third = cloud_again(&world);
        in_step(&third, &[&a1, &a2, &b1], "later");
        assert!(records(&a1).unwrap().iter().all(|record| !record.contains("\"late\"")));
        b1.wait_linked();

        let (calls, failed) = load.stop();
        assert!(failed.is_empty(), "{} of {calls}: {failed:#?}", failed.len());
    });
}

/// Writes manifests without a pause until told to stop, and then once more.
fn churn(world: &Arc<World>, over: &Arc<AtomicBool>, round: usize) -> std::thread::JoinHandle<()> {
    const SERVICES: usize = 20;
    let (world, over) = (world.clone(), over.clone());
    std::thread::spawn(move || {
        for step in 0.. {
            let number = step % SERVICES;
            let name = format!("churn-{number}");
            let ip = format!("10.96.1.{number}");
            let backends: &[Place] = [&[B1][..], &[B2], &[B1, B2]][(round + step) % 3];
            world.service(&name, &ip, "web:80:8080", backends);
            world.policy(&name, &format!("  rateLimit: {{ client: {{ qps: {} }} }}", step + 1));
            if over.load(Relaxed) {
                world.service(
                    "marker",
                    "10.96.2.1",
                    &format!("r{round}:80:{}", 9000 + round),
                    &[A1],
                );
                return;
            }
            if step % 7 == 6 {
                world.remove_manifest(&name);
            }
        }
    })
}

/// `kill -9` while it pushes changes: each time all end up with the same.
#[test]
fn a_cloud_that_is_killed_while_it_pushes() {
    in_namespace("autonomy::a_cloud_that_is_killed_while_it_pushes", || {
        let world = Arc::new(World::new());
        services(&world, &[A1, A2]);
        let mut running = cloud(&world);
        let nodes = [agent(&world, A1), agent(&world, A2), agent(&world, B1)];
        let all = [&nodes[0], &nodes[1], &nodes[2]];
        let load = Load::start(&[("a1", "10.96.0.2:80"), ("a1", "10.96.0.1:80")]);
        for round in 0..kills() {
            let over = Arc::<AtomicBool>::default();
            let churning = churn(&world, &over, round);
            let pushed = || nodes[0].try_get("/v1/status")?["links"]["cloud"]["revision"].as_u64();
            let (before, more) = (pushed(), 1 + round as u64 % 5);
            eventually("changes are on their way", PATIENCE, || {
                (pushed() > before.map(|before| before + more)).then_some(())
            });
            running.kill();
            running = cloud_again(&world);
            over.store(true, Relaxed);
            churning.join().unwrap();
            in_step(&running, &all, &format!(":{}\"", 9000 + round));
        }
        let (calls, failed) = load.stop();
        println!("{} kills; {} of {calls} calls within the site failed", kills(), failed.len());
        assert!(failed.is_empty(), "{} of {calls}: {failed:#?}", failed.len());
    });
}
