//! Heads of requests and answers: what a proxy must take out, and what ours puts in.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{
    CONNECTION, Entry, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};

use crate::io::unique_id;

/// Names one call in the logs of everyone that it passes.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// What `Connection` cannot take away, since it is for everybody on the way (RFC 9110 §7.6.1):
/// who was meant, what was said, and who called.
pub(super) const NEVER_BETWEEN_NEIGHBOURS: &[&str] = &[
    "host",
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "set-cookie",
    "x-forwarded-for",
    "x-request-id",
    "traceparent",
];

/// Host and port that a request names: its target's authority before its Host header (RFC 9112
/// §3.2.2). Without either, an empty host.
pub fn named<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> (&'r str, Option<u16>) {
    if let Some(authority) = uri.authority() {
        return (authority.host(), authority.port_u16());
    }
    headers.get(HOST).map_or(("", None), split_host)
}

/// Host and port of a Host header.
pub(super) fn split_host(host: &HeaderValue) -> (&str, Option<u16>) {
    let host = host.to_str().unwrap_or("");
    match host.rsplit_once(':') {
        Some((name, port)) if !name.starts_with('[') || name.ends_with(']') => {
            // What is no port number matches no port of any Service.
            (name, Some(port.parse().unwrap_or(0)))
        }
        _ => (host, None),
    }
}

/// An authority without what may be a password in front of it.
pub(super) fn without_userinfo(authority: &Authority) -> &str {
    authority.as_str().rsplit('@').next().unwrap_or_default()
}

/// What a request asks its connection to become.
pub(super) fn upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let protocol = headers.get(UPGRADE)?;
    let asked = version == Version::HTTP_11 && lists(headers, &CONNECTION, "upgrade");
    // h2c is between two neighbours; the mesh speaks HTTP/2 with prior knowledge only.
    (asked && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
}

fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Takes out what is between two neighbours only (RFC 9110 §7.6.1), the names that `Connection`
/// lists among it. `Transfer-Encoding` goes too: hyper frames each side by itself, so that
/// exactly one framing leaves.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap, upgrade: Option<HeaderValue>) {
    let trailers = lists(headers, &TE, "trailers"); // `Connection` names it, and it is said again
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name: &HeaderName| !NEVER_BETWEEN_NEIGHBOURS.contains(&name.as_str()))
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHORIZATION,
        PROXY_AUTHENTICATE,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol);
    }
}

/// Puts in who called (`None`: this very process) and what the call is named, where the client did
/// not say.
pub(super) fn introduce(headers: &mut HeaderMap, client: Option<IpAddr>) {
    let ids = Ids::new();
    if let Entry::Vacant(vacant) = headers.entry(REQUEST_ID) {
        vacant.insert(ascii(&ids.request()));
    }
    if let Entry::Vacant(vacant) = headers.entry(TRACEPARENT) {
        vacant.insert(ascii(&ids.trace()));
    }
    let Some(client) = client else { return };
    // Several lines are one list (RFC 9110 §5.3).
    let before: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
    let value = match before.is_empty() {
        true => text(format_args!("{client}")),
        false => text(format_args!("{}, {client}", before.join(", "))),
    };
    headers.insert(FORWARDED_FOR, value);
}

/// What a call is named, where its client did not say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ids(u128);

impl Ids {
    /// Those of a new call.
    pub(super) fn new() -> Self {
        Self(unique_id())
    }

    /// For `x-request-id`.
    pub(super) fn request(self) -> [u8; 32] {
        hex(self.0)
    }

    /// For `traceparent` (W3C Trace Context §3.2.2: version, trace id, parent id, flags; 0 = not
    /// sampled).
    pub(super) fn trace(self) -> [u8; 55] {
        let parent = (self.0 >> 64) as u64 ^ self.0 as u64 | 1;
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.request());
        text[36..52].copy_from_slice(&hex::<32>(parent.into())[16..]);
        text
    }
}

/// Written out by hand, since formatting takes longer than all else that a head needs.
fn hex<const DIGITS: usize>(number: u128) -> [u8; DIGITS] {
    std::array::from_fn(|at| {
        b"0123456789abcdef"[(number >> (4 * (DIGITS - 1 - at))) as usize & 0xf]
    })
}

fn ascii(text: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn text(arguments: std::fmt::Arguments<'_>) -> HeaderValue {
    let mut text = String::with_capacity(64);
    // Writing to a String cannot fail.
    let _ = text.write_fmt(arguments);
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn named(request: &Request<()>) -> (&str, Option<u16>) {
        super::named(request.uri(), request.headers())
    }

    fn request(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn hosts() {
        for (host, want) in [
            ("hello.default", ("hello.default", None)),
            ("hello.default:8080", ("hello.default", Some(8080))),
            ("[::1]:80", ("[::1]", Some(80))),
            ("[fd96::1]", ("[fd96::1]", None)),
            ("[fd96::1:2]", ("[fd96::1:2]", None)),
            ("", ("", None)),
        ] {
            assert_eq!(named(&request(&[("host", host)])), want, "{host}");
        }
        let absolute = Request::builder().uri("http://a.b:1/").header("host", "c.d");
        assert_eq!(named(&absolute.body(()).unwrap()), ("a.b", Some(1)));
        assert_eq!(without_userinfo(&Authority::from_static("me:secret@b:1")), "b:1");
    }

    #[test]
    fn neighbours_headers_stay_behind() {
        let mut request = request(&[
            ("host", "a.b"),
            ("connection", "x-private, Host, close, Authorization, TE"),
            ("authorization", "me"),
            ("connection", "upgrade"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ]);
        let wanted = upgrade(request.headers(), Version::HTTP_11);
        assert_eq!(wanted.as_ref().unwrap(), "websocket");
        strip_hop_by_hop(request.headers_mut(), None);
        let mut left: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "authorization", "host", "te"]);
        assert_eq!(request.headers()[TE], "trailers");
        strip_hop_by_hop(request.headers_mut(), wanted);
        assert_eq!(request.headers()[UPGRADE], "websocket");
    }

    #[test]
    fn calls_are_introduced_once() {
        let mut headers = HeaderMap::new();
        introduce(&mut headers, "10.0.0.1".parse().ok());
        let (id, trace) = (headers[REQUEST_ID].clone(), headers[TRACEPARENT].clone());
        assert_eq!(trace.len(), 55);
        let parent = u64::from_str_radix(&trace.to_str().unwrap()[36..52], 16).unwrap();
        let number = u128::from_str_radix(id.to_str().unwrap(), 16).unwrap();
        assert_eq!(trace, format!("00-{number:032x}-{parent:016x}-00"));
        assert_eq!(Ids(0x1f).request().as_slice(), format!("{:032x}", 0x1f).as_bytes());
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1");
        introduce(&mut headers, "fd00::1".parse().ok());
        assert_eq!((&headers[REQUEST_ID], &headers[TRACEPARENT]), (&id, &trace));
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1, fd00::1");
        introduce(&mut headers, None);
        assert_eq!(headers[FORWARDED_FOR], "10.0.0.1, fd00::1");
    }
}
