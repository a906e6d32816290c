//! Decides what follows when the guarded child has ended.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Restarts within a minute, after which the guard gives up: whoever started it (systemd, the
/// kubelet) has longer back-offs and shows the failure to people.
pub const RESTARTS_A_MINUTE: usize = 5;
/// Wait before the first restart; doubles with each restart within a minute.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const MINUTE: Duration = Duration::from_secs(60);
/// What Rust programs exit with after a panic of the main thread.
const PANICKED: u8 = 101;

/// How the child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
}

/// What the child has told the guard before it ended, and what it was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Life {
    /// The jumps are, or may be, its own.
    pub(super) captures: bool,
    /// It came up.
    pub(super) ready: bool,
    /// It was asked to stop.
    pub(super) stopping: bool,
}

/// What the guard does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// End with this code.
    Exit(u8),
    /// Start it again after this long.
    Restart(Duration),
}

/// The restarts of the last minute.
#[derive(Default)]
pub(super) struct Restarts(VecDeque<Instant>);

impl Ended {
    /// The exit code that a shell would show.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => signal.saturating_add(128),
        }
    }
}

/// Whether the jumps must be removed for the child: it captured, and did not end in order.
pub(super) fn must_clean(ended: Ended, life: Life) -> bool {
    life.captures && ended != Ended::Exited(0)
}

impl Restarts {
    /// An orderly end is passed on, and so is a failure to come up, which would only fail again:
    /// restarts are for what ran and broke.
    pub(super) fn next(&mut self, ended: Ended, life: Life, now: Instant) -> Next {
        let broke = match ended {
            Ended::Exited(0) => false,
            Ended::Exited(PANICKED) | Ended::Killed(_) => life.ready || life.captures,
            Ended::Exited(_) => life.ready,
        };
        while self.0.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            self.0.pop_front();
        }
        if !broke || life.stopping || self.0.len() >= RESTARTS_A_MINUTE {
            return Next::Exit(ended.code());
        }
        let doublings = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0.push_back(now);
        Next::Restart(FIRST_BACKOFF * 2_u32.saturating_pow(doublings))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a starting point; the rest is reckoned from it")]
mod tests {
    use super::*;

    const STARTING: Life = Life { captures: false, ready: false, stopping: false };
    const UP: Life = Life { captures: true, ready: true, stopping: false };
    const STOPPING: Life = Life { stopping: true, ..UP };
    const HALF: Life = Life { captures: true, ..STARTING };
    const AGAIN: Next = Next::Restart(FIRST_BACKOFF);

    #[test]
    fn each_end_has_its_consequence() {
        use Ended::{Exited, Killed};
        let cases = [
            (Exited(0), UP, Next::Exit(0), false),
            (Exited(0), STARTING, Next::Exit(0), false),
            (Exited(0), STOPPING, Next::Exit(0), false),
            (Exited(1), STARTING, Next::Exit(1), false),
            (Exited(2), STARTING, Next::Exit(2), false),
            (Exited(101), STARTING, Next::Exit(101), false),
            (Killed(9), STARTING, Next::Exit(137), false),
            (Exited(1), HALF, Next::Exit(1), true),
            (Killed(9), HALF, AGAIN, true),
            (Exited(101), HALF, AGAIN, true),
            (Exited(1), UP, AGAIN, true),
            (Exited(101), UP, AGAIN, true),
            (Killed(11), UP, AGAIN, true),
            (Killed(15), STOPPING, Next::Exit(143), true),
            (Exited(1), STOPPING, Next::Exit(1), true),
        ];
        for (ended, life, next, clean) in cases {
            assert_eq!(
                Restarts::default().next(ended, life, Instant::now()),
                next,
                "{ended:?} {life:?}"
            );
            assert_eq!(must_clean(ended, life), clean, "{ended:?} {life:?}");
        }
    }

    #[test]
    fn restarts_slow_down_and_end() {
        let start = Instant::now();
        let mut restarts = Restarts::default();
        let killed = Ended::Killed(9);
        for expected in [100, 200, 400, 800, 1600] {
            let want = Next::Restart(Duration::from_millis(expected));
            assert_eq!(restarts.next(killed, UP, start), want);
        }
        assert_eq!(restarts.next(killed, UP, start + MINUTE / 2), Next::Exit(137));
        assert_eq!(restarts.next(killed, UP, start + MINUTE), AGAIN, "a quiet minute forgives");
    }
}
