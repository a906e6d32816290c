//! Golden files: what people read is compared with a checked-in text, rewritten by UPDATE_GOLDEN=1.

use std::path::Path;

/// Compares `text` with `tests/golden/NAME.txt`.
///
/// # Panics
/// When they differ; with `UPDATE_GOLDEN=1` the file is written instead.
#[expect(clippy::disallowed_methods, reason = "a test's own switch, not the daemon's")]
pub(crate) fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::write(&path, text).expect("the golden folder can be written");
        return;
    }
    let want = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}; run with UPDATE_GOLDEN=1", path.display()));
    assert!(
        text == want,
        "{name}: differs from {}\n--- have\n{text}\n--- want\n{want}\n\
         rewrite with UPDATE_GOLDEN=1 and read the diff",
        path.display()
    );
}
