//! What `deploy/` and `examples/` show is accepted as it stands.

use std::path::{Path, PathBuf};

use edgemesh_core::manifests::read;
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

#[test]
fn the_example_manifests_are_accepted() {
    let observed = read(&[root().join("examples/manifests")]);
    assert!(observed.remarks.is_empty(), "{:?}", observed.remarks);
    assert_eq!(observed.records.len(), 9);
}
