//! Reads the texts of properties and resource maps: numbers, times, names, with what is wrong in words.

use std::num::NonZeroU32;
use std::time::Duration;

use edgemesh_proto::record::{LimitBy, NodeName, RateLimit};

/// Looks a key up.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// Longest time-out.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// Largest body that a Rule may take.
const MAX_BODY: u64 = 1024 * 1024 * 1024;

/// `qps` and `burst`: calls a second, and how many at once (as many as a second's where not said).
pub(super) fn limit(get: Lookup<'_>) -> Result<Option<RateLimit>, String> {
    let number = |key: &str| -> Result<Option<NonZeroU32>, String> {
        let Some(text) = get(key) else { return Ok(None) };
        let number = text
            .parse()
            .map_err(|_| format!("{key}: `{text}` is no whole number from 1 to {}", u32::MAX))?;
        Ok(Some(number))
    };
    match (number("qps")?, number("burst")?) {
        (None, None) => Ok(None),
        (Some(qps), burst) => {
            Ok(Some(RateLimit { qps, burst: burst.unwrap_or(qps), by: LimitBy::Service }))
        }
        (None, Some(_)) => Err("burst: means nothing without qps".into()),
    }
}

/// `key`, a port.
pub(super) fn port(get: Lookup<'_>, key: &str) -> Result<Option<u16>, String> {
    let Some(text) = get(key) else { return Ok(None) };
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{key}: `{text}` is no port: 1 to 65535")),
        Ok(port) => Ok(Some(port)),
    }
}

/// `node_name`, a node.
pub(super) fn node(get: Lookup<'_>) -> Option<NodeName> {
    get("node_name").filter(|name| !name.is_empty()).map(|name| NodeName(name.into()))
}

/// `key`, whether something is so.
pub(super) fn yes(get: Lookup<'_>, key: &str, usual: bool) -> Result<bool, String> {
    match get(key) {
        None => Ok(usual),
        Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(text) => Err(format!("{key}: `{text}` is neither true nor false")),
    }
}

/// `timeout`: `5s`, `500ms`, `2m`, or whole seconds.
pub(super) fn timeout(get: Lookup<'_>) -> Result<Option<Duration>, String> {
    let Some(text) = get("timeout") else { return Ok(None) };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1000,
        "ms" => 1,
        "m" => 60_000,
        _ => 0,
    };
    let time = digits.parse::<u64>().ok().map(|n| Duration::from_millis(n.saturating_mul(unit)));
    match time {
        Some(time) if !time.is_zero() && time <= MAX_TIMEOUT => Ok(Some(time)),
        Some(_) | None => {
            Err(format!("timeout: `{text}` is no time from 1ms to 1h, such as 500ms, 10s or 2m"))
        }
    }
}

/// `max_body`, in bytes.
pub(super) fn max_body(get: Lookup<'_>) -> Result<Option<u64>, String> {
    let Some(text) = get("max_body") else { return Ok(None) };
    match text.parse() {
        Ok(bytes) if bytes <= MAX_BODY => Ok(Some(bytes)),
        Ok(_) | Err(_) => Err(format!("max_body: `{text}` is no number of bytes up to {MAX_BODY}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, want) in [
            ("5", Some(5000)),
            ("5s", Some(5000)),
            ("250ms", Some(250)),
            ("2m", Some(120_000)),
            ("0", None),
            ("2h", None),
            ("5 s", None),
            ("-1", None),
            ("3601", None),
            ("18446744073709551615m", None),
        ] {
            let got = timeout(&|_| Some(text)).ok().flatten();
            assert_eq!(got.map(|time| time.as_millis()), want, "{text}");
        }
    }

    #[test]
    fn limits() {
        let of = |qps, burst| limit(&|key| if key == "qps" { qps } else { burst });
        assert_eq!(of(None, None), Ok(None));
        let limit = of(Some("5"), None).unwrap().unwrap();
        assert_eq!((limit.qps.get(), limit.burst.get()), (5, 5));
        assert!(of(Some("0"), None).is_err() && of(None, Some("3")).is_err());
    }
}
