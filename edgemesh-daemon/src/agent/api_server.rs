//! The API server as a source of records: an agent's own, and how it looks on the pages.

use edgemesh_core::dial::Dial;
use edgemesh_core::mesh::{Folders, Mesh, Options, Supplier, Supply};
use edgemesh_proto::record::NodeName;
use edgemesh_router::kubernetes::Access;
use edgemesh_router::kubernetes::source::{Followed, Pace, Report, Source, SourceOptions};
use edgemesh_router::sources::{self, Named};

use crate::agent::needs_guard;
use crate::agent::sockets;
use crate::api::{SourceKind, SourceState, SourceView};
use crate::config::{self, AgentConfig};

/// Name and text of the series of `/metrics`, by kind of object.
pub(crate) const OBJECTS: (&str, &str) =
    ("source_objects", "Objects of the API server that are known, by kind");
/// See [`OBJECTS`].
pub(crate) const FAILURES: (&str, &str) =
    ("source_failures", "How often objects of a kind could not be followed at the API server");

/// A source that waits for its mesh.
#[derive(Debug)]
pub(super) struct ApiServer {
    source: Source,
    supplier: Supplier,
    report: Report,
}

impl ApiServer {
    /// The source, and where its records come out.
    fn new(access: Access, config: &AgentConfig, dial: Dial) -> (Self, Supply) {
        let (supplier, supply) = Supply::new();
        let report = Report::default();
        let options = SourceOptions {
            access,
            dial,
            node: Some(NodeName(config.node.as_str().into())),
            service_filter: config.proxy.service_filter_mode,
            pace: Pace::default(),
        };
        let source = Source::new(options, report.clone());
        (Self { source, supplier, report }, supply)
    }

    /// Follows the server for as long as `mesh` runs.
    pub(super) fn follow(self, mesh: &Mesh) -> Report {
        self.source.follow_for(mesh, self.supplier);
        self.report
    }
}

/// What the mesh is told, and the API server where its records come from one.
pub(super) fn options(
    config: &AgentConfig,
    max_connections: usize,
) -> anyhow::Result<(Options, Option<ApiServer>)> {
    let (word, folder, access) = match &config.source {
        config::Source::Manifests(folder) => ("manifests", Some(folder.clone()), None),
        config::Source::None => ("none", None, None),
        config::Source::Cloud => ("cloud", None, None),
        config::Source::Kubernetes(access) => ("kubernetes", None, Some(access.clone())),
    };
    let sources::Opened { folders, access } = sources::open(Named { word, folder, access })?;
    let dial = sockets::dial(config, needs_guard(config));
    let (api_server, supply) = access.map(|access| ApiServer::new(access, config, dial)).unzip();
    let options = Options {
        node: NodeName(config.node.as_str().into()),
        zone: config.zone.as_deref().map(Into::into),
        data_dir: config.data_dir.clone(),
        folders: Folders {
            services: Some(config.services.clone()),
            service_filter: config.proxy.service_filter_mode,
            ..folders
        },
        supply,
        is_linked: config.cloud.is_some(),
        is_synced: config.cloud.is_some() && config.source == config::Source::Cloud,
        virtual_range: config.dns.virtual_range.clone(),
        domain: config.dns.domain.clone(),
        dial,
        access_log: config.access_log,
        max_connections,
    };
    Ok((options, api_server))
}

/// How it looks at this moment.
pub(crate) fn view(report: &Report) -> SourceView {
    let followed: &Followed = &report.get();
    let kinds = followed.kinds.iter().map(|(kind, of)| SourceKind {
        kind: (*kind).to_owned(),
        objects: of.objects as u64,
        state: match (of.absent, of.synced) {
            (true, _) => SourceState::Absent,
            (false, true) => SourceState::Followed,
            (false, false) => SourceState::Waiting,
        },
        trouble: of.trouble.as_deref().map(Into::into),
        failures: of.failures,
    });
    SourceView { server: followed.server.to_string(), kinds: kinds.collect() }
}
