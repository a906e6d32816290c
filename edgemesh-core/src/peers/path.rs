//! Which way leads to one node: pure, so that its habits can be tested.
//!
//! A direct Link is preferred as soon as it stands. When it breaks, calls take the hub, and the
//! direct way is tried again after a pause; a Link that did not live long makes the next pause
//! longer, so that the way does not flap.

use std::time::{Duration, Instant};

use crate::peers::pause::Pause;

/// First and longest pause before a direct way that failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// A direct Link that lived this long was a good one: its end lengthens no pause.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// What is known of the direct way to one node.
#[derive(Debug)]
pub(super) struct Path {
    direct: Direct,
    pause: Pause,
    /// In words, for people.
    why: String,
    since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direct {
    /// Nobody tried yet.
    Untried,
    /// Somebody is at it.
    Trying,
    /// A Link stands.
    Stands { since: Instant },
    /// It failed, and is left alone until then.
    Failed { until: Instant },
}

/// What to do about the direct way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Try it now.
    Try,
    /// It stands, or somebody is at it already.
    Wait,
    /// It failed lately.
    Later,
}

impl Default for Path {
    fn default() -> Self {
        let pause = Pause::new(RETRY.0, RETRY.1);
        Self { direct: Direct::Untried, pause, why: "nobody asked yet".into(), since: None }
    }
}

impl Path {
    /// Whether the direct way is to be tried. After [`Ask::Try`] the caller reports
    /// [`Path::stands`] or [`Path::failed`].
    pub(super) fn ask(&mut self, now: Instant) -> Ask {
        let ask = self.ask_only(now);
        if ask == Ask::Try {
            if self.direct == Direct::Untried {
                self.says("it is being dialled", now);
            }
            self.direct = Direct::Trying;
        }
        ask
    }

    /// What [`Path::ask`] would say; changes nothing.
    pub(super) fn ask_only(&self, now: Instant) -> Ask {
        match self.direct {
            Direct::Trying | Direct::Stands { .. } => Ask::Wait,
            Direct::Failed { until } if now < until => Ask::Later,
            Direct::Untried | Direct::Failed { .. } => Ask::Try,
        }
    }

    /// A direct Link stands, whoever dialled it.
    pub(super) fn stands(&mut self, why: impl Into<String>, now: Instant) {
        self.direct = Direct::Stands { since: now };
        self.says(why, now);
    }

    /// A try failed. `true`: nobody else was luckier, such as the other node, which may have dialled us.
    pub(super) fn try_failed(&mut self, why: &str, chance: u64, now: Instant) -> bool {
        let is_news = !matches!(self.direct, Direct::Stands { .. });
        if is_news {
            self.failed(why, chance, now);
        }
        is_news
    }

    /// The direct way failed, or the Link over it ended.
    pub(super) fn failed(&mut self, why: impl Into<String>, chance: u64, now: Instant) {
        if let Direct::Stands { since } = self.direct
            && now.saturating_duration_since(since) >= STEADY_AFTER
        {
            self.pause.reset();
        }
        self.direct = Direct::Failed { until: now + self.pause.next(chance) };
        self.says(why, now);
    }

    /// The network changed, or the node dialled us: what failed may work now.
    pub(super) fn fresh(&mut self) {
        if matches!(self.direct, Direct::Failed { .. }) {
            self.direct = Direct::Untried;
            self.pause.reset();
        }
    }

    /// The reason for how it is, and since when.
    pub(super) fn why(&self) -> (&str, Option<Instant>) {
        (&self.why, self.since)
    }

    fn says(&mut self, why: impl Into<String>, now: Instant) {
        let why = why.into();
        if self.why != why {
            (self.why, self.since) = (why, Some(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::now;

    #[test]
    fn one_tries_and_a_failure_is_left_alone_for_a_while() {
        let (mut path, t0) = (Path::default(), now());
        let at = |ms| t0 + Duration::from_millis(ms);
        assert_eq!(path.ask(t0), Ask::Try);
        assert_eq!((path.ask(t0), path.why().0), (Ask::Wait, "it is being dialled"));
        path.failed("refused", 0, t0);
        assert_eq!(path.ask(at(999)), Ask::Later);
        assert_eq!(path.ask(at(1000)), Ask::Try);
        path.failed("refused", 0, at(1000));
        assert_eq!((path.ask(at(2999)), path.why()), (Ask::Later, ("refused", Some(t0))));
        path.fresh();
        assert_eq!(path.ask(at(2999)), Ask::Try, "the network changed");
        path.stands("dialled", at(3000));
        assert_eq!(path.ask(at(3000)), Ask::Wait);
    }

    #[test]
    fn a_try_that_fails_ends_no_link() {
        let (mut path, t0) = (Path::default(), now());
        assert_eq!(path.ask(t0), Ask::Try);
        path.stands("it dialled back", t0);
        assert!(!path.try_failed("refused", 0, t0));
        assert_eq!((path.ask(t0), path.why().0), (Ask::Wait, "it dialled back"));
        path.failed("the direct Link ended", 0, t0);
        assert_eq!(path.ask(t0 + RETRY.1), Ask::Try);
        assert!(path.try_failed("refused", 0, t0 + RETRY.1));
        assert_eq!((path.ask(t0 + RETRY.1), path.why().0), (Ask::Later, "refused"));
    }

    #[test]
    fn a_link_that_did_not_live_long_is_trusted_less() {
        let (mut path, mut at) = (Path::default(), now());
        for pause in [1, 2, 4, 8, 8] {
            path.stands("dialled", at);
            at += Duration::from_secs(5);
            path.failed("it broke", 0, at);
            let pause = Duration::from_secs(pause);
            assert_eq!(path.ask(at + pause - Duration::from_millis(1)), Ask::Later);
            at += pause;
            assert_eq!(path.ask(at), Ask::Try);
        }
        path.stands("dialled", at);
        at += STEADY_AFTER;
        path.failed("it broke", 0, at);
        assert_eq!(path.ask(at + Duration::from_secs(1)), Ask::Try, "after a steady one");
    }
}
