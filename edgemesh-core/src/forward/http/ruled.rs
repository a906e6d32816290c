//! Gives messages of Rules the form that their target wants, once, where they enter the mesh.

use edgemesh_proto::record::{NodeName, RuleName};
use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, Version};

use crate::forward::http::call::Call;
use crate::forward::http::upload::Upload;
use crate::forward::http::wire::as_http1;
use crate::io::now;
use crate::plan::{Arrival, Hop, Outcome};
use crate::refusal::Refusal;
use crate::snapshot::rules::{RETAINED, Rule, Source, TOPIC, Target};

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
    let made = rule.onto_target(request.uri().path(), request.uri().query())?;
    if let Some(Target::EventBus(_)) = &rule.target {
        let topic = HeaderValue::from_str(&made).map_err(|_| Refusal::BadRequest)?;
        request.headers_mut().insert(TOPIC, topic);
        return Ok(());
    }
    let made = if made.starts_with('/') { made } else { format!("/{made}") };
    let made: PathAndQuery = made.parse().map_err(|_| Refusal::BadRequest)?;
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.path_and_query = Some(made);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::BadRequest)?;
    host(rule).map_or(Ok(()), |host| name(request, &host))
}

/// Whom the target is told to be, where that is another than the caller named.
fn host(rule: &Rule) -> Option<String> {
    match (&rule.target, &rule.source) {
        (Some(Target::ServiceBus { port, .. }), _) => Some(format!("127.0.0.1:{port}")),
        (Some(Target::Rest(target)), _) => Some(target.authority.to_string()),
        // Who calls one Service and is answered by another keeps the name that it called.
        (Some(Target::Service { .. }), Some(Source::Service { .. })) => None,
        (Some(Target::Service { service, port, .. }), _) => {
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            Some(format!("{}.{}{port}", service.name, service.namespace))
        }
        (Some(Target::EventBus(_)) | None, _) => None,
    }
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
