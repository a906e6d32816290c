//! `/v1/explain`: what was typed becomes a Destination, and the decision an object.

use std::net::{IpAddr, SocketAddr};

use edgemesh_core::plan::{Arrival, Destination, Explanation, Purpose, Target, Via, explain};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::{Snapshot, split_name};
use http::Uri;

use crate::api;

/// Explains a call of `url`, which is a URL or `HOST:PORT`. `unused_input`: headers or a caller
/// were given too.
pub(super) fn explained(
    snapshot: &Snapshot,
    domain: &str,
    url: &str,
    unused_input: bool,
) -> Result<api::Explanation, String> {
    let (host, port) = read(url)?;
    let to = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(ip) => Target::Address(SocketAddr::new(ip, port.unwrap_or(80))),
        Err(_) => Target::Name { host: &host, port, domain },
    };
    let destination = Destination::new(to, Arrival::Captured, Purpose::Call);
    let explanation = explain(snapshot, &destination, edgemesh_core::io::now());
    let mut view = view(url, to, snapshot, explanation);
    if unused_input {
        view.steps.insert(
            0,
            api::Step {
                step: "input".into(),
                what: "headers and caller matter to no decision of this version".into(),
                why: String::new(),
            },
        );
    }
    Ok(view)
}

fn read(url: &str) -> Result<(String, Option<u16>), String> {
    let wrong = || {
        format!(
            "`{url}` is neither a URL nor HOST:PORT, such as http://hello.default/ or redis.default:6379"
        )
    };
    let uri: Uri = match url.contains("://") {
        true => url.parse(),
        false => format!("tcp://{url}/").parse(),
    }
    .map_err(|_| wrong())?;
    let authority = uri.authority().ok_or_else(wrong)?;
    let usual = match uri.scheme_str() {
        Some("http" | "ws" | "grpc") => Some(80),
        Some("https" | "wss" | "grpcs") => Some(443),
        _ => None,
    };
    Ok((authority.host().to_owned(), authority.port_u16().or(usual)))
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
