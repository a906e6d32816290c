//! Heads of HTTP, and Refusals, as what Messages of a Link say, and back.
//!
//! HTTP is parsed once at each end and never in between: a head crosses as it is, field by field,
//! without those of one connection; the body follows the Message as it comes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use edgemesh_proto::message::{Answer, HeaderField, Refused, Request as Asked, Target};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    request, response,
};
use uuid::Uuid;

use crate::io::unique_id;
use crate::refusal::Refusal;

/// Labels by which a node is refused, not its call: no Link of its leads anywhere any more.
const OF_THE_LINK: [&str; 2] = ["removed", "expired"];

/// A Message holds no head.
#[derive(Debug, thiserror::Error)]
#[error("{0} cannot stand in a head of HTTP")]
pub struct BadHead(&'static str);

/// An id for a Message, without asking the kernel for chance: one is made for every request.
pub fn message_id() -> Uuid {
    uuid::Builder::from_random_bytes(unique_id().to_be_bytes()).into_uuid()
}

/// Milliseconds since 1970, for the eyes of people.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The head of a request to `target`; with `upgrade`, bytes may follow its answer.
pub fn asking(target: Target, head: &request::Parts, upgrade: bool) -> Asked {
    let uri = &head.uri;
    Asked {
        target,
        method: head.method.as_str().to_owned(),
        scheme: uri.scheme_str().unwrap_or_default().to_owned(),
        authority: uri.authority().map_or("", Authority::as_str).to_owned(),
        path: uri.path_and_query().map_or("", PathAndQuery::as_str).to_owned(),
        headers: of_map(&head.headers),
        http2: head.version == Version::HTTP_2,
        upgrade,
    }
}

/// What was asked: the head as the other side's client sent it, for whom, and whether bytes may
/// follow the answer.
///
/// # Errors
/// Says what is no part of a head.
pub fn asked(asked: Asked) -> Result<(Request<()>, Target, bool), BadHead> {
    let mut request = Request::new(());
    *request.method_mut() =
        Method::from_bytes(asked.method.as_bytes()).map_err(|_| BadHead("the method"))?;
    *request.uri_mut() = uri(asked.scheme, asked.authority, asked.path)?;
    *request.version_mut() = if asked.http2 { Version::HTTP_2 } else { Version::HTTP_11 };
    *request.headers_mut() = headers(asked.headers)?;
    Ok((request, asked.target, asked.upgrade))
}

/// The head of an answer.
pub fn answering(head: &response::Parts) -> Answer {
    Answer { status: head.status.as_u16(), headers: of_map(&head.headers) }
}

/// What was answered.
///
/// # Errors
/// Says what is no part of a head.
pub fn answered(answer: Answer) -> Result<Response<()>, BadHead> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(answer.status).map_err(|_| BadHead("the status"))?;
    *response.headers_mut() = headers(answer.headers)?;
    Ok(response)
}

/// What the other side is told of a Refusal.
pub fn refusing(refusal: Refusal) -> Refused {
    refusing_since(refusal, refusal.row().text)
}

/// The same in other words.
pub fn refusing_since(refusal: Refusal, why: &str) -> Refused {
    let row = refusal.row();
    let wait = refusal.retry_after().unwrap_or_default();
    Refused {
        label: row.label.to_owned(),
        text: why.to_owned(),
        // Rounded up, so that nobody comes back too early.
        retry_after_ms: u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX),
    }
}

/// Why the other side refused. What this version does not know is no answer that it understands.
pub fn refused(refused: &Refused) -> Refusal {
    if OF_THE_LINK.contains(&refused.label.as_str()) {
        tracing::debug!(label = refused.label, "another node refuses this one: {}", refused.text);
        return Refusal::NoPath;
    }
    let wait = Duration::from_millis(refused.retry_after_ms);
    Refusal::from_label(&refused.label, wait).unwrap_or(Refusal::BackendProtocol)
}

/// Fields of a head, names before values, all of them in one allocation.
pub fn fields<'h, I>(lines: impl Fn() -> I) -> Vec<HeaderField>
where
    I: Iterator<Item = (&'h [u8], &'h [u8])>,
{
    let length = lines().map(|(name, value)| name.len() + value.len()).sum();
    let mut all = BytesMut::with_capacity(length);
    let field = |(name, value): (&[u8], &[u8])| {
        all.extend_from_slice(name);
        all.make_ascii_lowercase();
        let name = all.split().freeze();
        all.extend_from_slice(value);
        HeaderField { name, value: all.split().freeze() }
    };
    lines().map(field).collect()
}

fn of_map(headers: &HeaderMap) -> Vec<HeaderField> {
    fields(|| headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())))
}

fn headers(fields: Vec<HeaderField>) -> Result<HeaderMap, BadHead> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for HeaderField { name, value } in fields {
        let name = HeaderName::from_bytes(&name).map_err(|_| BadHead("the name of a field"))?;
        let value =
            HeaderValue::from_maybe_shared(value).map_err(|_| BadHead("the value of a field"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn uri(scheme: String, authority: String, path: String) -> Result<Uri, BadHead> {
    let bad = |_| BadHead("the target");
    let mut parts = http::uri::Parts::default();
    if !path.is_empty() {
        let path = PathAndQuery::from_maybe_shared(Bytes::from(path)).map_err(bad)?;
        parts.path_and_query = Some(path);
    }
    if !authority.is_empty() {
        let authority = Authority::from_maybe_shared(Bytes::from(authority)).map_err(bad)?;
        parts.authority = Some(authority);
    }
    if !scheme.is_empty() {
        parts.scheme = Some(Scheme::try_from(scheme.as_str()).map_err(bad)?);
    }
    Uri::from_parts(parts).map_err(|_| BadHead("the target"))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use edgemesh_proto::message::Caller;
    use edgemesh_proto::record::ServiceName;

    use super::*;

    fn target() -> Target {
        Target {
            service: ServiceName::new("default", "web"),
            port: NonZeroU16::MIN,
            hostname: None,
            backend: None,
            caller: Caller::default(),
        }
    }

    #[test]
    fn heads_cross_as_they_are() {
        /// Method, target, version, fields.
        type Row<'a> = (&'a str, &'a str, Version, &'a [(&'a str, &'a [u8])]);
        let rows: &[Row<'_>] = &[
            (
                "GET",
                "/",
                Version::HTTP_11,
                &[("host", b"web.default"), ("x", b"1"), ("x", b"\xff")],
            ),
            ("POST", "/a%20b?c=d&e", Version::HTTP_11, &[]),
            ("OPTIONS", "*", Version::HTTP_11, &[("host", b"a")]),
            ("CONNECT", "far.example:443", Version::HTTP_11, &[("host", b"far.example:443")]),
            ("GET", "http://web.default:81/x?y", Version::HTTP_2, &[("x-empty", b"")]),
            ("BREW", "http://web.default/", Version::HTTP_11, &[("set-cookie", b"a=b")]),
        ];
        for (method, uri, version, fields) in rows {
            let mut request = Request::builder().method(*method).uri(*uri).version(*version);
            for (name, value) in *fields {
                request = request.header(*name, *value);
            }
            let head = request.body(()).unwrap().into_parts().0;
            let said = asking(target(), &head, *method == "CONNECT");
            let (got, to, upgrade) = asked(said).unwrap();
            assert_eq!((to, upgrade), (target(), *method == "CONNECT"));
            let got = got.into_parts().0;
            assert_eq!(got.method, head.method);
            assert_eq!((got.uri, got.version), (head.uri, head.version), "{uri}");
            assert_eq!(got.headers, head.headers, "{uri}");
        }
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::IM_A_TEAPOT;
        response.headers_mut().append("retry-after", HeaderValue::from_static("7"));
        let head = response.into_parts().0;
        let got = answered(answering(&head)).unwrap().into_parts().0;
        assert_eq!((got.status, got.headers), (head.status, head.headers));
    }

    #[test]
    fn what_is_no_head_is_told() {
        let field = |name: &'static [u8], value: &'static [u8]| HeaderField {
            name: Bytes::from_static(name),
            value: Bytes::from_static(value),
        };
        let good = || {
            let head = Request::get("/").body(()).unwrap().into_parts().0;
            asking(target(), &head, false)
        };
        let rows: [(Asked, &str); 6] = [
            (Asked { method: "G T".into(), ..good() }, "the method"),
            (Asked { path: "/ x".into(), ..good() }, "the target"),
            (Asked { authority: "a b".into(), ..good() }, "the target"),
            (Asked { scheme: "http".into(), ..good() }, "the target"),
            (Asked { headers: vec![field(b"a b", b"")], ..good() }, "the name of a field"),
            (Asked { headers: vec![field(b"a", b"\r\n")], ..good() }, "the value of a field"),
        ];
        for (said, what) in rows {
            assert_eq!(asked(said).unwrap_err().0, what);
        }
        assert!(answered(Answer { status: 1, headers: Vec::new() }).is_err());
    }

    #[test]
    fn refusals_cross_with_their_time() {
        for label in Refusal::LABELS {
            let wait = Duration::from_micros(1_500_100);
            let refusal = Refusal::from_label(label, wait).unwrap();
            let got = refused(&refusing(refusal));
            assert_eq!(got.index(), refusal.index());
            let rounded = refusal.retry_after().map(|_| Duration::from_millis(1501));
            assert_eq!(got.retry_after(), rounded, "{label}");
        }
        for (label, want) in [
            ("ofTomorrow", Refusal::BackendProtocol),
            ("removed", Refusal::NoPath),
            ("expired", Refusal::NoPath),
        ] {
            let other = Refused { label: label.into(), text: String::new(), retry_after_ms: 0 };
            assert_eq!(refused(&other), want);
        }
    }
}
