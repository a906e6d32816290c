//! The checked-in definitions are what the types say; `UPDATE_GOLDEN=1` rewrites them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use edgemesh_router::kubernetes::crds;

/// Where Helm and `kubectl apply -f` look for them.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/edgemesh/crds")
}

#[test]
fn definitions_are_current() {
    let folder = folder();
    if is_set("UPDATE_GOLDEN") {
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (name, text) in crds::files() {
            fs::write(folder.join(name), text).expect("the file can be written");
        }
    }
    for (name, fresh) in crds::files() {
        let current = fs::read_to_string(folder.join(&name)).unwrap_or_default();
        assert!(current == fresh, "crds/{name} is out of date: run `make golden`");
    }
}

#[test]
fn nothing_else_is_installed() {
    let names = |entry: std::io::Result<fs::DirEntry>| {
        entry.expect("the folder can be read").file_name().to_string_lossy().into_owned()
    };
    let there: BTreeSet<_> =
        fs::read_dir(folder()).expect("the folder is there").map(names).collect();
    let made: BTreeSet<_> = crds::files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(there, made);
}

/// Whether the variable is set.
#[expect(clippy::disallowed_methods, reason = "the switch that golden-file tests share")]
fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok()
}
