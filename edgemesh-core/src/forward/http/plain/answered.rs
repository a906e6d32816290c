//! Reads the head of a Backend's answer, and writes it down as its client will see it.

use std::mem::MaybeUninit;

use edgemesh_proto::message::Answer;
use http::Method;
use httparse::{Header, ParserConfig, Response, Status};

use crate::forward::http::plain::asked::digits;
use crate::forward::http::plain::chunks::Chunks;
use crate::forward::http::plain::fields::{date, field, line};
use crate::forward::http::plain::passing::Passing;
use crate::forward::http::serve::MAX_HEADERS;

/// Longest head, in bytes: what hyper takes from Backends.
const LONGEST: usize = 8 * 1024 + 4096 * 100;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    /// As its client will see it, but for its end.
    pub(super) head: Vec<u8>,
    /// What is still to come.
    pub(super) body: Passing,
    /// Its Backend will take another request.
    pub(super) keeps: bool,
    /// How long it wants to be left alone, in its own words.
    pub(super) retry_after: Option<Vec<u8>>,
}

/// What the bytes that a Backend has said so far are.
#[derive(Debug)]
pub(super) enum Said {
    /// An answer; its head has so many bytes.
    Answer(Box<Answered>, usize),
    /// An interim answer of so many bytes: the answer is still to come.
    Interim(usize),
    /// Part of a head.
    Part,
    /// No answer that could be told from others.
    Malformed,
}

/// Reads what a Backend said to a request of `method`.
pub(super) fn read(said: &[u8], method: &Method) -> Said {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_HEADERS];
    let mut response = Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        said,
        &mut headers,
    );
    match (parsed, response.code) {
        (Ok(Status::Partial), _) if said.len() < LONGEST => Said::Part,
        // Nobody has asked for it to become something else.
        (Ok(Status::Complete(length)), Some(100 | 102..=199)) => Said::Interim(length),
        (Ok(Status::Complete(length)), Some(status)) if status >= 200 => {
            let answer = passed(&response, status, method, length);
            answer.map_or(Said::Malformed, |answer| Said::Answer(answer, length))
        }
        (Ok(_) | Err(_), _) => Said::Malformed,
    }
}

fn passed(
    response: &Response<'_, '_>,
    status: u16,
    method: &Method,
    length: usize,
) -> Option<Box<Answered>> {
    let mut out = begun(http::StatusCode::from_u16(status).ok()?, response.reason, length);
    let mut seen = Seen::default();
    let between: Vec<&[u8]> = named_by_connection(response.headers, &mut seen);
    for header in response.headers.iter() {
        if !between.iter().any(|name| name.eq_ignore_ascii_case(header.name.as_bytes())) {
            seen.field(header, &mut out)?;
        }
    }
    let old = response.version == Some(0);
    if seen.chunked && old {
        return None; // RFC 9112 §6.3: HTTP/1.0 knows no chunks
    }
    let body = seen.framed(status, method, &mut out);
    let keeps =
        !matches!(body, Passing::UntilItsEnd) && if old { seen.keeps } else { !seen.closes };
    Some(Box::new(Answered { status, head: out, body, keeps, retry_after: seen.retry_after }))
}

/// What another node answers, as its client will see it; `exact` = the length of its body, where all
/// of it is here. `None` = that is no answer.
pub(super) fn of_message(
    answer: &Answer,
    method: &Method,
    exact: Option<u64>,
) -> Option<Box<Answered>> {
    let status = http::StatusCode::from_u16(answer.status).ok()?;
    if status.is_informational() {
        return None; // nobody has asked for it to become something else
    }
    let length = answer.headers.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
    let mut out = begun(status, status.canonical_reason(), length);
    let mut seen = Seen::default();
    for field in &answer.headers {
        let header = line(field)?;
        // How it was framed there is nothing to us.
        if !header.name.eq_ignore_ascii_case("transfer-encoding") {
            seen.field(&header, &mut out)?;
        }
    }
    seen.length = seen.length.or(exact);
    let body = seen.framed(answer.status, method, &mut out);
    let (status, retry_after) = (answer.status, seen.retry_after);
    Some(Box::new(Answered { status, head: out, body, keeps: false, retry_after }))
}

/// The first line of a head whose fields have about so many bytes.
fn begun(status: http::StatusCode, reason: Option<&str>, fields: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(fields + 128);
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason.unwrap_or_default(), "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    out
}

/// The names of fields that `Connection` says are between neighbours.
fn named_by_connection<'h>(headers: &[Header<'h>], seen: &mut Seen) -> Vec<&'h [u8]> {
    let connection = headers.iter().filter(|h| h.name.eq_ignore_ascii_case("connection"));
    let mut named = Vec::new();
    for word in connection.flat_map(|header| header.value.split(|byte| *byte == b',')) {
        let word = word.trim_ascii();
        match () {
            () if word.eq_ignore_ascii_case(b"close") => seen.closes = true,
            () if word.eq_ignore_ascii_case(b"keep-alive") => seen.keeps = true,
            () if is_never_between(word) => {}
            () => named.push(word),
        }
    }
    named
}

fn is_never_between(name: &[u8]) -> bool {
    use crate::forward::http::head::NEVER_BETWEEN_NEIGHBOURS;
    // What frames the answer is read before it is left out.
    let framing = name.eq_ignore_ascii_case(b"transfer-encoding");
    framing || NEVER_BETWEEN_NEIGHBOURS.iter().any(|n| name.eq_ignore_ascii_case(n.as_bytes()))
}

/// What the fields of a head have said so far.
#[derive(Default)]
struct Seen {
    length: Option<u64>,
    chunked: bool,
    dated: bool,
    closes: bool,
    keeps: bool,
    retry_after: Option<Vec<u8>>,
}

impl Seen {
    /// Passes a field on, or not; `None` = nobody can tell where the answer ends.
    fn field(&mut self, header: &Header<'_>, out: &mut Vec<u8>) -> Option<()> {
        let (name, value) = (header.name, header.value);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            2 if is("te") => return Some(()),
            4 if is("date") => self.dated = true,
            7 if is("upgrade") => return Some(()),
            10 if is("connection") || is("keep-alive") => return Some(()),
            11 if is("retry-after") => self.retry_after = Some(value.to_vec()),
            14 if is("content-length") => {
                let length = digits(value)?;
                let same = self.length.replace(length).is_none_or(|before| before == length);
                return same.then_some(()); // written once, at the end
            }
            16 if is("proxy-connection") => return Some(()),
            17 if is("transfer-encoding") => {
                let first = !std::mem::replace(&mut self.chunked, true);
                return (first && value.eq_ignore_ascii_case(b"chunked")).then_some(());
            }
            18 if is("proxy-authenticate") => return Some(()),
            19 if is("proxy-authorization") => return Some(()),
            _ => {}
        }
        field(out, name.as_bytes(), value);
        Some(())
    }

    /// Says how the body is framed, and when it was made.
    fn framed(&self, status: u16, method: &Method, out: &mut Vec<u8>) -> Passing {
        let bodiless = *method == Method::HEAD || matches!(status, 204 | 304);
        // RFC 9112 §6.3: chunked overrules a length.
        let body = match (bodiless, self.chunked, self.length) {
            (true, ..) => Passing::Length(0),
            (false, true, _) => Passing::Chunked(Chunks::default()),
            (false, false, Some(length)) => Passing::Length(length),
            (false, false, None) => Passing::UntilItsEnd,
        };
        if let Some(length) = self.length.filter(|_| !self.chunked && status != 204) {
            field(out, b"content-length", length.to_string().as_bytes());
        }
        if matches!(body, Passing::Chunked(_) | Passing::UntilItsEnd) {
            field(out, b"transfer-encoding", b"chunked");
        }
        if !self.dated {
            date(out);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use edgemesh_proto::message::HeaderField;

    use super::*;

    fn answer(said: &str, method: &Method) -> Option<(String, String, bool)> {
        match read(said.as_bytes(), method) {
            Said::Answer(answered, length) => {
                assert_eq!(length, said.len(), "{said}");
                let head = String::from_utf8(answered.head).unwrap();
                let (head, date) = head.split_once("date: ").unwrap_or((&head, ""));
                assert!(date.is_empty() || date.ends_with(" GMT\r\n"), "{date}");
                Some((head.to_owned(), format!("{:?}", answered.body), answered.keeps))
            }
            Said::Malformed => None,
            said => panic!("{said:?}"),
        }
    }

    #[test]
    fn answers_are_framed_once() {
        let chunks = format!("{:?}", Passing::Chunked(Chunks::default()));
        for (said, head, body, keeps) in [
            ("200 OK\r\nContent-Length: 5", "content-length: 5\r\n", "Length(5)", true),
            (
                "200 OK\r\nContent-Length: 5\r\nContent-Length: 5",
                "content-length: 5\r\n",
                "Length(5)",
                true,
            ),
            (
                "200 OK\r\nTransfer-Encoding: Chunked",
                "transfer-encoding: chunked\r\n",
                &chunks,
                true,
            ),
            (
                "200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked",
                "transfer-encoding: chunked\r\n",
                &chunks,
                true,
            ),
            ("200 OK", "transfer-encoding: chunked\r\n", "UntilItsEnd", false),
            (
                "200 OK\r\nConnection: close\r\nContent-Length: 0",
                "content-length: 0\r\n",
                "Length(0)",
                false,
            ),
            ("304 Not Modified\r\nContent-Length: 5", "content-length: 5\r\n", "Length(0)", true),
            ("204 No Content\r\nContent-Length: 5", "", "Length(0)", true),
        ] {
            let status = said.split_once("\r\n").map_or(said, |(status, _)| status);
            let want = (format!("HTTP/1.1 {status}\r\n{head}"), body.to_owned(), keeps);
            let said = format!("HTTP/1.1 {said}\r\n\r\n");
            assert_eq!(answer(&said, &Method::GET), Some(want), "{said}");
        }
        let (_, body, _) =
            answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &Method::HEAD).unwrap();
        assert_eq!(body, "Length(0)");
    }

    #[test]
    fn who_speaks_an_old_version_is_asked_once() {
        let said = |more: &str| format!("HTTP/1.0 200 OK\r\nContent-Length: 5{more}\r\n\r\n");
        for (more, want) in [("", false), ("\r\nConnection: keep-alive", true)] {
            let (head, _, keeps) = answer(&said(more), &Method::GET).unwrap();
            assert_eq!(keeps, want, "{more}");
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        }
    }

    #[test]
    fn what_is_between_neighbours_stays_behind() {
        let said = "HTTP/1.1 200 OK\r\nConnection: X-Private, Set-Cookie, transfer-encoding\r\nX-Private: 1\r\n\
                    Set-Cookie: a=1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\nProxy-Authenticate: x\r\nTE: x\r\n\
                    Content-Length: 0\r\n\r\n";
        let (head, ..) = answer(said, &Method::GET).unwrap();
        assert_eq!(head, "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\ncontent-length: 0\r\n");
    }

    /// What another node says that was answered, with a body of `exact` bytes that came along.
    fn answer_told(
        status: u16,
        fields: &[(&'static str, &'static str)],
        exact: Option<u64>,
    ) -> Option<(String, String)> {
        let field = |(name, value): &(&'static str, &'static str)| HeaderField {
            name: name.as_bytes().into(),
            value: value.as_bytes().into(),
        };
        let answer = Answer { status, headers: fields.iter().map(field).collect() };
        let answered = of_message(&answer, &Method::GET, exact)?;
        let head = String::from_utf8(answered.head).unwrap();
        let (head, _) = head.split_once("date: ").unwrap_or((&head, ""));
        Some((head.to_owned(), format!("{:?}", answered.body)))
    }

    #[test]
    fn what_another_node_answers_is_framed_here() {
        for (fields, exact, head, body) in [
            (&[("x", "1")][..], Some(5), "x: 1\r\ncontent-length: 5\r\n", "Length(5)"),
            (&[("x", "1")], None, "x: 1\r\ntransfer-encoding: chunked\r\n", "UntilItsEnd"),
            (&[("content-length", "7")], None, "content-length: 7\r\n", "Length(7)"),
            // A body is as long as its head says, or broken.
            (&[("content-length", "7")], Some(5), "content-length: 7\r\n", "Length(7)"),
            (
                &[("transfer-encoding", "gzip"), ("connection", "x"), ("upgrade", "h2c")],
                Some(0),
                "content-length: 0\r\n",
                "Length(0)",
            ),
        ] {
            let want = (format!("HTTP/1.1 200 OK\r\n{head}"), body.to_owned());
            assert_eq!(answer_told(200, fields, exact), Some(want), "{fields:?}");
        }
        for (status, fields) in [
            (101, &[][..]),
            (99, &[]),
            (1000, &[]),
            (200, &[("x", "1\r\nset-cookie: a=b")]),
            (200, &[("x", "1\n")]),
            (200, &[("x: y\r\nz", "1")]),
            (200, &[("", "1")]),
            (200, &[("content-length", "5"), ("content-length", "6")]),
            (200, &[("content-length", "5, 5")]),
        ] {
            assert_eq!(answer_told(status, fields, Some(5)), None, "{status} {fields:?}");
        }
    }

    #[test]
    fn nobody_guesses_where_an_answer_ends() {
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: -5\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            let said = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            assert_eq!(answer(&said, &Method::GET), None, "{fields}");
        }
        let old = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(answer(old, &Method::GET), None);
        // Nobody has asked for another protocol.
        let switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n";
        assert_eq!(answer(switched, &Method::GET), None);
        assert!(matches!(
            read(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP", &Method::GET),
            Said::Interim(28)
        ));
    }
}
