//! What an application does with a mesh: ask where a call would go, connect, send requests, end.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::forward::bytes::Early;
use crate::forward::flow::{Flow, Said};
use crate::io::now;
use crate::mesh::client::Http;
use crate::mesh::connection::Connection;
use crate::mesh::{Builder, Mesh};
use crate::metrics::Ended;
use crate::plan::{self, Arrival, Destination, Hop, Purpose, Target};
use crate::refusal::Refusal;

/// Whom the access log names as the client of the application's own calls.
pub(super) const APPLICATION: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// How long [`Mesh::run`] lets calls end.
const DRAIN: Duration = Duration::from_secs(10);

/// A call of the application that was refused, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The reason; its table has status, label and whose fault it is.
    pub refusal: Refusal,
    /// Whom the call was for, as the application named it.
    pub to: Box<str>,
    /// How to call instead, where the call itself is wrong; else empty.
    pub hint: &'static str,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { refusal, to, hint } = self;
        match hint.is_empty() {
            true => write!(f, "{to}: {refusal}"),
            false => write!(f, "{to}: {refusal} ({hint})"),
        }
    }
}

impl std::error::Error for Refused {}

impl Mesh {
    /// A mesh inside an application; see [`Builder`].
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The destination of a connection of bytes to `name` (`svc.ns` or `svc.ns:port`), for
    /// [`Mesh::plan`] and [`Mesh::explain`].
    pub fn towards<'a>(&'a self, name: &'a str) -> Destination<'a> {
        let (host, port) = split(name);
        let to = Target::Name { host, port, domain: &self.shared.domain };
        Destination::new(to, Arrival::Library, Purpose::Call)
    }

    /// Decides where a call goes, and counts it as one: the Hop wants to be finished with its
    /// outcome, and is a cancelled call otherwise. For applications that dial by themselves.
    ///
    /// # Errors
    /// The Refusal.
    pub fn plan(&self, destination: &Destination<'_>) -> Result<Hop, Refusal> {
        plan::plan(&self.shared.live.load(), destination, now())
    }

    /// Connects to a Backend of `name`: `svc.ns:port`, or `svc.ns` for a Service with one port.
    /// Nothing has to be said first, so that servers that speak first may.
    ///
    /// # Errors
    /// [`Refused`], after the attempts that the Policy allows.
    pub async fn connect(&self, name: &str) -> Result<Connection, Refused> {
        let (host, port) = split(name);
        let mut flow = Flow::begin(&self.shared, APPLICATION, None);
        flow.said = Said::Connect(host.into());
        let to = Target::Name { host, port, domain: &self.shared.domain };
        match flow.reach(to, Arrival::Library, &mut Early::default()).await {
            Ok(stream) => Ok(Connection::new(stream, flow)),
            Err(refusal) => {
                flow.end(Ended::Refused(refusal));
                Err(Refused { refusal, to: name.into(), hint: "" })
            }
        }
    }

    /// A client for requests by name: a `tower::Service`, cheap to clone.
    pub fn http(&self) -> Http {
        Http::new(self.shared.clone())
    }

    /// Waits for `shutdown`, then signs off what [`Mesh::serve`] signed up, lets calls end for at
    /// most ten seconds and closes the store. The application's own connections are left to it.
    pub async fn run(&self, shutdown: impl Future<Output = ()>) {
        shutdown.await;
        self.close(DRAIN).await;
    }
}

/// Host and port; what is no port number matches no port of any Service.
pub(super) fn split(name: &str) -> (&str, Option<u16>) {
    match name.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().unwrap_or(0))),
        None => (name, None),
    }
}
