//! What came of a message of a Rule: counted on the Rule, and where it was not delivered, where on its way
//! that was and why.

use edgemesh_proto::record::{RuleName, ServiceName};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, Version};
use serde_json::json;

use crate::forward::counting::count;
use crate::forward::http::answer::decorate;
use crate::forward::http::body::Body;
use crate::forward::http::call::Call;
use crate::metrics::Ended;
use crate::plan::Arrival;
use crate::refusal::{Culprit, Refusal};
use crate::snapshot::rules::{Rule, Standing, Target};

/// Why a message was not delivered, and where on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undone {
    rule: RuleName,
    hop: String,
    reason: String,
    message: Option<String>,
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
