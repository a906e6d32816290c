//! Where the admin API is asked, on a thread and a runtime of its own, so that whoever asks never
//! stalls a flow.

use std::net::TcpListener;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::agent::admin::{State, over_socket, over_tcp, probes};
use crate::agent::serve::serve_page;
use crate::agent::socket::Socket;

/// The listeners that are there from the start.
pub(super) struct Doors {
    /// The admin API.
    pub(super) admin: TcpListener,
    /// The page for scrapers.
    pub(super) page: TcpListener,
}

/// The thread that serves all of them.
pub(super) struct Admin {
    state: Arc<State>,
    stop: CancellationToken,
    socket: oneshot::Sender<Socket>,
    thread: std::thread::JoinHandle<()>,
}

/// An [`Admin`] that serves everything it ever will.
pub(super) struct Opened {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl Admin {
    /// Serves until it is stopped.
    pub(super) fn start(state: Arc<State>, doors: Doors) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (socket, later) = oneshot::channel();
        let (stopped, shared) = (stop.clone(), state.clone());
        let serve = move || runtime.block_on(serve(shared, doors, later, stopped));
        let thread = std::thread::Builder::new()
            .name("edgemesh-admin".into())
            .spawn(serve)
            .context("cannot start the thread of the admin API")?;
        Ok(Self { state, stop, socket, thread })
    }

    /// Serves the programs of this machine too, now that the agent has come up: its predecessor's
    /// socket is replaced by then, not before.
    pub(super) fn open(self, socket: Option<Socket>) -> Opened {
        if let Some(socket) = socket {
            self.state.listens_at(socket.path());
            // An error means that the thread has ended, which it has reported.
            let _ = self.socket.send(socket);
        }
        Opened { stop: self.stop, thread: self.thread }
    }
}

impl Opened {
    /// Ends the thread.
    pub(super) fn stop(self) {
        self.stop.cancel();
        // It ends by itself now; a panic in there was reported when it happened.
        let _ = self.thread.join();
    }
}

async fn serve(
    state: Arc<State>,
    doors: Doors,
    socket: oneshot::Receiver<Socket>,
    stop: CancellationToken,
) {
    let Doors { admin, page } = doors;
    let failed = |error| tracing::error!(%error, "cannot serve the admin API");
    let run = async |listener: TcpListener, router: Router| {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return failed(error),
        };
        let accept = async || Ok(listener.accept().await?.0);
        stop.run_until_cancelled(serve_page(accept, router)).await;
    };
    let local = async |router: Router| {
        let socket = stop.run_until_cancelled(socket).await;
        let Some(Ok((listener, _file))) = socket.map(|s| s.map(Socket::into_parts)) else { return };
        let listener = match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return failed(error),
        };
        let accept = async || Ok(listener.accept().await?.0);
        stop.run_until_cancelled(serve_page(accept, router)).await;
    };
    tokio::join!(
        run(admin, over_tcp(state.clone())),
        run(page, probes(state.clone())),
        local(over_socket(state)),
    );
}
