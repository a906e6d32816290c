//! `/v1/explain`: what was typed becomes a Destination, and the decision an object.

use std::net::{IpAddr, SocketAddr};

use edgemesh_core::plan::{Arrival, Destination, Explanation, Head, Purpose, Target, Via, explain};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::{Snapshot, split_name};
use http::{HeaderName, HeaderValue, Method, Request, Uri};

use crate::api;

/// Explains the call that the query describes: `url`, which is a URL or `HOST:PORT`; `header`, as
/// `K:V` and as often as needed; `method`; `from`, the caller's address. A URL of HTTP and headers make it
/// a request, else it is a connection of bytes.
pub(super) fn explained(
    snapshot: &Snapshot,
    domain: &str,
    query: &[(String, String)],
) -> Result<api::Explanation, String> {
    let asked = Asked::read(query)?;
    let (host, port) = (&*asked.host, asked.port);
    let to = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(ip) => Target::Address(SocketAddr::new(ip, port.unwrap_or(80))),
        Err(_) => Target::Name { host, port, domain },
    };
    let destination = Destination {
        caller: asked.from,
        request: asked.request.as_ref().map(Head::of),
        ..Destination::new(to, Arrival::Captured, Purpose::Call)
    };
    let explanation = explain(snapshot, &destination, edgemesh_core::io::now());
    Ok(view(&asked.url, to, snapshot, explanation))
}

/// What was asked, understood.
struct Asked {
    url: String,
    host: String,
    port: Option<u16>,
    from: Option<IpAddr>,
    request: Option<Request<()>>,
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
        let (host, port) = (authority.host().to_owned(), authority.port_u16().or(usual));
        let request = (is_http || !headers.is_empty()).then(|| {
            let mut request = Request::new(());
            request.headers_mut().extend(headers);
            *request.uri_mut() = uri;
            *request.method_mut() = method;
            request
        });
        Ok(Self { url, host, port, from, request })
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
    let Explanation { steps, verdict, .. } = explanation;
    let mut steps: Vec<api::Step> = steps
        .into_iter()
        .map(|s| api::Step { step: s.what.into(), what: s.why, why: String::new() })
        .collect();
    let (verdict, backend, refusal) = match verdict {
        Ok((address, via)) => {
            let hop = api::Hop {
                address: address.to_string(),
                node: node_of(snapshot, address),
                via: match via {
                    Via::Local => api::Via::Local,
                    Via::PlainDial => api::Via::PlainDial,
                },
            };
            (api::Verdict::Hop, Some(hop), None)
        }
        Err(Refusal::NoService) if matches!(to, Target::Address(_)) => {
            steps.push(api::Step {
                step: "resolve".into(),
                what: "no Service has this address".into(),
                why: "what is not ours goes where it was going".into(),
            });
            (api::Verdict::PassThrough, None, None)
        }
        Err(refusal) => {
            steps.extend(stands_for(to, snapshot).filter(|_| refusal == Refusal::ExternalName));
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
    let Target::Name { host, domain, .. } = to else { return None };
    let (namespace, name) = split_name(host, domain)?;
    let service = snapshot.by_name(&namespace.to_ascii_lowercase(), &name.to_ascii_lowercase())?;
    let other = service.external_name.as_deref()?;
    Some(api::Step {
        step: "resolve".into(),
        what: format!("Service {} stands for {other}", service.name),
        why: "the name server says so; calls of it are not the mesh's to carry".into(),
    })
}

fn node_of(snapshot: &Snapshot, address: SocketAddr) -> String {
    let pools = snapshot.services().iter().flat_map(|s| &s.ports).flat_map(|p| &p.pools);
    let found = pools.flat_map(|pool| &pool.backends).find(|b| b.address == address);
    found.and_then(|b| b.node.as_ref()).map(ToString::to_string).unwrap_or_default()
}
