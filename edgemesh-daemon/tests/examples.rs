//! What `deploy/` and `examples/` show is accepted as it stands.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use edgemesh_core::manifests::read;
use edgemesh_daemon::cli::Cli;
use edgemesh_daemon::config::{Environment, Flags, load_file};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_example_configuration_is_valid() {
    let file = root().join("deploy/agent.yaml");
    let resolved = load_file(&file, &Environment::default(), &Flags::default());
    assert_eq!(resolved.map(|resolved| resolved.config.node).unwrap(), "edge-1");
}

/// Where the unit expects the program.
const INSTALLED: &str = "/usr/local/bin/edgemesh";

#[test]
fn the_unit_starts_commands_that_exist() {
    let unit =
        std::fs::read_to_string(root().join("deploy/systemd/edgemesh-agent.service")).unwrap();
    let lines = unit.lines().filter(|line| line.starts_with("Exec") && line.contains(INSTALLED));
    let mut commands = 0;
    for line in lines {
        let command = &line[line.find(INSTALLED).unwrap()..];
        let words = command.trim_end_matches('\'').split_whitespace();
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        commands += 1;
    }
    assert_eq!(commands, 3, "check, agent, redirect remove");
    assert!(unit.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
}

/// Fails where systemd finds fault; says nothing where there is no systemd.
#[test]
fn systemd_accepts_the_unit() {
    let unit =
        std::fs::read_to_string(root().join("deploy/systemd/edgemesh-agent.service")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edgemesh-agent.service");
    // It also looks whether programs exist.
    std::fs::write(&file, unit.replace(INSTALLED, env!("CARGO_BIN_EXE_edgemesh"))).unwrap();
    let Ok(said) = Command::new("systemd-analyze").arg("verify").arg(&file).output() else {
        return;
    };
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success() && words.is_empty(), "{words}");
}

#[test]
fn the_example_manifests_are_accepted() {
    let observed = read(&[root().join("examples/manifests")]);
    assert!(observed.remarks.is_empty(), "{:?}", observed.remarks);
    assert_eq!(observed.records.len(), 9);
}
