//! The guard with real processes: exit codes, restarts, signals, cleaning up, and its own death.
//!
//! The test is its own guard and its own child, by its first argument.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; guard and child talk by lines"
)]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use edgemesh_daemon::capture::node_ports::NodePorts;
use edgemesh_daemon::capture::{Capture, Input, remove_jumps};
use edgemesh_daemon::guard::{self, Program};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, getpid, getppid};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("--as-guard") => guard_role(&args[2], &args[3]),
        Some("--as-child") => child_role(&args[2], Path::new(&args[3])),
        _ => all(),
    }
}

fn guard_role(role: &str, dir: &str) {
    let program = Program {
        path: std::env::current_exe().unwrap(),
        args: ["--as-child", role, dir].map(Into::into).to_vec(),
    };
    let mut clean = || {
        if role == "capture" {
            assert!(remove_jumps().unwrap());
        }
        println!("cleaned");
    };
    let code = guard::run(&program, &mut clean).unwrap();
    println!("end");
    std::process::exit(code.into());
}

/// Roles: what happens in the first life, and then whether a second one follows.
fn child_role(role: &str, dir: &Path) {
    let line = guard::enter().unwrap();
    let lived = dir.join("lived");
    let again = lived.exists();
    fs::write(&lived, "").unwrap();
    println!("life {}", getpid());
    match (role, again) {
        ("fine", _) => {}
        ("usage", _) => std::process::exit(2),
        ("early-kill", _) => kill(getpid(), Signal::SIGKILL).unwrap(),
        ("crash", false) | ("panic", false) => {
            line.captures().unwrap();
            line.ready().unwrap();
            if role == "panic" {
                std::panic::set_hook(Box::new(|_| {}));
                panic!("as told");
            }
            kill(getpid(), Signal::SIGKILL).unwrap();
        }
        ("crash" | "panic", true) => println!("second life"),
        ("capture", false) => {
            let mut capture = Capture::prepare(input()).unwrap();
            line.captures().unwrap();
            capture.start().unwrap();
            line.ready().unwrap();
            println!("jumps at first: {}", jumps());
            kill(getpid(), Signal::SIGKILL).unwrap();
        }
        ("capture", true) => {
            println!("jumps after the crash: {}", jumps());
            let mut capture = Capture::install(input()).unwrap();
            println!("jumps in the second life: {}", jumps());
            capture.remove().unwrap();
            println!("jumps at last: {}", jumps());
        }
        ("orphan" | "wait", _) => {
            let mut taken = SigSet::empty();
            taken.add(Signal::SIGTERM);
            taken.add(Signal::SIGHUP);
            taken.thread_block().unwrap();
            line.captures().unwrap();
            line.ready().unwrap();
            println!("waiting under {}", getppid());
            loop {
                let signal = taken.wait().unwrap();
                println!("got {signal}");
                if signal == Signal::SIGTERM {
                    std::process::exit(if role == "wait" { 7 } else { 0 });
                }
            }
        }
        (other, _) => panic!("no role {other}"),
    }
}

fn input() -> Input {
    Input {
        port: 15001,
        addresses: vec!["169.254.96.16".parse().unwrap()],
        mark: 0x6d65,
        include: vec!["10.96.0.0/16".parse().unwrap()],
        exclude: vec![],
        exclude_ports: vec![],
        dns: None,
        outward: vec![],
        node_ports: NodePorts::default(),
        udp: vec![],
    }
}

fn jumps() -> usize {
    let saved = Command::new("iptables-save").args(["-t", "nat"]).output().unwrap();
    String::from_utf8(saved.stdout).unwrap().matches("-j EDGEMESH_").count()
}

fn all() {
    // role, exit code, lines that must be in the output, how often it was cleaned, how many lives
    let cases = [
        ("fine", 0, "", 0, 1),
        ("usage", 2, "", 0, 1),
        ("early-kill", 137, "", 0, 1),
        ("crash", 0, "second life", 1, 2),
        ("panic", 0, "second life", 1, 2),
    ];
    for (role, code, has, cleaned, lives) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (mut guard, mut out) = start(role, dir.path());
        let mut text = String::new();
        out.read_to_string(&mut text).unwrap();
        assert_eq!(guard.wait().unwrap().code(), Some(code), "{role}: {text}");
        assert!(text.contains(has), "{role}: {text}");
        assert_eq!(text.matches("cleaned").count(), cleaned, "{role}: {text}");
        assert_eq!(
            text.matches("\nlife ").count() + usize::from(text.starts_with("life ")),
            lives,
            "{role}: {text}"
        );
        println!("guard: {role} ok");
    }
    a_crash_leaves_no_black_hole();
    signals_are_handed_on();
    a_killed_guard_takes_the_child_along();
}

fn start(role: &str, dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--as-guard", role])
        .arg(dir)
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn line_with(out: &mut BufReader<ChildStdout>, word: &str) -> String {
    let mut text = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(out.read_line(&mut line).unwrap(), 0, "no `{word}` in: {text}");
        if line.contains(word) {
            return line;
        }
        text.push_str(&line);
    }
}

/// In namespaces of its own, since it captures.
fn a_crash_leaves_no_black_hole() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new("unshare")
        .arg("-rnm")
        .arg(std::env::current_exe().unwrap())
        .args(["--as-guard", "capture"])
        .arg(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    let fix = "; if there are no namespaces here: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0";
    assert!(output.status.success(), "{text}{errors}{fix}");
    for want in ["at first: 3", "after the crash: 0", "in the second life: 3", "at last: 0"] {
        assert!(text.contains(want), "no `{want}` in {text}{errors}");
    }
    println!("guard: capture ok");
}

fn signals_are_handed_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut guard, mut out) = start("wait", dir.path());
    line_with(&mut out, "waiting");
    let pid = Pid::from_raw(guard.id().try_into().unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    line_with(&mut out, "got SIGHUP");
    kill(pid, Signal::SIGTERM).unwrap();
    line_with(&mut out, "got SIGTERM");
    line_with(&mut out, "cleaned"); // it was asked to stop, but did not end in order
    assert_eq!(guard.wait().unwrap().code(), Some(7));
    println!("guard: signals ok");
}

fn a_killed_guard_takes_the_child_along() {
    let dir = tempfile::tempdir().unwrap();
    let (mut guard, mut out) = start("orphan", dir.path());
    line_with(&mut out, "waiting");
    guard.kill().unwrap();
    line_with(&mut out, "got SIGTERM");
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap(); // ends when the child has
    guard.wait().unwrap();
    println!("guard: death ok");
}
