//! Running a hidden test of this file's neighbours in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Prefix of the argument that carries the folder; to the test harness it is one more filter.
const FOLDER: &str = "folder=";

/// The hidden test `name` (full path within the crate), on `folder`.
pub(super) fn hidden(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    with_arguments(&mut command, name, folder);
    command
}

/// The same as root of fresh user and mount namespaces.
pub(super) fn hidden_in_namespace(name: &str, folder: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.arg("-rm").arg(std::env::current_exe().unwrap());
    with_arguments(&mut command, name, folder);
    command
}

fn with_arguments(command: &mut Command, name: &str, folder: &Path) {
    command
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1", name])
        .arg(format!("{FOLDER}{}", folder.display()));
}

/// The folder of a hidden test; `None` when somebody runs all ignored tests.
pub(super) fn given_folder() -> Option<PathBuf> {
    std::env::args().find_map(|argument| argument.strip_prefix(FOLDER).map(PathBuf::from))
}
