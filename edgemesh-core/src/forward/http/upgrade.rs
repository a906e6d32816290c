//! Connections that stop being HTTP: WebSocket and its like, CONNECT, and the wait for
//! `100 Continue`.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::Either;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use crate::forward::bytes::{
    Before, Carriage, Early, Reached, Side, Traffic, bridge, carry, splice,
};
use crate::forward::flow::{Flow, Said};
use crate::forward::http::Origin;
use crate::forward::http::answer::refuse;
use crate::forward::http::became::{Became, Granted};
use crate::forward::http::body::Body;
use crate::forward::http::call::Call;
use crate::forward::http::head::{named, upgrade};
use crate::forward::http::source::Source;
use crate::forward::http::upload::Upload;
use crate::forward::http::upstream::Socket;
use crate::io::now;
use crate::link::{Duplex, Writer};
use crate::metrics::Ended;
use crate::plan::{Hop, Outcome};

/// A client that waits for `100 Continue` gets its body read after this long in any case
/// (RFC 9110 §10.1.1: it must not wait for ever).
const CONTINUE_AFTER: Duration = Duration::from_secs(1);

/// A request that wants its connection to become something else.
pub(super) struct Wanted {
    ours: Ours,
    connect: bool,
}

/// The client's side of it.
enum Ours {
    /// A connection to this process.
    Client(OnUpgrade),
    /// An exchange with the node that passes the request on.
    Link(Box<Duplex>),
}

/// The Backend's side of it.
pub(super) enum Theirs {
    /// A connection of this process.
    Backend(OnUpgrade),
    /// An exchange with the agent of its node.
    Link(Box<Duplex>),
}

impl Theirs {
    /// That of an answer, and its head for the client. `writer` leads to another node.
    pub(super) fn of(
        mut response: Response<Source>,
        writer: Option<Writer>,
    ) -> (Self, Response<Body>) {
        let theirs = hyper::upgrade::on(&mut response);
        let (head, source) = response.into_parts();
        let theirs = match (source, writer) {
            (Source::Link(inbound), Some(writer)) => {
                Self::Link(Box::new(Duplex::new(writer, inbound)))
            }
            (Source::Link(_) | Source::Backend(_) | Source::Inbox(_), _) => Self::Backend(theirs),
        };
        (theirs, Response::from_parts(head, Body::empty()))
    }
}

impl Wanted {
    /// What `request` wants, if anything.
    pub(super) fn of(request: &mut Request<Incoming>) -> Option<Self> {
        let connect = request.method() == Method::CONNECT && request.version() == Version::HTTP_11;
        (connect || upgrade(request.headers(), request.version()).is_some())
            .then(|| Self { ours: Ours::Client(hyper::upgrade::on(request)), connect })
    }

    /// What a request wants that another node passes on: `link` leads to its client.
    pub(super) fn passed_on<B>(request: &Request<B>, link: Duplex) -> Self {
        let connect = request.method() == Method::CONNECT;
        Self { ours: Ours::Link(Box::new(link)), connect }
    }

    /// Whether the Backend agrees.
    pub(super) fn granted<B>(&self, response: &Response<B>) -> bool {
        match self.connect {
            true => response.status().is_success(),
            false => response.status() == StatusCode::SWITCHING_PROTOCOLS,
        }
    }

    /// Carries bytes both ways until both sides are done, or the mesh cuts them.
    pub(super) async fn carry(self, theirs: Theirs, call: Call, hop: Hop, status: u16) {
        let cut = call.origin.shared.cut.clone();
        let traffic = Traffic::default();
        let mut upgraded = Upgraded { call, hop: Some(hop), status, traffic };
        let carried = self.join(theirs, &upgraded.traffic);
        if let Some(carriage) = cut.run_until_cancelled(carried).await {
            let (ended, outcome) = carriage.verdict();
            upgraded.end(ended, outcome);
        }
    }

    async fn join(self, theirs: Theirs, traffic: &Traffic) -> Carriage {
        let broken = |side| Carriage { up: 0, down: 0, broken: Some(side) };
        let ours = match self.ours {
            Ours::Client(ours) => match ours.await {
                Ok(ours) => Either::Left(Became::of(ours)),
                Err(_) => return broken(Side::Client),
            },
            Ours::Link(link) => Either::Right(link),
        };
        let (backend, down) = match theirs {
            Theirs::Link(link) => (Reached::Link(link), Vec::new()),
            Theirs::Backend(theirs) => {
                let Ok(theirs) = theirs.await else { return broken(Side::Backend) };
                // HTTP/2 has no upgrades, so a Backend's side is always a socket.
                let Ok(Parts { io, read_buf, .. }) = theirs.downcast::<TokioIo<Socket>>() else {
                    return broken(Side::Backend);
                };
                (Reached::Socket(io.into_inner().into_inner()), read_buf.into())
            }
        };
        match (ours, backend) {
            (Either::Left(ours), backend) => tunnel(ours, backend, down, traffic).await,
            (Either::Right(link), Reached::Socket(backend)) => {
                let before = Before { of_socket: down.into(), ..Before::default() };
                bridge(backend, *link, before, Side::Backend, traffic).await
            }
            // What came from another node goes to no third one.
            (Either::Right(_), Reached::Link(_)) => broken(Side::Backend),
        }
    }
}

/// Between a client's connection that stopped being HTTP and a Backend; `down` is what the Backend
/// said already.
async fn tunnel(ours: Became, backend: Reached, down: Vec<u8>, traffic: &Traffic) -> Carriage {
    match (ours, backend) {
        (Became::Socket(client, up), Reached::Socket(backend)) => {
            carry(client, backend, Early { up, down }, traffic).await
        }
        (Became::Socket(client, up), Reached::Link(link)) => {
            let before = Before { of_socket: up.into(), of_link: down.into() };
            bridge(client, *link, before, Side::Client, traffic).await
        }
        (Became::Secured(client), backend) => {
            splice(client, pending(), backend, down, traffic).await
        }
        (Became::Stream(client, gone), backend) => {
            splice(client, gone.wait(), backend, down, traffic).await
        }
    }
}

/// A request whose connection became something else. Dropped before its end, the mesh cut it.
struct Upgraded {
    call: Call,
    /// `None` once it ended.
    hop: Option<Hop>,
    status: u16,
    traffic: Traffic,
}

impl Upgraded {
    fn end(&mut self, ended: Ended, outcome: Outcome) {
        let Some(hop) = self.hop.take() else { return };
        let Carriage { up, down, .. } = self.traffic.so_far();
        self.call.add_upload(up);
        let shared = self.call.origin.shared.clone();
        self.call.end(&shared, ended, Some(self.status), down, None);
        hop.finish(outcome, now());
    }
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        let ended = self.call.origin.shared.dropped();
        self.end(ended, Outcome::Neutral);
    }
}

/// Holds the body of `request` back until the Backend says `100 Continue`, or a second passed.
pub(super) fn wait_for_continue(request: &mut Request<Upload>) {
    if request.body().is_empty() || request.body().is_begun() {
        return; // nothing to hold back
    }
    let asked = Arc::new(Notify::new());
    let asks = asked.clone();
    hyper::ext::on_informational(request, move |response| {
        if response.status() == StatusCode::CONTINUE {
            asks.notify_one();
        }
    });
    request.body_mut().wait_for(Box::pin(async move {
        // Which of the two it was makes no difference.
        let _ = tokio::time::timeout(CONTINUE_AFTER, asked.notified()).await;
    }));
}

/// `CONNECT svc.ns:port` at the explicit proxy or the ingress: a connection of bytes to a Service.
/// A client that leaves while it is dialled drops this, and with it the flow.
pub(super) async fn connect(origin: Arc<Origin>, mut request: Request<Incoming>) -> Response<Body> {
    let (host, port) = named(request.uri(), request.headers());
    let mut flow = Flow::begin(&origin.shared, origin.client, None);
    flow.said = Said::Connect(host.into());
    let (to, arrival) = (origin.target(host, port), origin.arrival());
    let backend = match flow.reach(to, arrival, &mut Early::default()).await {
        Ok(backend) => backend,
        Err(refusal) => {
            let response = refuse(refusal, None, false, request.version());
            flow.status = Some(response.status().as_u16());
            flow.end(Ended::Refused(refusal));
            return response;
        }
    };
    flow.status = Some(200);
    let granted = Granted::of(&mut request);
    let shared = origin.shared.clone();
    shared.tasks.spawn(shared.cut.clone().run_until_cancelled_owned(async move {
        let _place = origin; // in the mesh, until the tunnel ends
        match granted.became().await {
            Some(ours) => {
                let carriage = tunnel(ours, backend, Vec::new(), &flow.traffic).await;
                flow.carried(carriage);
            }
            None => flow.end(Ended::Cancelled),
        }
    }));
    Response::new(Body::empty())
}
