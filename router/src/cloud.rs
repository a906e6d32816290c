//! The cloud process as a library: authority, registry, hub, the cloud's own mesh, and the source.

mod counting;
mod manifests;
mod own;
mod supplied;
mod upkeep;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::config::{AccessLog, ServiceFilter};
use edgemesh_core::dial::Dial;
use edgemesh_core::identity::{CLOUD, Clock, Tls};
use edgemesh_core::io::unique_id;
use edgemesh_core::listen::Listener;
use edgemesh_core::mesh::{Feeder, Folders, Mesh, OpenError, Options, Supply};
use edgemesh_proto::record::NodeName;
use parking_lot::RwLock;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::{Authority, AuthorityError};
use crate::hub::{Hub, Parts};
use crate::ingress::{Ingress, KnownNodes};
use crate::kubernetes::Access;
use crate::kubernetes::source::{Pace, Report as Followed, Source, SourceOptions};
use crate::providers::plug_cloud;
use crate::registry::shared::Shared as Registry;

pub use counting::count_own;
pub use manifests::{Read, Report};

/// How often the hub's own certificate, and removals by `edgemesh node remove`, are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Longest wait for flows to end when the cloud stops.
const DRAIN: Duration = Duration::from_secs(10);

/// What a cloud is told.
#[derive(Clone, Debug)]
pub struct CloudOptions {
    /// Folder of registry and authority.
    pub data_dir: PathBuf,
    /// Backends on Nodes of this zone that run no agent are called by this process.
    pub zone: Box<str>,
    /// Where records come from.
    pub records: Records,
    /// Names and addresses by which the hub is dialled.
    pub names: Vec<String>,
    /// The cluster domain.
    pub domain: String,
    /// Makes connections to Backends and URLs.
    pub dial: Dial,
    /// Which flows are logged.
    pub access_log: AccessLog,
    /// How long certificates may have been expired.
    pub grace: Duration,
}

/// Where a cloud's records come from, beside what nodes say of themselves.
#[derive(Clone, Debug)]
pub enum Records {
    /// From nowhere.
    None,
    /// From a watched folder.
    Manifests(PathBuf),
    /// From an API server.
    Kubernetes(Access),
}

/// Why a cloud cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The registry.
    #[error(transparent)]
    Registry(#[from] edgemesh_core::store::OpenError),
    /// The cloud's own mesh.
    #[error(transparent)]
    Mesh(#[from] OpenError),
}

/// A cloud that is open.
#[derive(Debug)]
pub struct Cloud {
    options: CloudOptions,
    /// Who belongs to the mesh.
    pub authority: Arc<Authority>,
    /// The records.
    pub registry: Registry,
    /// Conversations and the relay.
    pub hub: Hub,
    /// The cloud's own mesh.
    pub mesh: Arc<Mesh>,
    /// How the source of records is.
    pub source: Report,
    /// The same of each kind of object, where it is an API server.
    pub followed: Followed,
    tls: Arc<Tls>,
    clock: Arc<Clock>,
    feeder: Feeder,
    own_nodes: OwnNodes,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Nodes whose Backends this process calls.
type OwnNodes = Arc<RwLock<BTreeSet<Box<str>>>>;

impl Cloud {
    /// Opens the data folder and assembles everything; nothing is accepted yet. Blocks for as long
    /// as the disk takes. Must be called inside a runtime.
    ///
    /// # Errors
    /// [`CloudError`], with the remedy.
    pub fn open(options: CloudOptions, stop: CancellationToken) -> Result<Self, CloudError> {
        let clock = Arc::new(Clock::open(&options.data_dir));
        let authority = Authority::open(&options.data_dir, clock.seconds(), options.grace)?;
        let identity = authority.hub(&options.names, clock.seconds())?;
        let tls = Arc::new(Tls::new(identity, clock.clone(), options.grace));
        let registry = Registry::open(&options.data_dir)?;
        for repair in registry.repairs() {
            tracing::warn!("registry: {repair}");
        }
        let (mesh, mut feeder) = Mesh::of_cloud(Options {
            node: NodeName(CLOUD.into()),
            zone: Some(options.zone.clone()),
            data_dir: options.data_dir.clone(),
            folders: Folders::default(),
            supply: None,
            is_linked: false,
            is_synced: false,
            virtual_range: Vec::new(),
            domain: options.domain.clone(),
            dial: options.dial,
            access_log: options.access_log,
            max_connections: 0,
            lanes: 0,
        })?;
        feeder.counted(registry.own_counts());
        let (authority, mesh, tasks) = (Arc::new(authority), Arc::new(mesh), TaskTracker::new());
        let own_nodes = OwnNodes::default();
        let known = own_nodes.clone();
        let hub = Hub::new(Parts {
            registry: registry.clone(),
            authority: authority.clone(),
            tls: tls.clone(),
            instance: unique_id().to_le_bytes(),
            own_nodes: Arc::new(move |node| known.read().contains(node)),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        hub.serve_own(Arc::new(mesh.linked()));
        mesh.reach_by(Arc::new(hub.clone()));
        plug_cloud(&mesh);
        let (source, followed) = (Report::default(), Followed::default());
        Ok(Self {
            options,
            authority,
            registry,
            hub,
            mesh,
            source,
            followed,
            tls,
            clock,
            feeder,
            own_nodes,
            tasks,
            stop,
        })
    }

    /// Whether a node of that name is known: linked, or in the records.
    pub fn known_nodes(&self) -> KnownNodes {
        let (hub, live) = (self.hub.clone(), self.mesh.live());
        Arc::new(move |name| {
            hub.node(&NodeName(name.into())).is_some() || live.load().nodes.contains_key(name)
        })
    }

    /// Serves callers in the cloud on `listener`, until the stop.
    pub fn open_ingress(&self, ingress: &Ingress, listener: Listener) {
        self.tasks.spawn(ingress.run(&self.mesh, listener));
    }

    /// Serves agents on `listener` until the stop, then lets flows end.
    pub async fn run(self, listener: Listener) {
        let Self { options, registry, hub, mesh, source, feeder, own_nodes, tasks, stop, .. } =
            self;
        let own = own::Own { registry: registry.clone(), feeder, own_nodes };
        tasks.spawn(own.run(stop.clone()));
        let zone = options.zone.clone();
        match options.records {
            Records::None => registry.ranges().are(Arc::default()),
            Records::Manifests(folder) => {
                registry.ranges().are(Arc::default());
                let registry = registry.clone();
                let following = manifests::Following { folder, zone, registry, report: source };
                tasks.spawn(following.run(stop.clone()));
            }
            Records::Kubernetes(access) => {
                let (supplier, supply) = Supply::new();
                let (registry, report) = (registry.clone(), source);
                let taking = supplied::Taking { supply, zone, registry: registry.clone(), report };
                tasks.spawn(taking.run(stop.clone()));
                let service_filter = ServiceFilter::default();
                let (dial, pace) = (options.dial, Pace::default());
                let of = SourceOptions { access, dial, node: None, service_filter, pace };
                let mut source = Source::new(of, self.followed);
                let writing = source.say_what_became(mesh.clone(), registry);
                tasks.spawn(stop.clone().run_until_cancelled_owned(writing));
                tasks.spawn(source.run(supplier, tasks.clone(), stop.clone()));
            }
        }
        let counting = counting::Counting { registry: registry.clone(), mesh: mesh.clone() };
        tasks.spawn(counting.clone().run(stop.clone()));
        let looking = upkeep::Looking {
            authority: self.authority,
            registry: registry.clone(),
            hub: hub.clone(),
            tls: self.tls,
            clock: self.clock,
            names: options.names,
            grace: options.grace,
        };
        tasks.spawn(looking.run(LOOK_EVERY, stop.clone()));
        hub.run(listener).await;
        mesh.stop_accepting().await;
        tasks.close();
        // Both at once: what the mesh calls for clients in the cloud goes by Links of the hub.
        let (cut, links) =
            tokio::join!(mesh.close(DRAIN), tokio::time::timeout(DRAIN, tasks.wait()));
        if cut > 0 || links.is_err() {
            tracing::warn!(flows = cut, "what was under way is cut");
        }
        counting.count().await;
        registry.close().await;
    }
}
