//! Who is let in at the ingress, and what is meant: a mesh Host, then a reserved first segment of
//! the path, then a known node, then nothing.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edgemesh_core::forward::Shared;
use edgemesh_core::forward::http::{ByRule, Gate, Turned, as_http1, named};
use edgemesh_core::plan::{Target, resolve};
use edgemesh_core::refusal::Refusal;
use edgemesh_proto::record::NodeName;
use http::header::{CONNECTION, HOST};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version};

use crate::ingress::KnownNodes;
use crate::ingress::form::{Below, Form, Named};
use crate::ingress::secrets::Secrets;

/// Whom the client called, where that is not whom the Service is told.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// What was taken off the path.
const FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
/// Most of a client's word that is repeated to it.
const MAX_REPEATED: usize = 100;

/// Lets requests in; see the module.
pub(super) struct Reception {
    shared: Arc<Shared>,
    secrets: Arc<ArcSwap<Secrets>>,
    nodes: KnownNodes,
}

impl Reception {
    pub(super) fn new(
        shared: Arc<Shared>,
        secrets: Arc<ArcSwap<Secrets>>,
        nodes: KnownNodes,
    ) -> Self {
        Self { shared, secrets, nodes }
    }

    /// Whether `host` is a Service's name; then it decides, also where that has no such port.
    fn is_service(&self, host: &str, port: Option<u16>) -> bool {
        let target = Target::Name { host, port, domain: &self.shared.domain };
        !matches!(resolve(&self.shared.live.load(), target), Err(Refusal::NoService))
    }

    /// Whether `host` is a name of the ingress itself: then it says nothing of who is meant.
    fn is_us(&self, host: &str, port: Option<u16>) -> bool {
        let target = Target::Name { host, port, domain: &self.shared.domain };
        resolve(&self.shared.live.load(), target).is_ok_and(|found| {
            found.port().backends().any(|backend| self.shared.is_own(backend.address))
        })
    }

    /// What a request is rewritten to, if its path names the Service; `None` = its Host does.
    fn meant(&self, request: &Parts) -> Result<Option<Meant>, Turned> {
        let (host, port) = named(&request.uri, &request.headers);
        let of_service = self.is_service(host, port);
        if request.method == Method::CONNECT {
            return match of_service {
                true => Ok(None),
                false => Err(no_service(format!("CONNECT names `{}`, no Service", clip(host)))),
            };
        }
        let form = Form::of(request.uri.path_and_query().map_or("", PathAndQuery::as_str));
        let is_named = match form {
            Form::Service(_) | Form::Unfinished | Form::Any(_) => true,
            Form::Segment(segment, _) => !segment.is_empty() && (self.nodes)(segment),
        };
        if of_service && !(is_named && self.is_us(host, port)) {
            return Ok(None);
        }
        match form {
            Form::Service(path) => self.towards(&path).map(|towards| Some(Meant::Service(towards))),
            Form::Unfinished => {
                Err(bad_request("the path lacks a part of /_svc/{namespace}/{service}[:port]/..."))
            }
            Form::Any(below) => self.rule(None, &below).map(Some),
            Form::Segment(node, below) if is_named => self.rule(Some(node), &below).map(Some),
            Form::Segment(segment, below) => {
                Err(Turned { in_json: !below.namespace.is_empty(), ..nobody(host, segment) })
            }
        }
    }

    /// The Rule that takes a request.
    fn rule(&self, node: Option<&str>, below: &Below<'_>) -> Result<Meant, Turned> {
        let Below { namespace, rest } = *below;
        let snapshot = self.shared.live.load();
        let found = snapshot.rules.rest(namespace, below.path());
        let Some(rule) = found else { return Err(no_rule(namespace, below.path())) };
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let target = format!("{slash}{rest}").parse();
        let target = target.map_err(|_| bad_request("the path cannot be passed on"))?;
        let node = node.map(|node| NodeName(node.into()));
        Ok(Meant::Rule(ByRule { rule: rule.name.clone(), node }, target))
    }

    fn towards(&self, path: &Named<'_>) -> Result<Towards, Turned> {
        let Named { namespace, service, port, prefix, rest } = *path;
        if self.shared.live.load().by_name(namespace, service).is_none() {
            let name = format!("{namespace}/{service}");
            return Err(no_service(format!("there is no Service `{}`", clip(&name))));
        }
        let authority = match port.map(|port| (port, port.parse::<u16>())) {
            None => format!("{service}.{namespace}"),
            Some((_, Ok(port))) => format!("{service}.{namespace}:{port}"),
            Some((port, Err(_))) => {
                return Err(bad_request(&format!("`{}` is no port", clip(port))));
            }
        };
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let whole = || {
            Some(Towards {
                authority: authority.parse().ok()?,
                host: authority.parse().ok()?,
                target: format!("{slash}{rest}").parse().ok()?,
                prefix: prefix.parse().ok()?,
            })
        };
        whole().ok_or_else(|| bad_request("the path cannot be passed on"))
    }
}

impl Gate for Reception {
    fn admit(&self, request: &mut Parts) -> Result<(), Turned> {
        if let Some(token) = &self.secrets.load().token {
            token.check(&mut request.headers)?;
        }
        // Nobody but this gate says it.
        request.extensions.remove::<ByRule>();
        match self.meant(request)? {
            None => {}
            Some(Meant::Service(towards)) => towards.rewrite(request),
            Some(Meant::Rule(by, target)) => {
                let mut uri = std::mem::take(&mut request.uri).into_parts();
                uri.path_and_query = Some(target);
                request.uri = Uri::from_parts(uri).expect("only its path is another");
                request.extensions.insert(by);
            }
        }
        in_the_clear(request);
        Ok(())
    }
}

impl fmt::Debug for Reception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reception").finish_non_exhaustive()
    }
}

/// Lets requests of HTTP/2 in that speak it since a handshake offered it.
#[derive(Debug)]
pub(super) struct Offered(pub(super) Arc<Reception>);

impl Gate for Offered {
    fn admit(&self, request: &mut Parts) -> Result<(), Turned> {
        self.0.admit(request)?;
        as_http1(request);
        Ok(())
    }
}

/// Turns everybody away who does not speak TLS.
#[derive(Debug)]
pub(super) struct TlsOnly;

impl Gate for TlsOnly {
    fn admit(&self, _: &mut Parts) -> Result<(), Turned> {
        Err(bad_request("TLS is spoken here: call by https"))
    }
}

/// What a path names.
enum Meant {
    Service(Towards),
    /// A Rule, and the path and query that it looks at.
    Rule(ByRule, PathAndQuery),
}

/// Where the path of a request leads.
struct Towards {
    authority: Authority,
    /// The same for HTTP/1.
    host: HeaderValue,
    target: PathAndQuery,
    /// What was taken off the path.
    prefix: HeaderValue,
}

impl Towards {
    /// Rewrites a request as if its client had named the Service, and notes whom it had named.
    fn rewrite(self, request: &mut Parts) {
        let mut uri = std::mem::take(&mut request.uri).into_parts();
        let of_target = uri.authority.take();
        let had_authority = of_target.is_some();
        let of_target = of_target.and_then(|named| HeaderValue::from_str(named.as_str()).ok());
        if let Some(named) = of_target.or_else(|| request.headers.get(HOST).cloned()) {
            request.headers.insert(FORWARDED_HOST, named);
        }
        request.headers.insert(FORWARDED_PREFIX, self.prefix);
        keep_between_neighbours(&mut request.headers);
        let is_http2 = request.version == Version::HTTP_2;
        if is_http2 {
            request.headers.remove(HOST);
        } else {
            request.headers.insert(HOST, self.host);
        }
        // Of HTTP/2 it is all that names the Service, also where the client said it by Host.
        uri.authority = (had_authority || is_http2).then_some(self.authority);
        if is_http2 {
            uri.scheme.get_or_insert(Scheme::HTTP);
        }
        uri.path_and_query = Some(self.target);
        request.uri = Uri::from_parts(uri).expect("a scheme and an authority come together");
    }
}

/// What we have said is for the Service: a client cannot have it taken out as a word to us.
fn keep_between_neighbours(headers: &mut HeaderMap) {
    if !headers.contains_key(CONNECTION) {
        return;
    }
    let ours = |name: &&str| {
        [FORWARDED_HOST, FORWARDED_PREFIX].iter().any(|our| name.eq_ignore_ascii_case(our.as_str()))
    };
    let lines = headers.get_all(CONNECTION).iter().filter_map(|line| line.to_str().ok());
    let names: Vec<_> =
        lines.flat_map(|line| line.split(',')).map(str::trim).filter(|name| !ours(name)).collect();
    match HeaderValue::from_str(&names.join(", ")) {
        Ok(names) => drop(headers.insert(CONNECTION, names)),
        Err(_) => drop(headers.remove(CONNECTION)),
    }
}

/// TLS ends here: a Backend is not asked for `https:` over what is none.
fn in_the_clear(request: &mut Parts) {
    if request.uri.scheme() == Some(&Scheme::HTTPS) {
        let mut uri = std::mem::take(&mut request.uri).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        request.uri = Uri::from_parts(uri).expect("one scheme is as good as the other");
    }
}

/// What the precedence was, for somebody who was not understood.
fn nobody(host: &str, segment: &str) -> Turned {
    let host = match host.is_empty() {
        true => "there is no Host".to_owned(),
        false => format!("Host `{}` is no Service", clip(host)),
    };
    let segment = match segment.is_empty() {
        true => "the path has no first segment".to_owned(),
        false => {
            format!("first segment `{}` is neither reserved nor a known node", clip(segment))
        }
    };
    no_service(format!("{host}; {segment}"))
}

fn no_service(text: String) -> Turned {
    Turned { refusal: Refusal::NoService, text, in_json: false }
}

fn bad_request(text: &str) -> Turned {
    Turned { refusal: Refusal::BadRequest, text: text.to_owned(), in_json: false }
}

fn no_rule(namespace: &str, path: &str) -> Turned {
    let text = match namespace.is_empty() {
        true => "the path lacks its namespace: /{node}/{namespace}/... is wanted".to_owned(),
        false => {
            let (namespace, path) = (clip(namespace), clip(path));
            format!("no Rule of namespace `{namespace}` with a rest source takes path `{path}`")
        }
    };
    Turned { refusal: Refusal::NoRule, text, in_json: true }
}

/// A client's own word, as much of it as is repeated.
fn clip(word: &str) -> Cow<'_, str> {
    match word.char_indices().nth(MAX_REPEATED) {
        None => word.into(),
        Some((end, _)) => format!("{}...", &word[..end]).into(),
    }
}
