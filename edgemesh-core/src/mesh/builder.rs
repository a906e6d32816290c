//! How an application opens a mesh: where its records come from, and little else.

use std::path::{Path, PathBuf};

use edgemesh_proto::record::NodeName;

use crate::config::{AccessLog, Dns};
use crate::dial::Dial;
use crate::mesh::agent::Agent;
use crate::mesh::follow::Followed;
use crate::mesh::{Folders, Mesh, OpenError, Options};
use crate::registrations::Registrations;
use crate::store::{Loaded, Store};
use crate::sync::Follower;

/// Opens a mesh inside an application. It needs no root, captures nothing, listens nowhere and
/// prints nothing; its tasks run in the runtime that [`Builder::open`] is awaited in.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    source: Source,
    node: Option<String>,
    zone: Option<String>,
    data_dir: Option<PathBuf>,
    access_log: Option<AccessLog>,
}

/// Where records come from.
#[derive(Clone, Debug, Default)]
enum Source {
    /// Only what the application itself serves.
    #[default]
    Application,
    Manifests(PathBuf),
    Agent(PathBuf),
}

impl Builder {
    /// Takes records from a folder of Kubernetes manifests, and follows its changes.
    #[must_use]
    pub fn manifests(self, folder: impl Into<PathBuf>) -> Self {
        Self { source: Source::Manifests(folder.into()), ..self }
    }

    /// Shares the records of this node's agent, over the `mesh.sock` in its `dataDir`; what the
    /// application serves is signed up there. The later of this and [`Builder::manifests`] counts.
    #[must_use]
    pub fn follow(self, socket: impl Into<PathBuf>) -> Self {
        Self { source: Source::Agent(socket.into()), ..self }
    }

    /// The name of this node, for locality; the host's name by default. Who follows an agent is on
    /// the agent's node.
    #[must_use]
    pub fn node(self, name: impl Into<String>) -> Self {
        Self { node: Some(name.into()), ..self }
    }

    /// The zone of this node; that of its Node record by default, and the agent's of who follows one.
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// Keeps the records in a metastore of the application's own, so that it starts with the last
    /// ones where the source is away. Without, they are in memory only, which is right beside an
    /// agent: of one folder there is one owner. The store has a thread of its own.
    #[must_use]
    pub fn data_dir(self, folder: impl Into<PathBuf>) -> Self {
        Self { data_dir: Some(folder.into()), ..self }
    }

    /// Which calls are written, as `tracing` events of the target `access`; none by default.
    #[must_use]
    pub fn access_log(self, log: AccessLog) -> Self {
        Self { access_log: Some(log), ..self }
    }

    /// Opens the mesh: its records are read once before this returns, and followed from then on,
    /// until the mesh is dropped or [`Mesh::run`] ends.
    ///
    /// # Errors
    /// A folder that cannot be read, unless a metastore holds records; an agent that does not
    /// answer; a metastore that cannot be opened.
    pub async fn open(self) -> Result<Mesh, OpenError> {
        let options = self.options();
        match &self.source {
            Source::Agent(socket) => follow(socket, options).await,
            Source::Manifests(_) | Source::Application => self.read(options).await,
        }
    }

    async fn read(self, options: Options) -> Result<Mesh, OpenError> {
        let opened = match self.data_dir {
            None => Ok((Store::nowhere(), Loaded::default(), Vec::new())),
            Some(folder) => match tokio::task::spawn_blocking(move || Store::open(&folder)).await {
                Ok(opened) => opened.map_err(OpenError::Store),
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        };
        let mut mesh = Mesh::assemble(options, Some((opened?, Registrations::nowhere())))?;
        mesh.sweep_pools();
        mesh.follow_source().await;
        let status = mesh.status().get();
        match &status.source_trouble {
            Some(trouble) if !status.has_records => Err(OpenError::Source(trouble.clone())),
            Some(_) | None => Ok(mesh),
        }
    }

    fn options(&self) -> Options {
        let node = self.node.clone().or_else(host_name).unwrap_or_else(|| "localhost".to_owned());
        let defaults = Dns::default();
        let source = match &self.source {
            Source::Manifests(folder) => Some(folder.clone()),
            Source::Agent(_) | Source::Application => None,
        };
        Options {
            node: NodeName(node.into()),
            zone: self.zone.as_deref().map(Into::into),
            data_dir: self.data_dir.clone().unwrap_or_default(),
            folders: Folders { source, ..Folders::default() },
            supply: None,
            is_linked: false,
            is_synced: false,
            virtual_range: defaults.virtual_range,
            domain: defaults.domain,
            dial: Dial::default(),
            access_log: self.access_log.unwrap_or(AccessLog::Off),
            max_connections: 0, // nothing listens
            lanes: 0,
        }
    }
}

async fn follow(socket: &Path, options: Options) -> Result<Mesh, OpenError> {
    let mut mesh = Mesh::assemble(options, None)?;
    let agent = Agent::new(socket, mesh.shared.tasks.clone());
    let follower = Follower::new(mesh.live());
    let followed = Followed::begin(agent.clone(), follower, mesh.status()).await?;
    mesh.sweep_pools();
    mesh.shared.tasks.spawn(followed.follow(mesh.shared.stop.clone()));
    mesh.agent = Some(agent);
    Ok(mesh)
}

/// What the kernel calls this machine.
fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
