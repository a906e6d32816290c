//! The ways of an agent: a direct Link to another node where one can be made, else the hub.
//!
//! A call never waits for a direct Link that failed before: it takes the hub, and the direct way is
//! tried behind its back. Who cannot be dialled is asked, through the hub, to dial back.

mod direct;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use edgemesh_proto::record::NodeName;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backends::{NodeLive, Way};
use crate::dial::Dial;
use crate::identity::{CLOUD, Tls};
use crate::io::now;
use crate::lanes::Seats;
use crate::link::{Link, Serve};
use crate::peers::path::{Ask, Path};
use crate::peers::slots::Slots;
use crate::peers::uplink::Uplink;
use crate::peers::{Finding, NoWay, Standing, Ways};
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
    /// The Links that stand.
    pub standing: Standing,
    /// Serves what peers open on Links that we dialled in reversed roles.
    pub handler: Arc<dyn Serve>,
    /// Hears of each direct Link that we may open exchanges on.
    pub made: Arc<dyn Fn(Link, NodeName) + Send + Sync>,
    /// Where Links are served, each in one thread.
    pub seats: Seats,
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
    direct: Slots,
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

    fn known(&self, node: &NodeName) -> Arc<Known> {
        if let Some(known) = self.0.known.read().get(node) {
            return known.clone();
        }
        let fresh = || {
            Arc::new(Known {
                node: node.clone(),
                path: Mutex::default(),
                direct: Slots::default(),
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
        if *node.0 == *CLOUD {
            return (true, Vec::new());
        }
        let snapshot = self.0.parts.live.load();
        let Some(record) = snapshot.nodes.get(&node.0) else { return (false, Vec::new()) };
        match &record.agent {
            Some(agent) => (false, agent.links.clone()),
            None => (record.via_cloud, Vec::new()),
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let parts = &self.0.parts;
        parts.tasks.spawn(parts.stop.clone().run_until_cancelled_owned(task));
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

    /// The hub does not know the node that a call was for.
    fn nowhere(&self, node: &NodeName, why: &str) {
        let Some(known) = self.0.known.read().get(node).cloned() else { return };
        known.facts.lock().by_hub = false;
        // What the call hears says enough.
        let _ = self.lost(&known, why.to_owned());
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
}

impl Ways for Peers {
    fn ready(&self, node: &NodeName) -> Option<(Link, Way)> {
        if *node.0 == *CLOUD {
            return self.0.parts.uplink.ready().map(|link| (link, Way::Hub));
        }
        let known = self.0.known.read().get(node)?.clone();
        if let Some((link, wanting)) = known.direct.for_a_call() {
            if let Some(wanting) = wanting {
                self.make_another(known, wanting);
            }
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

    fn leads_nowhere(&self, node: &NodeName, why: &str) {
        self.nowhere(node, why);
    }

    fn close_idle(&self) {
        self.0.known.read().values().for_each(|known| known.direct.close_idle());
        self.0.parts.uplink.close_idle();
    }
}
