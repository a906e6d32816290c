//! `/v1/explain`: what was typed becomes a Destination, and the decision an object.

mod missed;
mod rule;

use std::net::{IpAddr, SocketAddr};

use edgemesh_core::plan::{
    Arrival, Destination, Explanation, Head, Purpose, Target, Via, explain, redirection,
};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::Snapshot;
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::api;

/// Explains the call that the query describes: `url`, which is a URL or `HOST:PORT`; `header`, as
/// `K:V` and as often as needed; `method`; `from`, the caller's address. A URL of HTTP and headers make it
/// a request, else it is a connection of bytes. With `rule` it is a message of that; see [`rule`].
pub(crate) fn explained(
    snapshot: &Snapshot,
    domain: &str,
    query: &[(String, String)],
) -> Result<api::Explanation, String> {
    if query.iter().any(|(key, _)| key == "rule") {
        return rule::explained(snapshot, query);
    }
    let asked = Asked::read(query)?;
    let (host, port) = (&*asked.host, asked.port);
    let to = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(ip) => Target::Address(SocketAddr::new(ip, port.unwrap_or(ASSUMED))),
        Err(_) => Target::Name { host, port, domain },
    };
    let destination = Destination {
        caller: asked.from,
        request: asked.request.as_ref().map(Head::of),
        ..Destination::new(to, Arrival::Captured, Purpose::Call)
    };
    let explanation = explain(snapshot, &destination, edgemesh_core::io::now());
    let mut view = view(&asked.url, to, snapshot, explanation);
    if let (Some(refusal), Some(there)) = (&mut view.refusal, redirection(snapshot, &destination))
        && refusal.label == Refusal::Redirected.row().label
    {
        refusal.status = there.status; // the rule's own, not the usual one
    }
    if asked.assumed {
        let what = format!("no port was given; {ASSUMED} is assumed");
        view.steps.insert(0, step(what, ""));
    }
    Ok(view)
}

/// The port of a call that names neither a port nor a scheme.
const ASSUMED: u16 = 80;

/// What was asked, understood.
struct Asked {
    url: String,
    host: String,
    port: Option<u16>,
    from: Option<IpAddr>,
    request: Option<Request<()>>,
    /// Whether nobody said the port.
    assumed: bool,
}

impl Asked {
    fn read(query: &[(String, String)]) -> Result<Self, String> {
        let (mut url, mut from, mut headers) = (None, None, Vec::new());
        let mut method = Method::GET;
        for (key, value) in query {
            match key.as_str() {
                "url" => url = Some(value),
                "from" => from = Some(address(value)?),
                "header" => headers.push(header(value)?),
                "method" => {
                    method = value.parse().map_err(|_| format!("method: `{value}` is none"))?;
                }
                _ => {
                    return Err(format!(
                        "unknown key `{key}`; known are url, header, method, from"
                    ));
                }
            }
        }
        let url = url.ok_or("`url` is missing: a URL or HOST:PORT")?.clone();
        let (uri, is_http) = uri(&url)?;
        let authority = uri.authority().ok_or_else(|| no_url(&url))?;
        let usual = match uri.scheme_str() {
            Some("http" | "ws" | "grpc") => Some(80),
            Some("https" | "wss" | "grpcs") => Some(443),
            _ => None,
        };
        let (host, named) = (authority.host().to_owned(), authority.port_u16().or(usual));
        let assumed = named.is_none();
        let port = named.or(Some(ASSUMED));
        let request = (is_http || !headers.is_empty()).then(|| {
            let mut request = Request::new(());
            request.headers_mut().extend(headers);
            *request.uri_mut() = uri;
            *request.method_mut() = method;
            request
        });
        Ok(Self { url, host, port, from, request, assumed })
    }
}

/// The URL, and whether the mesh sees the requests of its scheme.
fn uri(url: &str) -> Result<(Uri, bool), String> {
    let uri: Uri = match url.contains("://") {
        true => url.parse(),
        false => format!("tcp://{url}/").parse(),
    }
    .map_err(|_| no_url(url))?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "ws" | "grpc"));
    Ok((uri, is_http))
}

fn no_url(url: &str) -> String {
    format!(
        "`{url}` is neither a URL nor HOST:PORT, such as http://hello.default/ or redis.default:6379"
    )
}

fn address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse::<IpAddr>().map(|ip| ip.to_canonical());
    address.map_err(|_| format!("from: `{text}` is no address; write one such as 10.0.0.7"))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let pair = text.split_once(':').and_then(|(name, value)| {
        Some((name.trim().parse().ok()?, HeaderValue::from_str(value.trim()).ok()?))
    });
    pair.ok_or_else(|| format!("header: `{text}` is no header; write NAME:VALUE"))
}

fn view(
    url: &str,
    to: Target<'_>,
    snapshot: &Snapshot,
    explanation: Explanation,
) -> api::Explanation {
    let Explanation { steps, verdict, node, .. } = explanation;
    let mut steps: Vec<api::Step> = steps
        .into_iter()
        .map(|s| api::Step { step: s.what.into(), what: s.why, why: String::new() })
        .collect();
    let (verdict, backend, refusal) = match verdict {
        Ok((address, via)) => {
            let hop = api::Hop {
                address: address.to_string(),
                node: node.map(|node| node.to_string()).unwrap_or_default(),
                via: match via {
                    Via::Local => api::Via::Local,
                    Via::Direct => api::Via::Direct,
                    Via::Hub => api::Via::Hub,
                    Via::PlainDial => api::Via::PlainDial,
                },
            };
            (api::Verdict::Hop, Some(hop), None)
        }
        Err(Refusal::NoService | Refusal::NoPort) if missed::datagrams(to, snapshot).is_some() => {
            steps.extend(missed::datagrams(to, snapshot));
            (api::Verdict::Kernel, None, None)
        }
        Err(Refusal::NoService) if matches!(to, Target::Address(_)) => {
            steps.push(match missed::ports(to, snapshot) {
                Some(step) => step,
                None => {
                    let why = "what is not ours goes where it was going";
                    step("no Service has this address".into(), why)
                }
            });
            (api::Verdict::PassThrough, None, None)
        }
        Err(refusal) => {
            steps.extend(stands_for(to, snapshot).filter(|_| refusal == Refusal::ExternalName));
            steps.extend(missed::ports(to, snapshot).filter(|_| refusal == Refusal::NoPort));
            let row = refusal.row();
            let view = api::RefusalView {
                label: row.label.into(),
                status: row.http,
                text: row.text.into(),
            };
            (api::Verdict::Refused, None, Some(view))
        }
    };
    api::Explanation { destination: url.into(), verdict, steps, backend, refusal }
}

/// The step that names what an ExternalName Service stands for.
fn stands_for(to: Target<'_>, snapshot: &Snapshot) -> Option<api::Step> {
    if matches!(to, Target::Address(_)) {
        return None;
    }
    let service = missed::owner(to, snapshot)?;
    let other = service.external_name.as_deref()?;
    let why = "the name server says so; calls of it are not the mesh's to carry";
    Some(step(format!("Service {} stands for {other}", service.name), why))
}

fn step(what: String, why: &str) -> api::Step {
    api::Step { step: "resolve".into(), what, why: why.into() }
}
