//! What `deploy/` has for Kubernetes, held against the code: the chart as helm renders it, the plain
//! manifests, the dashboard, the sidecar; and that what they start works with the rights they give.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../common"]
mod common {
    #[allow(dead_code, reason = "each test uses its part")]
    pub(crate) mod folder;
    pub(crate) mod namespace;
    pub(crate) mod run;
    pub(crate) mod wait;
}

mod helm;
mod pod;

mod configs;
mod dashboard;
mod install;
mod plain;
mod rbac;
mod sidecar;
mod typed;
mod values;
mod workloads;

use std::path::{Path, PathBuf};

/// A path from the root of the project.
fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}
