//! Plain requests that another node passes on: told by one Message, and answered by another.

use std::mem::MaybeUninit;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use edgemesh_proto::message::{Answer, HeaderField, Message, Request};
use http::{HeaderMap, HeaderValue};
use httparse::{Header, ParserConfig};

use crate::forward::across::meant;
use crate::forward::http::call::{Call, Named, Unserved};
use crate::forward::http::ending::{Ending, How};
use crate::forward::http::plain::alarm::Alarm;
use crate::forward::http::plain::answered::Answered;
use crate::forward::http::plain::asked::{Asked, Seen, begun, named};
use crate::forward::http::plain::asking::{Asking, Unanswered};
use crate::forward::http::plain::client::Elsewhere;
use crate::forward::http::plain::delivery::heed;
use crate::forward::http::plain::fields::{MAX_LINES, end, field, line};
use crate::forward::http::plain::passing::{Form, Passing};
use crate::forward::http::plain::{Plainness, Wire};
use crate::forward::http::serve::{MAX_BUFFER, MAX_HEADERS};
use crate::forward::http::upload::BoxError;
use crate::forward::http::upstream::HEAD_TIMEOUT;
use crate::forward::http::{Body, BodyError, Origin};
use crate::io::now;
use crate::link::Inbound;
use crate::plan::{Purpose, resolve};
use crate::refusal::Refusal;
use crate::snapshot::Snapshot;
use crate::tunnel::fields;

/// A request that another node passes on, and that is only to be passed on further.
#[derive(Debug)]
pub struct PlainRequest(Box<Asked>);

/// The same, once its Backend was chosen.
#[derive(Debug)]
pub struct Chosen {
    asked: Box<Asked>,
    ending: Box<Ending>,
}

impl PlainRequest {
    /// Reads what `opening` says that `request` is, with `body` behind it. `None` = that takes more
    /// than to pass it on.
    pub fn read(
        snapshot: &Snapshot,
        opening: &Message,
        request: &Request,
        body: &Inbound,
    ) -> Option<Self> {
        let found = resolve(snapshot, meant(&request.target)).ok()?;
        let like = request.target.backend.map(|backend| backend.ip());
        let is_plain = Plainness::of(snapshot, found, like) != Plainness::Not;
        let asked = read(request, &body.whole()?)?;
        (is_plain && opening.header.deadline_ms == 0).then_some(Self(asked))
    }

    /// Decides where it goes: to a Backend of this node.
    ///
    /// # Errors
    /// The Refusal.
    pub fn choose(self, origin: Arc<Origin>, snapshot: &Snapshot) -> Result<Chosen, Unserved> {
        let Self(asked) = self;
        let mut call = Call::plain(origin, &asked.named, asked.body);
        let planned = call.plan_by(snapshot, Purpose::Call, asked.head(&HeaderMap::new()));
        match planned {
            Ok(hop) => Ok(Chosen { asked, ending: Ending::plain(call, hop) }),
            Err(refusal) => Err(call.refused(refusal)),
        }
    }
}

impl Chosen {
    /// Asks its Backend.
    ///
    /// # Errors
    /// The Refusal. Whoever passed it on may try elsewhere.
    pub async fn ask(self) -> Result<(Answer, Body), Unserved> {
        let Self { asked, ending } = self;
        let (shared, at) = (ending.call.origin.shared.clone(), ending.call.began);
        let mut alarm = Alarm::new();
        alarm.set(at, HEAD_TIMEOUT);
        let asking = Asking { shared: &shared, hop: &ending.hop, asked: &asked, at };
        match asking.attempt(&mut Elsewhere, &mut alarm).await {
            Ok((backend, answered)) => Ok(tell(ending, backend, *answered)),
            Err(failure) => Err(match failure.unanswered {
                Unanswered::Refused { refusal, backends_fault } => {
                    ending.unanswered(refusal, backends_fault)
                }
                Unanswered::Gone => ending.unanswered(Refusal::BackendReset, false),
            }),
        }
    }
}

fn read(request: &Request, body: &[u8]) -> Option<Box<Asked>> {
    let Request { method: name, scheme, authority, path, headers, http2, upgrade, .. } = request;
    let is_path = scheme.is_empty() && authority.is_empty();
    let (method, uri) = named(name, path).filter(|_| is_path && !http2 && !upgrade)?;
    let length: usize = headers.iter().map(|field| field.name.len() + field.value.len() + 4).sum();
    if headers.len() > MAX_HEADERS || length > MAX_BUFFER {
        return None;
    }
    let mut out = begun(name, path, name.len() + path.len() + length + body.len() + 32);
    let mut seen = Seen::default();
    for field in headers {
        seen.field(&line(field)?, &mut out)?;
    }
    if let Some(forwarded_for) = seen.forwarded_for {
        field(&mut out, b"x-forwarded-for", forwarded_for);
    }
    end(&mut out, false);
    let host = seen.host.filter(|_| seen.length.unwrap_or_default() == body.len() as u64)?;
    out.extend_from_slice(body);
    let id = seen.id.unwrap_or(HeaderValue::from_static(""));
    let named = Named { method, uri, host, id };
    Some(Box::new(Asked { sent: out, named, came: 0, body: body.len(), later: 0, closes: false }))
}

/// What another node is told of an answer.
fn tell(mut ending: Box<Ending>, backend: Wire, answered: Answered) -> (Answer, Body) {
    heed(&mut ending, &answered);
    let Answered { status, head, body, keeps, .. } = answered;
    let answer = Answer { status, headers: without_framing(head) };
    let coming = Coming { ending, backend, passing: body, keeps, down: 0 };
    let mut stream = Stream { ahead: None, coming: Some(coming) };
    let body = match stream.take() {
        Some(Ok(bytes)) if stream.is_over() => Body::whole(bytes),
        None if stream.is_over() => Body::empty(),
        ahead => {
            stream.ahead = ahead;
            Body::plain(stream)
        }
    };
    (answer, body)
}

/// The fields of the head of an answer, but for how it is framed between neighbours.
fn without_framing(mut head: Vec<u8>) -> Vec<HeaderField> {
    end(&mut head, false);
    let mut lines = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_LINES];
    let mut response = httparse::Response::new(&mut []);
    let config = ParserConfig::default();
    // It was read before: nothing is wrong with it.
    let _ = config.parse_response_with_uninit_headers(&mut response, &head, &mut lines);
    let between = |line: &&Header<'_>| line.name.eq_ignore_ascii_case("transfer-encoding");
    fields(|| {
        let lines = response.headers.iter().filter(|line| !between(line));
        lines.map(|line| (line.name.as_bytes(), line.value))
    })
}

/// What a Backend goes on to answer. Dropped before its end, nobody waits for it any more.
#[derive(Debug)]
pub(in crate::forward::http) struct Stream {
    /// What was here with its head.
    ahead: Option<Result<Bytes, BodyError>>,
    /// `None` once it is over.
    coming: Option<Coming>,
}

/// What is still to come.
#[derive(Debug)]
struct Coming {
    ending: Box<Ending>,
    backend: Wire,
    passing: Passing,
    keeps: bool,
    down: u64,
}

impl Stream {
    /// The next bytes, never none; `None` = the end.
    pub(in crate::forward::http) fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            if let Some(ahead) = self.ahead.take().or_else(|| self.take()) {
                return Poll::Ready(Some(ahead));
            }
            let Some(coming) = &mut self.coming else { return Poll::Ready(None) };
            match ready!(coming.backend.poll_read(cx)) {
                Ok(0) if coming.passing.ends(&mut Vec::new(), Form::Bytes) => {
                    self.settle(How::Whole);
                }
                Ok(0) => return Poll::Ready(Some(Err(self.broken("it ended too early")))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(self.broken(error)))),
            }
        }
    }

    /// Whether all of it was taken.
    pub(in crate::forward::http) const fn is_over(&self) -> bool {
        self.ahead.is_none() && self.coming.is_none()
    }

    /// What was read and not taken; `None` = nothing.
    fn take(&mut self) -> Option<Result<Bytes, BodyError>> {
        let Coming { backend, passing, down, .. } = self.coming.as_mut()?;
        let mut out = Vec::new();
        let Ok(passed) = passing.pass(&mut backend.unread, &mut out, Form::Bytes) else {
            return Some(Err(self.broken("no chunk comes where one must")));
        };
        *down += passed.bytes;
        if passed.whole {
            self.settle(How::Whole);
        }
        Some(out).filter(|out| !out.is_empty()).map(|out| Ok(out.into()))
    }

    fn broken(&mut self, why: impl Into<BoxError>) -> BodyError {
        self.settle(How::Broken);
        BodyError::of_backend(why)
    }

    fn settle(&mut self, how: How) {
        let Some(Coming { ending, mut backend, keeps, down, .. }) = self.coming.take() else {
            return;
        };
        let (shared, address) = (ending.call.origin.shared.clone(), ending.hop.address());
        ending.settle(how, down);
        let may_wait = keeps && backend.unread.is_empty() && !shared.stop.is_cancelled();
        if how == How::Whole && may_wait {
            backend.rests();
            shared.pools.keep(address, backend, now());
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.settle(How::Dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use edgemesh_proto::message::{Caller, Target};
    use edgemesh_proto::record::ServiceName;

    use super::*;

    fn request(method: &str, path: &str, fields: &[(&'static str, &'static str)]) -> Request {
        let service = ServiceName::new("default", "web");
        let (port, caller) = (NonZeroU16::MIN, Caller::default());
        let field = |(name, value): &(&'static str, &'static str)| HeaderField {
            name: name.as_bytes().into(),
            value: value.as_bytes().into(),
        };
        Request {
            target: Target { service, port, hostname: None, backend: None, caller },
            method: method.into(),
            scheme: String::new(),
            authority: String::new(),
            path: path.into(),
            headers: fields.iter().map(field).collect(),
            http2: false,
            upgrade: false,
        }
    }

    #[test]
    fn a_request_is_passed_on_as_it_was_told() {
        let fields = [
            ("host", "a.b"),
            ("content-length", "5"),
            ("x-forwarded-for", "10.9.9.9, 10.0.0.7"),
            ("x-request-id", "mine"),
        ];
        let asked = read(&request("POST", "/p?q=1", &fields), b"hello").unwrap();
        assert_eq!(
            String::from_utf8(asked.sent).unwrap(),
            "POST /p?q=1 HTTP/1.1\r\nhost: a.b\r\ncontent-length: 5\r\nx-request-id: mine\r\n\
             x-forwarded-for: 10.9.9.9, 10.0.0.7\r\n\r\nhello"
        );
        assert_eq!((asked.body, asked.later, asked.named.id.to_str().unwrap()), (5, 0, "mine"));
    }

    #[test]
    fn all_else_takes_more() {
        let host = ("host", "a");
        let of =
            |method, path, fields: &[_], body: &[u8]| read(&request(method, path, fields), body);
        assert!(of("GET", "/", &[host], b"").is_some());
        for (method, path, fields, body) in [
            ("GET", "/", &[][..], &b""[..]),
            ("GET", "/", &[host, host], b""),
            ("CONNECT", "/", &[host], b""),
            ("get", "/", &[host], b""),
            ("OPTIONS", "*", &[host], b""),
            ("GET", "", &[host], b""),
            ("GET", "/ HTTP/1.1\r\nx: y\r\n\r\n", &[host], b""),
            ("GET", "/", &[host, ("x", "1\r\ny: 2")], b""),
            ("GET", "/", &[host, ("x\r\ny", "2")], b""),
            ("GET", "/", &[host, ("transfer-encoding", "chunked")], b""),
            ("GET", "/", &[host, ("te", "trailers")], b""),
            ("GET", "/", &[host, ("expect", "100-continue")], b""),
            ("POST", "/", &[host], b"hello"),
            ("POST", "/", &[host, ("content-length", "4")], b"hello"),
            ("POST", "/", &[host, ("content-length", "6")], b"hello"),
        ] {
            let got = of(method, path, fields, body);
            assert!(got.is_none(), "{method} {path} {fields:?}: {got:?}");
        }
        let good = || request("GET", "/", &[host]);
        for said in [
            Request { http2: true, ..good() },
            Request { upgrade: true, ..good() },
            Request { scheme: "http".into(), ..good() },
            Request { authority: "a".into(), ..good() },
        ] {
            assert!(read(&said, b"").is_none(), "{said:?}");
        }
    }

    #[test]
    fn the_other_node_is_not_told_how_it_was_framed() {
        let head = b"HTTP/1.1 200 OK\r\nX: 1\r\nSet-Cookie: a\r\nset-cookie: b\r\ntransfer-encoding: chunked\r\n";
        let said: Vec<String> = without_framing(head.to_vec())
            .iter()
            .map(|HeaderField { name, value }| {
                format!("{}={}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
            })
            .collect();
        assert_eq!(said, ["x=1", "set-cookie=a", "set-cookie=b"]);
    }
}
