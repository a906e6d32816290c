//! The Router's part of a node: what the configuration says of its broker and ServiceBus.

use std::fs;

use anyhow::Context;
use edgemesh_core::mesh::Mesh;
use edgemesh_core::tunnel::now_ms;
use edgemesh_router::providers::eventbus::{BrokerConfig, BrokerState};
use edgemesh_router::providers::{Edge, Plugged, plug_edge};

use crate::api;
use crate::config::{AgentConfig, EventBus};

/// A file in the data folder, locked by the agent that is the broker's client: in a hand-over there are
/// two.
const LOCK: &str = "eventbus.lock";

/// Plugs it in; its sources wait.
///
/// # Errors
/// When the broker's password cannot be read.
pub(super) fn plug(config: &AgentConfig, mesh: &Mesh) -> anyhow::Result<Plugged> {
    let lock = Some(config.data_dir.join(LOCK).into());
    let broker = BrokerConfig { lock, ..broker(&config.event_bus)? };
    Ok(plug_edge(mesh, Edge { broker, service_bus: config.service_bus.listen })?)
}

/// How the broker is, while something needs it.
pub(super) fn look(config: &EventBus, router: Plugged) -> impl Fn() -> Option<api::Broker> + use<> {
    let url = config.broker.clone();
    move || {
        let BrokerState { connected, since, reason } = router.bus.state();
        let reason = reason.map(String::from);
        let seconds = u64::try_from((now_ms() - since) / 1000).unwrap_or(0);
        let view = api::Broker { url: url.clone(), connected, since_seconds: seconds, reason };
        (connected || view.reason.is_some()).then_some(view)
    }
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
        lock: None,
    })
}
