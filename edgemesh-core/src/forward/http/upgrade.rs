//! Connections that stop being HTTP: WebSocket and its like, CONNECT, and the wait for
//! `100 Continue`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::sync::Notify;

use crate::forward::http::Origin;
use crate::forward::http::answer::refuse;
use crate::forward::http::body::{Body, Upload};
use crate::forward::http::call::Call;
use crate::forward::http::head::{named, upgrade};
use crate::forward::{Access, Shared, What};
use crate::io::now;
use crate::metrics::{Carried, Ended};
use crate::plan::{Destination, Hop, Outcome, Purpose, plan};
use crate::refusal::Refusal;

/// A client that waits for `100 Continue` gets its body read after this long in any case
/// (RFC 9110 §10.1.1: it must not wait for ever).
const CONTINUE_AFTER: Duration = Duration::from_secs(1);

/// A request that wants its connection to become something else.
pub(super) struct Wanted {
    ours: OnUpgrade,
    connect: bool,
}

impl Wanted {
    /// What `request` wants, if anything.
    pub(super) fn of(request: &mut Request<Incoming>) -> Option<Self> {
        let connect = request.method() == Method::CONNECT && request.version() == Version::HTTP_11;
        (connect || upgrade(request.headers(), request.version()).is_some())
            .then(|| Self { ours: hyper::upgrade::on(request), connect })
    }

    /// Whether the Backend agrees.
    pub(super) fn granted(&self, response: &Response<Incoming>) -> bool {
        match self.connect {
            true => response.status().is_success(),
            false => response.status() == StatusCode::SWITCHING_PROTOCOLS,
        }
    }

    /// Carries bytes both ways until both sides are done.
    pub(super) async fn carry(self, theirs: OnUpgrade, mut call: Call, hop: Hop, status: u16) {
        let shared = call.origin.shared.clone();
        let (ended, down) = match tokio::try_join!(self.ours, theirs) {
            Ok((ours, theirs)) => {
                let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                match copy_bidirectional(&mut ours, &mut theirs).await {
                    Ok((up, down)) => {
                        call.add_upload(up);
                        (Ended::Ok, down)
                    }
                    Err(_) => (Ended::Cancelled, 0),
                }
            }
            Err(_) => (Ended::Cancelled, 0),
        };
        hop.finish(Outcome::Good, now());
        call.end(&shared, ended, Some(status), down, None);
    }
}

/// Holds the body of `request` back until the Backend says `100 Continue`, or a second passed.
pub(super) fn wait_for_continue(request: &mut Request<Upload>) {
    if request.body().is_empty() {
        return;
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

/// `CONNECT svc.ns:port` at the explicit proxy: a connection of bytes to a Service.
pub(super) async fn connect(origin: Arc<Origin>, mut request: Request<Incoming>) -> Response<Body> {
    let began = now();
    let (host, port) = named(&request);
    let purpose = Purpose::Call;
    let destination =
        Destination { to: origin.target(host, port), arrival: origin.arrival(), purpose };
    let planned = plan(&origin.shared.live.load(), &destination, now());
    let dialled = match planned {
        Ok(hop) => dial(&origin.shared, hop).await,
        Err(refusal) => Err(refusal),
    };
    let (hop, mut backend) = match dialled {
        Ok(dialled) => dialled,
        Err(refusal) => {
            let response = refuse(refusal, None, false, request.version());
            let tunnel = Tunnel { origin, began, host: host.into() };
            tunnel.end(Ended::Refused(refusal), None, response.status().as_u16(), (0, 0));
            return response;
        }
    };
    let tunnel = Tunnel { origin: origin.clone(), began, host: host.into() };
    let ours = hyper::upgrade::on(&mut request);
    origin.shared.tasks.spawn(async move {
        let carried = match ours.await {
            Ok(ours) => copy_bidirectional(&mut TokioIo::new(ours), &mut backend).await.ok(),
            Err(_) => None,
        };
        let ended = if carried.is_some() { Ended::Ok } else { Ended::Cancelled };
        tunnel.end(ended, Some(&hop), 200, carried.unwrap_or_default());
        hop.finish(Outcome::Good, now());
    });
    Response::new(Body::empty())
}

async fn dial(shared: &Shared, hop: Hop) -> Result<(Hop, tokio::net::TcpStream), Refusal> {
    if shared.is_own(hop.address()) {
        return Err(Refusal::Loop);
    }
    match shared.connect(hop.address(), hop.service().policy.connect_timeout).await {
        Ok(stream) => Ok((hop, stream)),
        Err(error) => {
            let bad = error.blames_backend();
            hop.finish(if bad { Outcome::Bad } else { Outcome::Neutral }, now());
            Err(error.refusal())
        }
    }
}

/// What the line of a CONNECT says.
struct Tunnel {
    origin: Arc<Origin>,
    began: Instant,
    host: Box<str>,
}

impl Tunnel {
    fn end(&self, ended: Ended, hop: Option<&Hop>, status: u16, (up, down): (u64, u64)) {
        let shared = &self.origin.shared;
        shared.metrics.bytes_up.fetch_add(up, Ordering::Relaxed);
        shared.metrics.bytes_down.fetch_add(down, Ordering::Relaxed);
        let backend: Option<(SocketAddr, _)> = hop.map(|hop| (hop.address(), hop.via()));
        shared.ended(&Access {
            carried: Carried::Opaque,
            client: self.origin.client,
            destination: None,
            service: hop.map(|hop| &hop.service().name),
            backend,
            what: What::Request { method: "CONNECT", host: &self.host, path: "", id: "" },
            status: Some(status),
            ended,
            attempts: 1,
            up,
            down,
            took: now().saturating_duration_since(self.began),
        });
    }
}
