//! The mesh of one node, assembled: store, Snapshot, source, listeners and name server.
//!
//! [`Mesh::open`] serves what the store holds at once; the source, the listeners and the name
//! server are started one by one, so that a daemon can put its capture rules between them.
//! [`Mesh::builder`] is the other door, for applications: it needs none of these.

mod agent;
mod builder;
mod checks;
mod client;
mod cloud_source;
mod connection;
mod doors;
mod follow;
mod handover;
mod ingress;
mod linked;
mod listening;
mod local;
mod messages;
mod names;
mod notes;
mod of_cloud;
mod ordered;
mod ranges;
mod reading;
mod serving;
mod source;
mod status;
mod supply;
mod talking;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use edgemesh_proto::record::NodeName;
use ipnet::IpNet;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::{AccessLog, AccessLogSwitch};
use crate::dial::Dial;
use crate::dns::answer::{BadDomain, Domain};
use crate::dns::server::Counters;
use crate::forward::Shared;
use crate::forward::http::Pools;
use crate::health::{Checker, Pace};
use crate::io::now;
use crate::lanes::Lanes;
use crate::mesh::agent::Agent;
use crate::mesh::source::{Ended, Source};
use crate::mesh::talking::{Ends, Talking};
use crate::metrics::Metrics;
use crate::plan::{self, Destination, Explanation};
use crate::registrations::Registrations;
use crate::snapshot::Snapshot;
use crate::store::{Loaded, OpenError as StoreError, Repair, Store};
use crate::sync::{Feed, Sync};

pub use agent::AgentError;
pub use builder::Builder;
pub use client::{Answering, Http};
pub use connection::Connection;
pub use doors::Refused;
pub use linked::{JoinTrouble, LinkOptions, LinkStatus, Links};
pub use local::Checked;
pub use messages::Messenger;
pub use of_cloud::Feeder;
pub use ordered::{CallError, MAX_ANSWER};
pub use ranges::kept_service_cidrs;
pub use reading::Folders;
pub use serving::{ServeError, Serving};
pub use status::{Cell as StatusCell, Status, StoreHealth};
pub use supply::{Supplied, Supplier, Supply};

/// What a mesh is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this node.
    pub node: NodeName,
    /// Zone of this node; `None` = that of its Node record.
    pub zone: Option<Box<str>>,
    /// Folder of the metastore.
    pub data_dir: PathBuf,
    /// Folders of manifests.
    pub folders: Folders,
    /// Records from elsewhere; then `folders.source` is none.
    pub supply: Option<Supply>,
    /// This node has Links, see [`Mesh::link`].
    pub is_linked: bool,
    /// The records come by them from a registry, and not from `folders.source`.
    pub is_synced: bool,
    /// Addresses for Services that have none, one range a family.
    pub virtual_range: Vec<IpNet>,
    /// The cluster domain.
    pub domain: String,
    /// Makes its connections.
    pub dial: Dial,
    /// Which flows are logged.
    pub access_log: AccessLog,
    /// Connections served at once; over it they are reset.
    pub max_connections: usize,
    /// Threads that serve them; 0 = those of the runtime that the mesh is in.
    pub lanes: usize,
}

/// Why a mesh cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The metastore.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Our sockets cannot carry the mark, so that our own connections would be captured.
    #[error(
        "cannot mark sockets: capture needs CAP_NET_ADMIN; run as root, or set proxy.intercept: none"
    )]
    Mark(#[source] std::io::Error),
    /// The cluster domain is no domain.
    #[error(transparent)]
    Domain(#[from] BadDomain),
    /// The source of records cannot be read, and no metastore holds any.
    #[error("{0}")]
    Source(String),
    /// Threads or files have run out.
    #[error(
        "cannot start the threads that serve connections: raise the limits on files and threads (`ulimit -n`, `ulimit -u`; LimitNOFILE= and TasksMax= of a unit)"
    )]
    Lanes(#[source] std::io::Error),
    /// The agent that is to be followed.
    #[error(transparent)]
    Agent(#[from] AgentError),
}

/// The mesh of one node.
#[derive(Debug)]
pub struct Mesh {
    options: Options,
    live: Arc<ArcSwap<Snapshot>>,
    /// What names are answered from; `None` = from `live`.
    announced: Option<Arc<ArcSwap<Snapshot>>>,
    status: Arc<status::Cell>,
    sync: Mutex<Option<Sync>>,
    source: Mutex<Option<JoinHandle<Ended>>>,
    /// What belongs to whoever keeps the records itself.
    keeper: Option<Keeper>,
    /// Whom the records come from, where it is the agent of this node.
    agent: Option<Agent>,
    shared: Arc<Shared>,
    lanes: Lanes,
    /// Until the name server takes it.
    domain: Option<Domain>,
    dns_counters: Option<Arc<Counters>>,
    tasks: TaskTracker,
    /// Ends the source.
    following: CancellationToken,
    /// Ends the listeners and the name server; what was accepted goes on.
    accepting: CancellationToken,
    stop: CancellationToken,
    cut: CancellationToken,
    /// A mesh that is dropped follows nothing any more.
    _ends: DropGuard,
}

/// What belongs to a mesh that keeps its records itself.
#[derive(Debug)]
struct Keeper {
    registrations: Registrations,
    feed: Feed,
    /// Conversations with the hub, while nobody follows them.
    talking: Option<Talking>,
    /// What they are connected with, until the mesh is linked.
    ends: Option<Ends>,
}

/// What [`Store::open`] gives.
type Opened = (Store, Loaded, Vec<Repair>);

impl Mesh {
    /// Opens the store and serves what it holds. Blocks for as long as that takes (tens of
    /// milliseconds for 20,000 records).
    pub fn open(options: Options) -> Result<Self, OpenError> {
        options.dial.check().map_err(OpenError::Mark)?;
        let opened = Store::open(&options.data_dir)?;
        let registrations = Registrations::open(&options.data_dir, now());
        Self::assemble(options, Some((opened, registrations))).map(Self::remembering_ranges)
    }

    /// Serves what `opened` holds; `None` = somebody else's records are followed.
    fn assemble(
        options: Options,
        opened: Option<(Opened, Registrations)>,
    ) -> Result<Self, OpenError> {
        let domain = Domain::new(&options.domain)?;
        let live = Arc::<ArcSwap<Snapshot>>::default();
        let (mut sync, mut keeper) = (None, None);
        let mut status = status::Cell::new(Vec::new(), false);
        if let Some(((store, loaded, repairs), registrations)) = opened {
            for repair in &repairs {
                tracing::warn!("metastore: {repair}");
            }
            status = status::Cell::new(repairs, loaded.revision > 0);
            let (node, zone) = (options.node.clone(), options.zone.clone());
            let ranges = &options.virtual_range;
            let resume = if options.is_synced { Sync::resume_synced } else { Sync::resume };
            let resumed = resume(store, loaded, node, zone, ranges, live.clone(), now());
            let held = resumed.holding().unwrap_or_default();
            let (talking, ends) = options.is_linked.then(|| Talking::new(held.into())).unzip();
            keeper = Some(Keeper { registrations, feed: resumed.feed(), talking, ends });
            sync = Some(resumed);
        }
        let (tasks, stop, cut) =
            (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let lanes = Lanes::start(options.lanes).map_err(OpenError::Lanes)?;
        let shared = Arc::new(Shared {
            node: options.node.clone(),
            live: live.clone(),
            dial: options.dial,
            metrics: Arc::default(),
            domain: options.domain.as_str().into(),
            access_log: AccessLogSwitch::new(options.access_log),
            tasks: tasks.clone(),
            stop: stop.clone(),
            cut: cut.clone(),
            own: OnceLock::new(),
            ways: OnceLock::new(),
            inbox: OnceLock::new(),
            pools: Pools::new(lanes.count()),
        });
        Ok(Self {
            options,
            live,
            announced: None,
            status: Arc::new(status),
            sync: Mutex::new(sync),
            source: Mutex::default(),
            keeper,
            agent: None,
            shared,
            lanes,
            domain: Some(domain),
            dns_counters: None,
            following: stop.child_token(),
            accepting: stop.child_token(),
            tasks,
            _ends: stop.clone().drop_guard(),
            stop,
            cut,
        })
    }

    /// Reads the source once, so that what follows knows the records, then follows it. A source
    /// that cannot be read leaves what the store held. Where the store held something, a source
    /// that takes long is not waited for.
    pub async fn follow_source(&mut self) {
        let Some(sync) = self.sync.get_mut().take() else { return };
        let Some(Keeper { registrations, talking, .. }) = &mut self.keeper else { return };
        let ended = Ended { sync, talking: talking.take() };
        let dial = self.options.dial;
        let checker =
            Checker::new(dial, Pace::default(), self.tasks.clone(), self.following.clone());
        let local = local::Local::new(self.options.node.clone(), registrations.clone(), checker);
        let source = Source::new(&self.options, ended, local, self.status.clone());
        let following = self.following.clone();
        let (read, first) = oneshot::channel();
        *self.source.get_mut() = Some(self.tasks.spawn(async move {
            let source = source.begin().await;
            let _ = read.send(()); // nobody waits any more
            source.follow(following).await
        }));
        // An error of either says that there is nothing to wait for.
        let _ = match self.status.get().has_records {
            true => tokio::time::timeout(FIRST_READING, first).await.is_ok(),
            false => first.await.is_ok(),
        };
    }

    /// From now on `choice` says which flows are logged.
    pub fn log_access(&self, choice: AccessLog) {
        self.shared.access_log.set(choice);
    }

    /// What runs on this machine and was signed up; counts once the source is followed. `None`: the
    /// agent of this node keeps it.
    pub fn registrations(&self) -> Option<Registrations> {
        self.keeper.as_ref().map(|keeper| keeper.registrations.clone())
    }

    /// The records as a stream, for mirrors; flows once the source is followed. `None`: this is one.
    pub fn feed(&self) -> Option<Feed> {
        self.keeper.as_ref().map(|keeper| keeper.feed.clone())
    }

    /// The Snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.load_full()
    }

    /// The Snapshots, for readers that outlive this borrow.
    pub fn live(&self) -> Arc<ArcSwap<Snapshot>> {
        self.live.clone()
    }

    /// Counters of the data path.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.shared.metrics.clone()
    }

    /// Counters of the name server, once it serves.
    pub fn dns_counters(&self) -> Option<Arc<Counters>> {
        self.dns_counters.clone()
    }

    /// How store and source are.
    pub fn status(&self) -> Arc<StatusCell> {
        self.status.clone()
    }

    /// One decision, explained; nothing changes.
    pub fn explain(&self, destination: &Destination<'_>) -> Explanation {
        plan::explain(&self.live.load(), destination, now())
    }

    /// Waits for the end of every task. A request under way may still open a connection that
    /// is idle afterwards, so those are closed again and again.
    async fn flows_end(&self) {
        let sweeping = async {
            loop {
                self.shared.pools.sweep_all();
                if let Some(ways) = self.shared.ways.get() {
                    ways.close_idle();
                }
                tokio::time::sleep(SWEEP_IN_DRAIN).await;
            }
        };
        tokio::select! {
            () = self.tasks.wait() => {}
            () = sweeping => {}
        }
    }

    /// Stops accepting, lets flows end for at most `within`, cuts the rest, closes the store.
    /// Returns how many flows were cut.
    pub async fn drain(self, within: Duration) -> i64 {
        self.close(within).await
    }

    /// As [`Mesh::drain`], for a mesh that others still look at.
    pub async fn close(&self, within: Duration) -> i64 {
        self.stop.cancel();
        self.tasks.close();
        let open = match tokio::time::timeout(within, self.flows_end()).await {
            Ok(()) => 0,
            Err(_) => {
                self.shared.metrics.connections_open.load(std::sync::atomic::Ordering::Relaxed)
            }
        };
        self.cut.cancel();
        // What was cut writes its line; what has not ended by then ends with the process.
        let _ = tokio::time::timeout(LAST_LINES, self.tasks.wait()).await;
        let source = self.source.lock().take();
        let sync = match source {
            Some(source) => source.await.ok().map(|ended| ended.sync),
            None => self.sync.lock().take(),
        };
        if let Some(mut sync) = sync {
            sync.count().await;
            sync.into_store().close().await;
        }
        open
    }
}

/// How long a start that could serve already waits for the source.
const FIRST_READING: Duration = Duration::from_millis(100);
/// How often a drain closes the connections to Backends that became idle.
const SWEEP_IN_DRAIN: Duration = Duration::from_millis(100);
/// Longest wait for the lines of flows that were cut.
const LAST_LINES: Duration = Duration::from_secs(1);
