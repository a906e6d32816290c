//! The commands' side of the admin API: one bounded exchange, and errors that name the next step.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper_util::rt::TokioIo;
use serde::Serialize;
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
        "no agent answers at {0}: start one with `sudo edgemesh agent`, or name another with --admin \
         (a cloud's is http://127.0.0.1:15010)"
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
    /// The agent cannot at this moment, and said why.
    #[error("{0}")]
    NotNow(String),
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
        let (status, body) = self.within(Method::GET, path, Bytes::new()).await?;
        self.read(status, &body)
    }

    /// Fetches `path` as text.
    ///
    /// # Errors
    /// Every [`ClientError`] but `Url`.
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let (status, body) = self.within(Method::GET, path, Bytes::new()).await?;
        match status.is_success() {
            true => Ok(String::from_utf8_lossy(&body).into_owned()),
            false => self.read(status, &body),
        }
    }

    /// Puts `what` at `path` and reads the answer.
    ///
    /// # Errors
    /// Every [`ClientError`] but `Url`.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &str,
        what: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(what).map_err(|error| self.transport(&error))?;
        let (status, body) = self.within(Method::PUT, path, body.into()).await?;
        self.read(status, &body)
    }

    /// Deletes what is at `path`. That it is not there is no error.
    ///
    /// # Errors
    /// Every [`ClientError`] but `Url`.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        let (status, body) = self.within(Method::DELETE, path, Bytes::new()).await?;
        match status {
            StatusCode::NO_CONTENT | StatusCode::NOT_FOUND => Ok(()),
            _ => self.read::<serde_json::Value>(status, &body).map(|_| ()),
        }
    }

    async fn within(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let late = |_| ClientError::Timeout { url: self.url.clone(), after: self.timeout };
        tokio::time::timeout(self.timeout, self.exchange(method, path, body)).await.map_err(late)?
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, ClientError> {
        let strange = |body: String| ClientError::Strange { url: self.url.clone(), status, body };
        if status.is_success() {
            return serde_json::from_slice(body).map_err(|error| strange(error.to_string()));
        }
        match serde_json::from_slice::<ApiError>(body) {
            Ok(said) if status == StatusCode::SERVICE_UNAVAILABLE => {
                Err(ClientError::NotNow(said.error))
            }
            Ok(said) => Err(ClientError::Refused(said.error)),
            Err(_) => {
                let shown = &body[..body.len().min(MAX_SHOWN)];
                Err(strange(String::from_utf8_lossy(shown).trim().to_owned()))
            }
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        let stream = stream.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => ClientError::NoAgent(self.url.clone()),
            _ => self.transport(&error),
        })?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.transport(&error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, &self.authority)
            .header(http::header::ACCEPT, "application/json")
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
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
