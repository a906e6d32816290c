//! The API server as an agent's own source of records.

use edgemesh_core::dial::Dial;
use edgemesh_core::mesh::{Mesh, Supplier, Supply};
use edgemesh_proto::record::NodeName;
use edgemesh_router::kubernetes::Access;
use edgemesh_router::kubernetes::source::{PAUSE, Report, Source, SourceOptions};

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
            pause: PAUSE,
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
