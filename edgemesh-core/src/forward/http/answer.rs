//! What a client reads when the mesh itself answers: a Refusal in the client's own protocol.

use std::fmt::Write as _;
use std::time::Duration;

use edgemesh_proto::record::ServiceName;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};

use crate::forward::http::Body;
use crate::refusal::Refusal;

/// Header that carries the label of a Refusal.
pub(super) const REFUSAL: HeaderName = HeaderName::from_static("x-edgemesh-refusal");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// What a client without a token is asked for (RFC 6750 §3).
const CHALLENGE: &str = "Bearer realm=\"edgemesh\"";

/// Whether a request is a gRPC call, which reads its status elsewhere.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    // gRPC-Web is another protocol: it needs no trailers and reads HTTP's own status.
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The end of a gRPC answer whose time ran out in its middle.
pub(super) fn late_trailers(refusal: Refusal) -> HeaderMap {
    let row = refusal.row();
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, u16::from(row.grpc).into());
    trailers.insert(GRPC_MESSAGE, visible(&format!("edgemesh: {}", row.text)));
    trailers
}

/// The answer to a refused call of `service` (`namespace/name`, if one was found).
pub(super) fn refuse(
    refusal: Refusal,
    service: Option<&ServiceName>,
    grpc: bool,
    version: Version,
) -> Response<Body> {
    match service {
        Some(service) => {
            let text = format!("{} (Service {service})", refusal.row().text);
            refuse_saying(refusal, &text, grpc, version)
        }
        None => refuse_saying(refusal, refusal.row().text, grpc, version),
    }
}

/// The same, in other words than the table's.
pub(super) fn refuse_saying(
    refusal: Refusal,
    text: &str,
    grpc: bool,
    version: Version,
) -> Response<Body> {
    let row = refusal.row();
    let text = format!("edgemesh: {text}");
    let mut response = Response::new(Body::empty());
    *response.version_mut() = version;
    if !grpc {
        decorate(&mut response, refusal);
        let plain = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, plain);
        *response.body_mut() = Body::text(text + "\n");
        return response;
    }
    let headers = response.headers_mut();
    headers.insert(REFUSAL, HeaderValue::from_static(row.label));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, u16::from(row.grpc).into());
    headers.insert(GRPC_MESSAGE, visible(&text));
    if let Some(wait) = refusal.retry_after() {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        headers.insert(GRPC_PUSHBACK, millis.max(1).into());
    }
    response
}

/// Status and fields of an answer that says a Refusal in HTTP.
pub(super) fn decorate(response: &mut Response<Body>, refusal: Refusal) {
    *response.status_mut() = refused_status(refusal, false);
    let headers = response.headers_mut();
    headers.insert(REFUSAL, HeaderValue::from_static(refusal.row().label));
    if let Some(wait) = refusal.retry_after() {
        headers.insert(RETRY_AFTER, whole_seconds(wait).into());
    }
    if refusal == Refusal::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(CHALLENGE));
    }
}

/// The status of [`refuse`]'s answer; gRPC says in its trailers that it failed.
pub(super) fn refused_status(refusal: Refusal, grpc: bool) -> StatusCode {
    match grpc {
        true => StatusCode::OK,
        false => {
            StatusCode::from_u16(refusal.row().http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// RFC 9110 §10.2.3 counts in seconds: rounded up, so that nobody comes back too early.
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// A text as gRPC writes it: what is not plain is percent-encoded (gRPC over HTTP/2, `Status-Message`).
fn visible(text: &str) -> HeaderValue {
    let mut plain = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => plain.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(plain, "%{byte:02X}")),
        }
    }
    HeaderValue::from_str(&plain).unwrap_or_else(|_| HeaderValue::from_static("refused"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_from_its_likes() {
        for (kind, want) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_grpc(&headers), want, "{kind}");
        }
    }

    #[test]
    fn refusals_in_both_forms() {
        let limited = Refusal::RateLimited { retry_after: Duration::from_millis(1200) };
        let hello = ServiceName::new("default", "hello");
        let http = refuse(limited, Some(&hello), false, Version::HTTP_11);
        assert_eq!(http.status(), 429);
        assert_eq!(http.headers()[REFUSAL], "rateLimited");
        assert_eq!(http.headers()[RETRY_AFTER], "2");

        let grpc = refuse(limited, Some(&hello), true, Version::HTTP_2);
        assert_eq!(grpc.status(), 200);
        assert_eq!(grpc.headers()[GRPC_STATUS], "8");
        assert_eq!(grpc.headers()[GRPC_PUSHBACK], "1200");
        let message = "edgemesh: the rate limit of the Service is spent (Service default/hello)";
        assert_eq!(grpc.headers()[GRPC_MESSAGE], message);
    }
}
