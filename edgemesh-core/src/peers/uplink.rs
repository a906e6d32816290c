//! The agent's Links to the hub: Control for as long as there is one, the others when they are
//! needed.

mod conversing;
mod state;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use edgemesh_proto::message::{Body, DialBack, Hello, Message, Refused, Welcome};
use edgemesh_proto::record::NodeName;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dial::Dial;
use crate::identity::{CLOUD, Expect, Tls};
use crate::io::{now, unique_id};
use crate::lanes::Seats;
use crate::link::{self, ALPN_H2, Dialled, Limits, Link, LinkError, Messages, Operation, Serve};
use crate::peers::pause::Pause;
use crate::peers::slots::{Slots, Wanting};
use crate::peers::{Dialler, EXPIRED, NoWay, REMOVED, message, stagger};

pub use state::{Introduction, Linked, Position, Talk, UplinkState};

/// Longest wait for a connection to one server, TLS included.
const DIAL_WITHIN: Duration = Duration::from_secs(5);
/// Longest wait for the answer to hello.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);
/// First and longest pause before the servers are tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Uplink(Arc<Inner>);

struct Inner {
    node: NodeName,
    instance: [u8; 16],
    introduction: Introduction,
    dial: Dial,
    tls: Arc<Tls>,
    /// Serves what the hub opens on reversed Links.
    handler: Arc<dyn Serve>,
    /// Peers that ask, through the hub, to be dialled.
    asked: mpsc::Sender<DialBack>,
    requests: Arc<Slots>,
    seats: Seats,
    outgoing: Mutex<Option<mpsc::Sender<Body>>>,
    state: watch::Sender<UplinkState>,
    /// The network changed: no pause any more.
    network: Notify,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Why there is no Control.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Unreached(String),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the hub says no: {} ({})", .0.text, .0.label)]
    Refused(Refused),
    #[error("the hub did not answer hello within {} s", WELCOME_WITHIN.as_secs())]
    Silent,
    #[error("the hub answers hello with `{0}`")]
    Strange(&'static str),
    #[error("the Link ended")]
    Ended,
}

impl Trouble {
    /// Whether the hub says no for the reason of that label.
    fn is_for(&self, label: &str) -> bool {
        matches!(self, Self::Refused(refused) if refused.label == label)
    }
}

/// What an [`Uplink`] is made of.
pub struct Parts {
    /// This node.
    pub node: NodeName,
    /// Random, of this process.
    pub instance: [u8; 16],
    /// What it says of itself.
    pub introduction: Introduction,
    /// Makes connections.
    pub dial: Dial,
    /// Proves who it is.
    pub tls: Arc<Tls>,
    /// Serves what the hub opens.
    pub handler: Arc<dyn Serve>,
    /// Hears of peers that ask to be dialled.
    pub asked: mpsc::Sender<DialBack>,
    /// Where Links are served, each in one thread.
    pub seats: Seats,
    /// Owns the tasks.
    pub tasks: TaskTracker,
    /// Ends everything.
    pub stop: CancellationToken,
}

impl fmt::Debug for Uplink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Uplink").field("state", &*self.0.state.borrow()).finish_non_exhaustive()
    }
}

impl Uplink {
    /// Not linked yet: see [`Uplink::run`].
    pub fn new(parts: Parts) -> Self {
        let Parts { node, instance, introduction, dial, tls, handler, asked, seats, tasks, stop } =
            parts;
        Self(Arc::new(Inner {
            node,
            instance,
            introduction,
            dial,
            tls,
            handler,
            asked,
            requests: Arc::default(),
            seats,
            outgoing: Mutex::default(),
            state: watch::Sender::default(),
            network: Notify::new(),
            tasks,
            stop,
        }))
    }

    /// How it is, and from now on.
    pub fn state(&self) -> watch::Receiver<UplinkState> {
        self.0.state.subscribe()
    }

    /// The network changed: tries at once.
    pub fn network_changed(&self) {
        self.0.network.notify_one();
    }

    /// A Link for requests through the hub, if one stands.
    pub fn ready(&self) -> Option<Link> {
        let (link, wanting) = self.0.requests.for_a_call()?;
        if let Some(wanting) = wanting {
            self.make_another(wanting);
        }
        Some(link)
    }

    /// Makes one more in this thread, behind the back of who calls.
    fn make_another(&self, wanting: Wanting) {
        let (this, address) = (self.clone(), self.address());
        self.0.tasks.spawn(self.0.stop.clone().run_until_cancelled_owned(async move {
            let made = match address {
                Some(address) => this.open(address).await.ok(),
                None => None,
            };
            this.0.requests.made(wanting, made);
        }));
    }

    async fn open(&self, address: SocketAddr) -> Result<Link, NoWay> {
        let opened = async {
            let dialled = self.dialler().dial(address, Expect::Hub, ALPN_H2).await?;
            link::client(dialled, Limits::REQUESTS, self.0.tasks.clone()).await
        };
        opened.await.map_err(|error: LinkError| NoWay::new(format!("the hub: {error}")))
    }

    /// A Link for requests through the hub.
    ///
    /// # Errors
    /// While there is no Control there is no hub; or it cannot be dialled a second time.
    pub async fn link(&self) -> Result<Link, NoWay> {
        let (inner, this) = (&self.0, self.clone());
        let address = self.address().ok_or_else(|| NoWay::new("the hub is away"))?;
        let open = async move { this.open(address).await };
        inner.requests.get(&inner.tasks, &inner.stop, open).await
    }

    /// A Link on which this node may ask for its next certificate. Who is refused Control may still
    /// do that, so it does not need one.
    ///
    /// # Errors
    /// When no server answers.
    pub async fn link_to_renew(&self) -> Result<Link, NoWay> {
        if self.address().is_some() {
            return self.link().await;
        }
        let (server, _, dialled) = self.reach().await.map_err(NoWay::new)?;
        let link = link::client(dialled, Limits::CONTROL, self.0.tasks.clone()).await;
        link.map_err(|error| NoWay::new(format!("{server}: {error}")))
    }

    pub(super) fn begin_anew(&self) {
        self.0.requests.end();
    }

    pub(super) fn close_idle(&self) {
        self.0.requests.close_idle();
    }

    /// Tells the hub something, where there is one.
    pub async fn say(&self, body: Body) -> bool {
        let outgoing = self.0.outgoing.lock().clone();
        match outgoing {
            Some(outgoing) => outgoing.send(body).await.is_ok(),
            None => false,
        }
    }

    /// `host:port` at which other agents may dial this one.
    pub fn links(&self) -> Vec<Box<str>> {
        self.0.introduction.links.now()
    }

    fn address(&self) -> Option<SocketAddr> {
        self.0.state.borrow().linked.as_ref().map(|linked| linked.address)
    }

    /// Keeps Control, until the stop: each time it stands, `talks` gets the conversation.
    pub async fn run(self, position: watch::Receiver<Position>, talks: mpsc::Sender<Talk>) {
        let stop = self.0.stop.clone();
        stop.run_until_cancelled(async {
            let mut pause = Pause::new(PAUSE.0, PAUSE.1);
            loop {
                let trouble = match self.connect(&position).await {
                    Ok(control) => {
                        let began = now();
                        let trouble = self.converse(control, &talks).await;
                        pause.worked(now().saturating_duration_since(began));
                        trouble
                    }
                    Err(trouble) => trouble,
                };
                self.failed(&trouble);
                let next = pause.next(unique_id() as u64);
                tokio::select! {
                    () = tokio::time::sleep(next) => {}
                    () = self.0.network.notified() => pause.reset(),
                }
            }
        })
        .await;
    }

    fn failed(&self, trouble: &Trouble) {
        let text: Arc<str> = trouble.to_string().into();
        let news = self.0.state.borrow().trouble.as_ref() != Some(&text);
        if news {
            tracing::warn!("no Link to the cloud: {text}; the last records stay in force");
        }
        self.0.state.send_modify(|state| {
            if state.linked.take().is_some() {
                state.since = SystemTime::now();
            }
            state.trouble = Some(text);
            state.refused = matches!(trouble, Trouble::Refused(_));
            state.is_removed = trouble.is_for(REMOVED);
            state.is_expired = trouble.is_for(EXPIRED);
        });
        *self.0.outgoing.lock() = None;
        // What it carries may be broken too, and nobody would notice before the next request.
        self.0.requests.end();
    }

    /// Dials one server after the other, and says hello.
    async fn connect(&self, position: &watch::Receiver<Position>) -> Result<Control, Trouble> {
        let inner = &self.0;
        let (server, address, dialled) = self.reach().await.map_err(Trouble::Unreached)?;
        let link = link::client(dialled, Limits::CONTROL, inner.tasks.clone()).await?;
        let at = *position.borrow();
        let hello = self.message(Body::Hello(Hello {
            node: inner.node.clone(),
            instance: inner.instance,
            generation: inner.introduction.generation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch: at.epoch,
            revision: at.revision,
            digest: at.digest,
            selector: inner.introduction.selector.clone(),
            links: inner.introduction.links.now(),
            takes_over: inner.introduction.takes_over,
        }));
        let (writer, rest) = link::pipe();
        let opened = link.open(Operation::Control, &hello, rest);
        let reply = tokio::time::timeout(WELCOME_WITHIN, opened).await;
        let reply = reply.map_err(|_| Trouble::Silent)??;
        match reply.opening.body.map(|body| *body) {
            Some(Body::Welcome(welcome)) => {
                let messages = Messages::new(writer, reply.body);
                Ok(Control { link, server, address, welcome, messages })
            }
            Some(Body::Refused(refused)) => Err(Trouble::Refused(refused)),
            Some(other) => Err(Trouble::Strange(other.operation())),
            None => Err(Trouble::Strange("nothing")),
        }
    }

    fn dialler(&self) -> Dialler<'_> {
        Dialler { dial: &self.0.dial, tls: &self.0.tls, within: DIAL_WITHIN }
    }

    /// Whichever server answers as the hub.
    async fn reach(&self) -> Result<Reached, String> {
        let servers = self.0.introduction.servers.clone();
        stagger::first(servers.into_iter().map(|server| self.dial(server))).await
    }

    async fn dial(&self, server: Box<str>) -> Result<Reached, String> {
        let failed = |error: &dyn fmt::Display| format!("{server}: {error}");
        let found = tokio::net::lookup_host(&*server).await.map_err(|error| failed(&error))?;
        let tries = found.map(|address| async move {
            let dialled = self.dialler().dial(address, Expect::Hub, ALPN_H2).await;
            dialled.map(|dialled| (address, dialled))
        });
        let (address, dialled) = stagger::first(tries).await.map_err(|error| failed(&error))?;
        Ok((server, address, dialled))
    }

    fn message(&self, body: Body) -> Message {
        message([&self.0.node.0, CLOUD], body)
    }
}

/// A server that answers as the hub, at which address.
type Reached = (Box<str>, SocketAddr, Dialled);

/// A Control that was welcomed.
struct Control {
    link: Link,
    server: Box<str>,
    address: SocketAddr,
    welcome: Welcome,
    messages: Messages,
}
