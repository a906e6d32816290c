//! New connections to Backends, HTTP/1 and HTTP/2.

use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::dial::DialError;
use crate::forward::Shared;
use crate::forward::http::deadline::Deadline;
use crate::forward::http::serve::{
    MAX_BUFFER, MAX_HEADERS, PING_EVERY, Tracked, WINDOW_CONNECTION, WINDOW_STREAM,
};
use crate::forward::http::upload::Upload;
use crate::forward::http::upstream::outcome::broken;
use crate::forward::http::upstream::{Attempt, Failure, Http1, Socket};
use crate::io::now;
use crate::plan::Hop;
use crate::refusal::Refusal;

pub(super) async fn connect_http1(attempt: &Attempt<'_>) -> Result<Http1, Failure> {
    let shared = attempt.shared;
    let (socket, heard) = Socket::new(dial(shared, attempt.hop, attempt.deadline).await?);
    let (sender, connection) = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| Failure { sent: false, ..broken(&error) })?;
    shared.tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "upstream connection ended");
        }
    });
    Ok(Http1 { sender, heard })
}

pub(super) async fn connect_http2(
    attempt: &Attempt<'_>,
) -> Result<http2::SendRequest<Upload>, Failure> {
    let (shared, stream) =
        (attempt.shared, dial(attempt.shared, attempt.hop, attempt.deadline).await?);
    let (sender, connection) = http2::Builder::new(Tracked(shared.tasks.clone()))
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_STREAM)
        .initial_connection_window_size(WINDOW_CONNECTION)
        .max_header_list_size(MAX_BUFFER as u32)
        .keep_alive_interval(PING_EVERY)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure { sent: false, ..broken(&error) })?;
    shared.tasks.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = &error as &dyn std::error::Error, "upstream connection ended");
        }
    });
    Ok(sender)
}

/// Connects within the time of the Policy, and of the call. Nothing was sent when it fails.
pub(in crate::forward::http) async fn dial(
    shared: &Shared,
    hop: &Hop,
    deadline: Option<Deadline>,
) -> Result<TcpStream, Failure> {
    let failure =
        |refusal, backends_fault| Failure { refusal, again: None, sent: false, backends_fault };
    if shared.is_own(hop.address()) {
        return Err(failure(Refusal::Loop, false));
    }
    let timeout = hop.service().policy.connect_timeout;
    let left = deadline.map(|deadline| deadline.left(Instant::from_std(now())));
    if left == Some(Duration::ZERO) {
        return Err(failure(Refusal::RequestTimeout, false));
    }
    let cut = left.filter(|left| *left < timeout);
    shared.connect(hop.address(), cut.unwrap_or(timeout)).await.map_err(|error| {
        tracing::debug!(error = &error as &dyn std::error::Error, "no connection to the backend");
        match (&error, deadline) {
            // It had less time than its Policy gives it.
            (DialError::Timeout(_), Some(deadline)) if cut.is_some() => {
                failure(Refusal::RequestTimeout, !deadline.by_client)
            }
            _ => failure(error.refusal(), error.blames_backend()),
        }
    })
}
