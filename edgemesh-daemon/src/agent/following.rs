//! Look-ups and the records, once or as a stream of lines: the whole first, then each change.
//!
//! A reader gets the newest state, not every one in between. A line is made when there is room
//! for it; a reader that takes none for a minute is let go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use edgemesh_core::io::now;
use edgemesh_core::snapshot::{Host, split_name};
use edgemesh_core::sync::Published;
use http_body_util::channel::{Channel, Sender};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use crate::agent::admin::{State, fail};
use crate::agent::views;
use crate::api;

/// Streams at once.
pub(super) const FOLLOWERS: usize = 64;
/// A stream without news says that it lives after this long; readers give up after three.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Longest wait for a reader to take a line.
const STALLED: Duration = Duration::from_secs(60);
/// Lines that wait for a reader.
const WAITING: usize = 1;

type Shared = Extract<Arc<State>>;
type Asked = Query<BTreeMap<String, String>>;

#[derive(Deserialize)]
pub(super) struct Name {
    name: String,
}

/// One answer.
pub(super) async fn lookup(
    Extract(state): Shared,
    Query(Name { name }): Query<Name>,
    asked: Asked,
) -> Response {
    if follows(&asked) {
        return fail(StatusCode::FORBIDDEN, "look-ups are followed on dataDir/mesh.sock only");
    }
    answer(&state, &name)
}

/// One answer, or a stream of them.
pub(super) async fn lookup_or_follow(
    Extract(state): Shared,
    Query(Name { name }): Query<Name>,
    asked: Asked,
) -> Response {
    if !follows(&asked) || look_up(&state, &name).is_err() {
        return answer(&state, &name);
    }
    let (shared, mut changes) = (state.clone(), state.status.changes());
    stream(&state, async move |mut out: Out| {
        let mut last = None;
        loop {
            changes.mark_unchanged();
            let next = look_up(&shared, &name).ok();
            if next != last {
                out.send(line(next.as_ref()?)?).await?;
                last = next;
            }
            out.until(changes.changed(), &shared).await?.ok()?;
        }
    })
}

/// Every record, once or with each change.
pub(super) async fn records(Extract(state): Shared, asked: Asked) -> Response {
    let (shared, once) = (state.clone(), !follows(&asked));
    stream(&state, async move |mut out: Out| {
        let mut following = shared.feed.follow();
        loop {
            let step = out.until(following.next(), &shared).await??;
            out.send(line(&records_line(&step, &shared))?).await?;
            if once {
                return None;
            }
        }
    })
}

fn follows(Query(asked): &Asked) -> bool {
    asked.get("follow").is_some_and(|value| value != "0")
}

fn answer(state: &State, name: &str) -> Response {
    match look_up(state, name) {
        Err(reason) => fail(StatusCode::BAD_REQUEST, &reason),
        Ok(found) if found.found => Json(found).into_response(),
        Ok(found) => (StatusCode::NOT_FOUND, Json(found)).into_response(),
    }
}

fn look_up(state: &State, asked: &str) -> Result<api::Lookup, String> {
    let (host, port) = match asked.rsplit_once(':') {
        Some((host, port)) => {
            let number = port.parse::<u16>().ok().filter(|port| *port > 0);
            (host, Some(number.ok_or_else(|| format!("name: `{port}` is no port"))?))
        }
        None => (asked, None),
    };
    let lower = host.to_ascii_lowercase();
    let wanted = || format!("name: `{host}` is no name; write SERVICE.NAMESPACE[:PORT]");
    let (namespace, name) = split_name(&lower, &state.domain).ok_or_else(wanted)?;
    let snapshot = state.live.load();
    let service = snapshot.by_name(namespace, name);
    Ok(views::lookup(service.map(AsRef::as_ref), (namespace, name), port, now()))
}

fn records_line(step: &Published, state: &State) -> api::RecordsLine {
    let reset = step.delta.reset;
    let addresses = step.addresses.iter().map(|(service, addresses)| api::VirtualAddresses {
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
    });
    let hosts = step.hosts.iter().map(|(service, hosts)| api::ServiceHosts {
        namespace: service.namespace.to_string(),
        name: service.name.to_string(),
        hosts: hosts.iter().map(host_addresses).collect(),
    });
    api::RecordsLine {
        delta: STANDARD.encode(step.delta.encode()),
        addresses: addresses.collect(),
        hosts: hosts.collect(),
        node: reset.then(|| state.node.clone()),
        zone: state.zone.clone().filter(|_| reset),
    }
}

fn host_addresses(host: &Host) -> api::HostAddresses {
    api::HostAddresses {
        name: host.name.to_string(),
        addresses: host.addresses.iter().map(ToString::to_string).collect(),
    }
}

/// A JSON object and the end of its line.
fn line(value: &impl Serialize) -> Option<Bytes> {
    let mut text = serde_json::to_vec(value).ok()?;
    text.push(b'\n');
    Some(text.into())
}

/// An answer whose body `write` writes. Its end, for whatever reason, is the end of the stream.
fn stream<F>(state: &State, write: impl FnOnce(Out) -> F) -> Response
where
    F: Future<Output = Option<()>> + Send + 'static,
{
    let Ok(place) = state.followers.clone().try_acquire_owned() else {
        let reason = format!("{FOLLOWERS} streams are open, the most; close one");
        return fail(StatusCode::SERVICE_UNAVAILABLE, &reason);
    };
    let (sender, body) = Channel::<Bytes>::new(WAITING);
    let writing = write(Out { sender, _place: place });
    state.streams.spawn(async move {
        writing.await;
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::new(body)).into_response()
}

/// Where the lines of one reader go.
struct Out {
    sender: Sender<Bytes>,
    _place: OwnedSemaphorePermit,
}

impl Out {
    /// Hands a line over; `None` when the reader is gone or stuck.
    async fn send(&mut self, line: Bytes) -> Option<()> {
        tokio::time::timeout(STALLED, self.sender.send_data(line)).await.ok()?.ok()
    }

    /// Waits for news, with heartbeats meanwhile.
    async fn until<T>(&mut self, news: impl Future<Output = T>, state: &State) -> Option<T> {
        let mut news = std::pin::pin!(news);
        loop {
            tokio::select! {
                biased;
                news = &mut news => return Some(news),
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            let heartbeat = api::Heartbeat { heartbeat: state.live.load().revision };
            self.send(line(&heartbeat)?).await?;
        }
    }
}
