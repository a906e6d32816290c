//! Lengths of time as people write them: a whole number and `s`, `m`, `h` or `d`.

use std::time::Duration;

/// Units and their seconds, the longest first.
const UNITS: &[(char, u64)] = &[('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// Reads `90s`, `10m`, `24h`, `30d`.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let (unit, seconds) = UNITS.iter().find(|(unit, _)| text.ends_with(*unit))?;
    let number = text.strip_suffix(*unit)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None; // `+5s`, which a number may be and a time is not
    }
    let number: u64 = number.parse().ok()?;
    number.checked_mul(*seconds).map(Duration::from_secs)
}

/// Writes whole seconds in the longest unit that leaves nothing over.
pub(crate) fn text(time: Duration) -> String {
    let seconds = time.as_secs();
    let fits = |of: &&(char, u64)| seconds.is_multiple_of(of.1) && seconds > 0;
    let (unit, of) = UNITS.iter().find(fits).copied().unwrap_or(('s', 1));
    format!("{}{unit}", seconds / of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written_back() {
        for (written, seconds, back) in [
            ("0s", 0, "0s"),
            ("90s", 90, "90s"),
            ("60s", 60, "1m"),
            ("10m", 600, "10m"),
            ("24h", 86_400, "1d"),
            ("25h", 90_000, "25h"),
            ("720h", 2_592_000, "30d"),
            ("30d", 2_592_000, "30d"),
        ] {
            assert_eq!(parse(written), Some(Duration::from_secs(seconds)), "{written}");
            assert_eq!(text(Duration::from_secs(seconds)), back);
        }
        let wrong = ["", "s", "5", "5x", "-1s", "+1s", "1.5h", "ßs", "5 m", "1h30m"];
        for written in wrong.into_iter().chain(["213503982334602d", "18446744073709551616s"]) {
            assert_eq!(parse(written), None, "{written}");
        }
    }
}
