//! The image that `make image` builds, here around the tested program: what is in it, and that it
//! works where a DaemonSet puts it: a root that is only read, three capabilities, three mounts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common {
    pub(crate) mod golden;
    pub(crate) mod namespace;
    pub(crate) mod packaging;
    pub(crate) mod wait;
}

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use common::golden;
use common::namespace::{in_namespace, sh};
use common::packaging::{arch, fails, program, script};
use common::wait::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Where the image is mounted, inside its namespace.
const ROOT: &str = "/run/image";
/// How long the agent may take to come up: the machine may have much else to do.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the DaemonSet leaves of the rights of root, and what `chroot` itself needs.
const RIGHTS: &str = "-all,+net_admin,+net_raw,+net_bind_service,+sys_chroot";
/// Rules of others, whose plugins are needed to read them.
const FOREIGN: &str =
    "-A INPUT -m statistic --mode nth --every 2 --packet 0 -m addrtype --dst-type LOCAL -j ACCEPT";

/// Makes the root file system in `folder`, from packages that are downloaded once.
fn image(folder: &Path, at: &str) {
    let program = program(folder);
    script(&format!("deploy/image.sh root '{}' '{at}'", program.display()));
}

/// The packages need a network: to be had before a test goes where there is none.
fn fetch() {
    script(&format!("deploy/image.sh fetch {}", arch()));
}

#[test]
fn nothing_is_in_the_image_that_is_not_listed() {
    fetch();
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("root");
    image(folder.path(), at.to_str().unwrap());
    let list = sh(&format!(
        "cd '{}'; find . -mindepth 1 -printf '%P  %M  %l\\n' | sed 's/ *$//'",
        at.display()
    ));
    // What differs between architectures are the names of a folder and of the loader.
    let list = list
        .replace("x86_64-linux-gnu", "TRIPLET")
        .replace("aarch64-linux-gnu", "TRIPLET")
        .replace("ld-linux-x86-64.so.2", "LOADER")
        .replace("usr/lib/ld-linux-aarch64.so.1", "usr/lib64/LOADER")
        .replace("ld-linux-aarch64.so.1", "LOADER");
    let mut lines: Vec<_> = list.split_inclusive('\n').collect();
    lines.sort_unstable();
    golden::check("image", &lines.concat());
    let certificates = std::fs::read_to_string(at.join("etc/ssl/certs/ca-certificates.crt"));
    assert!(certificates.unwrap().matches("-----BEGIN CERTIFICATE-----").count() > 100);
}

/// Mounts the image as a container runtime does for a DaemonSet.
fn mount() {
    sh(&format!("mkdir {ROOT} /run/build; mount -t tmpfs none {ROOT}"));
    image(Path::new("/run/build"), ROOT);
    script(&format!(
        "touch {ROOT}/etc/resolv.conf; mount -o remount,bind,ro {ROOT}
         for at in proc sys dev; do mount --rbind /$at {ROOT}/$at; done
         mount -t tmpfs none {ROOT}/var/lib/edgemesh
         mount -t tmpfs none {ROOT}/etc/edgemesh
         cp deploy/agent.yaml {ROOT}/etc/edgemesh/; mkdir {ROOT}/etc/edgemesh/manifests
         mount -o remount,bind,ro {ROOT}/etc/edgemesh
         echo nameserver 10.7.7.7 >/run/resolv.conf; mount --bind /run/resolv.conf {ROOT}/etc/resolv.conf
         touch /run/xtables.lock; mount --bind /run/xtables.lock {ROOT}/run/xtables.lock"
    ));
}

/// The image's program, as the DaemonSet starts it.
fn contained(args: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", RIGHTS, "--inh-caps", "-all", "--no-new-privs"]);
    command.args(["chroot", ROOT, "/usr/bin/edgemesh"]).args(args.split(' '));
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin").env("NODE_NAME", "edge-1");
    command
}

/// Runs it to its end: all went well, and nothing was complained of.
#[track_caller]
fn run(args: &str) -> String {
    let output = contained(args).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{args}: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// An agent in the image, killed when the test fails.
struct Agent(Child);

impl Agent {
    /// SIGTERM, and its end.
    fn stop(mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// With one of the two iptables in use on the node, by rules of others.
fn works_with(used: &str, unused: &str) {
    sh(&format!("iptables-{used} {FOREIGN}; ip6tables-{used} {FOREIGN}"));
    mount();
    let config = "--config /etc/edgemesh/agent.yaml";
    assert_eq!(run("--version"), format!("edgemesh {}\n", env!("CARGO_PKG_VERSION")));
    assert!(run(&format!("check {config}")).contains("/etc/edgemesh/agent.yaml"));
    let rules =
        |kind: &str| sh(&format!("iptables-{kind}-save -t nat; ip6tables-{kind}-save -t nat"));
    let captured = || rules(used).matches("-j EDGEMESH_OUT").count();
    run(&format!("redirect install {config}"));
    assert_eq!(captured(), 2, "{}", rules(used));
    assert!(!rules(unused).contains("EDGEMESH"), "{}", rules(unused));
    assert!(sh("ip rule; ip -6 rule").matches("lookup 28005").count() >= 2);
    assert_eq!(run(&format!("redirect remove {config}")), "removed\n");
    assert!(!rules(used).contains("EDGEMESH"), "{}", rules(used));
    assert!(!sh("ip rule; ip link").contains("edgemesh"));
    let agent = Agent(contained(&format!("agent {config}")).spawn().unwrap());
    let status = eventually("the agent is ready", PATIENCE, || {
        let output = contained("status").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (said.contains(", ready,") && said.contains("capture   installed")).then_some(said)
    });
    assert!(status.contains(used.trim_start_matches("nft")), "{status}");
    assert_eq!(captured(), 2, "{}", rules(used));
    agent.stop();
    assert!(!rules(used).contains("EDGEMESH"), "{}", rules(used));
}

#[test]
fn it_captures_by_nft_where_a_daemonset_puts_it() {
    fetch();
    in_namespace("it_captures_by_nft_where_a_daemonset_puts_it", || works_with("nft", "legacy"));
}

#[test]
fn it_captures_by_legacy_where_a_daemonset_puts_it() {
    fetch();
    in_namespace("it_captures_by_legacy_where_a_daemonset_puts_it", || {
        works_with("legacy", "nft");
    });
}

/// The files of an archive.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(std::fs::File::open(path).unwrap());
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().display().to_string(), bytes);
    }
    files
}

#[test]
fn the_archive_says_what_it_is_and_is_always_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("usr/bin")).unwrap();
    std::fs::write(root.join("usr/bin/edgemesh"), "a program").unwrap();
    let archive = |name: &str| {
        let out = folder.path().join(name);
        script(&format!(
            "SOURCE_DATE_EPOCH=7 deploy/image.sh archive '{}' arm64 '{}'",
            root.display(),
            out.display()
        ));
        files(&out)
    };
    let files = archive("one.tar");
    assert!(files == archive("two.tar"), "the same folder makes another archive");
    let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
    let blob = |of: &Value| format!("blobs/{}", of.as_str().unwrap().replace(':', "/"));
    let index = json("index.json");
    let named = &index["manifests"][0]["annotations"]["io.containerd.image.name"];
    assert_eq!(*named, format!("docker.io/library/edgemesh:{}", env!("CARGO_PKG_VERSION")));
    let manifest = json(&blob(&index["manifests"][0]["digest"]));
    assert!(files.contains_key(&blob(&manifest["layers"][0]["digest"])));
    let config = json(&blob(&manifest["config"]["digest"]));
    assert_eq!(config["architecture"], "arm64");
    assert_eq!(config["created"], "1970-01-01T00:00:07Z");
    assert_eq!(config["config"]["Entrypoint"], serde_json::json!(["/usr/bin/edgemesh"]));
    assert_eq!(config["config"]["Env"], serde_json::json!(["PATH=/usr/sbin:/usr/bin"]));
    let labels = &config["config"]["Labels"];
    assert_eq!(labels["org.opencontainers.image.version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn what_is_wrong_is_told_with_the_fix() {
    let rows = [
        ("deploy/image.sh", "it takes fetch, root, archive or build"),
        ("deploy/image.sh fetch", "fetch takes an architecture; deploy/image.sh fetch "),
        (
            "deploy/image.sh fetch mips",
            "no architecture is called 'mips'; there are amd64 and arm64",
        ),
        ("deploy/image.sh build /nowhere", "there is no program /nowhere; build it: cargo build"),
        ("deploy/image.sh root /etc/passwd /tmp/x", "/etc/passwd is no program for amd64 or arm64"),
        ("deploy/image.sh root /bin/ls /etc", "/etc is not empty; name a new folder"),
        ("deploy/cross.sh make", "it takes build, run or try"),
    ];
    fetch();
    for (line, want) in rows {
        let said = fails(line);
        assert!(said.contains(want), "{line}: {said}");
    }
}
