//! How heads are written: what came, line by line, and what ours adds.

use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};

use edgemesh_proto::message::HeaderField;
use http::Response;
use httparse::Header;

use crate::forward::http::Body;
use crate::forward::http::serve::MAX_HEADERS;

/// Most lines of a head that ours wrote: those of whoever sent it, and what ours adds.
pub(super) const MAX_LINES: usize = MAX_HEADERS + 3;

/// Ends a line.
const END: &[u8] = b"\r\n";

/// Writes one field.
pub(super) fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, END] {
        out.extend_from_slice(part);
    }
}

/// A field of a Message, if it can stand in a head (RFC 9110 §5.6.2 and §5.5): another node says so,
/// and it must not say more than one line.
pub(super) fn line(field: &HeaderField) -> Option<Header<'_>> {
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_value = |byte: &u8| !byte.is_ascii_control() || *byte == b'\t';
    let fits = !field.name.is_empty()
        && field.name.iter().all(is_name)
        && field.value.iter().all(is_value);
    let name = std::str::from_utf8(&field.name).ok()?;
    fits.then_some(Header { name, value: &field.value })
}

/// Writes the moment at which an answer came, for one that does not say when it was made (RFC 9110
/// §6.6.1).
pub(super) fn date(out: &mut Vec<u8>) {
    thread_local! {
        static LAST: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    LAST.with_borrow_mut(|(last, text)| {
        if *last != second {
            (*last, *text) = (second, httpdate::fmt_http_date(now));
        }
        field(out, b"date", text.as_bytes());
    });
}

/// An answer of the mesh's own, as it is sent; without its words to a HEAD.
pub(super) fn spelled(answer: &Response<Body>, to_head: bool, close: bool) -> Vec<u8> {
    let (status, words) = (answer.status(), answer.body().words());
    let mut out = Vec::with_capacity(512);
    let reason = status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).as_bytes());
    for (name, value) in answer.headers() {
        field(&mut out, name.as_str().as_bytes(), value.as_bytes());
    }
    field(&mut out, b"content-length", words.len().to_string().as_bytes());
    date(&mut out);
    end(&mut out, close);
    if !to_head {
        out.extend_from_slice(words);
    }
    out
}

/// Ends a head; `close`: the connection ends with what follows.
pub(super) fn end(out: &mut Vec<u8>, close: bool) {
    if close {
        field(out, b"connection", b"close");
    }
    out.extend_from_slice(END);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is taken for a line is one to whoever reads it.
        #[test]
        fn a_field_is_one_line_or_none(name in "[ -~\r\n\t\u{80}]{0,6}", value in "[ -~\r\n\t\0\u{7f}\u{80}]{0,6}") {
            let said = HeaderField { name: Bytes::from(name), value: Bytes::from(value) };
            let good = http::HeaderName::from_bytes(&said.name).is_ok()
                && http::HeaderValue::from_bytes(&said.value).is_ok();
            prop_assert_eq!(line(&said).is_some(), good);
        }
    }
}
