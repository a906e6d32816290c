//! A request under way: who calls whom, decided attempt by attempt, told in one line at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use edgemesh_proto::record::ServiceName;
use http::header::HOST;
use http::{HeaderValue, Method, Request, Response, Uri, Version};
use uuid::Uuid;

use crate::forward::across::Passed;
use crate::forward::http::answer::{is_grpc, refuse, refuse_saying, refused_status};
use crate::forward::http::body::Body;
use crate::forward::http::deadline::{Deadline, asked};
use crate::forward::http::head::{REQUEST_ID, split_host, without_userinfo};
use crate::forward::http::route::Routing;
use crate::forward::http::ruled::{ByRule, NOBODY};
use crate::forward::http::undone::{Undone, turned_away};
use crate::forward::http::upload::{Fault, Upload, Uploaded};
use crate::forward::http::{Origin, Towards};
use crate::forward::{Access, Shared, What};
use crate::io::now;
use crate::metrics::{Carried, Ended};
use crate::plan::{Destination, Head, Hop, Purpose, Ruled, Target, Via, plan, resolve, rule_of};
use crate::refusal::Refusal;
use crate::snapshot::rules::Rule;
use crate::snapshot::{Service, Snapshot, Spot};
use crate::tunnel::message_id;

/// A request under way: what its one line in the access log will say. Dropped before its end,
/// it was cancelled by the client, or the mesh cut it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) origin: Arc<Origin>,
    carried: Carried,
    pub(super) began: Instant,
    pub(super) method: Method,
    pub(super) uri: Uri,
    host: Option<HeaderValue>,
    id: Option<HeaderValue>,
    pub(super) version: Version,
    pub(super) grpc: bool,
    /// How long a gRPC client is willing to wait.
    pub(super) grpc_timeout: Option<Duration>,
    /// How long whoever asks is: that client, or the node that passes the call on.
    pub(super) patience: Option<Duration>,
    pub(super) attempts: u8,
    hop: Option<(Arc<Service>, Spot, Via)>,
    /// The Message by which it was passed on, to another node.
    message: Option<Uuid>,
    /// The Rule that it names.
    pub(super) by_rule: Option<ByRule>,
    /// The Rule by which it goes.
    pub(super) rule: Option<Arc<Rule>>,
    /// What was said of it beside a Refusal.
    pub(super) detail: Option<Box<str>>,
    /// What the Routes of its Service say.
    pub(super) routing: Routing,
    /// When the attempt under way is over.
    pub(super) until: Option<Deadline>,
    pub(super) uploaded: Arc<Uploaded>,
    /// The whole answer came, whatever it says.
    pub(super) answered: bool,
    over: bool,
}

/// What the head of a plain request says, as far as its account wants to know.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) host: HeaderValue,
    pub(super) id: HeaderValue,
}

/// A call that was refused.
#[derive(Debug)]
pub struct Unserved {
    /// Why.
    pub refusal: Refusal,
    /// The Backend that was asked last, if one was.
    pub by: Option<By>,
    service: Option<ServiceName>,
    /// Of a message of a Rule.
    undone: Option<Box<Undone>>,
    grpc: bool,
    version: Version,
}

/// Who answered a call, or should have.
#[derive(Clone, Debug)]
pub struct By {
    /// The Service.
    pub service: Arc<Service>,
    /// Its Backend.
    pub backend: Spot,
}

impl By {
    /// The Backend of `hop`.
    pub(super) fn of(hop: &Hop) -> Self {
        Self { service: hop.service().clone(), backend: hop.spot() }
    }
}

impl Unserved {
    /// What the client is told.
    pub(super) fn answer(&self) -> Response<Body> {
        match &self.undone {
            Some(undone) if !self.grpc => undone.answer(self.refusal, self.version),
            Some(_) | None => refuse(self.refusal, self.service.as_ref(), self.grpc, self.version),
        }
    }

    /// The same in other words.
    pub(super) fn answer_saying(&self, text: &str, in_json: bool) -> Response<Body> {
        match in_json && !self.grpc {
            true => turned_away(self.refusal, text, self.version),
            false => refuse_saying(self.refusal, text, self.grpc, self.version),
        }
    }

    /// Why, for people.
    pub fn reason(&self) -> &str {
        self.undone.as_ref().map_or_else(|| self.refusal.row().text, |undone| undone.reason())
    }
}

impl Call {
    pub(super) fn new(
        origin: Arc<Origin>,
        request: &mut Request<Upload>,
        uploaded: Arc<Uploaded>,
    ) -> Self {
        let by_rule = request.extensions_mut().remove();
        let version = request.version();
        let http2 = version == Version::HTTP_2;
        let grpc = is_grpc(request.headers());
        let (began, grpc_timeout) = (now(), if grpc { asked(request.headers()) } else { None });
        let left = origin.passed.as_ref().and_then(|passed| passed.left(began));
        let mut call = Self::begin(origin, began, (request.method(), request.uri()), uploaded);
        call.carried = if http2 { Carried::Http2 } else { Carried::Http1 };
        // Of a message that is no request its Rule says where it goes.
        call.host = request.headers().get(HOST).filter(|host| *host != NOBODY).cloned();
        call.id = request.headers().get(REQUEST_ID).cloned();
        (call.version, call.by_rule) = (version, by_rule);
        (call.grpc, call.grpc_timeout) = (grpc, grpc_timeout);
        call.patience = grpc_timeout.into_iter().chain(left).min();
        call
    }

    /// A request of HTTP/1.1 that is passed on as it is, and whole with its `body` of so many bytes.
    pub(super) fn plain(origin: Arc<Origin>, named: &Named, body: usize) -> Self {
        let uploaded = Arc::new(Uploaded::of_bytes(body as u64));
        let mut call = Self::begin(origin, now(), (&named.method, &named.uri), uploaded);
        (call.host, call.id) = (Some(named.host.clone()), Some(named.id.clone()));
        call
    }

    fn begin(
        origin: Arc<Origin>,
        began: Instant,
        (method, uri): (&Method, &Uri),
        uploaded: Arc<Uploaded>,
    ) -> Self {
        Self {
            origin,
            carried: Carried::Http1,
            began,
            method: method.clone(),
            uri: uri.clone(),
            host: None,
            id: None,
            version: Version::HTTP_11,
            grpc: false,
            grpc_timeout: None,
            patience: None,
            attempts: 0,
            hop: None,
            message: None,
            by_rule: None,
            rule: None,
            detail: None,
            routing: Routing::default(),
            until: None,
            uploaded,
            answered: false,
            over: false,
        }
    }

    pub(super) fn plan(&mut self, purpose: Purpose<'_>, head: Head<'_>) -> Result<Hop, Refusal> {
        let shared = self.origin.shared.clone();
        self.plan_by(&shared.live.load(), purpose, head)
    }

    /// The same, by a Snapshot that was looked at already.
    pub(super) fn plan_by(
        &mut self,
        snapshot: &Snapshot,
        purpose: Purpose<'_>,
        head: Head<'_>,
    ) -> Result<Hop, Refusal> {
        let asked = match &self.origin.passed {
            Some(passed) => passed.destination(purpose),
            None => Destination {
                caller: self.origin.caller(),
                ..Destination::new(self.target(), self.origin.arrival(), purpose)
            },
        };
        let (request, routed) = (Some(head), self.routing.routed());
        let ruled = match &self.rule {
            _ if self.attempts == 0 => Ruled::Unknown,
            Some(rule) => Ruled::By(rule),
            None => Ruled::No,
        };
        let destination = Destination { request, routed, ruled, ..asked };
        let rule = rule_of(snapshot, &destination).cloned();
        // Of the first attempt it is the moment at which the call began.
        let now = if self.attempts == 0 { self.began } else { now() };
        let planned = plan(snapshot, &destination, now);
        self.routing = Routing::after(snapshot, &destination, &planned);
        self.rule = rule.or_else(|| self.rule.take());
        let hop = planned?;
        self.attempts = self.attempts.saturating_add(1);
        self.hop = Some((hop.service().clone(), hop.spot(), hop.via()));
        Ok(hop)
    }

    /// The id for the Message by which the attempt under way is passed on to another node.
    pub(super) fn passes_on(&mut self) -> Uuid {
        *self.message.insert(message_id())
    }

    /// The attempt under way went as `hop` says.
    pub(super) fn went(&mut self, hop: &Hop) {
        if let Some((_, _, via)) = &mut self.hop {
            *via = hop.via();
        }
        if let Some(said) = hop.noted() {
            self.detail = Some(said.into());
        }
    }

    fn target(&self) -> Target<'_> {
        if let Some(ByRule { rule, node }) = &self.by_rule {
            return Target::Rule { rule, node: node.as_ref().map(|node| &*node.0) };
        }
        let (host, port) = match (self.origin.towards, self.uri.authority(), &self.host) {
            (Towards::Address(_) | Towards::Link, ..) | (_, None, None) => ("", None),
            (Towards::Named | Towards::Library | Towards::Ingress, Some(authority), _) => {
                (authority.host(), authority.port_u16())
            }
            (Towards::Named | Towards::Library | Towards::Ingress, None, Some(host)) => {
                split_host(host)
            }
        };
        // A request that names no port means 80, as it does without a proxy. At the ingress it says
        // nothing: its client has dialled a port of the ingress.
        let assumed = (self.origin.towards != Towards::Ingress).then_some(80);
        self.origin.target(host, port.or(assumed))
    }

    /// The Backend that was asked last.
    pub(super) fn by(&self) -> Option<By> {
        let (service, spot, _) = self.hop.as_ref()?;
        Some(By { service: service.clone(), backend: *spot })
    }

    /// The Message by which it was passed on, as logs say it.
    pub(super) fn message_text(&self) -> Option<String> {
        let passed = self.origin.passed.as_ref().map(|passed| passed.message().to_owned());
        passed.or_else(|| self.message.map(|id| id.to_string()))
    }

    /// Ends as refused.
    pub(super) fn refused(mut self, refusal: Refusal) -> Unserved {
        let shared = self.origin.shared.clone();
        let found = self.hop.as_ref().map(|(service, ..)| service.name.clone());
        let found = found.or_else(|| self.service_of_target());
        let (grpc, version, by) = (self.grpc, self.version, self.by());
        let (ended, status) = match self.uploaded.broken.get() {
            Some(Fault::Gone) => (Ended::Cancelled, None), // nobody reads the answer
            Some(Fault::Malformed | Fault::TooLarge) | None => {
                (Ended::Refused(refusal), Some(refused_status(refusal, grpc).as_u16()))
            }
        };
        let undone = self.undone(refusal).map(Box::new);
        self.end(&shared, ended, status, 0, found.as_ref());
        Unserved { refusal, by, service: found, undone, grpc, version }
    }

    pub(super) fn service_of_target(&self) -> Option<ServiceName> {
        let snapshot = self.origin.shared.live.load();
        let found = resolve(&snapshot, self.target()).ok()?;
        Some(found.service.name.clone())
    }

    /// Counts bytes that went up after the connection stopped being HTTP.
    pub(super) fn add_upload(&self, bytes: u64) {
        self.uploaded.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Writes the one line, once.
    pub(super) fn end(
        &mut self,
        shared: &Shared,
        ended: Ended,
        status: Option<u16>,
        down: u64,
        service: Option<&ServiceName>,
    ) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.count_on_rule(ended, status);
        let up = self.uploaded.bytes.load(Ordering::Relaxed);
        shared.metrics.bytes_up.fetch_add(up, Ordering::Relaxed);
        shared.metrics.bytes_down.fetch_add(down, Ordering::Relaxed);
        let host = match self.uri.authority() {
            Some(authority) => without_userinfo(authority),
            None => text(self.host.as_ref()),
        };
        let hop_name = self.hop.as_ref().map(|(s, ..)| &s.name);
        let (passed, mut id_text) = (self.origin.passed.as_ref(), Uuid::encode_buffer());
        let passed_on = self.message.map(|id| &*id.hyphenated().encode_lower(&mut id_text));
        shared.ended(&Access {
            carried: self.carried,
            client: self.origin.client,
            destination: self.origin.dialled,
            service: service.or(hop_name),
            backend: self.hop.as_ref().map(|(_, spot, via)| (spot.address, *via)),
            rule: self.rule.as_ref().map(|rule| &rule.name),
            what: What::Request {
                method: self.method.as_str(),
                host,
                path: self.uri.path(),
                id: text(self.id.as_ref()),
            },
            status,
            ended,
            from: passed.map(Passed::node),
            message: passed.map(Passed::message).or(passed_on),
            attempts: self.attempts,
            up,
            down,
            took: now().saturating_duration_since(self.began),
        });
    }
}

fn text(value: Option<&HeaderValue>) -> &str {
    value.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            let shared = self.origin.shared.clone();
            self.end(&shared, shared.dropped(), None, 0, None);
        }
    }
}
