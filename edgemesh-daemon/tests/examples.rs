//! What `deploy/` and `examples/` show is accepted as it stands.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Parser;
use edgemesh_core::manifests::read;
use edgemesh_daemon::cli::Cli;
use edgemesh_daemon::config::{Environment, Flags, load_cloud_or_default, load_file};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn the_example_configurations_are_valid() {
    let file = root().join("deploy/agent.yaml");
    let named = Environment { node_name: Some("edge-1".into()), ..Environment::default() };
    let resolved = load_file(&file, &named, &Flags::default());
    assert_eq!(resolved.map(|resolved| resolved.config.node).unwrap(), "edge-1");
    let file = root().join("deploy/cloud.yaml");
    let resolved = load_cloud_or_default(Some(&file), &Flags::default());
    assert_eq!(resolved.map(|resolved| resolved.config.hub.names).unwrap(), ["cloud.example"]);
}

/// Where the unit expects the program.
const INSTALLED: &str = "/usr/local/bin/edgemesh";

/// The units, the commands that they start, and whether these take a reload.
const UNITS: &[(&str, &str, bool)] = &[
    ("edgemesh-agent", "check agent redirect", true),
    // The cloud reads its configuration at its start alone.
    ("edgemesh-cloud", "check cloud", false),
];

fn unit(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("deploy/systemd/{name}.service"))).unwrap()
}

#[test]
fn the_units_start_commands_that_exist() {
    for (name, want, reloads) in UNITS {
        let unit = unit(name);
        let lines =
            unit.lines().filter(|line| line.starts_with("Exec") && line.contains(INSTALLED));
        let mut commands = Vec::new();
        for line in lines {
            let command = &line[line.find(INSTALLED).unwrap()..];
            let words: Vec<_> = command.trim_end_matches('\'').split_whitespace().collect();
            Cli::try_parse_from(&words).unwrap_or_else(|error| panic!("{line}: {error}"));
            commands.push(words[1]);
        }
        assert_eq!(commands.join(" "), *want, "{name}");
        assert_eq!(unit.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"), *reloads, "{name}");
    }
}

/// Fails where systemd finds fault; it need not run.
#[test]
fn systemd_accepts_the_units() {
    for (name, ..) in UNITS {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(format!("{name}.service"));
        // It also looks whether programs exist.
        let text = unit(name).replace(INSTALLED, env!("CARGO_BIN_EXE_edgemesh"));
        std::fs::write(&file, text).unwrap();
        let said = Command::new("systemd-analyze").arg("verify").arg(&file).output();
        let said = said.expect("systemd-analyze is installed by `make deps`");
        let words = String::from_utf8_lossy(&said.stderr);
        assert!(said.status.success() && words.is_empty(), "{name}: {words}");
    }
}

#[test]
fn the_example_manifests_are_accepted() {
    let observed = read(&[root().join("examples/manifests")]);
    assert!(observed.remarks.is_empty(), "{:?}", observed.remarks);
    assert_eq!(observed.records.len(), 9);
}
