//! The small grammars inside manifests: names, addresses, durations, points in time.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use crate::manifests::field::{Fault, Field, brief};

/// Longest duration that a manifest may ask for.
const MAX_DURATION: Duration = Duration::from_secs(24 * 3600);
/// Longest DNS label (RFC 1123).
const MAX_LABEL: usize = 63;
/// Longest name of a Kubernetes object.
const MAX_SUBDOMAIN: usize = 253;

/// A DNS label: `hello-2`.
pub(super) fn label(field: &Field<'_>) -> Result<Box<str>, Fault> {
    let text = field.text()?;
    if is_label(text) {
        return Ok(text.into());
    }
    Err(field.fault(format!(
        "`{}` is no DNS label; use at most {MAX_LABEL} of a-z, 0-9 and -, with a letter or digit at both ends",
        brief(text)
    )))
}

/// DNS labels with dots between them: `edge-1.site.example`.
pub(super) fn subdomain(field: &Field<'_>) -> Result<Box<str>, Fault> {
    subdomain_of(field, field.text()?)
}

/// The same, of a text that is a part of the field's.
pub(super) fn subdomain_of(field: &Field<'_>, text: &str) -> Result<Box<str>, Fault> {
    if is_subdomain(text) {
        return Ok(text.into());
    }
    Err(field.fault(format!(
        "`{}` is no DNS name; use at most {MAX_SUBDOMAIN} of a-z, 0-9, - and ., with a letter or digit at both ends of each part",
        brief(text)
    )))
}

/// One address. IPv4 written as IPv6 becomes IPv4, which is what sockets report.
pub(super) fn address(field: &Field<'_>) -> Result<IpAddr, Fault> {
    let text = field.text()?;
    let Ok(address) = text.parse::<IpAddr>() else {
        return Err(field.fault(format!("`{}` is no IP address", brief(text))));
    };
    if address.is_unspecified() || address.is_multicast() {
        return Err(field.fault(format!("`{address}` is not the address of one machine")));
    }
    Ok(address.to_canonical())
}

/// A port number.
pub(super) fn port(field: &Field<'_>) -> Result<NonZeroU16, Fault> {
    let number = field.int(1..=u16::MAX.into())?;
    u16::try_from(number)
        .ok()
        .and_then(NonZeroU16::new)
        .ok_or_else(|| field.wrong("a port number from 1 to 65535"))
}

/// A duration: one or more of whole `h`, `m`, `s`, `ms`, as in `1h`, `500ms`, `1m30s`. Never zero.
pub(super) fn duration(field: &Field<'_>) -> Result<Duration, Fault> {
    const EXPECTED: &str = "a duration such as 500ms, 10s, 5m or 1h";
    if field.is_int() {
        return Err(field.fault("has no unit; write a duration such as 500ms, 10s, 5m or 1h"));
    }
    let text = field.text()?;
    let Some(duration) = span(text) else {
        return Err(field.wrong(EXPECTED));
    };
    if duration.is_zero() || duration > MAX_DURATION {
        return Err(field.fault(format!("`{}` is out of range; use 1ms to 24h", brief(text))));
    }
    Ok(duration)
}

/// Seconds since 1970 of an RFC 3339 time, or 0 where there is none.
pub(super) fn created(metadata: &Field<'_>) -> Result<i64, Fault> {
    let seconds = metadata.maybe("creationTimestamp", |field| {
        let seconds = rfc3339(field.text()?);
        seconds.ok_or_else(|| field.wrong("a time such as 2026-03-01T12:00:00Z"))
    })?;
    Ok(seconds.unwrap_or(0))
}

/// Milliseconds since 1970: the number, or an RFC 3339 time.
pub(super) fn moment(field: &Field<'_>) -> Result<i64, Fault> {
    const EXPECTED: &str = "milliseconds since 1970, or a time such as 2026-03-01T12:00:00Z";
    let moment = match field.whole_number() {
        Some(number) => i64::try_from(number).ok(),
        None => field.text().ok().and_then(rfc3339).map(|seconds| seconds.saturating_mul(1000)),
    };
    moment.filter(|moment| *moment >= 0).ok_or_else(|| field.wrong(EXPECTED))
}

/// Rejects a key that nobody reads, with the one that was probably meant.
pub(super) fn known(map: &Field<'_>, keys: &[&str]) -> Result<(), Fault> {
    for (key, field) in map.entries()? {
        if keys.contains(&key) {
            continue;
        }
        let hint = match nearest(key, keys.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known here: {}", keys.join(", ")),
        };
        return Err(field.fault(format!("unknown key `{}`; {hint}", brief(key))));
    }
    Ok(())
}

/// The known word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    const NEAR: usize = 2;
    let word: Vec<char> = word.chars().take(MAX_LABEL).collect();
    known
        .map(|other| (distance(&word, other), other))
        .filter(|(far, other)| *far <= NEAR && *far < other.len())
        .min_by_key(|(far, _)| *far)
        .map(|(_, other)| other)
}

/// Whether this is a DNS label.
pub(crate) fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_part(text)
}

/// Kubernetes bounds the whole name only, not its parts.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ends = !text.is_empty() && !text.starts_with('-') && !text.ends_with('-');
    ends && text.bytes().all(inner)
}

fn span(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..unit] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1000,
            "ms" => 1,
            _ => return None,
        };
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

/// `2026-03-01T12:00:00Z`, with a fraction (dropped) or an offset if need be.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hour, minute, second] = numbers(clock, ':', [2, 2, 2])?;
    let in_range = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !in_range || fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let offset = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign, offset) => {
            let [hours, minutes] = numbers(offset, ':', [2, 2])?;
            let seconds = hours * 3600 + minutes * 60;
            if sign == "-" { -seconds } else { seconds }
        }
    };
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset)
}

fn numbers<const N: usize>(text: &str, between: char, widths: [usize; N]) -> Option<[i64; N]> {
    let mut numbers = [0; N];
    let mut parts = text.split(between);
    for (number, width) in numbers.iter_mut().zip(widths) {
        let part = parts.next().filter(|part| part.len() == width)?;
        if !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *number = part.parse().ok()?;
    }
    parts.next().is_none().then_some(numbers)
}

/// Days from 1970-01-01 to a date: years begin in March, so that the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Levenshtein's distance in characters.
fn distance(left: &[char], right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, l) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, r) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (text, want) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:34:56Z", Some(951_827_696)),
            ("2026-03-01T12:00:00.123Z", Some(1_772_366_400)),
            ("2026-03-01T14:00:00+02:00", Some(1_772_366_400)),
            ("2026-03-01T12:00:00", None),
            ("2026-13-01T12:00:00Z", None),
            ("2026-3-1T12:00:00Z", None),
            ("2026-03-01T12:00:00é", None),
            ("", None),
        ] {
            assert_eq!(rfc3339(text), want, "{text}");
        }
    }

    #[test]
    fn durations_are_read() {
        for (text, want) in [
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("5m", Some(300_000)),
            ("1h", Some(3_600_000)),
            ("1m30s", Some(90_000)),
            ("1.5s", None),
            ("10", None),
            ("s", None),
            ("10 s", None),
            ("10d", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("é", None),
            ("", None),
        ] {
            assert_eq!(span(text), want.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn near_words_are_found() {
        let known = ["roundRobin", "random", "leastRequest", "on"];
        for (word, want) in [
            ("roundrobin", Some("roundRobin")),
            ("leastRequests", Some("leastRequest")),
            ("hash", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), want, "{word}");
        }
    }
}
