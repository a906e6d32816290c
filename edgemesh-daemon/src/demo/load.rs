//! A short load on several connections at once, and what it says about latency.

use std::time::Duration;

use tokio::time::Instant;

use crate::demo::clients::Http;

/// The smallest time that at least `percent` of these, sorted, did not exceed (nearest rank).
pub(crate) fn percentile(sorted: &[u32], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    let micros = sorted.get(rank - 1)?;
    Some(Duration::from_micros((*micros).into()))
}

/// What a load measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Measured {
    /// Each good call's microseconds, sorted.
    micros: Vec<u32>,
    /// Calls that got no 200.
    pub(crate) failed: u32,
    /// How long it ran.
    ran: Duration,
}

impl Measured {
    fn new(mut micros: Vec<u32>, failed: u32, ran: Duration) -> Self {
        micros.sort_unstable();
        Self { micros, failed, ran }
    }

    pub(crate) fn calls(&self) -> usize {
        self.micros.len()
    }

    /// The smallest time that at least `percent` of the calls did not exceed (nearest rank).
    pub(crate) fn percentile(&self, percent: usize) -> Option<Duration> {
        percentile(&self.micros, percent)
    }

    /// `p50 0.12 p99 0.80 ms, 9000/s`
    pub(crate) fn text(&self) -> String {
        let millis = |percent| {
            let time = self.percentile(percent).unwrap_or_default();
            format!("{:.2}", time.as_secs_f64() * 1e3)
        };
        let rate = self.micros.len() as f64 / self.ran.as_secs_f64().max(1e-3);
        format!("p50 {} p99 {} ms, {rate:.0}/s", millis(50), millis(99))
    }
}

/// Calls on every connection, one after the other, for `length`.
pub(crate) async fn run(connections: Vec<Http>, length: Duration) -> Measured {
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for http in connections {
        tasks.spawn(one(http, begin + length));
    }
    let (mut micros, mut failed) = (Vec::new(), 0);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok((more, bad)) => {
                micros.extend(more);
                failed += bad;
            }
            Err(_) => failed += 1,
        }
    }
    Measured::new(micros, failed, begin.elapsed())
}

async fn one(mut http: Http, end: Instant) -> (Vec<u32>, u32) {
    let (mut micros, mut failed) = (Vec::new(), 0);
    while Instant::now() < end {
        let begin = Instant::now();
        match http.get().await {
            Ok(answer) if answer.status == 200 => {
                micros.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Ok(_) => failed += 1,
            Err(_) => return (micros, failed + 1), // the connection is of no more use
        }
    }
    (micros, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_ranks() {
        let one_to = |n: u32| Measured::new((1..=n).rev().collect(), 0, Duration::from_secs(1));
        let cases: &[(u32, usize, Option<u64>)] = &[
            (0, 50, None),
            (1, 50, Some(1)),
            (1, 99, Some(1)),
            (2, 50, Some(1)),
            (3, 50, Some(2)),
            (100, 50, Some(50)),
            (100, 99, Some(99)),
            (101, 99, Some(100)),
            (1000, 99, Some(990)),
            (10, 100, Some(10)),
            (10, 0, Some(1)),
        ];
        for (count, percent, want) in cases {
            let got = one_to(*count).percentile(*percent);
            assert_eq!(got, want.map(Duration::from_micros), "p{percent} of {count}");
        }
    }

    #[test]
    fn the_text_has_both_and_the_rate() {
        let measured = Measured::new(vec![1500, 250], 0, Duration::from_secs(2));
        assert_eq!(measured.text(), "p50 0.25 p99 1.50 ms, 1/s");
    }
}
