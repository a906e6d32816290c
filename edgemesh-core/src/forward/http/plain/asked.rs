//! Reads the head of a request and writes it down as its Backend will see it, in one go: where that
//! takes more than leaving out what is between neighbours and saying who called, it is not ours.

use std::mem::MaybeUninit;

use http::{HeaderValue, Method, Uri};
use httparse::{Header, ParserConfig, Request, Status};

use crate::forward::http::call::Named;
use crate::forward::http::check::{MAX_TARGET, is_host};
use crate::forward::http::head::Ids;
use crate::forward::http::plain::fields::{end, field};
use crate::forward::http::serve::{MAX_BUFFER, MAX_HEADERS};
use crate::forward::http::upstream::is_idempotent;

/// Longest body that may be in hand together with its head.
const LONGEST_BODY: usize = 16 * 1024;

/// Longest part of a head that is waited for to become whole.
const LONGEST_PART: usize = 8 * 1024;

/// A request that is whole in hand.
#[derive(Debug)]
pub(super) struct Asked {
    /// As it is sent to a Backend: its head, and its body.
    pub(super) sent: Vec<u8>,
    /// What its account wants to know.
    pub(super) named: Named,
    /// Bytes of it that came from the client, and those of its body among them.
    pub(super) came: usize,
    pub(super) body: usize,
    /// The client wants no more than its answer.
    pub(super) closes: bool,
}

/// What the bytes that a client has said so far are.
#[derive(Debug)]
pub(super) enum Said {
    /// A request that can be passed on as it is.
    Plain(Box<Asked>),
    /// Part of a head.
    Part,
    /// Something else, or a mistake: hyper's.
    Other,
}

impl Asked {
    /// Whether there is no harm in asking twice.
    pub(super) fn is_harmless(&self) -> bool {
        is_idempotent(&self.named.method)
    }

    pub(super) fn is_head(&self) -> bool {
        self.named.method == Method::HEAD
    }
}

/// Reads what a client said; `caller` = its address, as text.
pub(super) fn read(said: &[u8], caller: &str) -> Said {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
    let mut request = Request::new(&mut []);
    let parsed =
        ParserConfig::default().parse_request_with_uninit_headers(&mut request, said, &mut headers);
    match parsed {
        Ok(Status::Complete(length)) if length <= MAX_BUFFER => {
            passed(&request, caller, &said[length..], length).map_or(Said::Other, Said::Plain)
        }
        Ok(Status::Partial) if said.len() < LONGEST_PART => Said::Part,
        Ok(_) | Err(_) => Said::Other,
    }
}

/// The request as it is passed on; `None` = that takes more than this.
fn passed(
    request: &Request<'_, '_>,
    caller: &str,
    rest: &[u8],
    length: usize,
) -> Option<Box<Asked>> {
    let (name, target) = (request.method?, request.path?);
    let method = known(name)?;
    if request.version != Some(1) || target.len() > MAX_TARGET || !is_origin_form(target) {
        return None;
    }
    let mut out = Vec::with_capacity(length + rest.len().min(LONGEST_BODY) + 192);
    for part in [name, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    let mut seen = Seen::default();
    for header in request.headers.iter() {
        seen.field(header, &mut out)?;
    }
    let host = seen.host?;
    let ids = Ids::new();
    let id = seen.id.unwrap_or_else(|| {
        field(&mut out, b"x-request-id", &ids.request());
        HeaderValue::from_bytes(&ids.request()).unwrap_or(HeaderValue::from_static(""))
    });
    if !seen.has_trace {
        field(&mut out, b"traceparent", &ids.trace());
    }
    introduce(&mut out, seen.forwarded_for, caller);
    end(&mut out, false);
    let body = seen.length.unwrap_or_default();
    if body > LONGEST_BODY {
        return None;
    }
    out.extend_from_slice(rest.get(..body)?);
    let uri = Uri::try_from(target).ok()?;
    let named = Named { method, uri, host, id };
    Some(Box::new(Asked { sent: out, named, came: length + body, body, closes: seen.closes }))
}

/// Says who called, after those who said so before (RFC 9110 §5.3: several lines would be one list).
fn introduce(out: &mut Vec<u8>, before: Option<&[u8]>, caller: &str) {
    match before {
        None => field(out, b"x-forwarded-for", caller.as_bytes()),
        Some(before) => {
            field(out, b"x-forwarded-for", &[before, b", ", caller.as_bytes()].concat());
        }
    }
}

/// What the fields of a head have said so far.
#[derive(Default)]
struct Seen<'h> {
    host: Option<HeaderValue>,
    id: Option<HeaderValue>,
    has_trace: bool,
    forwarded_for: Option<&'h [u8]>,
    length: Option<usize>,
    closes: bool,
}

impl<'h> Seen<'h> {
    /// Passes a field on, or not; `None` = more than that is due.
    fn field(&mut self, header: &Header<'h>, out: &mut Vec<u8>) -> Option<()> {
        let (name, value) = (header.name, header.value);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        // By length first: most fields are none of these.
        match name.len() {
            2 if is("te") => return None,
            4 if is("host") => {
                let host = HeaderValue::from_bytes(value).ok().filter(is_host)?;
                once(&mut self.host, host)?;
            }
            6 if is("expect") => return None,
            7 if is("upgrade") => return None,
            10 if is("connection") => {
                // Its other words name fields that end here.
                match () {
                    () if value.eq_ignore_ascii_case(b"close") => self.closes = true,
                    () if value.eq_ignore_ascii_case(b"keep-alive") => {}
                    () => return None,
                }
                return Some(());
            }
            10 if is("keep-alive") => return None,
            11 if is("traceparent") => self.has_trace = true,
            12 if is("content-type") && value.starts_with(b"application/grpc") => return None,
            12 if is("x-request-id") => once(&mut self.id, HeaderValue::from_bytes(value).ok()?)?,
            14 if is("content-length") => once(&mut self.length, digits(value)?)?,
            15 if is("x-forwarded-for") => {
                if !value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t')) {
                    return None;
                }
                return once(&mut self.forwarded_for, value); // with the caller behind it
            }
            16 if is("proxy-connection") => return None,
            17 if is("transfer-encoding") => return None,
            18 if is("proxy-authenticate") => return None,
            19 if is("proxy-authorization") => return None,
            _ => {}
        }
        field(out, name.as_bytes(), value);
        Some(())
    }
}

fn once<T>(place: &mut Option<T>, value: T) -> Option<()> {
    place.replace(value).is_none().then_some(())
}

/// A length of digits alone (RFC 9110 §8.6).
pub(super) fn digits<N: std::str::FromStr>(value: &[u8]) -> Option<N> {
    let text = std::str::from_utf8(value).ok()?;
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// A path and perhaps a query (RFC 9112 §3.2.1), without what a URI would lose.
fn is_origin_form(target: &str) -> bool {
    target.starts_with('/') && !target.contains('#')
}

fn known(method: &str) -> Option<Method> {
    Some(match method {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        "POST" => Method::POST,
        "PUT" => Method::PUT,
        "PATCH" => Method::PATCH,
        "DELETE" => Method::DELETE,
        "OPTIONS" => Method::OPTIONS,
        _ => return None,
    })
}
