//! Messages of Rules on their way: what their target is sent, how they are counted, and what a caller
//! is told when one was not delivered.

use edgemesh_proto::record::{NodeName, RuleName, ServiceName};
use http::header::{CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version};
use serde_json::json;

use crate::forward::http::answer::decorate;
use crate::forward::http::body::Body;
use crate::forward::http::call::Call;
use crate::forward::http::upload::Upload;
use crate::forward::http::wire::as_http1;
use crate::forward::ruled::count;
use crate::io::now;
use crate::metrics::Ended;
use crate::plan::{Arrival, Hop, Outcome};
use crate::refusal::{Culprit, Refusal};
use crate::snapshot::rules::{RETAINED, Rule, Source, Standing, TOPIC, Target, has_dots};

/// Host of a message that is no request of a client; no host is called so.
pub(super) const NOBODY: &str = "-";

/// Who has passed a request on, where it may come round again (RFC 8586).
const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// This mesh, in [`CDN_LOOP`].
const US: &str = "edgemesh";
/// Rules that one request goes by, each leading to where another takes it.
const MAX_ROUNDS: usize = 8;

/// In the extensions of a request: it goes by this Rule, whatever it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByRule {
    /// The Rule.
    pub rule: RuleName,
    /// The node that the message names, for targets that are on one.
    pub node: Option<NodeName>,
}

/// Why a message was not delivered, and where on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undone {
    rule: RuleName,
    hop: String,
    reason: String,
    message: Option<String>,
}

/// Gives a message the form that its Rule's target wants, once, where it enters the mesh.
pub(super) fn edit(hop: Hop, request: &mut Request<Upload>, call: &Call) -> Result<Hop, Refusal> {
    let Some(rule) = hop.rule().filter(|_| call.origin.arrival() != Arrival::Link) else {
        return Ok(hop);
    };
    let edited = match request.body_mut().limit(rule.max_body) {
        true => aimed(rule, request),
        false => Err(Refusal::BodyTooLarge),
    };
    match edited {
        Ok(()) => Ok(hop),
        Err(refusal) => {
            hop.finish(Outcome::Neutral, now());
            Err(refusal)
        }
    }
}

fn aimed(rule: &Rule, request: &mut Request<Upload>) -> Result<(), Refusal> {
    if !matches!(rule.source, Some(Source::EventBus { .. })) {
        // Only a broker says so.
        request.headers_mut().remove(TOPIC);
        request.headers_mut().remove(RETAINED);
    }
    if !matches!(rule.target, Some(Target::EventBus(_))) {
        count_round(request.headers_mut())?;
    }
    if let (Some(Source::Service { .. }), Some(Target::Service { path: None, .. })) =
        (&rule.source, &rule.target)
    {
        return Ok(()); // a call of a Service stays what it is
    }
    let (path, query) = (request.uri().path(), request.uri().query());
    let made = rule.onto_target(path, query).ok_or_else(|| match has_dots(path) {
        true => Refusal::BadRequest,
        false => Refusal::NoRule,
    })?;
    let host = match &rule.target {
        Some(Target::EventBus(_)) => {
            let topic = HeaderValue::from_str(&made).map_err(|_| Refusal::BadRequest)?;
            request.headers_mut().insert(TOPIC, topic);
            None
        }
        Some(Target::ServiceBus { port, .. }) => Some(format!("127.0.0.1:{port}")),
        Some(Target::Rest(target)) => Some(target.authority.to_string()),
        Some(Target::Service { service, port, .. }) => match (&rule.source, port) {
            // Who calls one Service and is answered by another keeps the name that it called.
            (Some(Source::Service { .. }), _) => None,
            (_, None) => Some(format!("{}.{}", service.name, service.namespace)),
            (_, Some(port)) => Some(format!("{}.{}:{port}", service.name, service.namespace)),
        },
        None => None,
    };
    if !matches!(rule.target, Some(Target::EventBus(_))) {
        let made = if made.starts_with('/') { made } else { format!("/{made}") };
        let made: PathAndQuery = made.parse().map_err(|_| Refusal::BadRequest)?;
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.path_and_query = Some(made);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::BadRequest)?;
    }
    if let Some(host) = host {
        name(request, &host)?;
    }
    Ok(())
}

/// Notes that a request goes by a Rule, so that one that comes round is told from one that is new.
fn count_round(headers: &mut HeaderMap) -> Result<(), Refusal> {
    let before: Vec<&str> =
        headers.get_all(CDN_LOOP).iter().filter_map(|line| line.to_str().ok()).collect();
    let before = before.join(", ");
    let name = |entry: &str| entry.split(';').next().is_some_and(|name| name.trim() == US);
    if before.split(',').filter(|entry| name(entry)).count() >= MAX_ROUNDS {
        return Err(Refusal::Loop);
    }
    let now = if before.is_empty() { US.to_owned() } else { format!("{before}, {US}") };
    let now = HeaderValue::from_str(&now).map_err(|_| Refusal::BadRequest)?;
    headers.insert(CDN_LOOP, now);
    Ok(())
}

/// Makes `host` the one whom a request names; what speaks HTTP/1 beyond the mesh is told so in it.
fn name(request: &mut Request<Upload>, host: &str) -> Result<(), Refusal> {
    let (mut parts, body) =
        std::mem::replace(request, Request::new(Upload::nothing().0)).into_parts();
    as_http1(&mut parts);
    if parts.version == Version::HTTP_2 {
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.authority = Some(host.parse().map_err(|_| Refusal::BadRequest)?);
        parts.uri = Uri::from_parts(uri).map_err(|_| Refusal::BadRequest)?;
        parts.headers.remove(HOST);
    } else {
        let host = HeaderValue::from_str(host).map_err(|_| Refusal::BadRequest)?;
        let path = parts.uri.path_and_query().cloned();
        parts.uri = path.map_or_else(|| Uri::from_static("/"), Uri::from);
        parts.headers.insert(HOST, host);
    }
    *request = Request::from_parts(parts, body);
    Ok(())
}

impl Call {
    /// Counts a message on its Rule, where it entered the mesh.
    pub(super) fn count_on_rule(&self, ended: Ended, status: Option<u16>) {
        let is_entry = self.origin.arrival() != Arrival::Link;
        let Some(rule) = self.rule.as_ref().filter(|_| is_entry) else { return };
        let ended = match ended {
            // Whatever its target says to it: it was delivered.
            Ended::Failed if self.answered => Ended::Ok,
            // Who leaves in the midst of an answer has asked.
            Ended::Cancelled if status.is_some() => Ended::Ok,
            ended => ended,
        };
        count(rule, ended, self.began, |refusal| self.why(rule, refusal));
    }

    /// Where and why, as one text; some reasons name the place themselves.
    fn why(&self, rule: &Rule, refusal: Refusal) -> String {
        let (hop, reason) = (self.hop_of(rule, refusal), self.reason(rule, refusal));
        match &rule.target {
            Some(Target::Rest(target)) if reason.starts_with(target.authority.as_str()) => reason,
            _ => format!("{hop}: {reason}"),
        }
    }

    /// What a caller is told of a message that was not delivered; `None` = it is no message of a Rule.
    pub(super) fn undone(&self, refusal: Refusal) -> Option<Undone> {
        let rule = self.rule.as_ref().map(|rule| &rule.name);
        let name = rule.or_else(|| self.by_rule.as_ref().map(|by| &by.rule))?.clone();
        let (hop, reason) = match &self.rule {
            Some(rule) => (self.hop_of(rule, refusal), self.reason(rule, refusal)),
            None => (self.here(), refusal.row().text.to_owned()),
        };
        let message = self.message_text();
        Some(Undone { rule: name, hop, reason, message })
    }

    fn here(&self) -> String {
        match self.origin.arrival() {
            Arrival::Ingress => "cloud".into(),
            Arrival::Captured | Arrival::Proxy | Arrival::Library | Arrival::Link => {
                format!("node {}", self.origin.shared.node.0)
            }
        }
    }

    /// Where on its way a message came to its end.
    fn hop_of(&self, rule: &Rule, refusal: Refusal) -> String {
        let node = self.node_of(rule);
        match (refusal.row().culprit, refusal) {
            (Culprit::Client, _) => self.here(),
            (_, Refusal::NoPath) => match node {
                Some(node) => format!("link to node {node}"),
                None => "link to the cloud".into(),
            },
            (Culprit::Mesh, _) => self.here(),
            (Culprit::Backend, _) => match (&rule.target, node) {
                (Some(Target::ServiceBus { port, .. }), Some(node)) => {
                    format!("application 127.0.0.1:{port} on node {node}")
                }
                (Some(Target::ServiceBus { port, .. }), None) => {
                    format!("application 127.0.0.1:{port}")
                }
                (Some(Target::EventBus(_)), Some(node)) => format!("broker of node {node}"),
                (Some(Target::EventBus(_)), None) => "broker".into(),
                (Some(Target::Rest(target)), _) => {
                    let scheme = if target.tls { "https" } else { "http" };
                    format!("{scheme}://{}", target.authority)
                }
                (Some(Target::Service { service, .. }), _) => format!("Service {service}"),
                (None, _) => self.here(),
            },
        }
    }

    fn node_of<'a>(&'a self, rule: &'a Rule) -> Option<&'a str> {
        let asked = self.by_rule.as_ref().and_then(|by| by.node.as_ref());
        let is_on_one =
            matches!(rule.target, Some(Target::ServiceBus { .. } | Target::EventBus(_)));
        let own = is_on_one.then_some(&self.origin.shared.node);
        rule.target_node().or(asked).or(own).map(|node| &*node.0)
    }

    fn reason(&self, rule: &Rule, refusal: Refusal) -> String {
        if let Some(detail) = &self.detail {
            return detail.to_string();
        }
        match refusal {
            Refusal::RateLimited { .. } => {
                format!(
                    "a rate limit is spent: of Rule {}, its Endpoints, or its Service",
                    rule.name
                )
            }
            Refusal::BodyTooLarge => {
                format!("the body is larger than the {} bytes that the Rule takes", rule.max_body)
            }
            Refusal::RequestTimeout => match rule.timeout {
                Some(timeout) => format!("no answer within {timeout:?}"),
                None => refusal.row().text.to_owned(),
            },
            Refusal::RuleWaiting | Refusal::RuleFault | Refusal::RulePaused => {
                match (&rule.standing, &rule.target) {
                    (Standing::Active, Some(Target::Service { service, port, .. })) => {
                        self.missing(service, *port)
                    }
                    (Standing::Active, _) => "neither the Rule nor the message names a node".into(),
                    (standing, _) => standing.to_string(),
                }
            }
            _ => refusal.row().text.to_owned(),
        }
    }

    /// What of a target's Service is not there.
    fn missing(&self, service: &ServiceName, port: Option<u16>) -> String {
        let snapshot = self.origin.shared.live.load();
        let is_there = snapshot.by_name(&service.namespace, &service.name).is_some();
        match (is_there, port) {
            (false, _) => format!("waits: there is no Service {service} yet"),
            (true, Some(port)) => format!("waits: Service {service} has no port {port} yet"),
            (true, None) => {
                format!("waits: Service {service} has several ports; the Rule must name one")
            }
        }
    }
}

impl Undone {
    /// The reason, for whoever passes it on.
    pub(super) fn reason(&self) -> &str {
        &self.reason
    }

    /// Hop and reason as JSON.
    pub(super) fn answer(&self, refusal: Refusal, version: Version) -> Response<Body> {
        let Self { rule, hop, reason, message } = self;
        explained(
            refusal,
            version,
            &json!({
                "error": refusal.row().label,
                "hop": hop,
                "reason": reason,
                "rule": rule.to_string(),
                "message": message,
            }),
        )
    }
}

/// An answer of the mesh's own in JSON.
fn explained(refusal: Refusal, version: Version, body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::text(format!("{body}\n")));
    *response.version_mut() = version;
    decorate(&mut response, refusal);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// The same for a request that no Rule takes.
pub(super) fn turned_away(refusal: Refusal, text: &str, version: Version) -> Response<Body> {
    let body = json!({ "error": refusal.row().label, "hop": "cloud", "reason": text });
    explained(refusal, version, &body)
}
