//! Waiting for what another process does, in the one place where tests may wait.

#![allow(dead_code, reason = "each test uses its part")]

use std::time::{Duration, Instant};

/// Between two looks. What is waited for happens in other processes, which cannot wake a test;
/// so it looks often, and no test waits longer than it must.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `look` finds something; fails with `what` after `patience`.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "other processes have real clocks")]
pub(crate) fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let until = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "not within {patience:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// How long `body` took.
#[expect(clippy::disallowed_methods, reason = "other processes have real clocks")]
pub(crate) fn timed<T>(body: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let value = body();
    (value, began.elapsed())
}

/// Whether `holds` stays true for `how_long`; for what must not happen.
#[expect(clippy::disallowed_methods, reason = "other processes have real clocks")]
pub(crate) fn throughout(how_long: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + how_long;
    while Instant::now() < until {
        if !holds() {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}
