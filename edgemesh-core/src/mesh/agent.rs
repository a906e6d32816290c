//! The agent of this node, asked over its socket `dataDir/mesh.sock`: HTTP/1.1, JSON.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

/// Longest wait for the head of an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Longest answer to a registration, in bytes.
const MAX_REPLY: usize = 64 * 1024;

/// The agent behind a socket.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    socket: Arc<Path>,
    tasks: TaskTracker,
}

/// Why the agent of this node did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Nobody listens.
    #[error(
        "no agent answers at {}: start one with `edgemesh agent --config FILE`, or name the mesh.sock in its dataDir",
        .socket.display()
    )]
    Absent {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It broke off.
    #[error("the agent at {} broke off", .socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It said nothing for too long.
    #[error("the agent at {} is silent", .socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
    },
    /// It said no.
    #[error("the agent answers {status}: {reason}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Its words.
        reason: String,
    },
}

impl Agent {
    /// The agent at `socket`; connections are tasks of `tasks`.
    pub(super) fn new(socket: &Path, tasks: TaskTracker) -> Self {
        Self { socket: socket.into(), tasks }
    }

    /// Sends a request and waits for the head of its answer, which is 2xx.
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Response<Incoming>, AgentError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))
            .map_err(|error| self.broken(error))?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, self.send(request));
        let response = answer.await.map_err(|_| self.silent())??;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = tokio::time::timeout(
            ANSWER_WITHIN,
            Limited::new(response.into_body(), MAX_REPLY).collect(),
        );
        let body = body.await.map_err(|_| self.silent())?.map_err(|error| self.broken(error))?;
        Err(AgentError::Refused { status, reason: reason(&body.to_bytes()) })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, AgentError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| AgentError::Absent { socket: self.socket.to_path_buf(), source })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.broken(error))?;
        // Ends with the answer's body, which its reader holds.
        self.tasks.spawn(connection);
        sender.send_request(request).await.map_err(|error| self.broken(error))
    }

    /// What a failure to read an answer is.
    pub(super) fn broken(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> AgentError {
        AgentError::Broken { socket: self.socket.to_path_buf(), source: source.into() }
    }

    /// What a silence is.
    pub(super) fn silent(&self) -> AgentError {
        AgentError::Silent { socket: self.socket.to_path_buf() }
    }
}

/// What the agent says in `{"error": …}`, else its bytes.
fn reason(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Said {
        error: String,
    }
    match serde_json::from_slice::<Said>(body) {
        Ok(Said { error }) => error,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}
