//! The router's ingress: any client in the cloud reaches the Services of the mesh here.
//!
//! It names them by `Host: svc.ns`, by `/_svc/{namespace}/{service}/…`, or by `CONNECT svc.ns:port`
//! for connections of bytes; HTTP/1 and HTTP/2 on one port. What comes in is a call as any other
//! of the mesh: decided by `plan`, limited, retried, accounted for in one line.
//!
//! [`gate`] says who is let in and what is meant, [`secrets`] holds what proves who calls.

mod first;
mod form;
mod gate;
mod secrets;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use edgemesh_core::forward::flow::Flow;
use edgemesh_core::forward::http::{Gate, Origin, Towards, serve};
use edgemesh_core::forward::{Place, Shared};
use edgemesh_core::io::Prefixed;
use edgemesh_core::listen::Listener;
use edgemesh_core::mesh::Mesh;
use edgemesh_core::metrics::{Carried, Ended};
use edgemesh_core::proxy::{Entrance, Newcomer};
use edgemesh_core::refusal::Refusal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::ingress::first::{First, Shaken, first, shake};
use crate::ingress::gate::{Offered, Reception, TlsOnly};
use crate::ingress::secrets::Secrets;

pub use secrets::IngressError;

/// Whether a node of that name is known.
pub type KnownNodes = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What an ingress is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngressConfig {
    /// Its certificate; absent: it is spoken to in the clear.
    pub tls: Option<TlsFiles>,
    /// Who may call.
    pub auth: Auth,
    /// Connections served at once.
    pub room: usize,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead to its authority.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

/// Who may call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Whoever reaches it.
    None,
    /// Who sends the token in this file.
    Token(PathBuf),
    /// Who has a certificate of an authority in this file. Needs TLS.
    ClientCa(PathBuf),
}

/// See the module. Clones are the same ingress.
#[derive(Clone)]
pub struct Ingress {
    config: Arc<IngressConfig>,
    secrets: Arc<ArcSwap<Secrets>>,
    nodes: KnownNodes,
}

impl Ingress {
    /// Reads the files that `config` names.
    ///
    /// # Errors
    /// Which of them is of no use, and why.
    pub fn new(config: IngressConfig, nodes: KnownNodes) -> Result<Self, IngressError> {
        let secrets = Secrets::read(&config)?;
        let secrets = Arc::new(ArcSwap::from_pointee(secrets));
        Ok(Self { config: Arc::new(config), secrets, nodes })
    }

    /// Reads the files anew. Connections that are open keep the certificate that they were shown;
    /// a token counts from the next request.
    ///
    /// # Errors
    /// As [`Ingress::new`]; what was read before stays in force.
    pub fn reload(&self) -> Result<(), IngressError> {
        self.secrets.store(Arc::new(Secrets::read(&self.config)?));
        Ok(())
    }

    /// Serves `listener` with the Services of `mesh`, until that stops.
    pub fn run(&self, mesh: &Mesh, listener: Listener) -> impl Future<Output = ()> + Send + use<> {
        let reception = Reception::new(mesh.shared(), self.secrets.clone(), self.nodes.clone());
        let front = Front { secrets: self.secrets.clone(), reception: Arc::new(reception) };
        mesh.ingress(listener.address(), front, self.config.room).run(listener)
    }
}

impl std::fmt::Debug for Ingress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingress").field("config", &self.config).finish_non_exhaustive()
    }
}

/// What becomes of a connection.
#[derive(Clone, Debug)]
struct Front {
    secrets: Arc<ArcSwap<Secrets>>,
    reception: Arc<Reception>,
}

impl Entrance for Front {
    fn serve(&self, newcomer: Newcomer) -> impl Future<Output = ()> + Send + 'static {
        let Self { secrets, reception } = self.clone();
        let tls = secrets.load().tls.clone();
        let Newcomer { shared, stream, peer, place } = newcomer;
        async move {
            let flow = Flow::begin(&shared, peer, None);
            let mut visitor = Visitor { shared, place, peer, flow };
            let Some(tls) = tls else { return visitor.serve(stream, reception).await };
            // Large and short-lived: an idle connection has no room for it.
            match Box::pin(shake(&visitor.shared, stream, tls)).await {
                Shaken::Secured(stream) if is_offered(&stream) => {
                    visitor.serve(*stream, Arc::new(Offered(reception))).await;
                }
                Shaken::Secured(stream) => visitor.serve(*stream, reception).await,
                Shaken::InTheClear(stream) => visitor.serve(stream, Arc::new(TlsOnly)).await,
                Shaken::Ended(ended) => {
                    visitor.flow.carried = Carried::Tls;
                    visitor.flow.end(ended);
                }
            }
        }
    }
}

/// Whether the handshake says HTTP/2.
fn is_offered(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// A connection that has not asked for anything yet.
struct Visitor {
    shared: Arc<Shared>,
    place: Arc<Place>,
    peer: SocketAddr,
    flow: Box<Flow>,
}

impl Visitor {
    /// Serves the HTTP on `stream` that `gate` lets in.
    async fn serve<S>(self, mut stream: S, gate: Arc<dyn Gate>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let Self { shared, place, peer, flow } = self;
        let (version, prefix) = match first(&shared, &mut stream).await {
            First::Http(version, prefix) => (version, prefix),
            First::Tls => return flow.end(Ended::Refused(Refusal::BadRequest)),
            First::Stopped => return flow.end(Ended::Refused(Refusal::Draining)),
            First::Nothing => return flow.end(Ended::Cancelled),
        };
        flow.became_http();
        let (place, towards) = (Some(place), Towards::Ingress);
        let origin = Origin { shared, place, client: peer, towards, dialled: None, passed: None };
        let stream = Prefixed::new(prefix.into(), stream);
        Box::pin(serve(Arc::new(origin), stream, version, Some(gate))).await;
    }
}
