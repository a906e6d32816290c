//! The README's first screen, replayed word for word: from nothing to an answer, in three commands.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::agent::PATIENCE;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{Running, run};
use crate::common::wait::eventually;
use crate::signup::EDGEMESH;
use crate::world::World;

/// Where the commands stand.
const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
/// Above them.
const TITLE: &str = "## Three commands";

/// The lines of the `sh` blocks of the section.
fn commands() -> Vec<String> {
    let text = std::fs::read_to_string(README).unwrap();
    let section = text.split(TITLE).nth(1).unwrap_or_else(|| panic!("no `{TITLE}` in README.md"));
    let section = section.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks.flat_map(|block| block.split("```").next().unwrap().lines()).map(Into::into).collect()
}

/// A command in a shell; dropped, it and all that it started are killed, by their ids.
struct Shell(Running);

impl Drop for Shell {
    fn drop(&mut self) {
        let mut all = vec![Pid::from_raw(self.0.child.id().try_into().unwrap())];
        let mut at = 0;
        while let Some(parent) = all.get(at).copied() {
            let children =
                std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
            let ids = children.unwrap_or_default();
            all.extend(ids.split_whitespace().map(|id| Pid::from_raw(id.parse().unwrap())));
            at += 1;
        }
        // Parents first: the guard of an agent starts nothing again.
        for id in all {
            let _ = kill(id, Signal::SIGKILL); // it may have ended
        }
    }
}

#[test]
fn three_commands() {
    in_namespace("readme::three_commands", || {
        let [agent, serve, curl] = <[String; 3]>::try_from(commands()).expect("three commands");
        assert!(curl.starts_with("curl http://"), "{curl}");
        let world = World::new();
        // Root already, built already, and nothing of EdgeMesh on this machine.
        sh(&format!(
            "for p in cargo sudo; do echo '#!/bin/sh' > /run/first/$p; chmod +x /run/first/$p; done
             echo 'exec \"$@\"' >> /run/first/sudo
             mkdir -p {0}/target/release && ln -s {EDGEMESH} {0}/target/release/edgemesh
             mount -t tmpfs none /var/lib
             if [ -d /etc/edgemesh ]; then mount -t tmpfs none /etc/edgemesh; fi",
            world.folder().display()
        ));
        let log = |name: &str| world.path(&format!("{name}.log"));
        let start = |line: &str, name: &str| {
            let line = format!("cd {} && {line}", world.folder().display());
            Shell(Running::start("", &["sh", "-c", &line], &log(name)))
        };
        let said = |name: &str| std::fs::read_to_string(log(name)).unwrap_or_default();
        let _agent = start(&agent, "agent");
        let _serve = start(&serve, "serve");
        eventually("serve says where it is served", PATIENCE, || {
            said("serve").contains("hello.default leads to 127.0.0.1:8000").then_some(())
        });
        // Once: whoever was told so may call.
        let ran = run("", &curl);
        assert!(ran.out.contains("Directory listing"), "{ran:?}\n{}", said("agent"));
        let told = "no --config and no /etc/edgemesh/agent.yaml: defaults";
        assert!(said("agent").contains(told), "{}", said("agent"));
    });
}
