//! The mesh of one node, assembled: store, Snapshot, source, listeners and name server.
//!
//! [`Mesh::open`] serves what the store holds at once; the source, the listeners and the name
//! server are started one by one, so that a daemon can put its capture rules between them.

mod source;
mod status;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use edgemesh_proto::record::NodeName;
use ipnet::IpNet;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::AccessLog;
use crate::dial::Dial;
use crate::dns::answer::{BadDomain, Domain};
use crate::dns::bind::{BindError, bind};
use crate::dns::names::Live;
use crate::dns::resolv::{ResolvConf, Upstreams};
use crate::dns::server::{Counters, Server};
use crate::dns::upstream::{Connect, Forwarder};
use crate::forward::Shared;
use crate::forward::http::{Pools, SWEEP_EVERY};
use crate::io::now;
use crate::listen::Listener;
use crate::metrics::Metrics;
use crate::plan::{self, Destination, Explanation};
use crate::proxy::Proxy;
use crate::snapshot::Snapshot;
use crate::store::{OpenError as StoreError, Store};
use crate::sync::Sync;

pub use source::Folders;
pub use status::{Cell as StatusCell, Status, StoreHealth};

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
    /// Addresses for Services that have none, one range a family.
    pub virtual_range: Vec<IpNet>,
    /// The cluster domain.
    pub domain: String,
    /// fwmark of our own sockets; `None` where nothing is captured.
    pub mark: Option<u32>,
    /// Which flows are logged.
    pub access_log: AccessLog,
    /// Connections served at once; over it they are reset.
    pub max_connections: usize,
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
}

/// The mesh of one node.
#[derive(Debug)]
pub struct Mesh {
    options: Options,
    live: Arc<ArcSwap<Snapshot>>,
    /// What names are answered from; `None` = from `live`.
    announced: Option<Arc<ArcSwap<Snapshot>>>,
    metrics: Arc<Metrics>,
    status: Arc<status::Cell>,
    sync: Option<Sync>,
    source: Option<tokio::task::JoinHandle<Sync>>,
    shared: Option<Arc<Shared>>,
    /// Until the name server takes it.
    domain: Option<Domain>,
    dns_counters: Option<Arc<Counters>>,
    tasks: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Mesh {
    /// Opens the store and serves what it holds. Blocks for as long as that takes (tens of
    /// milliseconds for 20,000 records).
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let domain = Domain::new(&options.domain)?;
        Dial { mark: options.mark }.check().map_err(OpenError::Mark)?;
        let (store, loaded, repairs) = Store::open(&options.data_dir)?;
        for repair in &repairs {
            tracing::warn!("metastore: {repair}");
        }
        let live = Arc::<ArcSwap<Snapshot>>::default();
        let status = Arc::new(status::Cell::new(repairs, loaded.revision > 0));
        let (node, zone) = (options.node.clone(), options.zone.clone());
        let ranges = &options.virtual_range;
        let sync = Sync::resume(store, loaded, node, zone, ranges, live.clone(), now());
        Ok(Self {
            options,
            live,
            announced: None,
            metrics: Arc::default(),
            status,
            sync: Some(sync),
            source: None,
            shared: None,
            domain: Some(domain),
            dns_counters: None,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            cut: CancellationToken::new(),
        })
    }

    /// Reads the source once, so that what follows knows the records, then follows it. A source
    /// that cannot be read leaves what the store held.
    pub async fn follow_source(&mut self) {
        let Some(sync) = self.sync.take() else { return };
        let source = source::Source::new(self.options.folders.clone(), sync, self.status.clone());
        let source = source.begin().await;
        self.source = Some(self.tasks.spawn(source.follow(self.stop.clone())));
    }

    /// Serves the proxy on `listeners`; once a mesh. Returns where they listen.
    pub fn listen(&mut self, listeners: Vec<Listener>) -> Vec<SocketAddr> {
        let own: Box<[SocketAddr]> = listeners.iter().map(Listener::address).collect();
        let shared = Arc::new(Shared {
            live: self.live.clone(),
            dial: Dial { mark: self.options.mark },
            metrics: self.metrics.clone(),
            domain: self.options.domain.as_str().into(),
            access_log: self.options.access_log,
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
            cut: self.cut.clone(),
            own: own.clone(),
            pools: Pools::default(),
        });
        let proxy = Proxy {
            shared: shared.clone(),
            room: Arc::new(Semaphore::new(self.options.max_connections)),
        };
        for listener in listeners {
            self.tasks.spawn(proxy.clone().run(listener));
        }
        let (sweeping, stop) = (shared.clone(), self.stop.clone());
        self.tasks.spawn(stop.run_until_cancelled_owned(async move {
            loop {
                tokio::time::sleep(SWEEP_EVERY).await;
                sweeping.pools.sweep(now());
            }
        }));
        self.shared = Some(shared);
        own.into()
    }

    /// From here on names are answered from the Snapshot that was announced last. To be called
    /// before [`Mesh::serve_dns`] where addresses have to be captured first: a connection to an
    /// address that is named but not captured yet is lost for minutes, since the kernel tracks it
    /// as one that is not redirected.
    pub fn hold_names(&mut self) {
        self.announced = Some(Arc::new(ArcSwap::new(self.snapshot())));
    }

    /// Names the Services of `snapshot`, whose addresses are captured now.
    pub fn announce(&self, snapshot: Arc<Snapshot>) {
        if let Some(announced) = &self.announced {
            announced.store(snapshot);
        }
    }

    /// Opens the name server on `addresses` and serves it; once a mesh.
    pub async fn serve_dns(&mut self, addresses: &[SocketAddr]) -> Result<(), BindError> {
        let Some(domain) = self.domain.take() else { return Ok(()) };
        let own: Vec<IpAddr> =
            addresses.iter().filter(|a| a.port() == 53).map(SocketAddr::ip).collect();
        let conf = ResolvConf::host(own);
        let upstreams = Arc::new(Upstreams::new(conf.load()));
        self.tasks
            .spawn(self.stop.clone().run_until_cancelled_owned(conf.follow(upstreams.clone())));
        let names = Live(self.announced.as_ref().unwrap_or(&self.live).clone());
        let dial = Arc::new(Dial { mark: self.options.mark });
        let server = Server::new(domain, Arc::new(names), Forwarder::new(upstreams, dial));
        for address in addresses {
            server.serve(bind(*address).await?, &self.tasks, &self.stop);
        }
        self.dns_counters = Some(server.counters());
        Ok(())
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
        self.metrics.clone()
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
    async fn flows_end(&self, shared: Option<&Shared>) {
        let sweeping = async {
            loop {
                if let Some(shared) = shared {
                    shared.pools.sweep_all();
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
    pub async fn drain(mut self, within: Duration) -> i64 {
        self.stop.cancel();
        let shared = self.shared.take();
        self.tasks.close();
        let open = match tokio::time::timeout(within, self.flows_end(shared.as_deref())).await {
            Ok(()) => 0,
            Err(_) => self.metrics.connections_open.load(std::sync::atomic::Ordering::Relaxed),
        };
        self.cut.cancel();
        // What was cut writes its line; what has not ended by then ends with the process.
        let _ = tokio::time::timeout(LAST_LINES, self.tasks.wait()).await;
        let sync = match self.source.take() {
            Some(source) => source.await.ok(),
            None => self.sync.take(),
        };
        if let Some(sync) = sync {
            sync.into_store().close().await;
        }
        open
    }
}

/// How often a drain closes the connections to Backends that became idle.
const SWEEP_IN_DRAIN: Duration = Duration::from_millis(100);
/// Longest wait for the lines of flows that were cut.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Connect for Dial {
    fn udp(&self, upstream: SocketAddr) -> std::io::Result<UdpSocket> {
        self.udp_socket(upstream)
    }

    fn tcp(&self, upstream: SocketAddr) -> std::io::Result<TcpSocket> {
        self.tcp_socket(upstream)
    }
}
