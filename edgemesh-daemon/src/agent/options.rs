//! What the mesh of an agent is told, by its configuration.

use edgemesh_core::lanes::MOST as MOST_LANES;
use edgemesh_core::mesh::{Folders, Options};
use edgemesh_proto::record::NodeName;
use edgemesh_router::sources::{self, Named};

use crate::agent::api_server::ApiServer;
use crate::agent::{needs_guard, sockets};
use crate::config::{AgentConfig, Source};

/// What the mesh is told, and the API server where its records come from one.
pub(super) fn options(
    config: &AgentConfig,
    max_connections: usize,
) -> anyhow::Result<(Options, Option<ApiServer>)> {
    let (word, folder, access) = match &config.source {
        Source::Manifests(folder) => ("manifests", Some(folder.clone()), None),
        Source::None => ("none", None, None),
        Source::Cloud => ("cloud", None, None),
        Source::Kubernetes(access) => ("kubernetes", None, Some(access.clone())),
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
        is_synced: config.cloud.is_some() && config.source == Source::Cloud,
        virtual_range: config.dns.virtual_range.clone(),
        domain: config.dns.domain.clone(),
        dial,
        access_log: config.access_log,
        max_connections,
        lanes: lanes(),
    };
    Ok((options, api_server))
}

/// A lane for each processor that the system lets this process use.
fn lanes() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MOST_LANES)
}
