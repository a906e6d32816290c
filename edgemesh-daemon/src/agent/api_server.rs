//! The API server as a source of records: an agent's own, and how it looks on the pages.

use edgemesh_core::dial::Dial;
use edgemesh_core::mesh::{Mesh, Supplier, Supply};
use edgemesh_proto::record::NodeName;
use edgemesh_router::kubernetes::Access;
use edgemesh_router::kubernetes::source::{Followed, Pace, Report, Source, SourceOptions};

use crate::api::{SourceKind, SourceState, SourceView};
use crate::config::AgentConfig;

/// A source that waits for its mesh.
#[derive(Debug)]
pub(super) struct ApiServer {
    source: Source,
    supplier: Supplier,
    report: Report,
}

impl ApiServer {
    /// The source, and where its records come out.
    pub(super) fn new(access: Access, config: &AgentConfig, dial: Dial) -> (Self, Supply) {
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

/// How it looks at this moment.
pub(crate) fn view(report: &Report) -> SourceView {
    let followed: &Followed = &report.get();
    let kinds = followed.kinds.iter().map(|(kind, of)| SourceKind {
        kind: (*kind).to_owned(),
        objects: of.objects as u64,
        wrong: of.wrong as u64,
        state: match (of.absent, of.synced, of.partial) {
            (true, ..) => SourceState::Absent,
            (false, true, _) => SourceState::Followed,
            (false, false, true) => SourceState::Partial,
            (false, false, false) => SourceState::Waiting,
        },
        trouble: of.trouble.as_deref().map(Into::into),
        failures: of.failures,
    });
    SourceView { server: followed.server.to_string(), kinds: kinds.collect() }
}
