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

/// Most of a body that is sent together with its head.
const MOST_TOGETHER: usize = 16 * 1024;

/// Longest part of a head that is waited for to become whole.
const LONGEST_PART: usize = 8 * 1024;

/// A request whose head is in hand.
#[derive(Debug)]
pub(super) struct Asked {
    /// As it is sent to a Backend: its head, and what of its body came with that.
    pub(super) sent: Vec<u8>,
    /// What its account wants to know.
    pub(super) named: Named,
    /// Bytes from the client that this stands for, and those of its body among them.
    pub(super) came: usize,
    pub(super) body: usize,
    /// Bytes of its body that are to follow.
    pub(super) later: u64,
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
    /// Whether asking twice does no harm by its method.
    pub(super) fn is_idempotent(&self) -> bool {
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
    let (method, uri) = named(name, target).filter(|_| request.version == Some(1))?;
    let mut out = begun(name, target, length + rest.len().min(MOST_TOGETHER) + 192);
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
    let whole = seen.length.unwrap_or_default();
    let body = rest.len().min(MOST_TOGETHER).min(usize::try_from(whole).unwrap_or(usize::MAX));
    out.extend_from_slice(&rest[..body]);
    let named = Named { method, uri, host, id };
    let (came, later) = (length + body, whole - body as u64);
    Some(Box::new(Asked { sent: out, named, came, body, later, closes: seen.closes }))
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
pub(super) struct Seen<'h> {
    pub(super) host: Option<HeaderValue>,
    pub(super) id: Option<HeaderValue>,
    has_trace: bool,
    pub(super) forwarded_for: Option<&'h [u8]>,
    pub(super) length: Option<u64>,
    closes: bool,
}

impl<'h> Seen<'h> {
    /// Passes a field on, or not; `None` = more than that is due.
    pub(super) fn field(&mut self, header: &Header<'h>, out: &mut Vec<u8>) -> Option<()> {
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

/// What is to be done, and of what: a path and perhaps a query (RFC 9112 §3.2.1), without what a URI
/// would lose.
pub(super) fn named(method: &str, target: &str) -> Option<(Method, Uri)> {
    let method = known(method)?;
    let is_path = target.starts_with('/') && !target.contains('#') && target.len() <= MAX_TARGET;
    Some((method, Uri::try_from(target).ok().filter(|_| is_path)?))
}

/// The first line of a head that will have about so many bytes.
pub(super) fn begun(method: &str, target: &str, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length);
    for part in [method, " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    out
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

#[cfg(test)]
mod tests {
    use httparse::EMPTY_HEADER;
    use proptest::prelude::*;

    use super::*;

    /// What is said of the head that is tried, between its first line and its end.
    fn said(line: &str, fields: &str, body: &str) -> Said {
        read(format!("{line}\r\n{fields}\r\n{body}").as_bytes(), "10.0.0.7")
    }

    #[test]
    fn a_plain_request_is_passed_on_as_it_came() {
        let fields = "Host: a.b\r\nConnection: close\r\nContent-length: 5\r\nX-Request-ID: mine\r\n\
                      traceparent: t\r\nX-Forwarded-For: 10.9.9.9\r\nAccept:  */*  \r\n";
        let Said::Plain(asked) = said("POST /p?q=1 HTTP/1.1", fields, "helloGET /next") else {
            panic!("it is plain");
        };
        let sent = String::from_utf8(asked.sent).unwrap();
        assert_eq!(
            sent,
            "POST /p?q=1 HTTP/1.1\r\nHost: a.b\r\nContent-length: 5\r\nX-Request-ID: mine\r\n\
             traceparent: t\r\nAccept: */*\r\nx-forwarded-for: 10.9.9.9, 10.0.0.7\r\n\r\nhello"
        );
        assert_eq!((asked.body, asked.later, asked.closes), (5, 0, true));
        assert_eq!(asked.came, "POST /p?q=1 HTTP/1.1\r\n".len() + fields.len() + 2 + 5);
        let Named { method, uri, host, id } = asked.named;
        assert_eq!((method, uri.to_string()), (Method::POST, "/p?q=1".to_owned()));
        assert_eq!((host, id), ("a.b".parse().unwrap(), "mine".parse().unwrap()));
    }

    #[test]
    fn a_body_may_follow_its_head() {
        for (length, came, together) in
            [(9, 4, 4), (MOST_TOGETHER + 9, MOST_TOGETHER + 5, MOST_TOGETHER)]
        {
            let fields = format!("Host: a\r\nContent-Length: {length}\r\n");
            let Said::Plain(asked) = said("PUT / HTTP/1.1", &fields, &"x".repeat(came)) else {
                panic!("it is plain");
            };
            assert_eq!((asked.body, asked.later), (together, (length - together) as u64));
            assert!(asked.sent.ends_with(&[&b"\r\n\r\n"[..], &b"x".repeat(together)].concat()));
        }
    }

    #[test]
    fn who_says_nothing_of_itself_is_introduced() {
        let Said::Plain(asked) = said("GET / HTTP/1.1", "Host: a\r\n", "") else {
            panic!("it is plain");
        };
        let sent = String::from_utf8(asked.sent).unwrap();
        let id = asked.named.id.to_str().unwrap();
        assert!(
            sent.contains(&format!("\r\nx-request-id: {id}\r\ntraceparent: 00-{id}-")),
            "{sent}"
        );
        assert!(sent.ends_with("\r\nx-forwarded-for: 10.0.0.7\r\n\r\n"), "{sent}");
        assert!(!asked.closes);
    }

    /// Whatever two readers could understand in two ways, and whatever wants more than to be passed
    /// on, is hyper's to judge.
    #[test]
    fn all_else_is_left_to_hyper() {
        let get = "GET / HTTP/1.1";
        for (line, fields, body) in [
            (get, "", ""),
            (get, "Host: a\r\nHost: a\r\n", ""),
            (get, "Host: a@b\r\n", ""),
            ("GET / HTTP/1.0", "Host: a\r\n", ""),
            ("GET http://a/ HTTP/1.1", "Host: a\r\n", ""),
            ("GET /#x HTTP/1.1", "Host: a\r\n", ""),
            ("OPTIONS * HTTP/1.1", "Host: a\r\n", ""),
            ("CONNECT a:1 HTTP/1.1", "Host: a\r\n", ""),
            ("TRACE / HTTP/1.1", "Host: a\r\n", ""),
            (get, "Host : a\r\n", ""),
            (get, "Host: a\r\n folded: b\r\n", ""),
            (get, "Host: a\r\nConnection: x-mine\r\nX-Mine: 1\r\n", ""),
            (get, "Host: a\r\nConnection: keep-alive, te\r\n", ""),
            (get, "Host: a\r\nKeep-Alive: 5\r\n", ""),
            (get, "Host: a\r\nTE: trailers\r\n", ""),
            (get, "Host: a\r\nUpgrade: websocket\r\n", ""),
            (get, "Host: a\r\nExpect: 100-continue\r\n", ""),
            (get, "Host: a\r\nProxy-Authorization: x\r\n", ""),
            (get, "Host: a\r\nContent-Type: application/grpc+proto\r\n", ""),
            (get, "Host: a\r\nX-Forwarded-For: b\r\nX-Forwarded-For: c\r\n", ""),
            (get, "Host: a\r\nX-Request-Id: b\r\nX-Request-Id: c\r\n", ""),
            ("POST / HTTP/1.1", "Host: a\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("POST / HTTP/1.1", "Host: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n", "hello"),
            ("POST / HTTP/1.1", "Host: a\r\nContent-Length: +5\r\n", "hello"),
            ("POST / HTTP/1.1", "Host: a\r\nContent-Length: 5, 5\r\n", "hello"),
            ("POST / HTTP/1.1", "Host: a\r\nContent-Length: \r\n", "hello"),
            ("POST / HTTP/1.1", "Host: a\r\nContent-Length: 99999999999999999999\r\n", ""),
        ] {
            let said = said(line, fields, body);
            assert!(matches!(said, Said::Other), "{line} {fields:?}: {said:?}");
        }
        assert!(matches!(read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ""), Said::Other));
    }

    #[test]
    fn a_part_is_waited_for_unless_it_is_long() {
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for length in 1..whole.len() {
            assert!(matches!(read(&whole[..length], ""), Said::Part), "{length}");
        }
        let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(LONGEST_PART));
        assert!(matches!(read(long.as_bytes(), ""), Said::Other));
    }

    /// A request with a byte changed, left out or put in anywhere, which may still be one.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let whole = b"POST /p?q HTTP/1.1\r\nHost: a.b\r\nConnection: keep-alive\r\nX-Y: z\r\n\
                      Content-Length: 5\r\n\r\nhello";
        let bytes =
            prop_oneof![Just(b'\r'), Just(b'\n'), Just(b':'), Just(b' '), Just(0), any::<u8>()];
        let damage = (0..whole.len(), 0..3, bytes);
        proptest::collection::vec(damage, 0..4).prop_map(|all| {
            let mut said = whole.to_vec();
            for (at, how, byte) in all {
                let at = at.min(said.len() - 1);
                match how {
                    0 => said[at] = byte,
                    1 => said.insert(at, byte),
                    _ => drop(said.remove(at)),
                }
            }
            said
        })
    }

    proptest! {
        /// What is passed on is one request to whoever reads it next, and ends where ours does.
        #[test]
        fn what_is_plain_is_plain_to_everybody(said in damaged()) {
            let Said::Plain(asked) = read(&said, "10.0.0.7") else { return Ok(()) };
            let mut headers = [EMPTY_HEADER; MAX_HEADERS];
            let mut next = Request::new(&mut headers);
            let Ok(Status::Complete(length)) = next.parse(&asked.sent) else {
                return Err(TestCaseError::fail("it is no request"));
            };
            let head = &asked.sent[..length];
            let lines = head.split(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\r")).count();
            prop_assert_eq!(lines, head.iter().filter(|byte| b"\r\n".contains(byte)).count() / 2);
            let of = |name: &str| next.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name)).count();
            prop_assert_eq!((of("host"), of("connection"), of("transfer-encoding")), (1, 0, 0));
            let lengths: Vec<u64> =
                next.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("content-length")).filter_map(|h| digits(h.value)).collect();
            prop_assert_eq!(lengths.first().copied().unwrap_or(0), asked.body as u64 + asked.later);
            prop_assert_eq!((lengths.len() <= 1, asked.sent.len()), (true, length + asked.body));
        }
    }
}
