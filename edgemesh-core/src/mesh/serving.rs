//! Signs the application's own listeners up as Backends, for as long as it wants them to be.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Method;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::mesh::Mesh;
use crate::mesh::agent::{Agent, AgentError};
use crate::mesh::doors::split;
use crate::snapshot::split_name;

/// An agent forgets an application that has not said for this long that it is there, in seconds.
const TTL: u32 = 10;
/// How often it says so: two may be lost.
const RENEW_EVERY: Duration = Duration::from_secs(3);

/// A listener that is signed up; dropped, it is signed off.
#[derive(Debug)]
#[must_use = "dropping it signs the listener off"]
pub struct Serving {
    _off: DropGuard,
}

/// Why a listener cannot be signed up.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The name is none of a Service.
    #[error("`{0}` names no Service: `svc.ns`, or `svc.ns:port` for one of several ports")]
    Name(String),
    /// The listener has no address.
    #[error("the listener has no address")]
    Listener(#[source] io::Error),
    /// The agent of this node does not take it.
    #[error("cannot sign up")]
    Agent(#[from] AgentError),
}

impl Mesh {
    /// Signs `listener` up as a Backend of `name`: `svc.ns`, or `svc.ns:port` for one of a
    /// Service's several ports. A Service that no source knows is made, with the port of `name` or
    /// 80. The application accepts and serves by itself; it is signed off when the result is
    /// dropped or [`Mesh::run`] ends. A listener on every address is called at 127.0.0.1.
    ///
    /// Who follows an agent is signed up there, and renews that every three seconds; an application
    /// that dies is forgotten after ten. Otherwise only this mesh's own calls find it.
    ///
    /// # Errors
    /// [`ServeError`]
    pub async fn serve(&self, name: &str, listener: &TcpListener) -> Result<Serving, ServeError> {
        let wrong = || ServeError::Name(name.to_owned());
        let (host, port) = split(name);
        let (namespace, service) = split_name(host, &self.shared.domain).ok_or_else(wrong)?;
        let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if port == Some(0) || !format!("{namespace}{service}").chars().all(is_label) {
            return Err(wrong());
        }
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        let said = Said::new(address, port);
        let off = CancellationToken::new();
        let id = format!(
            "app-{}-{}-{:08x}",
            std::process::id(),
            address.port(),
            crate::io::unique_id() as u32
        );
        let Some(agent) = self.agent.clone() else { todo_in_process(&said) };
        let path = format!("/v1/registrations/{namespace}/{service}/{id}");
        let registration = Registration { agent, path, said };
        registration.put().await?;
        let ended = [off.clone(), self.shared.stop.clone()];
        self.shared.tasks.spawn(registration.renew(ended));
        Ok(Serving { _off: off.drop_guard() })
    }
}

/// What the agent is told.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    port: u16,
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_port: Option<u16>,
    ttl_seconds: u32,
}

impl Said {
    fn new(at: SocketAddr, service_port: Option<u16>) -> Self {
        let address = match at.ip() {
            ip if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
            ip => ip,
        };
        Self { port: at.port(), address, service_port, ttl_seconds: TTL }
    }
}

/// A listener at the agent.
#[derive(Debug)]
struct Registration {
    agent: Agent,
    path: String,
    said: Said,
}

impl Registration {
    async fn put(&self) -> Result<(), AgentError> {
        let said = serde_json::to_vec(&self.said).map_err(|error| self.agent.broken(error))?;
        self.agent.ask(Method::PUT, &self.path, said).await.map(drop)
    }

    /// Says again and again that it is there, until one of `ended`; then that it is not.
    async fn renew(self, ended: [CancellationToken; 2]) {
        let [off, stop] = ended;
        loop {
            tokio::select! {
                () = off.cancelled() => break,
                () = stop.cancelled() => break,
                () = tokio::time::sleep(RENEW_EVERY) => {}
            }
            if let Err(error) = self.put().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "not signed up at the agent; trying again"
                );
            }
        }
        if let Err(error) = self.agent.ask(Method::DELETE, &self.path, "").await {
            tracing::warn!(error = &error as &dyn std::error::Error, "not signed off at the agent");
        }
    }
}
