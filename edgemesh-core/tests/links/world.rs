//! Nodes with their meshes, all of the same records unless a test says otherwise.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use edgemesh_core::config::AccessLog;
use edgemesh_core::dial::Dial;
use edgemesh_core::io::now;
use edgemesh_core::listen::Listener;
use edgemesh_core::mesh::{Folders, Mesh, Options};
use edgemesh_core::snapshot::{Builder, Change};
use edgemesh_proto::record::{NodeName, Record};
use tempfile::TempDir;

use crate::grammar::{Words, record};
use crate::log;
use crate::wires::Wires;

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Several nodes.
pub(crate) struct World(BTreeMap<&'static str, Site>);

/// One of them.
pub(crate) struct Site {
    pub(crate) mesh: Mesh,
    pub(crate) wires: Arc<Wires>,
    /// Where its explicit proxy listens.
    pub(crate) proxy: SocketAddr,
    builder: Builder,
    _folder: TempDir,
}

impl World {
    /// `nodes`, an agent on each, and these records, in the words of the plan tables.
    pub(crate) async fn new(nodes: &[&'static str], lines: &str) -> Self {
        log::listen();
        let mut sites = BTreeMap::new();
        for node in nodes {
            sites.insert(*node, Site::open(node).await);
        }
        let mut world = Self(sites);
        for (node, site) in &world.0 {
            for (other, handler) in world.0.iter().filter(|(other, _)| other != &node) {
                site.wires.join(other, Arc::new(handler.mesh.linked()));
            }
        }
        let agents: Vec<_> = nodes.iter().map(|node| format!("node {node} agent")).collect();
        world.put(&agents.join("\n"));
        world.put(lines);
        world
    }

    /// Every node learns these records.
    pub(crate) fn put(&mut self, lines: &str) {
        self.0.values_mut().for_each(|site| site.put(lines));
    }

    /// One node learns these records, and no other does.
    pub(crate) fn put_at(&mut self, node: &str, lines: &str) {
        self.0.get_mut(node).unwrap().put(lines);
    }

    pub(crate) fn at(&self, node: &str) -> &Site {
        &self.0[node]
    }

    /// Stops the mesh of a node, and cuts what is under way.
    pub(crate) async fn cut_short(&mut self, node: &str) {
        let site = self.0.remove(node).unwrap();
        site.mesh.drain(Duration::ZERO).await;
    }
}

impl Site {
    async fn open(node: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mesh = Mesh::open(Options {
            node: NodeName(node.into()),
            zone: None,
            data_dir: folder.path().join("data"),
            folders: Folders::default(),
            virtual_range: Vec::new(),
            domain: "cluster.local".into(),
            dial: Dial::default(),
            access_log: AccessLog::All,
            max_connections: 1000,
            lanes: 0,
            supply: None,
            is_linked: false,
            is_synced: false,
        })
        .unwrap();
        let proxy = mesh.listen(vec![Listener::bind(([127, 0, 0, 1], 0).into()).unwrap()])[0];
        let wires = Wires::new(node);
        mesh.reach_by(wires.clone());
        let builder = Builder::new(NodeName(node.into()), None);
        Self { mesh, wires, proxy, builder, _folder: folder }
    }

    fn put(&mut self, lines: &str) {
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        let put = lines.map(read).collect();
        let snapshot = self.builder.apply(Change { put, ..Change::default() }, now());
        self.mesh.live().store(snapshot);
    }
}

fn read(line: &str) -> Record {
    let mut words = Words(line.split_whitespace().collect());
    let verb = words.next("a verb").unwrap();
    record(verb, words).unwrap_or_else(|wrong| panic!("{line}: {wrong}"))
}

/// `future`, in time.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}
