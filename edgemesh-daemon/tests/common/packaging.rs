//! The scripts of `deploy/` for tests: the program to pack, and what a script said.

#![allow(dead_code, reason = "each test uses its part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::namespace::sh;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().unwrap().join("..")
}

/// Runs a script of `deploy/` that must succeed, `NAME=VALUE` in front; gives what it printed.
#[track_caller]
pub(crate) fn script(line: &str) -> String {
    sh(&format!("cd '{}'; {line}", root().display()))
}

/// Runs a script of `deploy/` that must fail, and gives its last word.
#[track_caller]
pub(crate) fn fails(line: &str) -> String {
    let mut command = Command::new("sh");
    let output = command.args(["-ec", line]).current_dir(root()).output().unwrap();
    assert!(!output.status.success(), "{line} succeeds");
    let errors = String::from_utf8_lossy(&output.stderr);
    errors.trim_end().lines().last().unwrap_or_default().to_owned()
}

/// The tested program without what only a debugger reads, as `edgemesh` in `folder`.
pub(crate) fn program(folder: &Path) -> PathBuf {
    let to = folder.join("edgemesh");
    sh(&format!("strip -o '{}' '{}'", to.display(), env!("CARGO_BIN_EXE_edgemesh")));
    to
}

/// What Debian calls the architecture of this machine.
pub(crate) fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}
