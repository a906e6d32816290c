//! In the place of the cloud, in a program that was built without it.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::bail;
use edgemesh_proto::record::NodeName;

use crate::config::CloudConfig;
use crate::log::Log;

fn absent() -> anyhow::Result<Infallible> {
    bail!(
        "this program was built without the cloud: build it with the feature `cloud`, which is the default"
    )
}

/// Says that there is none.
///
/// # Errors
/// Always.
pub fn run(_: CloudConfig, _: Log) -> anyhow::Result<()> {
    match absent()? {}
}

/// Says that there is none.
///
/// # Errors
/// Always.
pub fn token_create(_: &CloudConfig, _: Duration, _: Option<&NodeName>) -> anyhow::Result<String> {
    match absent()? {}
}

/// Says that there is none.
///
/// # Errors
/// Always.
pub fn node_remove(_: &CloudConfig, _: &NodeName) -> anyhow::Result<String> {
    match absent()? {}
}

/// Says that there is none.
///
/// # Errors
/// Always.
pub fn ca_export(_: &CloudConfig) -> anyhow::Result<String> {
    match absent()? {}
}

/// Says that there is none.
///
/// # Errors
/// Always.
pub fn ca_restore(_: &CloudConfig, _: &str) -> anyhow::Result<String> {
    match absent()? {}
}
