//! One picture, computed by whoever is there: workers sign themselves up under one name, a client
//! that knows only this name fans out 256 tiles and puts them together.
//!
//! `docs/library.md` walks through it.

#![expect(clippy::print_stderr, reason = "what it does is for people")]

mod gather;
mod picture;
mod progress;
mod worker;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use clap::{Args, Parser, Subcommand};
use edgemesh_core::mesh::{Http, Mesh};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::gather::gather;
use crate::picture::{Picture, TILES, tile};
use crate::progress::Progress;
use crate::worker::Worker;

/// The Mandelbrot set, computed together
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compute the picture in this process, tile after tile, without a mesh
    Alone {
        /// The PNG to write
        out: PathBuf,
    },
    /// Workers and client in this one process, without an agent
    Local {
        /// The PNG to write
        out: PathBuf,
        /// How many workers
        #[arg(long, default_value_t = 4)]
        workers: usize,
        #[command(flatten)]
        width: Width,
    },
    /// Sign up with this node's agent and compute tiles
    Worker {
        #[command(flatten)]
        agent: Agent,
        /// Milliseconds by which every tile takes longer, to watch it
        #[arg(long, default_value_t = 0)]
        pause: u64,
    },
    /// Have the picture computed by whoever is signed up
    Draw {
        /// The PNG to write
        out: PathBuf,
        #[command(flatten)]
        agent: Agent,
        #[command(flatten)]
        width: Width,
    },
    /// The same for whoever asks: GET /picture.png
    Serve {
        #[command(flatten)]
        agent: Agent,
        /// Where to listen
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
        #[command(flatten)]
        width: Width,
    },
}

#[derive(Debug, Args)]
struct Agent {
    /// The agent's mesh.sock
    #[arg(long, default_value = "/var/lib/edgemesh/mesh.sock")]
    agent: PathBuf,
}

#[derive(Debug, Args)]
struct Width {
    /// How many tiles are asked for at once
    #[arg(long, default_value_t = 16)]
    width: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Alone { out } => alone(&out),
        Command::Local { out, workers, width } => local(&out, workers, width.width).await,
        Command::Worker { agent, pause } => work(&agent.agent, Duration::from_millis(pause)).await,
        Command::Draw { out, agent, width } => {
            let mesh = Mesh::builder().follow(agent.agent).open().await?;
            draw(&mesh.http(), &out, width.width).await
        }
        Command::Serve { agent, listen, width } => serve(&agent.agent, listen, width.width).await,
    }
}

fn alone(out: &Path) -> anyhow::Result<()> {
    let (mut picture, mut progress) = (Picture::new(), Progress::new());
    for number in 0..TILES {
        anyhow::ensure!(picture.put(number, &tile(number)), "tile {number} is no tile");
        progress.tile(number + 1, &std::process::id().to_string());
    }
    progress.end();
    write(out, &picture.png()?)
}

async fn local(out: &Path, workers: usize, width: usize) -> anyhow::Result<()> {
    let mesh = Mesh::builder().open().await?;
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let worker = Worker::sign_up(&mesh).await?;
        running.spawn(worker.run(Duration::ZERO, std::future::pending()));
    }
    draw(&mesh.http(), out, width).await
}

async fn work(agent: &Path, pause: Duration) -> anyhow::Result<()> {
    let mesh = Mesh::builder().follow(agent).open().await?;
    let worker = Worker::sign_up(&mesh).await?;
    eprintln!("worker {} is signed up", std::process::id());
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Signed off first, by dropping it at the end of `run`; then what is under way may end.
    let ended = worker.run(pause, async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    });
    let ended = ended.await;
    mesh.run(std::future::ready(())).await;
    ended
}

async fn draw(http: &Http, out: &Path, width: usize) -> anyhow::Result<()> {
    let mut progress = Progress::new();
    let png = gather(http, width, |count, worker| progress.tile(count, worker)).await?;
    progress.end();
    write(out, &png)
}

async fn serve(agent: &Path, listen: SocketAddr, width: usize) -> anyhow::Result<()> {
    let mesh = Mesh::builder().follow(agent).open().await?;
    let app = Router::new().route("/picture.png", get(answer)).with_state((mesh.http(), width));
    let listener = TcpListener::bind(listen).await.context("cannot listen")?;
    eprintln!("http://{}/picture.png", listener.local_addr()?);
    Ok(axum::serve(listener, app).await?)
}

/// A client that leaves drops this, and with it every call that is under way.
async fn answer(State((http, width)): State<(Http, usize)>) -> impl IntoResponse {
    match gather(&http, width, |_, _| {}).await {
        Ok(png) => Ok(([(CONTENT_TYPE, "image/png")], png)),
        Err(error) => Err((StatusCode::BAD_GATEWAY, format!("{error:#}\n"))),
    }
}

fn write(out: &Path, png: &[u8]) -> anyhow::Result<()> {
    std::fs::write(out, png).with_context(|| format!("cannot write {}", out.display()))
}
