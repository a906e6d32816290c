//! Asks the agent of a Backend's node, over a Link, by a Message that holds the whole request.

use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use edgemesh_proto::message::{Body, Message, Request};
use http_body::Body as _;
use http_body_util::Full;
use httparse::{Header, ParserConfig, Status};

use crate::forward::across::{Calling, LINK_TRIES, Unopened, link, refused_for, unanswered};
use crate::forward::http::ending::How;
use crate::forward::http::plain::alarm::Alarm;
use crate::forward::http::plain::answered::{Answered, of_message};
use crate::forward::http::plain::asked::Asked;
use crate::forward::http::plain::asking::{Broke, Failure, Unanswered};
use crate::forward::http::plain::client::{Client as _, unless_gone};
use crate::forward::http::plain::fields::MAX_LINES;
use crate::forward::http::plain::upload::Upload;
use crate::forward::http::plain::wire::LARGEST;
use crate::forward::http::source::BodyError;
use crate::forward::spare;
use crate::link::{Failure as Why, Inbound, Operation, Reply, Rest};
use crate::refusal::Refusal;
use crate::tunnel::fields;

/// The body of an answer of another node.
#[derive(Debug)]
pub(super) struct Far {
    body: Inbound,
    /// What was read and not used.
    pub(super) unread: Vec<u8>,
    /// How it ended, behind that.
    broke: Option<How>,
}

impl Far {
    fn new(body: Inbound) -> Self {
        let mut far = Self { body, unread: Vec::new(), broke: None };
        // What is here already leaves with its head; what is not, or is wrong, is found again.
        let _ = far.poll_read(&mut Context::from_waker(Waker::noop()));
        far
    }

    /// Reads what there is. Gives how much; 0 = that was all.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, How>> {
        let before = self.unread.len();
        while self.broke.is_none() && self.unread.len() < LARGEST {
            match self.body.poll_bytes(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    spare::reserve(&mut self.unread, bytes.len());
                    self.unread.extend_from_slice(&bytes);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.broke = Some(BodyError::of_link(error).how());
                }
                Poll::Pending if self.unread.len() == before => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        match (self.unread.len() - before, self.broke) {
            (0, Some(how)) => Poll::Ready(Err(how)),
            (read, _) => Poll::Ready(Ok(read)),
        }
    }
}

/// Asks, and waits for the head of the answer. What was sent over no Link is sent over the next.
pub(super) async fn attempt(
    calling: Calling<'_>,
    asked: &Asked,
    upload: &mut Upload<'_>,
    alarm: &mut Alarm,
) -> Result<(Far, Box<Answered>), Failure> {
    let Calling { shared, hop, .. } = calling;
    let (opening, body) = opening(calling, asked).ok_or_else(|| no_answer("no head was sent"))?;
    let time = hop.service().policy.connect_timeout;
    let mut tries = 0;
    loop {
        tries += 1;
        let found = unless_gone(upload, link(shared, hop, time)).await?;
        let link = found.map_err(unsent)?;
        let rest = Rest::of(Full::new(body.clone()));
        let mut opened = pin!(link.open(Operation::Request, &opening, rest));
        let opened = poll_fn(|cx| match opened.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(Ok(opened)),
            Poll::Pending if upload.has_left(cx) => Poll::Ready(Err(Broke::Gone)),
            Poll::Pending => alarm.poll(cx).map(|()| Err(Broke::Late)),
        });
        match opened.await? {
            Ok(reply) => return answer(calling, reply, asked),
            Err(error) if error.kind() != Why::NotSent => return Err(sent(unanswered(&error))),
            Err(_) if tries == LINK_TRIES => return Err(unsent(Refusal::NoPath)),
            Err(_) => {}
        }
    }
}

/// The Message, and the body behind it.
fn opening(calling: Calling<'_>, asked: &Asked) -> Option<(Message, Bytes)> {
    let mut headers = [const { MaybeUninit::<Header<'_>>::uninit() }; MAX_LINES];
    let mut head = httparse::Request::new(&mut []);
    let config = ParserConfig::default();
    let parsed = config.parse_request_with_uninit_headers(&mut head, &asked.sent, &mut headers);
    let Ok(Status::Complete(length)) = parsed else { return None };
    let (method, path) = (head.method?.to_owned(), head.path?.to_owned());
    let headers = fields(|| head.headers.iter().map(|line| (line.name.as_bytes(), line.value)));
    let mut opening = calling.opening(None, |target| {
        let (scheme, authority) = (String::new(), String::new());
        let (http2, upgrade) = (false, false);
        Body::Request(Request { target, method, scheme, authority, path, headers, http2, upgrade })
    });
    let trace = head.headers.iter().find(|line| line.name.eq_ignore_ascii_case("traceparent"));
    let trace = trace.and_then(|line| std::str::from_utf8(line.value).ok());
    opening.header.trace = trace.unwrap_or_default().to_owned();
    Some((opening, Bytes::copy_from_slice(&asked.sent[length..])))
}

fn answer(
    Calling { shared, hop, .. }: Calling<'_>,
    Reply { opening, body }: Reply,
    asked: &Asked,
) -> Result<(Far, Box<Answered>), Failure> {
    match opening.body.map(|body| *body) {
        Some(Body::Answer(answer)) => {
            let told = of_message(&answer, &asked.named.method, body.size_hint().exact());
            let answered = told.ok_or_else(|| no_answer("what came cannot stand in a head"))?;
            Ok((Far::new(body), answered))
        }
        Some(Body::Refused(why)) => {
            hop.note(&why.text);
            let Unopened { refusal, sent, backends_fault } =
                Unopened::by_peer(refused_for(shared, hop, &why));
            Err(Failure { unanswered: Unanswered::Refused { refusal, backends_fault }, sent })
        }
        _ => Err(no_answer(&opening.route.operation)),
    }
}

fn no_answer(what: &str) -> Failure {
    tracing::debug!("no answer from another node: {what}");
    sent(Refusal::BackendProtocol)
}

const fn sent(refusal: Refusal) -> Failure {
    Failure { unanswered: Unanswered::Refused { refusal, backends_fault: false }, sent: true }
}

const fn unsent(refusal: Refusal) -> Failure {
    Failure { unanswered: Unanswered::Refused { refusal, backends_fault: false }, sent: false }
}
