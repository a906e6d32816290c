//! Runs a test in fresh user, network and mount namespaces, where it is root and alone.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::process::Command;

use nix::sched::{CloneFlags, setns};

/// Tells the test that it is inside, and which one it is.
const INSIDE: &str = "EDGEMESH_TEST_INSIDE";
/// First on the `PATH` inside.
const FIRST: &str = "/run/first";
/// What makes unprivileged namespaces possible where they are not.
const FIX: &str = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";

/// Runs `body` of the test called `name` (its path as `cargo test` prints it) in a world of its
/// own: no interfaces but `lo`, which is up, no rules, and an empty `/run`.
pub(crate) fn in_namespace(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some_and(|inside| inside == name) {
        // An empty /run: xtables.lock and netns are then ours, also for legacy iptables.
        sh("mount -t tmpfs none /run; mkdir /run/netns /run/first; ip link set lo up");
        return body();
    }
    let possible = Command::new("unshare").args(["-rnm", "true"]).output();
    assert!(
        possible.is_ok_and(|output| output.status.success()),
        "no namespaces to be had here; as root: {FIX}"
    );
    let output = Command::new("unshare")
        .arg("-rnm")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env("PATH", format!("{FIRST}:{}", std::env::var_os("PATH").unwrap().display()))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    assert!(output.status.success(), "{name} failed in its namespace:\n{}", text.concat());
    assert!(text[0].contains("1 passed"), "no test is called {name}:\n{}", text.concat());
}

/// Puts a shell script in the place of a program, inside only. `$REAL` is the program.
pub(crate) fn replace(program: &str, script: &str) {
    let real = sh(&format!("PATH=${{PATH#{FIRST}:}}; command -v {program}"));
    let at = format!("{FIRST}/{program}");
    std::fs::write(&at, format!("#!/bin/sh\nREAL={}\n{script}\n", real.trim())).unwrap();
    sh(&format!("chmod +x {at}"));
}

/// Runs a shell script that must succeed, and gives what it printed.
#[track_caller]
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().expect("sh runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `body` in the network namespace called `netns`; empty: in this one. Sockets made there
/// stay there.
pub(crate) fn within<T: Send + 'static>(
    netns: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> T {
    if netns.is_empty() {
        return body();
    }
    let path = format!("/run/netns/{netns}");
    let thread = std::thread::spawn(move || {
        let file = std::fs::File::open(&path).expect(&path);
        setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter its own namespaces");
        body()
    });
    thread.join().expect("the body ends")
}
