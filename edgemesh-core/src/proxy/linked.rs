//! Calls that come over a Link: this node's side of a request or connection whose client is elsewhere.
//!
//! Each is decided again, by this node's own records and limits, and goes to a Backend of this node
//! or is refused; whoever passed it on may then try another node.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use edgemesh_proto::message::{Accepted, Answer, Body, Message, Refused, Request, Target};
use http_body::{Body as _, Frame, SizeHint};
use tokio::net::TcpStream;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::forward::Shared;
use crate::forward::across::Passed;
use crate::forward::bytes::Reached;
use crate::forward::flow::Flow;
use crate::forward::http::{
    Body as HttpBody, BodyError, Chosen, Origin, PlainRequest, Towards, Unserved, passed_on,
};
use crate::io::now;
use crate::link::{Answering, Called, Duplex, Inbound, LinkError, Operation, Rest, Serve, pipe};
use crate::metrics::Ended;
use crate::refusal::Refusal;
use crate::sniff::is_http_greeting;
use crate::tunnel::{answering, asked, message_id, now_ms, refusing, refusing_since};

/// Serves Requests and Streams of other nodes.
#[derive(Clone, Debug)]
pub struct Linked {
    shared: Arc<Shared>,
}

impl Linked {
    /// By the Backends of this mesh.
    pub const fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Answers one exchange. Whom it comes from was checked: the peer speaks as itself, the hub for
    /// the node that it names.
    pub async fn answer(&self, called: Called) -> Answering {
        let Called { operation, mut opening, body, .. } = called;
        if self.shared.stop.is_cancelled() {
            return self.refuse(&opening, Refusal::Draining);
        }
        let said = opening.body.take().map(|said| *said);
        // In its place: a future that is handed over is there twice, and this one is large.
        let mut answered = pin!(async {
            match (operation, said) {
                (Operation::Request, Some(Body::Request(request))) => {
                    self.request(&opening, request, body).await
                }
                (Operation::Stream, Some(Body::Connect(connect))) => {
                    let passed = Passed::new(&opening, connect.target, now());
                    self.stream(&opening, (passed, connect.race), body).await
                }
                (
                    Operation::Control | Operation::Request | Operation::Stream | Operation::Join,
                    _,
                ) => self.unknown(&opening),
            }
        });
        tokio::select! {
            biased;
            answering = answered.as_mut() => answering,
            // A Backend may have it by now: `draining` would say that it may be sent elsewhere.
            () = self.shared.cut.cancelled() => self.refuse(&opening, Refusal::BackendReset),
        }
    }

    async fn request(&self, opening: &Message, request: Request, body: Inbound) -> Answering {
        let snapshot = self.shared.live.load();
        let answered = match PlainRequest::read(&snapshot, opening, &request, &body) {
            Some(plain) => {
                let chosen = plain.choose(self.origin(opening, request.target), &snapshot);
                drop(snapshot);
                self.plain(chosen).await
            }
            None => {
                drop(snapshot);
                match asked(request) {
                    Ok(asked) => self.other(opening, asked, body).await,
                    Err(error) => {
                        let node = &opening.route.source;
                        tracing::warn!(node, "a node passes on no request: {error}");
                        return self.refuse(opening, Refusal::BadRequest);
                    }
                }
            }
        };
        match answered {
            Ok((answer, rest)) => {
                Answering { opening: self.say(opening, Body::Answer(answer)), rest }
            }
            Err(unserved) => {
                let refused = refusing_since(unserved.refusal, unserved.reason());
                let opening = self.say(opening, Body::Refused(refused));
                Answering { opening, rest: Rest::Nothing }
            }
        }
    }

    async fn plain(&self, chosen: Result<Chosen, Unserved>) -> Result<(Answer, Rest), Unserved> {
        let (answer, body) = chosen?.ask().await?;
        Ok((answer, self.rest(body)))
    }

    async fn other(
        &self,
        opening: &Message,
        (request, target, upgrade): (http::Request<()>, Target, bool),
        body: Inbound,
    ) -> Result<(Answer, Rest), Unserved> {
        let origin = self.origin(opening, target);
        let (response, became) = passed_on(origin, request, body, upgrade).await?;
        let (head, body) = response.into_parts();
        Ok((answering(&head), became.unwrap_or_else(|| self.rest(body))))
    }

    fn origin(&self, opening: &Message, target: Target) -> Arc<Origin> {
        let passed = Passed::new(opening, target, now());
        let (client, dialled, place) = (passed.client(), None, None);
        let (shared, towards, passed) = (self.shared.clone(), Towards::Link, Some(passed));
        Arc::new(Origin { shared, place, client, towards, dialled, passed })
    }

    /// What follows the head of an answer.
    fn rest(&self, body: HttpBody) -> Rest {
        if body.is_whole() || body.is_end_stream() {
            return Rest::of(body);
        }
        let cut = Box::pin(self.shared.cut.clone().cancelled_owned());
        Rest::of(UntilCut { body: Some(body), cut })
    }

    async fn stream(
        &self,
        opening: &Message,
        (passed, race): (Passed, bool),
        body: Inbound,
    ) -> Answering {
        let shared = &self.shared;
        let mut flow = Flow::begin(shared, passed.client(), None);
        let reached = match flow.reach_passed(passed, race).await {
            Ok(backend) if race => first_words(&mut flow, backend).await,
            reached => reached.map(|backend| (backend, Bytes::new())),
        };
        let (backend, words) = match reached {
            Ok(reached) => reached,
            Err(refusal) => {
                flow.end(Ended::Refused(refusal));
                return self.refuse(opening, refusal);
            }
        };
        let accepted = Body::Accepted(Accepted { backend: flow.backend() });
        let (writer, rest) = pipe();
        let (link, open) = (Duplex::new(writer, body), shared.metrics.connection());
        shared.tasks.spawn(shared.cut.clone().run_until_cancelled_owned(async move {
            let _open = open;
            flow.carry_passed(link, backend, words).await;
        }));
        Answering { opening: self.say(opening, accepted), rest }
    }

    fn refuse(&self, opening: &Message, refusal: Refusal) -> Answering {
        let refused = Body::Refused(refusing(refusal));
        Answering { opening: self.say(opening, refused), rest: Rest::Nothing }
    }

    fn unknown(&self, opening: &Message) -> Answering {
        let text = format!("`{}` opens nothing here", opening.route.operation);
        let label = "unknownOperation".to_owned();
        let refused = Body::Refused(Refused { label, text, retry_after_ms: 0 });
        Answering { opening: self.say(opening, refused), rest: Rest::Nothing }
    }

    fn say(&self, opening: &Message, body: Body) -> Message {
        opening.answered(message_id(), now_ms(), &self.shared.node.0, body)
    }
}

/// Waits for the server of a raced dial, which may be given up meanwhile: only what it says may make a
/// connection of it, and as little as at the other node does that what HTTP begins with.
async fn first_words(flow: &mut Flow, backend: TcpStream) -> Result<(TcpStream, Bytes), Refusal> {
    let mut reached = Reached::Socket(backend);
    let words = reached.first_words().await.map_err(|_| Refusal::BackendReset)?;
    if !is_http_greeting(&words) {
        flow.confirm_passed()?;
    }
    match reached {
        Reached::Socket(backend) => Ok((backend, words)),
        Reached::Link(_) => Err(Refusal::NoLocalBackend),
    }
}

/// The body of an answer, which a mesh that ends breaks off.
struct UntilCut {
    /// `None` once it was cut.
    body: Option<HttpBody>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl http_body::Body for UntilCut {
    type Data = Bytes;
    type Error = LinkError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, LinkError>>> {
        // First, since some bodies always have more.
        if self.cut.as_mut().poll(cx).is_ready() && self.body.take().is_some() {
            return Poll::Ready(Some(Err(LinkError::refused(Refusal::Draining.row().label))));
        }
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::passed_on),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, HttpBody::size_hint)
    }
}

impl Serve for Linked {
    fn serve(self: Arc<Self>, called: Called) -> Pin<Box<dyn Future<Output = Answering> + Send>> {
        Box::pin(async move { self.answer(called).await })
    }
}
