//! How long a Backend takes to answer: an average that forgets slowly and believes peaks at once.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Time in which a latency counts for 1/e; Finagle's default.
const DECAY: Duration = Duration::from_secs(10);

/// Exponentially weighted moving average with memory for peaks, after Finagle's `PeakEwma`: a
/// latency above the average replaces it, one below pulls it down by the time since the last.
///
/// Times are counted from a moment that all reports and questions have in common. One word: the
/// millisecond of the last report in its upper half, nanoseconds as `f32` in its lower one. 0 =
/// nobody measured yet. Milliseconds wrap after 49 days, which misjudges the first call after so
/// long a rest and nothing else.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

impl Latency {
    /// Takes a measurement in, at `age`.
    pub fn observe(&self, latency: Duration, age: Duration) {
        let nanos = (latency.as_nanos() as f32).max(1.0);
        let now = millis(age);
        let after = |before| {
            let (at, average) = split(before);
            let next = match decay(at, now) {
                _ if nanos >= average => nanos,
                // Within one millisecond the highest stands for all.
                1.0 => return None,
                kept => average * kept + nanos * (1.0 - kept),
            };
            Some(u64::from(now) << 32 | u64::from(next.to_bits()))
        };
        // Relaxed, and a lost update is only one measurement less.
        let _ = self.0.fetch_update(Relaxed, Relaxed, after);
    }

    /// Nanoseconds that an answer is expected to take at `age`; `None` = nobody measured yet.
    pub fn expected(&self, age: Duration) -> Option<f32> {
        let (at, average) = split(self.0.load(Relaxed));
        (average > 0.0).then(|| average * decay(at, millis(age)))
    }
}

fn split(word: u64) -> (u32, f32) {
    ((word >> 32) as u32, f32::from_bits(word as u32))
}

fn millis(age: Duration) -> u32 {
    age.as_millis() as u32 // wraps
}

/// What is left after the time from `at` to `now`; all of it when the report is the younger.
fn decay(at: u32, now: u32) -> f32 {
    match now.wrapping_sub(at) {
        0 | 0x8000_0000.. => 1.0,
        passed => (-(passed as f32) / DECAY.as_millis() as f32).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Reports (latency, at) in milliseconds, a question, and the expected milliseconds.
    #[test]
    fn peaks_count_at_once_and_fade() {
        type Row = (&'static [(u32, u32)], u32, Option<f32>);
        let rows: &[Row] = &[
            (&[], 0, None),
            (&[(20, 0)], 0, Some(20.0)),
            // forgotten to 1/e after ten seconds without a call
            (&[(20, 0)], 10_000, Some(20.0 / std::f32::consts::E)),
            (&[(20, 0), (90, 1)], 1, Some(90.0)),
            // a quick answer in the same millisecond does not hide a slow one
            (&[(90, 5), (1, 5)], 5, Some(90.0)),
            (&[(90, 0), (10, 10_000)], 10_000, Some(10.0 + 80.0 / std::f32::consts::E)),
            // a report that comes late is no reason to forget
            (&[(90, 5000), (10, 4000)], 5000, Some(90.0)),
        ];
        for (reports, at, want) in rows {
            let latency = Latency::default();
            for (ms, at) in *reports {
                latency.observe(MS * *ms, MS * *at);
            }
            let got = latency.expected(MS * *at).map(|nanos| nanos / 1e6);
            let close = match (got, want) {
                (Some(got), Some(want)) => (got - want).abs() < 0.01,
                (got, want) => got == *want,
            };
            assert!(close, "{reports:?} at {at}: {got:?}, wanted {want:?}");
        }
    }

    #[test]
    fn no_latency_is_still_a_measurement() {
        let latency = Latency::default();
        latency.observe(Duration::ZERO, Duration::ZERO);
        assert_eq!(latency.expected(Duration::ZERO), Some(1.0));
    }
}
