//! The commands' side of the admin API: one bounded GET, and errors that name the next step.

use std::io;
use std::time::Duration;

use http::Request;
use http::StatusCode;
use http::Uri;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::api::ApiError;

/// How long an answer may take, from dialling to its last byte.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Longest answer: ten thousand Services with a few Backends each, and room.
const MAX_ANSWER: usize = 64 << 20;

/// Longest piece of an unexpected answer that is shown.
const MAX_SHOWN: usize = 200;

/// An agent's admin API.
#[derive(Clone, Debug)]
pub struct Admin {
    url: String,
    authority: String,
    host: String,
    port: u16,
    timeout: Duration,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `--admin` is not `http://HOST:PORT`.
    #[error("--admin {0}: not http://HOST:PORT")]
    Url(String),
    /// Nobody listens there.
    #[error(
        "no agent answers at {0}: start one with `edgemesh agent --config FILE`, \
         or name another with --admin"
    )]
    NoAgent(String),
    /// The answer did not come in time.
    #[error("the agent at {url} did not answer within {} s", after.as_secs())]
    Timeout {
        /// Whom we asked.
        url: String,
        /// How long we waited.
        after: Duration,
    },
    /// The connection failed.
    #[error("cannot talk to {url}: {reason}")]
    Transport {
        /// Whom we asked.
        url: String,
        /// What failed.
        reason: String,
    },
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
    /// The answer is none of ours.
    #[error("{url} answered {status}, and not as an agent does: {body}")]
    Strange {
        /// Whom we asked.
        url: String,
        /// Its status.
        status: StatusCode,
        /// The beginning of its body, or what is wrong with it.
        body: String,
    },
}

impl Admin {
    /// The API at `url`, which is `http://HOST:PORT`.
    ///
    /// # Errors
    /// [`ClientError::Url`]
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
        let (Some(authority), Some(port), true) = (uri.authority(), uri.port_u16(), plain) else {
            return Err(wrong());
        };
        let host = uri.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { url, authority: authority.to_string(), host, port, timeout: TIMEOUT })
    }

    /// The same with another patience than 5 s.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Fetches `path` (with its query).
    ///
    /// # Errors
    /// Every [`ClientError`] but `Url`.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let (status, body) = self.fetch(path).await?;
        let strange = |body: String| ClientError::Strange { url: self.url.clone(), status, body };
        serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))
    }

    /// Fetches `path` as text.
    ///
    /// # Errors
    /// Every [`ClientError`] but `Url`.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let (_, body) = self.fetch(path).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn fetch(&self, path: &str) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let exchange = tokio::time::timeout(self.timeout, self.exchange(path));
        let (status, body) = exchange
            .await
            .map_err(|_| ClientError::Timeout { url: self.url.clone(), after: self.timeout })??;
        if status.is_success() {
            return Ok((status, body));
        }
        let strange = |body: String| ClientError::Strange { url: self.url.clone(), status, body };
        match serde_json::from_slice::<ApiError>(&body) {
            Ok(said) => Err(ClientError::Refused(said.error)),
            Err(_) => {
                let shown = &body[..body.len().min(MAX_SHOWN)];
                Err(strange(String::from_utf8_lossy(shown).trim().to_owned()))
            }
        }
    }

    async fn exchange(&self, path: &str) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => ClientError::NoAgent(self.url.clone()),
            _ => self.transport(&error),
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.transport(&error))?;
        let request = Request::get(path)
            .header(http::header::HOST, &self.authority)
            .header(http::header::ACCEPT, "application/json")
            .body(Empty::<bytes::Bytes>::new())
            .map_err(|error| self.transport(&error))?;
        let answer = async {
            let response =
                sender.send_request(request).await.map_err(|error| self.transport(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| self.transport(&*error))?;
            Ok((status, body.to_bytes().to_vec()))
        };
        // Driven side by side: when the connection ends first, what it read is still to be taken.
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            ended = connection => match ended {
                Ok(()) => answer.await,
                Err(error) => Err(self.transport(&error)),
            },
        }
    }

    fn transport(&self, error: &dyn std::error::Error) -> ClientError {
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            reason = format!("{reason}: {cause}");
            source = cause.source();
        }
        ClientError::Transport { url: self.url.clone(), reason }
    }
}

/// `text` for use in a query: all but letters, digits and `-._~` as `%XX`.
pub fn query_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
