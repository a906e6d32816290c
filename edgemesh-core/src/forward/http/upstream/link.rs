//! Sends one request to the agent of its Backend's node, over a Link.

use std::time::Duration;

use edgemesh_proto::message::{Body, Message};
use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{HeaderName, Method, Request, Response};
use tokio::time::Instant;
use uuid::Uuid;

use crate::forward::across::{Calling, LINK_TRIES, Unopened, link, refused_for, unanswered};
use crate::forward::http::source::Source;
use crate::forward::http::upload::Upload;
use crate::forward::http::upstream::{Again, Answer, Attempt, Failure, Keep, Spare};
use crate::io::now;
use crate::link::{Failure as Broke, Operation, Reply, Rest, Writer, pipe};
use crate::refusal::Refusal;
use crate::tunnel::{answered, asking};

/// The trace that a call belongs to (W3C Trace Context §3.2).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

impl Attempt<'_> {
    /// Asks, and waits for the head of the answer. What was sent over no Link is sent over the next.
    pub(super) async fn send_over_link(
        &self,
        mut request: Request<Upload>,
        message: Uuid,
    ) -> Result<Answer, Failure> {
        let harmless = self.is_harmless(&request);
        let mut tries = 0;
        loop {
            tries += 1;
            let (link, left) = match self.link().await {
                Ok(found) => found,
                Err(refusal) => return Err(unsent(refusal, Some(Again::Unsent(request)))),
            };
            let (mut head, upload) = request.into_parts();
            let upgrade = becomes_another(&mut head, upload.is_empty());
            let opening = self.opening(message, left, &head, upgrade);
            let uploaded = upload.uploaded();
            let (writer, rest) = match upgrade {
                true => {
                    let (writer, rest) = pipe();
                    (Some(writer), rest)
                }
                false => (None, Rest::of(upload)),
            };
            let asked = self.head(&uploaded, link.open(Operation::Request, &opening, rest)).await?;
            let again = Again::Spare(Spare::from_parts(head, uploaded));
            let error = match asked {
                Ok(reply) => return self.answer(reply, writer, again, harmless),
                Err(error) => error,
            };
            if error.kind() != Broke::NotSent {
                let (refusal, again) = (unanswered(&error), Some(again).filter(|_| harmless));
                return Err(Failure { refusal, again, sent: true, backends_fault: false });
            }
            if tries == LINK_TRIES {
                return Err(unsent(Refusal::NoPath, Some(again)));
            }
            request = again.request().ok_or_else(|| unsent(Refusal::NoPath, None))?;
        }
    }

    #[expect(clippy::result_large_err, reason = "a failure holds its request, for another attempt")]
    fn answer(
        &self,
        Reply { opening, body }: Reply,
        writer: Option<Writer>,
        again: Again,
        harmless: bool,
    ) -> Result<Answer, Failure> {
        let head = match opening.body.map(|body| *body) {
            Some(Body::Answer(answer)) => answered(answer),
            Some(Body::Refused(why)) => {
                self.hop.note(&why.text);
                let Unopened { refusal, sent, backends_fault } =
                    Unopened::by_peer(refused_for(self.shared, self.hop, &why));
                let again = Some(again).filter(|_| !sent || harmless);
                return Err(Failure { refusal, again, sent, backends_fault });
            }
            _ => return Err(no_answer(&opening.route.operation)),
        };
        match head {
            Ok(head) => {
                let response = Response::from_parts(head.into_parts().0, Source::Link(body));
                let again = Some(again).filter(|_| harmless);
                Ok(Answer { response, keep: Keep::Link(writer), again })
            }
            Err(error) => Err(no_answer(&error.to_string())),
        }
    }

    /// A Link within the time of the Policy, and of the call; and what is left of that.
    async fn link(&self) -> Result<(crate::link::Link, Option<Duration>), Refusal> {
        let left = || self.deadline.map(|deadline| deadline.left(Instant::from_std(now())));
        if left() == Some(Duration::ZERO) {
            return Err(Refusal::RequestTimeout);
        }
        let time = self.hop.service().policy.connect_timeout;
        let time = left().map_or(time, |left| left.min(time));
        let found = link(self.shared, self.hop, time).await?;
        Ok((found, left()))
    }

    fn opening(
        &self,
        message: Uuid,
        left: Option<Duration>,
        head: &Parts,
        upgrade: bool,
    ) -> Message {
        let Self { shared, hop, caller, .. } = *self;
        let calling = Calling { shared, hop, caller, message };
        let body = |target| Body::Request(asking(target, head, upgrade));
        let mut opening = calling.opening(left, body);
        let trace = head.headers.get(TRACEPARENT).and_then(|trace| trace.to_str().ok());
        opening.header.trace = trace.unwrap_or_default().to_owned();
        opening
    }
}

/// Whether bytes may follow the answer. With a body before them nobody could tell where they begin:
/// then the request asks for no upgrade, which every server may ignore.
fn becomes_another(head: &mut Parts, is_empty: bool) -> bool {
    if head.method == Method::CONNECT {
        return is_empty;
    }
    if !is_empty {
        head.headers.remove(UPGRADE);
        head.headers.remove(CONNECTION);
    }
    head.headers.contains_key(UPGRADE)
}

fn no_answer(what: &str) -> Failure {
    tracing::debug!("no answer from another node: {what}");
    let refusal = Refusal::BackendProtocol;
    Failure { refusal, again: None, sent: true, backends_fault: false }
}

const fn unsent(refusal: Refusal, again: Option<Again>) -> Failure {
    Failure { refusal, again, sent: false, backends_fault: false }
}
