//! What is taken away leaves nothing: the node is, byte for byte, as it was before.

use crate::agent::{Agent, PATIENCE, config};
use crate::backend::Backend;
use crate::common::namespace::{in_namespace, sh};
use crate::common::run::{need, run};
use crate::common::wait::eventually;
use crate::world::{ONE, World};

/// Rules of all backends, policy rules, routes, addresses and devices. Left out: the dates of
/// saved rules and the counters of built-in chains, which move by themselves.
fn state() -> String {
    sh("for f in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do
          $f-save | grep -v '^#' | sed 's/ \\[[0-9:]*\\]$//' || true; done
        nft list tables
        for f in -4 -6; do ip $f rule; ip $f route show table all; done
        ip addr | sed 's/ qdisc .*//'")
}

/// What was on the node before: nothing; rules of others in nft, some of them empty chains; rules
/// of others in legacy (whose tables, once loaded, no program takes away).
const BEFORE: [&str; 3] = [
    ":",
    "iptables-nft -t nat -A OUTPUT -d 203.0.113.1 -j RETURN; iptables-nft -t nat -N KUBE-SERVICES
     nft add table ip6 nat; nft add chain ip6 nat OUTPUT '{ type nat hook output priority -100; }'",
    "nft flush ruleset
     for f in iptables ip6tables; do $f-legacy -t nat -A OUTPUT -p tcp --dport 9 -j RETURN; done",
];

#[test]
fn nothing_is_left() {
    in_namespace("remove::nothing_is_left", || {
        need(&["nft"]);
        let world = World::new();
        let _one = Backend::start("", "one", ONE, 8080);
        world.service("one", &["10.96.0.80", "fd10::80"], &[":80:8080"], &[ONE]);
        let file = world.write("agent.yaml", &config(&world)).display().to_string();
        eventually("the kernel is done with its own addresses", PATIENCE, || {
            sh("ip -6 addr show tentative").is_empty().then_some(())
        });
        for before in BEFORE {
            sh(before);
            let was = state();
            let program = env!("CARGO_BIN_EXE_edgemesh");
            sh(&format!("{program} redirect install --config {file}"));
            assert!(state().contains("-j EDGEMESH_OUT"), "{before}");
            assert_eq!(sh(&format!("{program} redirect remove --config {file}")), "removed\n");
            assert_eq!(state(), was, "redirect, after: {before}");
            // An agent that stops, and one that was killed, are no different.
            let mut agent = Agent::start(&world);
            let refused = run("", &format!("{program} redirect remove --config {file}"));
            let words = format!("an agent (pid {}) captures here", agent.worker());
            assert!(refused.code == Some(1) && refused.err.contains(&words), "{refused:?}");
            agent.terminate();
            agent.wait();
            assert_eq!(state(), was, "an agent, after: {before}");
            Agent::start(&world).kill_all();
            sh(&format!("{program} redirect remove --config {file}"));
            assert_eq!(state(), was, "an agent that was killed, after: {before}");
        }
    });
}
