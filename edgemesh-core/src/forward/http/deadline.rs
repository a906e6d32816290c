//! When a call is over: the Policy's time-out, and what a gRPC client says with `grpc-timeout`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// More digits are malformed (gRPC over HTTP/2, "TimeoutValue").
const MAX_DIGITS: usize = 8;
/// Longest time that fits the digits in milliseconds; more is as good as none.
const MAX_MILLIS: u128 = 99_999_999;
/// Units of `grpc-timeout`, in nanoseconds.
const UNITS: &[(u8, u64)] = &[
    (b'H', 3_600_000_000_000),
    (b'M', 60_000_000_000),
    (b'S', 1_000_000_000),
    (b'm', 1_000_000),
    (b'u', 1_000),
    (b'n', 1),
];

/// The moment at which a call is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Deadline {
    pub(super) at: Instant,
    /// The client set it. A Backend that misses it may still keep what its Policy demands, so it
    /// is not to blame: else a client could have every Backend ejected.
    pub(super) by_client: bool,
}

impl Deadline {
    /// The earlier of the Policy's and the client's, for a call that began at `began`.
    pub(super) fn of(
        began: std::time::Instant,
        policy: Option<Duration>,
        client: Option<Duration>,
    ) -> Option<Self> {
        let by_client = match (policy, client) {
            (None, None) => return None,
            (Some(policy), Some(client)) => client < policy,
            (policy, _) => policy.is_none(),
        };
        let time = if by_client { client } else { policy };
        let at = Instant::from_std(began).checked_add(time?)?;
        Some(Self { at, by_client })
    }

    /// What is left of it; zero when it is over.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

/// How long a gRPC client is willing to wait. What is malformed sets no deadline: the Backend
/// reads it too, and refuses it in words of its own.
pub(super) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(&GRPC_TIMEOUT)?.as_bytes().split_last()?;
    if digits.is_empty() || digits.len() > MAX_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (_, nanos) = UNITS.iter().find(|(name, _)| name == unit)?;
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    // Eight digits of hours: 3.6e20 ns, which fits a Duration but not 64 bits.
    Some(Duration::from_nanos(*nanos).saturating_mul(u32::try_from(count).ok()?))
}

/// Tells the Backend what is left of a deadline that the client had set.
pub(super) fn pass_on(headers: &mut HeaderMap, left: Duration) {
    // Rounded up, so that what is left of a nanosecond is not no time at all.
    let millis = left.as_micros().div_ceil(1000).clamp(1, MAX_MILLIS);
    if let Ok(value) = HeaderValue::try_from(format!("{millis}m")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    #[test]
    fn timeouts_of_grpc() {
        for (text, want) in [
            ("1S", Some(Duration::from_secs(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("100000000m", None),
            ("1", None),
            ("S", None),
            ("", None),
            ("1s", None),
            ("-1S", None),
            ("+1S", None),
            ("1.5S", None),
            (" 1S", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(text));
            assert_eq!(asked(&headers), want, "{text}");
        }
        assert_eq!(asked(&HeaderMap::new()), None);
    }

    #[test]
    fn the_earlier_deadline_counts() {
        let began = crate::io::now();
        let (one, two) = (Some(Duration::from_secs(1)), Some(Duration::from_secs(2)));
        for (policy, client, want) in [
            (None, None, None),
            (one, None, Some((1, false))),
            (None, one, Some((1, true))),
            (one, two, Some((1, false))),
            (two, one, Some((1, true))),
            (one, one, Some((1, false))),
        ] {
            let deadline = Deadline::of(began, policy, client);
            let found = deadline.map(|d| (d.left(Instant::from_std(began)).as_secs(), d.by_client));
            assert_eq!(found, want, "{policy:?} {client:?}");
        }
        let far = Some(Duration::from_secs(99_999_999 * 3600));
        assert!(Deadline::of(began, None, far).is_some());
        assert_eq!(Deadline::of(began, None, Some(Duration::MAX)), None, "as good as none");
    }

    #[test]
    fn what_is_left_is_passed_on() {
        for (left, want) in [
            (Duration::from_nanos(1), "1m"),
            (Duration::from_micros(1001), "2m"),
            (Duration::from_secs(5), "5000m"),
            (Duration::ZERO, "1m"),
            (Duration::from_secs(u32::MAX.into()), "99999999m"),
        ] {
            let mut headers = HeaderMap::new();
            pass_on(&mut headers, left);
            assert_eq!(headers[GRPC_TIMEOUT], want, "{left:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_time_or_none(bytes in vec(any::<u8>(), 0..12)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let found = asked(&HeaderMap::from_iter([(GRPC_TIMEOUT, value)]));
            let is_one = (2..=9).contains(&bytes.len())
                && bytes[..bytes.len() - 1].iter().all(u8::is_ascii_digit)
                && b"HMSmun".contains(&bytes[bytes.len() - 1]);
            prop_assert_eq!(found.is_some(), is_one);
        }

        /// What is passed on is what is left, to the millisecond.
        #[test]
        fn what_is_passed_on_reads_the_same(left in 1..99_999_999u64) {
            let mut headers = HeaderMap::new();
            pass_on(&mut headers, Duration::from_millis(left));
            prop_assert_eq!(asked(&headers), Some(Duration::from_millis(left)));
        }
    }
}
