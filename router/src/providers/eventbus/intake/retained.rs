//! Which of the messages that a broker has retained are for a Rule.
//!
//! The broker sends them whenever a filter is subscribed to. If that is because of one Rule, the others
//! that the filter covers have had them.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

/// They come after they were asked for, and one soon after another. What comes later was asked for by
/// another Rule.
const WITHIN: Duration = Duration::from_secs(60);
/// Topics that are remembered. What is retained of more may come again if a Rule is added meanwhile.
const MAX_TOPICS: usize = 4096;

/// Of one Rule.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// Until when they are for it; at first they are not.
    until: Option<Instant>,
    /// Hashes of the topics of which it had one.
    had: HashSet<u64>,
    hasher: RandomState,
}

impl Retained {
    /// They come, for this Rule.
    pub(super) fn begin(&mut self, now: Instant) {
        self.had.clear();
        self.until = Some(now + WITHIN);
    }

    /// Those that did not come yet may.
    pub(super) fn resume(&mut self, now: Instant) {
        self.until = self.until.map(|_| now + WITHIN);
    }

    /// Whether it has not had the one of `topic`.
    pub(super) fn is_new(&mut self, topic: &str, now: Instant) -> bool {
        if self.until.is_none_or(|until| until < now) {
            return false;
        }
        self.until = Some(now + WITHIN);
        let hash = self.hasher.hash_one(topic);
        if self.had.len() >= MAX_TOPICS {
            return !self.had.contains(&hash);
        }
        self.had.insert(hash)
    }
}

#[cfg(test)]
mod tests {
    use edgemesh_core::io::now;

    use super::*;

    #[test]
    fn each_topic_once_after_it_was_asked_for() {
        let (t0, mut retained) = (now(), Retained::default());
        assert!(!retained.is_new("a", t0), "nobody asked");
        retained.begin(t0);
        assert!(retained.is_new("a", t0) && !retained.is_new("a", t0));
        assert!(retained.is_new("b", t0 + WITHIN), "slow, but under way");
        assert!(!retained.is_new("c", t0 + WITHIN * 3), "too late");
        retained.resume(t0 + WITHIN * 4);
        assert!(retained.is_new("c", t0 + WITHIN * 4) && !retained.is_new("a", t0 + WITHIN * 4));
        retained.begin(t0);
        assert!(retained.is_new("a", t0), "asked for again");
    }
}
