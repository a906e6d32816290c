//! The Router's part of a node: what the configuration says of its broker and ServiceBus.

use std::fs;

use anyhow::Context;
use edgemesh_core::mesh::Mesh;
use edgemesh_router::providers::eventbus::BrokerConfig;
use edgemesh_router::providers::{Edge, Plugged, plug_edge};

use crate::config::{AgentConfig, EventBus};

/// Plugs it in; its sources wait.
///
/// # Errors
/// When the broker's password cannot be read.
pub(super) fn plug(config: &AgentConfig, mesh: &Mesh) -> anyhow::Result<Plugged> {
    let broker = broker(&config.event_bus)?;
    Ok(plug_edge(mesh, Edge { broker, service_bus: config.service_bus.listen })?)
}

fn broker(config: &EventBus) -> anyhow::Result<BrokerConfig> {
    let EventBus { broker, username, password_file } = config;
    let password = password_file.as_ref().map(|file| {
        let text = fs::read_to_string(file);
        let text =
            text.with_context(|| format!("cannot read eventBus.passwordFile {}", file.display()))?;
        anyhow::Ok(text.trim_end_matches(['\r', '\n']).into())
    });
    Ok(BrokerConfig {
        url: broker.as_str().into(),
        username: username.as_deref().map(Into::into),
        password: password.transpose()?,
        client_id: None,
    })
}
