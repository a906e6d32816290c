//! Programs that tests run: clients to their end, servers until the guard is dropped.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// Longest that a client may take, in seconds; `timeout` ends it then.
const PATIENCE: u32 = 30;

/// How much of a server's log is shown when a test fails.
const SAID_LAST: usize = 2000;

/// Which Debian package a program of the tests comes with.
const PACKAGES: &[(&str, &str)] = &[
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("flock", "util-linux"),
    ("curl", "curl"),
    ("dig", "bind9-dnsutils"),
    ("redis-server", "redis-server"),
    ("redis-cli", "redis-tools"),
    ("mariadbd", "mariadb-server"),
    ("mariadb", "mariadb-client"),
    ("sshd", "openssh-server"),
    ("ssh", "openssh-client"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("nghttp", "nghttp2-client"),
    ("nc", "netcat-openbsd"),
    ("socat", "socat"),
    ("setpriv", "util-linux"),
    ("findmnt", "util-linux"),
    ("cc", "gcc"),
    ("mosquitto", "mosquitto"),
    ("mosquitto_pub", "mosquitto-clients"),
    ("mosquitto_sub", "mosquitto-clients"),
];

/// What a program said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Fails with the one line that helps where a program is missing.
#[track_caller]
pub(crate) fn need(programs: &[&str]) {
    for program in programs {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
        let package = PACKAGES.iter().find(|(name, _)| name == program).expect("a row for each").1;
        let found = found.is_ok_and(|output| output.status.success());
        assert!(found, "`{program}` is missing (package {package}); fix: make deps");
    }
}

/// Fails where a module of Python is missing.
#[track_caller]
pub(crate) fn need_python(module: &str, package: &str) {
    let import = format!("import {module}");
    let found = Command::new("/usr/bin/python3").args(["-c", &import]).output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(found, "python's {module} is missing (package {package}); fix: make deps");
}

/// Runs a shell script in the network namespace `netns` (empty: this one) to its end.
#[track_caller]
pub(crate) fn run(netns: &str, script: &str) -> Ran {
    let output = command(netns, script).output().expect("sh runs");
    assert_ne!(output.status.code(), Some(124), "took more than {PATIENCE} s: {script}");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

fn command(netns: &str, script: &str) -> Command {
    let patience = PATIENCE.to_string();
    let mut command = Command::new("timeout");
    command.args(["-k", "1", &patience]).args(within(netns)).args(["sh", "-c", script]);
    command.stdin(Stdio::null());
    for variable in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        command.env_remove(variable).env_remove(variable.to_uppercase());
    }
    command
}

/// What a command line begins with to run in `netns`. `ip netns exec` becomes the program, so
/// that a process keeps its id.
pub(crate) fn within(netns: &str) -> Vec<&str> {
    if netns.is_empty() { vec![] } else { vec!["ip", "netns", "exec", netns] }
}

/// A program in the background; ended, by its id, when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `program` in `netns`; what it says goes to the file `log`.
    #[track_caller]
    pub(crate) fn start(netns: &str, program: &[&str], log: &std::path::Path) -> Self {
        let line: Vec<&str> = within(netns).into_iter().chain(program.iter().copied()).collect();
        let out = std::fs::File::create(log).unwrap();
        let err = out.try_clone().unwrap();
        let child = Command::new(line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", line[0]));
        Self { child, log: log.to_owned() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            let from = said.len().saturating_sub(SAID_LAST);
            eprintln!("--- {} ---\n{}", self.log.display(), said.get(from..).unwrap_or(&said));
        }
    }
}
