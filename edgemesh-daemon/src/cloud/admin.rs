//! The cloud's admin API: the same pages as an agent's where they mean something here.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::{Query, State as Extract};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use edgemesh_core::io::now;
use edgemesh_core::mesh::Mesh;
use edgemesh_router::cloud::{Cloud, Report};
use edgemesh_router::hub::Hub;
use edgemesh_router::kubernetes::source::Report as Followed;
use edgemesh_router::registry::shared::Shared as Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;

use crate::agent::admin::{Filter, explaining, fail, only_from_here};
use crate::agent::serve::serve_page;
use crate::agent::views as snapshots;
use crate::cloud::views;
use crate::config::{CloudConfig, Source};
use crate::log::Log;

/// Requests at once; more wait.
const AT_ONCE: usize = 16;

/// What the pages are made from.
pub(super) struct State {
    pub(super) mesh: Arc<Mesh>,
    pub(super) hub: Hub,
    pub(super) registry: Registry,
    pub(super) source: Report,
    /// Where records come from an API server.
    pub(super) followed: Option<Followed>,
    pub(super) listeners: Vec<String>,
    domain: String,
    log: Log,
}

impl State {
    pub(super) fn new(config: &CloudConfig, cloud: &Cloud, log: Log) -> Arc<Self> {
        Arc::new(Self {
            mesh: cloud.mesh.clone(),
            hub: cloud.hub.clone(),
            registry: cloud.registry.clone(),
            source: cloud.source.clone(),
            followed: match &config.source {
                Source::Kubernetes(_) => Some(cloud.followed.clone()),
                Source::Manifests(_) | Source::None | Source::Cloud => None,
            },
            listeners: vec![
                format!("hub {}", config.hub.listen),
                format!("router {}", config.router.listen),
                format!("admin {}", config.admin.listen),
            ],
            domain: config.dns.domain.clone(),
            log,
        })
    }
}

/// Serves the pages until the stop; fails where nobody can listen. On a thread and a runtime of its
/// own: whoever asks never stalls a Link.
pub(super) fn serve(
    state: Arc<State>,
    at: SocketAddr,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind(at).with_context(|| {
        format!("cannot listen on {at} (is another cloud running? `ss -ltnp` names who holds it)")
    })?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = async move || {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "cannot serve the admin API"),
        };
        let accept = async || Ok(listener.accept().await?.0);
        stop.run_until_cancelled(serve_page(accept, pages(state))).await;
    };
    std::thread::Builder::new()
        .name("edgemesh-admin".into())
        .spawn(move || runtime.block_on(serve()))
        .context("cannot start the thread of the admin API")?;
    Ok(())
}

fn pages(state: Arc<State>) -> Router {
    type Shared = Extract<Arc<State>>;
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(async |Extract(s): Shared| Json(views::status(&s))))
        .route("/v1/nodes", get(async |Extract(s): Shared| Json(views::nodes(&s))))
        .route(
            "/v1/services",
            get(async |Extract(s): Shared| Json(snapshots::services(&s.mesh.snapshot(), now()))),
        )
        .route("/v1/backends", get(async |Extract(s): Shared| Json(views::backends(&s))))
        .route(
            "/v1/policies",
            get(async |Extract(s): Shared| Json(snapshots::policies(&s.mesh.snapshot()))),
        )
        .route(
            "/v1/routes",
            get(async |Extract(s): Shared| Json(snapshots::routes(&s.mesh.snapshot()))),
        )
        .route(
            "/v1/endpoints",
            get(async |Extract(s): Shared| Json(snapshots::endpoints(&s.mesh.snapshot()))),
        )
        .route("/v1/rules", get(async |Extract(s): Shared| Json(views::rules(&s))))
        .route("/v1/explain", get(explain))
        .route("/v1/log", put(set_log))
        .fallback(async || fail(StatusCode::NOT_FOUND, "no such page; see docs/admin-api.md"))
        .layer(GlobalConcurrencyLimitLayer::new(AT_ONCE))
        .with_state(state)
        .layer(from_fn(only_from_here))
}

async fn ready(Extract(state): Extract<Arc<State>>) -> Response {
    match views::not_ready(&state) {
        missing if missing.is_empty() => "ready\n".into_response(),
        missing => (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n").into_response(),
    }
}

async fn metrics(Extract(state): Extract<Arc<State>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], views::metrics(&state)).into_response()
}

async fn explain(
    Extract(state): Extract<Arc<State>>,
    Query(asked): Query<Vec<(String, String)>>,
) -> Response {
    explaining(&state.mesh.snapshot(), &state.domain, &asked)
}

async fn set_log(Extract(state): Extract<Arc<State>>, Query(new): Query<Filter>) -> Response {
    new.set(&state.log)
}
