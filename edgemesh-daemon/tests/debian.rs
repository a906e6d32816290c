//! The Debian package that `make deb` builds, here around the tested program: installed, upgraded,
//! removed and purged by dpkg, in a root and a network of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common {
    pub(crate) mod namespace;
    pub(crate) mod packaging;
}

use std::path::Path;

use common::namespace::{in_namespace, sh};
use common::packaging::{arch, fails, program, script};

/// The root that dpkg installs into, inside its namespace.
const ROOT: &str = "/run/root";
/// What maintainer scripts ask of systemd is written down, and the agent is said to run.
const SYSTEMCTL: &str = "#!/bin/sh\necho \"$@\" >>/systemctl.log";
/// Packages that are there already, as far as dpkg can tell.
const INSTALLED: &[&str] = &["libc6", "libgcc-s1", "iproute2", "iptables", "procps"];

/// Builds the package for `version`, with a remark at the end of both configurations.
fn build(version: &str, remark: &str) -> String {
    let source = format!("/run/source-{version}");
    let out = format!("/run/edgemesh_{version}.deb");
    // A copy of what is packed, so that another version can be made of it.
    script(&format!(
        "mkdir -p {source}/target; cp -r deploy docs LICENSE CHANGELOG.md Cargo.toml {source}/
         sed -i 's/^version = .*/version = \"{version}\"/' {source}/Cargo.toml
         for name in agent cloud; do echo '# {remark}' >>{source}/deploy/$name.yaml; done
         COMPRESS=none CARGO_TARGET_DIR={source}/target SOURCE_DATE_EPOCH=7 \
           {source}/deploy/debian.sh build /run/build/edgemesh {out}"
    ));
    out
}

/// A root with this machine's programs and libraries where the package puts nothing, a systemd that
/// notes what it is asked, and a dpkg that knows which packages are there.
fn prepare() {
    sh(&format!(
        "mkdir -p {ROOT}/usr/bin {ROOT}/etc {ROOT}/tmp {ROOT}/run/systemd/system
         mkdir -p {ROOT}/var/lib/dpkg/info {ROOT}/var/lib/dpkg/updates
         cd /; for at in bin sbin lib lib64 proc sys dev usr/sbin etc/alternatives usr/lib/*-linux-gnu; do
           [ -e /$at ] || continue; mkdir -p {ROOT}/$at; mount --rbind $(readlink -f /$at) {ROOT}/$at
         done
         cp /etc/protocols {ROOT}/etc/
         echo '{SYSTEMCTL}' >{ROOT}/usr/bin/systemctl; chmod +x {ROOT}/usr/bin/systemctl
         touch {ROOT}/run/xtables.lock /run/xtables.lock"
    ));
    let mut status = String::new();
    for name in INSTALLED {
        write(&format!("var/lib/dpkg/info/{name}.list"), "");
        status.push_str(&format!(
            "Package: {name}\nStatus: install ok installed\nMaintainer: none\nVersion: 99\n\
             Architecture: {}\nDescription: there\n\n",
            arch()
        ));
    }
    write("var/lib/dpkg/status", &status);
    std::fs::create_dir("/run/build").unwrap();
    program(Path::new("/run/build"));
}

/// Runs dpkg on that root; nobody is there to be asked.
#[track_caller]
fn dpkg(args: &str) -> String {
    sh(&format!(
        "export PATH=/usr/bin:/bin:/usr/sbin:/sbin DEBIAN_FRONTEND=noninteractive
         exec 2>&1 </dev/null
         dpkg --root={ROOT} --log=/run/dpkg.log --force-confold {args}"
    ))
}

/// What was asked of systemd since the last look.
fn asked() -> String {
    sh(&format!("cat {ROOT}/systemctl.log 2>/dev/null || true; rm -f {ROOT}/systemctl.log"))
}

/// All files of the root but dpkg's own, and what systemd-analyze keeps in /run.
fn files() -> String {
    sh(&format!(
        "cd {ROOT}; find . -xdev -type f,d | sort |
         grep -v -e ^./var/lib/dpkg -e ^./run"
    ))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{ROOT}/{path}")).unwrap()
}

fn write(path: &str, text: &str) {
    std::fs::write(format!("{ROOT}/{path}"), text).unwrap();
}

/// The installed program, in its root.
fn edgemesh(args: &str) -> String {
    sh(&format!(
        "PATH=/usr/bin:/bin:/usr/sbin:/sbin NODE_NAME=edge-1 chroot {ROOT} edgemesh {args}"
    ))
}

#[test]
fn it_is_installed_upgraded_removed_and_purged() {
    in_namespace("it_is_installed_upgraded_removed_and_purged", || {
        prepare();
        let (old, new) = (build("0.0.1", "old"), build("0.0.2", "new"));
        let before = files();
        dpkg(&format!("-i {old}"));
        assert_eq!(asked(), "daemon-reload\n", "it starts what nobody asked for");
        for name in ["agent", "cloud"] {
            assert!(read(&format!("etc/edgemesh/{name}.yaml")).ends_with("# old\n"));
            let unit = read(&format!("usr/lib/systemd/system/edgemesh-{name}.service"));
            assert!(unit.contains(&format!("ExecStart=/usr/bin/edgemesh {name} --config")));
            assert!(!unit.contains("/usr/local"), "{unit}");
        }
        for name in ["agent", "cloud"] {
            edgemesh(&format!("check --config /etc/edgemesh/{name}.yaml"));
            // Whether systemd takes the unit, and what it starts is there.
            let unit = format!("/usr/lib/systemd/system/edgemesh-{name}.service");
            assert_eq!(sh(&format!("chroot {ROOT} systemd-analyze verify {unit} 2>&1")), "");
        }
        upgrade_keeps_what_was_changed(&new);
        removal_cleans_up();
        purge_leaves_nothing(&before);
    });
}

fn upgrade_keeps_what_was_changed(new: &str) {
    let mine = "dataDir: /var/lib/edgemesh\n";
    write("etc/edgemesh/agent.yaml", mine);
    write("etc/edgemesh/manifests/mine.yaml", "");
    dpkg(&format!("-i {new}"));
    assert_eq!(read("etc/edgemesh/agent.yaml"), mine);
    assert!(read("etc/edgemesh/agent.yaml.dpkg-dist").ends_with("# new\n"));
    assert!(read("etc/edgemesh/cloud.yaml").ends_with("# new\n"));
    assert_eq!(
        asked(),
        "daemon-reload\n--quiet is-active edgemesh-agent.service\n\
         kill --kill-who=main --signal=USR2 edgemesh-agent.service\n\
         try-restart edgemesh-cloud.service\n"
    );
}

fn removal_cleans_up() {
    sh(&format!("mkdir -p {ROOT}/var/lib/edgemesh {ROOT}/var/lib/edgemesh-cloud"));
    write("var/lib/edgemesh/meta.db", "");
    edgemesh("redirect install --config /etc/edgemesh/agent.yaml");
    assert!(sh("iptables-save").contains("EDGEMESH"));
    dpkg("-r edgemesh");
    assert_eq!(
        asked(),
        "--quiet disable --now edgemesh-agent.service edgemesh-cloud.service\ndaemon-reload\n"
    );
    assert!(!sh("iptables-save; ip link; ip rule").to_lowercase().contains("edgemesh"));
    let left = files();
    assert!(left.contains("./etc/edgemesh/agent.yaml\n"), "{left}");
    assert!(left.contains("./var/lib/edgemesh/meta.db\n"), "{left}");
    assert!(!left.contains("./usr/bin/edgemesh\n"), "{left}");
}

fn purge_leaves_nothing(before: &str) {
    // What the operator put there is the operator's.
    sh(&format!("rm {ROOT}/etc/edgemesh/manifests/mine.yaml"));
    dpkg("-P edgemesh");
    assert_eq!(asked(), "daemon-reload\n");
    assert_eq!(files(), before);
    assert!(!dpkg("-l").contains("edgemesh"));
}

#[test]
fn it_is_not_configured_without_iptables() {
    in_namespace("it_is_not_configured_without_iptables", || {
        prepare();
        let package = build("0.0.1", "old");
        let status = read("var/lib/dpkg/status").replace("Package: iptables\n", "Package: other\n");
        write("var/lib/dpkg/status", &status);
        let said = dpkg(&format!("-i {package} || true"));
        assert!(said.contains("edgemesh depends on iptables"), "{said}");
    });
}

#[test]
fn what_is_wrong_is_told_with_the_fix() {
    let rows = [
        ("", "it takes build and a program; deploy/debian.sh build target/release/edgemesh"),
        ("build", "it takes build and a program"),
        ("build /nowhere", "there is no program /nowhere; build it: cargo build --release"),
        ("build /etc/passwd", "/etc/passwd is no program for amd64 or arm64; build it"),
    ];
    for (args, want) in rows {
        let said = fails(&format!("deploy/debian.sh {args}"));
        assert!(said.contains(want), "{args}: {said}");
    }
}
