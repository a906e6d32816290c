//! Latencies of one load, and the line that tells them.

use std::io::{self, Write};
use std::time::Duration;

/// What a load saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    micros: Vec<u32>,
    errors: u64,
}

impl Seen {
    pub(crate) fn call(&mut self, took: Duration) {
        self.micros.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) const fn error(&mut self) {
        self.errors += 1;
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.micros.extend(other.micros);
        self.errors += other.errors;
    }

    pub(crate) fn print(mut self) -> io::Result<()> {
        self.micros.sort_unstable();
        let at = |share: f64| {
            let last = self.micros.len().saturating_sub(1);
            self.micros.get((last as f64 * share).round() as usize).copied()
        };
        let line = serde_json::json!({
            "calls": self.micros.len(),
            "errors": self.errors,
            "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "max": at(1.0),
        });
        writeln!(io::stdout(), "{line}")
    }
}
