//! Starts that must fail: one message that names the fix, and nothing left behind.

use crate::agent::{Agent, PATIENCE, config};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::run;
use crate::common::wait::eventually;
use crate::world::{ONE, World, listen};

/// All rules, without counters.
fn rules() -> String {
    sh(
        "for t in iptables ip6tables; do $t-save | grep '^-A\\|^:[^ ]* -' | sed 's/\\[.*\\]//' || :; done",
    )
}

/// Starts an agent that must fail with all these words, and leave no rule behind.
#[track_caller]
fn fails(world: &World, config: &str, wrapper: &[&str], words: &[&str]) {
    let before = rules();
    let (code, said) = Agent::spawn(world, config, wrapper).ended();
    assert_eq!(code, Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(rules(), before, "rules were left behind");
}

#[test]
fn starts_that_fail_name_the_fix() {
    in_namespace("start::starts_that_fail_name_the_fix", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        let good = config(&world);
        // unknown keys, with a hint
        fails(
            &world,
            &format!("{good}prxy: {{}}\n"),
            &[],
            &["agent.yaml:5", "prxy", "did you mean `proxy`"],
        );
        fails(
            &world,
            &format!("{good}proxy: {{ prot: 1 }}\n"),
            &[],
            &["agent.yaml:5", "proxy.prot", "did you mean `port`"],
        );
        // ports in use: of the proxy, of the pages
        for (at, key) in [
            ("127.0.0.1:15001", "15001"),
            ("127.0.0.1:15000", "15000"),
            ("0.0.0.0:15020", "15020"),
            ("127.0.0.1:15053", "15053"),
        ] {
            let held = listen("", at);
            fails(&world, &good, &[], &[key, "in use"]);
            drop(held);
        }
        // no iptables
        let path = format!("PATH={}", bare_path(&world));
        fails(&world, &good, &["env", &path], &["iptables", "intercept: none"]);
        // no permission
        fails(
            &world,
            &good,
            &[
                "setpriv",
                "--bounding-set",
                "-net_admin,-net_raw",
                "--inh-caps",
                "-net_admin,-net_raw",
            ],
            &["CAP_NET_ADMIN"],
        );
        // a data folder that is a file, and one that cannot be written
        world.write("file", "");
        let elsewhere =
            |folder: &str| good.replace(&world.path("data").display().to_string(), folder);
        let file = world.path("file").display().to_string();
        fails(&world, &elsewhere(&file), &[], &["file", "dataDir"]);
        sh("mount -t tmpfs -o ro none /mnt");
        fails(&world, &elsewhere("/mnt/data"), &[], &["/mnt/data", "dataDir"]);
        // After all that, it starts.
        let agent = Agent::start(&world);
        assert_eq!(run("", "curl -sS http://one.default/").out, "one");
        // A second one, by mistake, on the same data and on its own: it fails, the first serves on.
        let before = rules();
        let (code, said) = Agent::spawn(&world, &good, &[]).ended();
        let first = format!("another process of EdgeMesh (pid {})", agent.worker());
        assert!(code == Some(1) && said.contains(&first), "{code:?} {said}");
        let own = format!(
            "{}proxy: {{ port: 16001 }}\nadmin: {{ listen: 127.0.0.1:16000 }}\nmetrics: {{ listen: 127.0.0.1:16020 }}\ndns: {{ listen: [127.0.0.1:16053] }}\n",
            elsewhere(&world.path("data2").display().to_string())
        );
        let (code, said) = Agent::spawn(&world, &own, &[]).ended();
        let first = format!("another agent (pid {}) captures", agent.worker());
        assert!(code == Some(1) && said.contains(&first), "{code:?} {said}");
        assert_eq!(rules(), before);
        for place in ["", "pod"] {
            assert_eq!(run(place, "curl -sS http://one.default/").out, "one");
        }
        drop(agent);
    });
}

/// A PATH with everything but iptables.
fn bare_path(world: &World) -> String {
    let folder = world.path("bin");
    std::fs::create_dir(&folder).unwrap();
    sh(&format!("for p in sh ip; do ln -s $(command -v $p) {}/$p; done", folder.display()));
    folder.display().to_string()
}

/// What the unit in `deploy/systemd` leaves the agent of the rights of root.
#[test]
fn the_unit_leaves_rights_enough_to_capture() {
    in_namespace("start::the_unit_leaves_rights_enough_to_capture", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        let bounds = "-all,+net_admin,+net_raw,+net_bind_service";
        let wrapper = ["setpriv", "--bounding-set", bounds, "--inh-caps", "-all", "--no-new-privs"];
        let mut agent = Agent::spawn(&world, &config(&world), &wrapper);
        agent.wait_ready();
        for place in ["", "pod"] {
            assert_eq!(run(place, "curl -sS http://one.default/").out, "one");
        }
        let before = rules();
        sh("iptables -t nat -F");
        eventually("it heals, too", PATIENCE, || (rules() == before).then_some(()));
    });
}

#[test]
fn without_intercept_nothing_is_needed() {
    in_namespace("start::without_intercept_nothing_is_needed", || {
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80"], &[":80:8080"], &[ONE]);
        let before = rules();
        let none = format!("{}proxy: {{ intercept: none }}\n", config(&world));
        let wrapper = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"];
        let mut agent = Agent::spawn(&world, &none, &wrapper);
        agent.wait_ready();
        let asked = "curl -sS -x http://127.0.0.1:15001 http://one.default/";
        eventually("the explicit proxy serves", PATIENCE, || {
            (run("", asked).out == "one").then_some(())
        });
        assert_eq!(rules(), before);
    });
}
