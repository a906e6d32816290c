//! What messages of one Rule leave behind: counts, the last success, what went wrong lately.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};

/// Errors of one Rule that are kept, the newest.
pub const MAX_ERRORS: usize = 32;
/// Longest text of one error, in bytes.
pub const MAX_DETAIL: usize = 1024;

/// Live state of one Rule on this node. Each field stands for itself.
#[derive(Debug, Default)]
pub struct RuleLive {
    success: AtomicU64,
    fail: AtomicU64,
    /// Milliseconds since 1970; 0 = never.
    last_success: AtomicI64,
    /// In microseconds, smoothed; 0 = not measured.
    latency: AtomicU32,
    trouble: ArcSwapOption<Trouble>,
    errors: ArcSwap<Vec<RuleError>>,
}

/// Since when messages of a Rule fail, and why the last one did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub reason: Box<str>,
    /// The first failure after the last success, in milliseconds since 1970.
    pub since: i64,
}

/// A message that was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// Milliseconds since 1970.
    pub at: i64,
    /// In words.
    pub detail: Box<str>,
}

/// What outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that were delivered.
    pub success: u64,
    /// Messages that were not.
    pub fail: u64,
    /// Failures, oldest first.
    pub errors: Vec<RuleError>,
}

impl RuleLive {
    /// Begins with what was counted before.
    pub fn counted(before: Tally) -> Self {
        let Tally { success, fail, errors } = before;
        let (success, fail) = (AtomicU64::new(success), AtomicU64::new(fail));
        Self { success, fail, errors: ArcSwap::from_pointee(errors), ..Self::default() }
    }

    /// A message was delivered within `took`; `at` = now, in milliseconds since 1970.
    pub fn delivered(&self, took: Duration, at: i64) {
        self.success.fetch_add(1, Relaxed);
        self.last_success.store(at, Relaxed);
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX).max(1);
        let before = self.latency.load(Relaxed);
        // The last eight count for two thirds. Of two at once one may be lost: it is for people.
        let smoothed = if before == 0 { micros } else { before - before / 8 + micros / 8 };
        self.latency.store(smoothed.max(1), Relaxed);
        if self.trouble.load().is_some() {
            self.trouble.store(None);
        }
    }

    /// A message was not, for no fault of who sent it.
    pub fn failed(&self, detail: &str, at: i64) {
        let detail = shortened(detail);
        let since = self.trouble.load().as_ref().map_or(at, |trouble| trouble.since);
        self.trouble.store(Some(Arc::new(Trouble { reason: detail.into(), since })));
        self.refused(detail, at);
    }

    /// A message was not, since who sent it asked for too much: the Rule is no worse for it.
    pub fn refused(&self, detail: &str, at: i64) {
        self.fail.fetch_add(1, Relaxed);
        let detail: Box<str> = shortened(detail).into();
        self.errors.rcu(|errors| {
            let kept = errors.len().min(MAX_ERRORS - 1);
            let mut errors = errors[errors.len() - kept..].to_vec();
            errors.push(RuleError { at, detail: detail.clone() });
            errors
        });
    }

    /// What was wrong says nothing of the Rule as it is now.
    pub fn changed(&self) {
        self.trouble.store(None);
    }

    /// Messages that were delivered, and that were not.
    pub fn counts(&self) -> (u64, u64) {
        (self.success.load(Relaxed), self.fail.load(Relaxed))
    }

    /// When the last one was delivered, in milliseconds since 1970.
    pub fn last_success(&self) -> Option<i64> {
        Some(self.last_success.load(Relaxed)).filter(|at| *at > 0)
    }

    /// How long a delivery takes, smoothed.
    pub fn latency(&self) -> Option<Duration> {
        let micros = self.latency.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }

    /// What is wrong, if the last message was not delivered.
    pub fn trouble(&self) -> Option<Arc<Trouble>> {
        self.trouble.load_full()
    }

    /// The newest failures, oldest first.
    pub fn errors(&self) -> Arc<Vec<RuleError>> {
        self.errors.load_full()
    }
}

fn shortened(detail: &str) -> &str {
    &detail[..detail.floor_char_boundary(MAX_DETAIL)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_lasts_until_a_success() {
        let live = RuleLive::counted(Tally { success: 5, fail: 1, errors: Vec::new() });
        live.failed("first", 100);
        live.failed("second", 200);
        assert_eq!(*live.trouble().unwrap(), Trouble { reason: "second".into(), since: 100 });
        live.refused("too often", 250);
        assert_eq!(live.trouble().unwrap().since, 100);
        live.delivered(Duration::from_millis(1), 300);
        assert_eq!((live.trouble(), live.counts()), (None, (6, 4)));
        assert_eq!((live.last_success(), live.errors().len()), (Some(300), 3));
    }

    #[test]
    fn errors_are_bounded() {
        let live = RuleLive::default();
        (0..100).for_each(|at| live.failed(&"é".repeat(MAX_DETAIL), at));
        let errors = live.errors();
        assert_eq!((errors.len(), errors[0].at, errors[31].at), (MAX_ERRORS, 68, 99));
        assert_eq!(errors[0].detail.len(), MAX_DETAIL);
    }
}
