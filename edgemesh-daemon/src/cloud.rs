//! `edgemesh cloud` and the commands beside it: what they do with a checked configuration.

use std::time::Duration;

use anyhow::bail;
use edgemesh_proto::record::NodeName;

use crate::config::CloudConfig;
use crate::log::Log;

/// Runs controller, hub and router until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, with the remedy.
pub fn run(_config: CloudConfig, _log: Log) -> anyhow::Result<()> {
    bail!("cloud is not wired yet")
}

/// Makes a token by which a node, or only this one, can join for so long.
///
/// # Errors
/// When the data folder has no authority or takes no token.
pub fn token_create(
    _config: &CloudConfig,
    _ttl: Duration,
    _node: Option<&NodeName>,
) -> anyhow::Result<String> {
    bail!("token create is not wired yet")
}

/// Revokes a node and forgets its records. Says what was done, in a line for people.
///
/// # Errors
/// When there is no such node, or the data folder takes no change.
pub fn node_remove(_config: &CloudConfig, _node: &NodeName) -> anyhow::Result<String> {
    bail!("node remove is not wired yet")
}

/// The authority with its secret key, as text.
///
/// # Errors
/// When the data folder has none, or it cannot be read.
pub fn ca_export(_config: &CloudConfig) -> anyhow::Result<String> {
    bail!("ca export is not wired yet")
}

/// Puts an exported authority into the data folder. Says what was done, in a line for people.
///
/// # Errors
/// When the text is none, or the folder has another authority.
pub fn ca_restore(_config: &CloudConfig, _exported: &str) -> anyhow::Result<String> {
    bail!("ca restore is not wired yet")
}
