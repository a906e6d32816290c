//! A worker: computes tiles for whoever asks, under the one name that everybody knows.

use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use edgemesh_core::mesh::{Mesh, Serving};
use tokio::net::TcpListener;

use crate::picture::{TILES, tile};

/// What the workers are called.
pub(crate) const NAME: &str = "mandelbrot.default";
/// Says which process computed a tile.
pub(crate) const WORKER: HeaderName = HeaderName::from_static("x-worker");

/// A worker that is signed up, and what it has still to be told: to run.
pub(crate) struct Worker {
    listener: TcpListener,
    _signed_up: Serving,
}

impl Worker {
    /// Listens on a port of the kernel's choice and signs up.
    pub(crate) async fn sign_up(mesh: &Mesh) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let signed_up = mesh.serve(NAME, &listener).await?;
        Ok(Self { listener, _signed_up: signed_up })
    }

    /// Serves until `shutdown`; `pause` makes every tile take longer, for whoever wants to watch.
    pub(crate) async fn run(
        self,
        pause: Duration,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let app = Router::new().route("/tile/{number}", get(answer)).with_state(pause);
        axum::serve(self.listener, app).with_graceful_shutdown(shutdown).await?;
        Ok(())
    }
}

async fn answer(State(pause): State<Duration>, Path(number): Path<usize>) -> impl IntoResponse {
    tokio::time::sleep(pause).await;
    let computed = match number < TILES {
        true => tokio::task::spawn_blocking(move || tile(number)).await,
        false => return Err(StatusCode::NOT_FOUND),
    };
    let tile = computed.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(WORKER, std::process::id().to_string())], tile))
}
