//! Runs the fuzzers' corpus as plain tests: every file whole, cut at every place, and damaged.

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "it is a crate of its own for the fuzzer")]
mod checks;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Cuts and damages of one file; long files are sampled.
const PLACES: usize = 200;

#[test]
fn every_sample_holds() {
    let mut wrong = Vec::new();
    for (target, _) in checks::CHECKS {
        let files = listed(&root().join("corpus").join(target));
        assert!(files.len() >= 3, "{target}: only {} samples", files.len());
        let mut read = 0;
        for file in files {
            let bytes = fs::read(&file).expect("a readable sample");
            for (how, bytes) in variants(&bytes) {
                match catch_unwind(AssertUnwindSafe(|| checks::check(target, &bytes))) {
                    Ok(accepted) => read += usize::from(accepted),
                    Err(_) => wrong.push(format!("{}, {how}", file.display())),
                }
            }
        }
        assert!(read >= 10, "{target}: hardly anything of its corpus is what it reads");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_check_has_its_target_and_its_folder() {
    let names: BTreeSet<_> = checks::CHECKS.iter().map(|row| row.0.to_owned()).collect();
    let stems = |folder: &str| -> BTreeSet<_> {
        let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
        listed(&root().join(folder)).into_iter().map(stem).collect()
    };
    assert_eq!(stems("fuzz_targets"), names);
    assert_eq!(stems("corpus"), names);
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("a manifest");
    for name in names {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} is not in fuzz/Cargo.toml"
        );
    }
}

/// The bytes, their beginnings, and the bytes with one of them turned over.
fn variants(bytes: &[u8]) -> impl Iterator<Item = (String, Vec<u8>)> {
    let step = (bytes.len() / PLACES).max(1);
    let places = move || (0..bytes.len()).step_by(step);
    let cut = move |at| (format!("cut at {at}"), bytes[..at].to_vec());
    let damaged = move |at| {
        let mut damaged = bytes.to_vec();
        // A different bit each time, so that numbers grow and letters change.
        damaged[at] ^= 1u8 << (at % 8);
        (format!("damaged at {at}"), damaged)
    };
    let whole = [("whole".to_owned(), bytes.to_vec())];
    whole.into_iter().chain(places().map(cut)).chain(places().map(damaged))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    files
}
