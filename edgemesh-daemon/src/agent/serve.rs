//! Serves a page to whoever connects, with bounds: this process's files are those of every flow.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinSet};
use tower::ServiceExt;

/// Connections to one page at once. Over it the oldest is closed: whoever asks is answered within
/// milliseconds, so that it is one of those who hold connections and do not ask.
const CONNECTIONS: usize = 64;
/// Longest wait for a whole request head, also between two requests of one connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest head.
const MAX_BUFFER: usize = 16 * 1024;
/// Pause after an accept that failed for lack of files or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts for as long as it is polled; dropped, it closes every connection.
pub(crate) async fn serve_page<S>(mut accept: impl AsyncFnMut() -> io::Result<S>, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut all = JoinSet::new();
    let mut by_age = VecDeque::<AbortHandle>::new();
    loop {
        let stream = match accept().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections to the admin API");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while all.try_join_next().is_some() {}
        by_age.retain(|connection| !connection.is_finished());
        if by_age.len() >= CONNECTIONS
            && let Some(oldest) = by_age.pop_front()
        {
            oldest.abort();
        }
        by_age.push_back(all.spawn(connection(stream, router.clone())));
    }
}

async fn connection<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| router.clone().oneshot(request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        let error: &dyn std::error::Error = &error;
        tracing::debug!(error, "a connection to the admin API ended");
    }
}
