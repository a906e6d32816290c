//! The ways of an agent: a direct Link to another node where one can be made, else the hub.
//!
//! A call never waits for a direct Link that failed before: it takes the hub, and the direct way is
//! tried behind its back. Who cannot be dialled is asked, through the hub, to dial back.

mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use edgemesh_proto::message::{Body, DialBack};
use edgemesh_proto::record::NodeName;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backends::{NodeLive, Way};
use crate::dial::Dial;
use crate::identity::{Expect, Tls};
use crate::io::{now, unique_id};
use crate::link::{self, ALPN_H2, ALPN_REVERSE, Dialled, Limits, Link, Serve};
use crate::peers::path::{Ask, Path};
use crate::peers::slot::Slot;
use crate::peers::uplink::Uplink;
use crate::peers::{Dialler, Finding, NoWay, Ways, stagger, while_served};
use crate::snapshot::Snapshot;

pub use view::PeerView;

/// Longest wait for a connection to one address of a peer, TLS included.
const DIAL_WITHIN: Duration = Duration::from_secs(3);
/// So long the first call to a node waits for a direct Link before it takes the hub.
const HEAD_START: Duration = Duration::from_millis(150);
/// A node to which nothing leads is looked for again after this long.
const LOST_FOR: Duration = Duration::from_secs(1);

/// Which ways are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// Direct where that works, else the hub.
    #[default]
    Auto,
    /// Never the hub.
    Direct,
    /// Never direct.
    Hub,
}

/// See the module. Clones share it.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

/// What [`Peers`] are made of.
pub struct Parts {
    /// Which ways are used.
    pub choice: Choice,
    /// Makes connections.
    pub dial: Dial,
    /// Proves who this node is.
    pub tls: Arc<Tls>,
    /// Where nodes and their addresses are read.
    pub live: Arc<ArcSwap<Snapshot>>,
    /// The hub.
    pub uplink: Uplink,
    /// Serves what peers open on Links that we dialled in reversed roles.
    pub handler: Arc<dyn Serve>,
    /// Hears of each direct Link that we may open exchanges on.
    pub made: Arc<dyn Fn(Link, NodeName) + Send + Sync>,
    /// Owns the tasks.
    pub tasks: TaskTracker,
    /// Ends everything.
    pub stop: CancellationToken,
}

struct Inner {
    parts: Parts,
    known: RwLock<BTreeMap<NodeName, Arc<Known>>>,
}

/// One other node.
#[derive(Debug)]
struct Known {
    node: NodeName,
    path: Mutex<Path>,
    direct: Slot,
    facts: Mutex<Facts>,
    /// The direct way was tried, with whatever outcome.
    tried: Notify,
}

#[derive(Clone, Debug, Default)]
struct Facts {
    /// The hub has carried a call there since the direct way failed.
    by_hub: bool,
    ever_tried: bool,
    address: Option<SocketAddr>,
    since: Option<SystemTime>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peers").field("known", &self.0.known.read().len()).finish_non_exhaustive()
    }
}

impl Peers {
    /// Nobody is known yet.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, known: RwLock::default() }))
    }

    /// The network changed: what failed is worth a try.
    pub fn network_changed(&self) {
        let all: Vec<_> = self.0.known.read().keys().cloned().collect();
        all.iter().for_each(|node| self.seen(node));
    }

    /// A peer dialled us: what failed towards it is worth a try.
    pub fn seen(&self, node: &NodeName) {
        let Some(known) = self.0.known.read().get(node).cloned() else { return };
        known.path.lock().fresh();
        if let Some(live) = self.live(node).filter(|_| known.direct.ready().is_none()) {
            live.forget();
        }
    }

    /// This node is known by a new certificate: Links that were made by an older one lead nowhere.
    pub fn begin_anew(&self) {
        self.0.known.read().values().for_each(|known| known.direct.end());
        self.0.parts.uplink.begin_anew();
    }

    /// A peer dialled us and lets us open exchanges.
    pub fn arrived(&self, link: Link) {
        let Some(node) = link.peer().node().cloned() else { return };
        let known = self.known(&node);
        self.stands(&known, link, "it dialled back");
    }

    /// A peer, or the hub for one, asks to be dialled in reversed roles.
    pub fn dial_back(&self, asked: &DialBack) {
        let Some(node) = asked.node.clone() else { return };
        if self.0.parts.choice == Choice::Hub {
            return; // who asked takes the hub as well
        }
        let (this, links) = (self.clone(), asked.links.clone());
        self.spawn(async move {
            match this.dial(&node, &links, ALPN_REVERSE).await {
                Ok((_, dialled)) => {
                    let parts = &this.0.parts;
                    let limits = Limits::REQUESTS;
                    let handler = parts.handler.clone();
                    while_served(link::serve(dialled, handler, limits, &parts.tasks)).await;
                }
                Err(error) => tracing::debug!(node = %node.0, "cannot be dialled back: {error}"),
            }
        });
    }

    fn known(&self, node: &NodeName) -> Arc<Known> {
        if let Some(known) = self.0.known.read().get(node) {
            return known.clone();
        }
        let fresh = || {
            Arc::new(Known {
                node: node.clone(),
                path: Mutex::default(),
                direct: Slot::default(),
                facts: Mutex::default(),
                tried: Notify::new(),
            })
        };
        self.0.known.write().entry(node.clone()).or_insert_with(fresh).clone()
    }

    fn live(&self, node: &NodeName) -> Option<Arc<NodeLive>> {
        self.0.parts.live.load().lives.get(&node.0).cloned()
    }

    /// Whether what runs there is called by the cloud's own process, and `host:port` of its agent.
    fn record(&self, node: &NodeName) -> (bool, Vec<Box<str>>) {
        let snapshot = self.0.parts.live.load();
        let Some(record) = snapshot.nodes.get(&node.0) else { return (false, Vec::new()) };
        match &record.agent {
            Some(agent) => (false, agent.links.clone()),
            None => (record.via_cloud, Vec::new()),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let parts = &self.0.parts;
        parts.tasks.spawn(async_until(parts.stop.clone(), task));
    }

    async fn look(&self, node: &NodeName) -> Result<(Link, Way), NoWay> {
        let (choice, known) = (self.0.parts.choice, self.known(node));
        let (through_cloud, links) = self.record(node);
        if through_cloud {
            let link = self.0.parts.uplink.link().await?;
            return Ok((link, Way::Hub));
        }
        if choice != Choice::Hub {
            let first = !std::mem::replace(&mut known.facts.lock().ever_tried, true);
            let tried = known.tried.notified();
            self.begin(&known, links);
            if let Some(link) = known.direct.ready() {
                return Ok((link, Way::Direct));
            }
            // Only the first call has patience; and who has no hub has nothing else to wait for.
            let hub =
                choice == Choice::Auto && self.0.parts.uplink.state().borrow().linked.is_some();
            let patience = match (hub, first) {
                (false, _) => DIAL_WITHIN,
                (true, true) => HEAD_START,
                (true, false) => Duration::ZERO,
            };
            let trying = !matches!(known.path.lock().ask_only(now()), Ask::Later);
            if trying && !patience.is_zero() {
                let _ = tokio::time::timeout(patience, tried).await; // either way it is looked at
            }
            if let Some(link) = known.direct.ready() {
                return Ok((link, Way::Direct));
            }
        }
        let why = || known.path.lock().why().0.to_owned();
        if choice == Choice::Direct {
            return self.lost(&known, why());
        }
        match self.0.parts.uplink.link().await {
            Ok(link) => Ok(self.by_hub(&known, link)),
            Err(no) if choice == Choice::Hub => self.lost(&known, no.to_string()),
            Err(no) => self.lost(&known, format!("{}; {no}", why())),
        }
    }

    /// The hub carries a call, unless a direct Link has come to stand meanwhile.
    fn by_hub(&self, known: &Known, link: Link) -> (Link, Way) {
        let mut facts = known.facts.lock();
        if let Some(direct) = known.direct.ready() {
            return (direct, Way::Direct);
        }
        facts.by_hub = true;
        if let Some(live) = self.live(&known.node) {
            match self.0.parts.choice {
                Choice::Hub => live.works(Way::Hub, "peer.path is hub"),
                Choice::Auto | Choice::Direct => live.works(Way::Hub, known.path.lock().why().0),
            }
        }
        (link, Way::Hub)
    }

    /// Nothing leads there, with the same exception.
    fn lost(&self, known: &Known, why: String) -> Result<(Link, Way), NoWay> {
        let _facts = known.facts.lock();
        if let Some(direct) = known.direct.ready() {
            return Ok((direct, Way::Direct));
        }
        if let Some(live) = self.live(&known.node) {
            live.lost(now() + LOST_FOR, &why);
        }
        Err(NoWay::new(why))
    }

    /// Tries the direct way, unless somebody is at it or it failed lately.
    fn begin(&self, known: &Arc<Known>, links: Vec<Box<str>>) {
        if known.path.lock().ask(now()) != Ask::Try {
            return;
        }
        let (this, known) = (self.clone(), known.clone());
        self.spawn(async move {
            let made = this.make(&known.node, &links).await;
            match made {
                Ok((link, how)) => this.stands(&known, link, &how),
                Err(why) => {
                    known.path.lock().failed(why, unique_id() as u64, now());
                    this.ask_back(&known.node).await;
                }
            }
            known.tried.notify_waiters();
        });
    }

    async fn make(&self, node: &NodeName, links: &[Box<str>]) -> Result<(Link, String), String> {
        let parts = &self.0.parts;
        let (link, dialled) = self.dial(node, links, ALPN_H2).await?;
        let limits = Limits::REQUESTS;
        let made = link::client(dialled, limits, parts.tasks.clone()).await;
        made.map(|made| (made, format!("dialled {link}"))).map_err(|error| error.to_string())
    }

    /// Dials the first of `links` that answers as `node`.
    async fn dial(
        &self,
        node: &NodeName,
        links: &[Box<str>],
        alpn: &'static [u8],
    ) -> Result<(Box<str>, Dialled), String> {
        if links.is_empty() {
            return Err(format!("{} names no address at which it can be dialled", node.0));
        }
        let parts = &self.0.parts;
        let dialler = Dialler { dial: &parts.dial, tls: &parts.tls, within: DIAL_WITHIN };
        let tries = links.iter().cloned().map(|link| async move {
            let failed = |error: &dyn fmt::Display| format!("{link}: {error}");
            let found = tokio::net::lookup_host(&*link).await.map_err(|error| failed(&error))?;
            let tries = found.map(|address| dialler.dial(address, Expect::Node(node), alpn));
            let dialled = stagger::first(tries).await.map_err(|error| failed(&error))?;
            Ok::<_, String>((link, dialled))
        });
        stagger::first(tries).await
    }

    /// Who cannot be dialled may be able to dial us.
    async fn ask_back(&self, node: &NodeName) {
        let uplink = &self.0.parts.uplink;
        let links = uplink.links();
        if links.is_empty() || self.0.parts.choice == Choice::Hub {
            return;
        }
        // The hub passes on what names another node.
        uplink.say(Body::DialBack(DialBack { node: Some(node.clone()), links })).await;
    }

    /// From now on the direct way works, until the Link ends.
    fn stands(&self, known: &Arc<Known>, link: Link, how: &str) {
        let address = link.peer().address;
        tracing::info!(node = %known.node.0, %address, "direct Link: {how}");
        // The one before is as good, and drains by itself once nobody takes it any more.
        if let Some(before) = known.direct.put(link.clone()) {
            before.close();
        }
        let mut facts = known.facts.lock(); // whoever notes the hub now looks at the Link first
        *facts = Facts {
            by_hub: false,
            ever_tried: true,
            address: Some(address),
            since: Some(SystemTime::now()),
        };
        known.path.lock().stands(how, now());
        if let Some(live) = self.live(&known.node) {
            live.works(Way::Direct, "");
        }
        drop(facts);
        known.tried.notify_waiters();
        (self.0.parts.made)(link.clone(), known.node.clone());
        let (this, known) = (self.clone(), known.clone());
        self.spawn(async move {
            link.closed().await;
            this.broke(&known, &link);
        });
    }

    /// A direct Link ended. Another may stand in its place already.
    fn broke(&self, known: &Arc<Known>, _link: &Link) {
        if known.direct.ready().is_some() {
            return;
        }
        tracing::info!(node = %known.node.0, "the direct Link ended");
        known.facts.lock().since = Some(SystemTime::now());
        known.path.lock().failed("the direct Link ended", unique_id() as u64, now());
        if let Some(live) = self.live(&known.node) {
            live.forget();
        }
    }
}

async fn async_until(stop: CancellationToken, task: impl Future<Output = ()> + Send) {
    stop.run_until_cancelled(task).await;
}

impl Ways for Peers {
    fn ready(&self, node: &NodeName) -> Option<(Link, Way)> {
        let known = self.0.known.read().get(node)?.clone();
        if let Some(link) = known.direct.ready() {
            return Some((link, Way::Direct));
        }
        if !known.facts.lock().by_hub || known.path.lock().ask_only(now()) == Ask::Try {
            return None;
        }
        self.0.parts.uplink.ready().map(|link| (link, Way::Hub))
    }

    fn find<'a>(&'a self, node: &'a NodeName) -> Finding<'a> {
        Box::pin(self.look(node))
    }

    fn close_idle(&self) {
        self.0.known.read().values().for_each(|known| known.direct.close_idle());
        self.0.parts.uplink.close_idle();
    }
}
