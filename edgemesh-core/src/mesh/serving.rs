//! Signs the application's own listeners up as Backends, for as long as it wants them to be.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::pin::pin;
use std::time::Duration;

use http::Method;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::io::{now, unique_id};
use crate::manifests::is_label;
use crate::mesh::agent::{Agent, AgentError};
use crate::mesh::doors::split;
use crate::mesh::{Keeper, Mesh};
use crate::plan::{Target, resolve};
use crate::refusal::Refusal;
use crate::registrations::{Name, Registration, Rejected};
use crate::snapshot::split_name;

/// An agent forgets an application that has not said for this long that it is there, in seconds.
const TTL: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
/// The port of a Service that is made for a name without one.
const HTTP_PORT: u16 = 80;
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
    /// What is signed up does not fit.
    #[error("cannot sign up")]
    Rejected(#[from] Rejected),
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
        if port == Some(0) || !is_label(namespace) || !is_label(service) {
            return Err(wrong());
        }
        let address = listener.local_addr().map_err(ServeError::Listener)?;
        let backed = self.backed_port(host, port);
        let mut registration = registration(address, backed).ok_or_else(wrong)?;
        registration.ttl = self.agent.is_some().then_some(TTL);
        let process = std::process::id();
        let id = format!("app-{process}-{}-{:08x}", address.port(), unique_id() as u32);
        let (off, stop) = (CancellationToken::new(), self.shared.stop.clone());
        let serving = Serving { _off: off.clone().drop_guard() };
        if let Some(agent) = self.agent.clone() {
            let path = format!("/v1/registrations/{namespace}/{service}/{id}");
            let at_agent = AtAgent { agent, path, registration };
            at_agent.put().await?;
            self.shared.tasks.spawn(at_agent.renew(either(off, stop)));
        } else if let Some(Keeper { registrations, .. }) = &self.keeper {
            let name = Name::new(namespace, service, &id)?;
            let (table, named) = (registrations.clone(), name.clone());
            // Before it is signed up, which the caller may stop waiting for.
            self.shared.tasks.spawn(async move {
                // A mesh that stops has nobody left who would look.
                if stop.run_until_cancelled(off.cancelled()).await.is_some() {
                    table.remove(&named).await;
                }
            });
            // Kept nowhere, so that no disk can refuse it.
            let _ = registrations.put(name, registration, now()).await?;
        }
        Ok(serving)
    }
}

impl Mesh {
    /// Which port of its Service a listener backs: never the listener's own by chance, which the
    /// kernel may have chosen. `None` = the Service has several, and none was named.
    fn backed_port(&self, host: &str, port: Option<u16>) -> Option<u16> {
        let to = Target::Name { host, port: None, domain: &self.shared.domain };
        port.or_else(|| match resolve(&self.shared.live.load(), to) {
            Ok(found) => Some(found.service.ports[found.port].port),
            Err(Refusal::NoService) => Some(HTTP_PORT),
            Err(_) => None,
        })
    }
}

/// Resolves when one of two is cancelled.
async fn either(one: CancellationToken, other: CancellationToken) {
    tokio::select! {
        () = one.cancelled() => {}
        () = other.cancelled() => {}
    }
}

/// What the table of registrations is told of a listener.
fn registration(at: SocketAddr, service_port: Option<u16>) -> Option<Registration> {
    let address = match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let service_port = service_port.and_then(NonZeroU16::new);
    let port = NonZeroU16::new(at.port())?;
    Some(Registration { address, service_port, ..Registration::at(port) })
}

/// A listener at the agent.
#[derive(Debug)]
struct AtAgent {
    agent: Agent,
    path: String,
    registration: Registration,
}

impl AtAgent {
    async fn put(&self) -> Result<(), AgentError> {
        let said =
            serde_json::to_vec(&self.registration).map_err(|error| self.agent.broken(error))?;
        self.agent.ask(Method::PUT, &self.path, said).await.map(drop)
    }

    /// Says again and again that it is there, until `ended`; then that it is not.
    async fn renew(self, ended: impl Future<Output = ()>) {
        let mut ended = pin!(ended);
        while tokio::time::timeout(RENEW_EVERY, &mut ended).await.is_err() {
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
