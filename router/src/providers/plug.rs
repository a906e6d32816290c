//! Plugs the providers into a mesh: its inbox, and the sources of a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use edgemesh_core::forward::http::ByRule;
use edgemesh_core::mesh::{Mesh, Messenger};
use edgemesh_proto::record::RuleName;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::providers::connect::{Connect, Roots};
use crate::providers::eventbus::{BadBroker, BrokerConfig, EventBus};
use crate::providers::rest::Rest;
use crate::providers::{Deliver, Failure, Here, Providers, Sending, servicebus};

/// What a node has beside its mesh.
#[derive(Clone, Debug)]
pub struct Edge {
    /// Its broker.
    pub broker: BrokerConfig,
    /// Where its ServiceBus listens.
    pub service_bus: SocketAddr,
}

/// Plugs the cloud's part in: it calls URLs.
pub fn plug_cloud(mesh: &Mesh) {
    let shared = mesh.shared();
    let connect = Connect::new(shared.dial, Roots::Machine);
    let rest = Rest::new(connect, &shared.tasks, shared.stop.clone());
    mesh.deliver_by(Arc::new(Providers::new(rest, None)));
}

/// A node's part, plugged in.
#[derive(Debug)]
pub struct Plugged {
    /// Its broker.
    pub bus: EventBus,
    here: Here,
    service_bus: SocketAddr,
    tasks: TaskTracker,
    accepting: CancellationToken,
}

impl Plugged {
    /// From now on messages begin here: what the broker has for Rules, and calls of the ServiceBus. A
    /// broker knows a node by its name; another process of it ends that first, as [`BrokerConfig::lock`]
    /// tells.
    pub fn begin(&self) {
        self.bus.follow(self.here.clone());
        let (here, accepting) = (self.here.clone(), self.accepting.clone());
        servicebus::serve(here, self.service_bus, &self.tasks, accepting);
    }
}

/// Plugs a node's part in: URLs where no cloud calls them, and its broker. What begins on this node
/// waits for [`Plugged::begin`].
///
/// # Errors
/// The broker's URL is none.
pub fn plug_edge(mesh: &Mesh, edge: Edge) -> Result<Plugged, BadBroker> {
    let shared = mesh.shared();
    let (tasks, stop) = (&shared.tasks, shared.stop.clone());
    // With the listeners: when another process takes over, that is who messages come to.
    let accepting = mesh.accepting();
    let connect = Connect::new(shared.dial, Roots::Machine);
    let rest = Rest::new(connect.clone(), tasks, stop);
    let bus = EventBus::new(&shared.node, edge.broker, connect, tasks, accepting.clone())?;
    mesh.deliver_by(Arc::new(Providers::new(rest, Some(bus.clone()))));
    let here = Here {
        node: shared.node.clone(),
        live: shared.live.clone(),
        changed: mesh.status().changes(),
        deliver: Arc::new(ByMesh(mesh.messenger())),
    };
    let (service_bus, tasks) = (edge.service_bus, tasks.clone());
    Ok(Plugged { bus, here, service_bus, tasks, accepting })
}

/// Sends as every call of the mesh is sent.
#[derive(Clone, Debug)]
struct ByMesh(Messenger);

/// Who calls, for the log: something on this machine.
const HERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

impl Deliver for ByMesh {
    fn send(&self, rule: RuleName, request: Request<Full<Bytes>>) -> Sending {
        let messenger = self.0.clone();
        Box::pin(async move {
            let sent = messenger.send(HERE, ByRule { rule, node: None }, request).await;
            let answer = sent.map_err(|unserved| Failure {
                refusal: unserved.refusal,
                reason: unserved.reason().into(),
            })?;
            Ok(answer.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}
