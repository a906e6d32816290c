//! A Backend that asks to be left alone: `Retry-After` beside 503 and 429, and gRPC's pushback.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::io::now;
use crate::plan::Hop;

/// Milliseconds until the next try; a negative number forbids it (gRFC A6).
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Heeds what an answer, if there is one, says of the next call. Returns whether this one may be
/// tried elsewhere.
pub(super) fn heed<B>(hop: &mut Hop, answer: Option<&Response<B>>, grpc: bool) -> bool {
    let wish = answer.map_or(Wish::Unsaid, |answer| {
        of_head(answer.status().as_u16(), answer.headers(), grpc, SystemTime::now)
    });
    grant(hop, wish);
    wish != Wish::NoRetry
}

/// Heeds `Retry-After` beside the status of a plain answer.
pub(super) fn heed_field(hop: &mut Hop, status: u16, retry_after: Option<&[u8]>) {
    let value = retry_after.and_then(|value| HeaderValue::from_bytes(value).ok());
    let headers = value.into_iter().map(|value| (RETRY_AFTER, value)).collect();
    grant(hop, of_head(status, &headers, false, SystemTime::now));
}

/// Heeds what the trailers of a gRPC call say.
pub(super) fn heed_trailers(hop: &mut Hop, trailers: &HeaderMap) {
    grant(hop, of_trailers(trailers));
}

fn grant(hop: &mut Hop, wish: Wish) {
    match wish {
        Wish::Rest(rest) => hop.rest(rest, now()),
        Wish::Unsaid | Wish::NoRetry => {}
    }
}

/// What a Backend says of the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Nothing.
    Unsaid,
    /// It wants to be left alone for so long.
    Rest(Duration),
    /// The call is not to be tried again, here or elsewhere.
    NoRetry,
}

/// What the head of an answer says (RFC 9110 §10.2.3). `today` is what a date is counted from.
fn of_head(status: u16, headers: &HeaderMap, grpc: bool, today: fn() -> SystemTime) -> Wish {
    match status {
        _ if grpc => of_trailers(headers),
        429 | 503 => headers.get(RETRY_AFTER).map_or(Wish::Unsaid, |value| {
            let text = value.to_str().unwrap_or_default().trim();
            let seconds = text.parse().ok().map(Duration::from_secs);
            let date = || httpdate::parse_http_date(text).ok()?.duration_since(today()).ok();
            seconds.or_else(date).filter(|rest| !rest.is_zero()).map_or(Wish::Unsaid, Wish::Rest)
        }),
        _ => Wish::Unsaid,
    }
}

/// What gRPC's trailers say, or an answer that is nothing but trailers.
fn of_trailers(trailers: &HeaderMap) -> Wish {
    let Some(pushback) = trailers.get(GRPC_PUSHBACK) else { return Wish::Unsaid };
    // gRFC A6: what is no number forbids as a negative one does.
    match pushback.to_str().ok().and_then(|text| text.parse::<i64>().ok()).map(u64::try_from) {
        Some(Ok(0)) => Wish::Unsaid,
        Some(Ok(millis)) => Wish::Rest(Duration::from_millis(millis)),
        Some(Err(_)) | None => Wish::NoRetry,
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn wishes() {
        let rest = |seconds| Wish::Rest(Duration::from_secs(seconds));
        // A minute before the date of RFC 9110's example.
        let today = || UNIX_EPOCH + Duration::from_secs(784_111_777 - 60);
        let after = "retry-after";
        let pushback = "grpc-retry-pushback-ms";
        for (status, name, value, grpc, want) in [
            (503, after, "7", false, rest(7)),
            (429, after, " 120 ", false, rest(120)),
            (503, after, "Sun, 06 Nov 1994 08:49:37 GMT", false, rest(60)),
            (503, after, "Sun, 06 Nov 1994 08:40:37 GMT", false, Wish::Unsaid),
            (503, after, "0", false, Wish::Unsaid),
            (503, after, "-1", false, Wish::Unsaid),
            (503, after, "soon", false, Wish::Unsaid),
            (503, after, "99999999999999999999", false, Wish::Unsaid),
            (200, after, "7", false, Wish::Unsaid),
            (301, after, "7", false, Wish::Unsaid),
            (503, pushback, "1500", false, Wish::Unsaid),
            (200, pushback, "1500", true, Wish::Rest(Duration::from_millis(1500))),
            (200, pushback, "0", true, Wish::Unsaid),
            (200, pushback, "-1", true, Wish::NoRetry),
            (200, pushback, "later", true, Wish::NoRetry),
            (200, after, "7", true, Wish::Unsaid),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            assert_eq!(of_head(status, &headers, grpc, today), want, "{status} {name}: {value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_wish_or_none(bytes in vec(any::<u8>(), 0..40), status in 100u16..600) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            for name in ["retry-after", "grpc-retry-pushback-ms"] {
                for grpc in [false, true] {
                    let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.clone())]);
                    let wish = of_head(status, &headers, grpc, || UNIX_EPOCH);
                    prop_assert!(wish != Wish::Rest(Duration::ZERO));
                    prop_assert!(grpc || wish != Wish::NoRetry);
                }
            }
        }

        #[test]
        fn numbers_mean_themselves(seconds in 1..u64::MAX, millis in 1..i64::MAX) {
            let headers = |name: &str, value: String| {
                HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())])
            };
            let rest = of_head(503, &headers("retry-after", seconds.to_string()), false, || UNIX_EPOCH);
            prop_assert_eq!(rest, Wish::Rest(Duration::from_secs(seconds)));
            let rest = of_trailers(&headers("grpc-retry-pushback-ms", millis.to_string()));
            prop_assert_eq!(rest, Wish::Rest(Duration::from_millis(millis.unsigned_abs())));
        }
    }
}
