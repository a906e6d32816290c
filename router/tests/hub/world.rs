//! A hub on loopback, and nodes that speak to it Message by Message.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::dial::Dial;
use edgemesh_core::identity::authority::LIFETIME;
use edgemesh_core::identity::{self, CLOUD, Clock, Expect, OFFLINE_GRACE, Tls};
use edgemesh_core::link::{self, ALPN_H2, Dialled, Limits, Link, Messages, Operation, Rest};
use edgemesh_core::listen::Listener;
use edgemesh_core::peers::message;
use edgemesh_proto::message::{Body, Caller, Connect, Hello, Message, Target};
use edgemesh_proto::record::{NodeName, ServiceName};
use edgemesh_router::authority::Authority;
use edgemesh_router::hub::{Hub, Parts};
use edgemesh_router::registry::shared::Shared as Registry;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A day in 2026.
pub(crate) const TODAY: i64 = 1_790_000_000;
/// Nothing here takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
const EPOCH: [u8; 16] = [7; 16];

/// See the module.
pub(crate) struct World {
    pub(crate) hub: Hub,
    pub(crate) registry: Registry,
    pub(crate) address: SocketAddr,
    pub(crate) authority: Arc<Authority>,
    pub(crate) tasks: TaskTracker,
    ca: identity::Authority,
    clock: Arc<Clock>,
    stop: CancellationToken,
    _folder: TempDir,
}

/// A node's Control, as far as a Message.
pub(crate) struct Control {
    pub(crate) link: Link,
    pub(crate) messages: Messages,
    node: NodeName,
}

pub(crate) fn node(name: &str) -> NodeName {
    NodeName(name.into())
}

impl World {
    pub(crate) fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::open(folder.path(), TODAY, OFFLINE_GRACE).unwrap());
        let ca = identity::Authority::from_pem(&authority.export()).unwrap();
        let clock = Arc::new(Clock::with(None, || TODAY));
        let own = authority.hub(&["localhost".into()], TODAY).unwrap();
        let (registry, tasks) = (Registry::in_memory(EPOCH), TaskTracker::new());
        let stop = CancellationToken::new();
        let hub = Hub::new(Parts {
            registry: registry.clone(),
            authority: authority.clone(),
            tls: Arc::new(Tls::new(own, clock.clone(), OFFLINE_GRACE)),
            instance: [1; 16],
            own_nodes: Arc::new(|_| false),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address();
        tasks.spawn(hub.clone().run(listener));
        Self { hub, registry, authority, address, tasks, ca, clock, stop, _folder: folder }
    }

    /// What a node proves itself with that joined at that time.
    pub(crate) fn tls(&self, name: &str, issued: i64) -> Tls {
        let identity = self.ca.node(&node(name), issued, LIFETIME).unwrap();
        Tls::new(identity, self.clock.clone(), OFFLINE_GRACE)
    }

    pub(crate) async fn dialled(&self, tls: &Tls, alpn: &'static [u8]) -> Dialled {
        let (config, name) = (tls.client(Expect::Hub, alpn), Expect::Hub.server_name());
        link::dial(&Dial::default(), self.address, PATIENCE, config, name).await.unwrap()
    }

    /// A Link on which the node opens exchanges.
    pub(crate) async fn link(&self, tls: &Tls, limits: Limits) -> Link {
        let dialled = self.dialled(tls, ALPN_H2).await;
        link::client(dialled, limits, self.tasks.clone()).await.unwrap()
    }

    /// As `edgemesh node remove` does, today.
    pub(crate) async fn removed(&self, name: &str) {
        let (node, before) = (node(name), TODAY + 1);
        let is_back = || self.hub.is_linked_since(&node, before);
        self.registry.remove(&node, before, is_back).await;
    }

    /// A Link of somebody who has no certificate.
    pub(crate) async fn stranger(&self) -> Link {
        let tls = identity::joining(self.ca.ca(), &self.clock, OFFLINE_GRACE, ALPN_H2);
        let name = Expect::Hub.server_name();
        let dialled = link::dial(&Dial::default(), self.address, PATIENCE, tls, name).await;
        link::client(dialled.unwrap(), Limits::CONTROL, self.tasks.clone()).await.unwrap()
    }

    /// The node is welcome.
    pub(crate) async fn control(&self, name: &str) -> Control {
        self.control_of(name, &self.tls(name, TODAY), |_| {}).await
    }

    pub(crate) async fn control_of(
        &self,
        name: &str,
        tls: &Tls,
        change: impl FnOnce(&mut Hello),
    ) -> Control {
        match self.ask_control(name, tls, change).await {
            Ok(control) => control,
            Err(body) => panic!("no welcome for {name}: {body:?}"),
        }
    }

    /// What the hub answers to hello, where that is no welcome.
    pub(crate) async fn ask_control(
        &self,
        name: &str,
        tls: &Tls,
        change: impl FnOnce(&mut Hello),
    ) -> Result<Control, Option<Box<Body>>> {
        let link = self.link(tls, Limits::CONTROL).await;
        let mut hello = hello(name);
        change(&mut hello);
        let (writer, rest) = link::pipe();
        let hello = message([name, CLOUD], Body::Hello(hello));
        let reply = link.open(Operation::Control, &hello, rest).await.unwrap();
        match reply.opening.body.as_deref() {
            Some(Body::Welcome(_)) => {
                let messages = Messages::new(writer, reply.body);
                Ok(Control { link, messages, node: node(name) })
            }
            _ => Err(reply.opening.body),
        }
    }

    /// Waits until it is so.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(what, waiting).await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Control {
    pub(crate) async fn say(&self, body: Body) {
        let message = message([&self.node.0, CLOUD], body);
        within("saying it", self.messages.send(&message)).await.unwrap();
    }

    /// The next Message that `wanted` makes something of.
    pub(crate) async fn hear<T>(&mut self, what: &str, wanted: impl Fn(Body) -> Option<T>) -> T {
        let hearing = async {
            loop {
                let next = self.messages.next().await.unwrap();
                let body = next.unwrap_or_else(|| panic!("the end before {what}")).body;
                if let Some(found) = body.and_then(|body| wanted(*body)) {
                    return found;
                }
            }
        };
        within(what, hearing).await
    }
}

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// What opens a Stream from one node to another.
pub(crate) fn connect(from: &str, to: &str) -> Message {
    let target = Target {
        service: ServiceName::new("default", "echo"),
        port: NonZeroU16::MIN,
        hostname: None,
        backend: None,
        caller: Caller::default(),
    };
    message([from, to], Body::Connect(Connect { target, race: false }))
}

/// Opens an exchange without more, and gives what the answer begins with.
pub(crate) async fn ask(link: &Link, operation: Operation, message: &Message) -> Option<Body> {
    let asked = link.open(operation, message, Rest::Nothing);
    within("an answer", asked).await.unwrap().opening.body.map(|body| *body)
}

fn hello(name: &str) -> Hello {
    Hello {
        node: node(name),
        instance: [2; 16],
        generation: 1,
        version: "test".into(),
        epoch: EPOCH,
        revision: 0,
        digest: [0; 32],
        selector: Default::default(),
        links: Vec::new(),
        takes_over: false,
    }
}
