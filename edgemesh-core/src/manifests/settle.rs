//! When a burst of changes is over: pure time logic, the clock comes in as an argument.

use std::time::Duration;

use tokio::time::Instant;

/// A change counts once this long has passed without another.
pub const QUIET: Duration = Duration::from_millis(50);
/// Longest time for which further changes can hold up the first.
pub const MAX_DELAY: Duration = Duration::from_millis(500);

/// The changes that were seen and not told yet.
#[derive(Debug, Default)]
pub(super) struct Settle {
    /// First and last of them.
    seen: Option<(Instant, Instant)>,
}

impl Settle {
    /// A change at `now`.
    pub(super) fn saw(&mut self, now: Instant) {
        let first = self.seen.map_or(now, |(first, _)| first);
        self.seen = Some((first, now));
    }

    /// When to tell; `None` when there is nothing to tell.
    pub(super) fn due(&self) -> Option<Instant> {
        self.seen.map(|(first, last)| (last + QUIET).min(first + MAX_DELAY))
    }

    /// The changes were told.
    pub(super) fn clear(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_settle_but_not_for_ever() {
        let start = Instant::now();
        for (changes, want) in [
            (&[][..], None),
            (&[0], Some(50)),
            (&[0, 40, 80], Some(130)),
            (&[100, 140], Some(190)),
            (&[0, 49, 98, 147, 196, 245, 294, 343, 392, 441, 490, 539], Some(500)),
        ] {
            let mut settle = Settle::default();
            for at in changes {
                settle.saw(start + Duration::from_millis(*at));
            }
            let due = settle.due().map(|due| (due - start).as_millis());
            assert_eq!(due, want, "{changes:?}");
            settle.clear();
            assert_eq!(settle.due(), None);
        }
    }
}
