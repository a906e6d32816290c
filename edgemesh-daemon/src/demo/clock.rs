//! The demo's clock: it plays in real time, and this is the one place that asks for it.

use std::time::Duration;
use std::time::Instant;

/// Between two looks at something that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(10);

#[expect(clippy::disallowed_methods, reason = "the demo is an outer layer that measures")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the demo waits for real processes")]
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Looks until there is something to see, at most for `limit`.
pub(crate) fn until<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if now() >= end {
            return None;
        }
        pause(LOOK_EVERY);
    }
}
