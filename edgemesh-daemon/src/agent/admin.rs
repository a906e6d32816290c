//! The admin API and the page for scrapers: what they say, and to whom.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use axum::extract::{Query, Request, State as Extract};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use edgemesh_core::dns::server::Counters;
use edgemesh_core::io::now;
use edgemesh_core::mesh::{Mesh, StatusCell, StoreHealth};
use edgemesh_core::metrics::Metrics;
use edgemesh_core::registrations::Registrations;
use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::sync::Feed;
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::agent::explain::explained;
use crate::agent::looks::Looks;
use crate::agent::{following, page, registering, views};
use crate::api;
use crate::config::AgentConfig;
use crate::log::Log;

/// Requests at once; more wait, so that a scraper gone wild cannot take the machine.
const AT_ONCE: usize = 16;

/// Time from a sign-up to its answer, at most: applications wait a second longer.
const NAMED_WITHIN: Duration = Duration::from_secs(4);

/// Why an agent's mesh has registrations and a feed.
const OWN: &str = "an agent follows nobody: it keeps its records itself";

/// What the pages are made from.
pub(super) struct State {
    pub(super) node: String,
    pub(super) zone: Option<String>,
    pub(super) domain: String,
    listeners: Vec<String>,
    socket: OnceLock<String>,
    pub(super) live: Arc<ArcSwap<Snapshot>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) dns: Option<Arc<Counters>>,
    pub(super) status: Arc<StatusCell>,
    pub(super) log: Log,
    pub(super) registrations: Registrations,
    pub(super) feed: Feed,
    /// Places of streams, and the tasks that write them.
    pub(super) followers: Arc<Semaphore>,
    pub(super) streams: TaskTracker,
    pub(super) looks: Looks,
    capture: ArcSwap<Option<api::Capture>>,
    /// Revision that capture followed last, and names after it.
    followed: watch::Sender<u64>,
    stopping: AtomicBool,
    /// A hand-over is under way: what is signed up now may be kept by nobody.
    handing_over: AtomicBool,
}

impl State {
    pub(super) fn new(
        config: &AgentConfig,
        mesh: &Mesh,
        listening: &[SocketAddr],
        log: Log,
    ) -> Self {
        let mut listeners: Vec<String> =
            listening.iter().map(|address| format!("proxy {address}")).collect();
        listeners.extend(config.dns.listen.iter().map(|address| format!("dns {address}")));
        listeners.push(format!("admin {}", config.admin.listen));
        listeners.push(format!("metrics {}", config.metrics.listen));
        Self {
            node: config.node.clone(),
            zone: config.zone.clone(),
            domain: config.dns.domain.clone(),
            listeners,
            socket: OnceLock::new(),
            live: mesh.live(),
            metrics: mesh.metrics(),
            dns: mesh.dns_counters(),
            status: mesh.status(),
            log,
            registrations: mesh.registrations().expect(OWN),
            feed: mesh.feed().expect(OWN),
            followers: Arc::new(Semaphore::new(following::FOLLOWERS)),
            streams: TaskTracker::new(),
            looks: Looks::default(),
            capture: ArcSwap::default(),
            followed: watch::Sender::new(0),
            stopping: AtomicBool::new(false),
            handing_over: AtomicBool::new(false),
        }
    }

    /// Capture is in place, or off.
    pub(super) fn captured(&self, view: api::Capture) {
        self.capture.store(Arc::new(Some(view)));
    }

    /// Capture has followed the Snapshot of that serial, or has failed to; names only if it has
    /// not.
    pub(super) fn followed(&self, serial: u64) {
        self.followed.send_replace(serial);
    }

    /// Waits until the Services that are known now can be called by name; says why they cannot.
    /// What led here has `begun` a while ago.
    pub(super) async fn named(&self, begun: Instant) -> Result<(), &'static str> {
        let wanted = self.live.load().serial;
        let mut followed = self.followed.subscribe();
        let seen = followed.wait_for(|serial| *serial >= wanted);
        if tokio::time::timeout_at((begun + NAMED_WITHIN).into(), seen).await.is_err() {
            return Err("its name may not be known yet: capture takes long; see edgemesh status");
        }
        let capture = self.capture.load();
        match capture.as_ref().as_ref().map(|view| &view.state) {
            Some(api::CaptureState::Failed) => {
                Err("its name may not be known: capture fails; see edgemesh status")
            }
            Some(api::CaptureState::Installed | api::CaptureState::Off) | None => Ok(()),
        }
    }

    /// Programs of this machine find the agent there.
    pub(super) fn listens_at(&self, socket: &Path) {
        self.socket.get_or_init(|| format!("socket {}", socket.display()));
    }

    /// No longer ready: whoever balances over agents looks elsewhere.
    pub(super) fn stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// A hand-over, to this agent or from it, begins or ends.
    pub(super) fn handing_over(&self, under_way: bool) {
        self.handing_over.store(under_way, Ordering::Relaxed);
    }

    /// Whether this agent keeps what is signed up.
    pub(super) fn keeps(&self) -> bool {
        !self.handing_over.load(Ordering::Relaxed)
    }

    /// What is missing; empty = ready.
    pub(super) fn not_ready(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            missing.push("stopping".into());
        }
        if !self.status.get().has_records {
            missing.push("no records yet: neither from the store nor from the source".into());
        }
        match self.capture.load().as_ref() {
            None => missing.push("capture is not in place yet".into()),
            Some(view) if view.state == api::CaptureState::Failed => {
                missing.push(format!("capture failed: {}", view.notes.join("; ")));
            }
            Some(_) => {}
        }
        missing
    }

    fn status(&self) -> api::Status {
        let (snapshot, status) = (self.live.load(), self.status.get());
        let (backends, ejected, _) = views::count_backends(&snapshot, now());
        let not_ready = self.not_ready();
        let open = self.metrics.connections_open.load(Ordering::Relaxed);
        let refusals: BTreeMap<String, u64> = self
            .metrics
            .refusals()
            .filter(|(_, count)| *count > 0)
            .map(|(label, count)| (label.to_owned(), count))
            .collect();
        let mut repairs = status.repairs.clone();
        if let StoreHealth::ReadOnly { reason, .. } = &status.store {
            repairs.push(reason.clone());
        }
        api::Status {
            node: self.node.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            ready: not_ready.is_empty(),
            not_ready,
            revision: snapshot.revision,
            epoch: snapshot.epoch.iter().map(|byte| format!("{byte:02x}")).collect(),
            data_age_seconds: self.status.data_age(now()).map(|age| age.as_secs()),
            store: match status.store {
                StoreHealth::Ok => api::StoreState::Ok,
                StoreHealth::ReadOnly { .. } => api::StoreState::StoreReadOnly,
            },
            repairs,
            links: self.looks.links(),
            broker: self.looks.broker(),
            source: self.looks.source(),
            capture: self.capture.load().as_ref().clone().unwrap_or_else(api::Capture::off),
            listeners: self.listeners.iter().chain(self.socket.get()).cloned().collect(),
            services: snapshot.services().len() as u64,
            backends,
            ejected,
            flows: api::Flows {
                open: open.try_into().unwrap_or(0),
                total: self.metrics.connections.load(Ordering::Relaxed),
            },
            refusals,
            remarks: self.remarks(&snapshot),
        }
    }

    /// What the source says, what cannot be read of it, and Policies and Routes that do not count.
    fn remarks(&self, snapshot: &Snapshot) -> Vec<api::Remark> {
        let status = self.status.get();
        let overruled = views::policies(snapshot).into_iter().filter_map(|policy| {
            Some(api::Remark {
                severity: api::Severity::Warning,
                file: String::new(),
                line: 0,
                object: format!("{} {}/{}", policy.origin, policy.namespace, policy.name),
                field: "spec.targetRef".into(),
                reason: policy.conflicted?,
            })
        });
        let mut remarks = views::remarks(status.source_trouble.as_ref(), &status.remarks);
        remarks.extend(overruled);
        remarks.extend(views::unrouted(snapshot, &remarks));
        remarks.extend(views::idle_rules(snapshot, &remarks));
        remarks
    }
}

/// What whoever can reach loopback may ask: nothing that lasts.
pub(super) fn over_tcp(state: Arc<State>) -> Router {
    let elsewhere = async || fail(StatusCode::FORBIDDEN, "records are served on dataDir/mesh.sock");
    let more = Router::new()
        .route("/v1/lookup", get(following::lookup))
        .route("/v1/records", get(elsewhere));
    api_routes(state, more)
}

/// What whoever may open the socket may ask too.
pub(super) fn over_socket(state: Arc<State>) -> Router {
    let more = Router::new()
        .route("/v1/lookup", get(following::lookup_or_follow))
        .route("/v1/records", get(following::records));
    api_routes(state, more)
}

/// `/metrics`, `/healthz` and `/readyz` only: this one may be reached from elsewhere.
pub(super) fn probes(state: Arc<State>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE))
        .with_state(state)
}

fn api_routes(state: Arc<State>, more: Router<Arc<State>>) -> Router {
    type Shared = Extract<Arc<State>>;
    Router::new()
        .route("/v1/status", get(async |Extract(s): Shared| Json(s.status())))
        .route(
            "/v1/services",
            get(async |Extract(s): Shared| Json(views::services(&s.live.load(), now()))),
        )
        .route(
            "/v1/backends",
            get(async |Extract(s): Shared| {
                let (links, checked) = (s.looks.links(), &s.status.get().checked);
                Json(views::backends(&s.live.load(), checked, &links, now()))
            }),
        )
        .route(
            "/v1/nodes",
            get(async |Extract(s): Shared| {
                Json(views::nodes(&s.live.load(), Some(&s.node), &s.looks.links()))
            }),
        )
        .route(
            "/v1/policies",
            get(async |Extract(s): Shared| Json(views::policies(&s.live.load()))),
        )
        .route("/v1/routes", get(async |Extract(s): Shared| Json(views::routes(&s.live.load()))))
        .route(
            "/v1/endpoints",
            get(async |Extract(s): Shared| Json(views::endpoints(&s.live.load()))),
        )
        .route("/v1/rules", get(async |Extract(s): Shared| Json(views::rules(&s.live.load()))))
        .route("/v1/explain", get(explain))
        .route("/v1/log", put(set_log))
        .merge(registering::routes())
        .merge(more)
        .fallback(async || fail(StatusCode::NOT_FOUND, "no such page; see docs/admin-api.md"))
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE))
        .with_state(state.clone())
        .merge(probes(state))
        .layer(from_fn(only_from_here))
}

async fn metrics(Extract(state): Extract<Arc<State>>) -> Response {
    let content_type =
        [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match page::metrics(&state) {
        Ok(page) => (content_type, page).into_response(),
        Err(error) => fail(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn ready(Extract(state): Extract<Arc<State>>) -> Response {
    match state.not_ready() {
        missing if missing.is_empty() => "ready\n".into_response(),
        missing => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response(),
    }
}

async fn explain(
    Extract(state): Extract<Arc<State>>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    explaining(&state.live.load(), &state.domain, &asked)
}

/// One decision of `snapshot`, explained, or why not.
pub(crate) fn explaining(
    snapshot: &Snapshot,
    domain: &str,
    asked: &[(String, String)],
) -> Response {
    match explained(snapshot, domain, asked) {
        Ok(explanation) => Json(explanation).into_response(),
        Err(error) => fail(StatusCode::BAD_REQUEST, &error),
    }
}

async fn set_log(Extract(state): Extract<Arc<State>>, Query(new): Query<Filter>) -> Response {
    new.set(&state.log)
}

/// Which log lines are wanted from now on.
#[derive(Deserialize)]
pub(crate) struct Filter {
    filter: String,
}

impl Filter {
    pub(crate) fn set(&self, log: &Log) -> Response {
        match log.set_filter(&self.filter) {
            Ok(()) => StatusCode::NO_CONTENT.into_response(),
            Err(error) => fail(StatusCode::BAD_REQUEST, &error.to_string()),
        }
    }
}

pub(crate) fn fail(status: StatusCode, error: &str) -> Response {
    (status, Json(api::ApiError { error: error.into() })).into_response()
}

/// A web page in somebody's browser can reach loopback too: what comes under another Host (DNS
/// rebinding) or from another origin is refused.
pub(crate) async fn only_from_here(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let local = host.is_some_and(|host| {
        let name = host
            .rsplit_once(':')
            .filter(|(_, p)| p.parse::<u16>().is_ok())
            .map_or(host, |(n, _)| n);
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
    });
    let foreign = request.headers().get(header::ORIGIN).is_some_and(|origin| {
        host.is_none_or(|host| origin.as_bytes() != format!("http://{host}").as_bytes())
    });
    if !local || foreign {
        return fail(StatusCode::FORBIDDEN, "this API answers to its own loopback address only");
    }
    next.run(request).await
}
