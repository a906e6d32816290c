//! How long to wait before a way that failed is tried again.

use std::time::Duration;

/// Pauses that double from `first` to `longest`, each shortened by chance up to a half, so that
/// agents which lost the same hub do not come back in step.
#[derive(Clone, Debug)]
pub struct Pause {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Pause {
    /// Begins with `first`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The next pause; `chance` is anything.
    pub fn next(&mut self, chance: u64) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.longest);
        let half = u64::try_from(whole.as_millis()).unwrap_or(u64::MAX) / 2;
        whole - Duration::from_millis(chance % (half + 1))
    }

    /// It worked for so long. What breaks as soon as it works is no better than what does not.
    pub fn worked(&mut self, lasted: Duration) {
        if lasted >= self.longest {
            self.reset();
        }
    }

    /// It works, or is worth a try: the next pause is the first again.
    pub const fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_never_vanish() {
        let (first, longest) = (Duration::from_millis(200), Duration::from_secs(5));
        let mut pause = Pause::new(first, longest);
        let mut whole = first;
        for chance in [0, 1, 99, 100, 101, u64::MAX, 7, 1 << 40] {
            let next = pause.next(chance);
            assert!(next <= whole && next * 2 >= whole, "{next:?} of {whole:?}");
            whole = (whole * 2).min(longest);
        }
        assert_eq!(pause.next(0), longest);
        pause.reset();
        assert_eq!(pause.next(0), first);
        pause.worked(longest / 2);
        assert_eq!(pause.next(0), first * 2);
        pause.worked(longest);
        assert_eq!(pause.next(0), first);
    }
}
