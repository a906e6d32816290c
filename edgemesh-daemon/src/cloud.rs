//! `edgemesh cloud` and the commands beside it: what they do with a checked configuration.

mod admin;
mod rules;
mod views;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use edgemesh_core::dial::Dial;
use edgemesh_core::listen::Listener;
use edgemesh_proto::record::NodeName;
use edgemesh_router::authority::{self, Authority};
use edgemesh_router::cloud::{Cloud, CloudOptions, Records};
use edgemesh_router::ingress::{self, Ingress, IngressConfig};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Auth, CloudConfig, Source};
use crate::log::Log;
use crate::say;

/// Connections of callers in the cloud at once.
const INGRESS_ROOM: usize = 10_000;

/// Runs controller, hub and router until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, with the remedy.
pub fn run(config: CloudConfig, log: Log) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the runtime")?.block_on(serve(config, log))
}

async fn serve(config: CloudConfig, log: Log) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let stop = CancellationToken::new();
    let options = options(&config);
    let cloud = tokio::task::block_in_place(|| Cloud::open(options, stop.clone()))?;
    let listener = Listener::bind(config.hub.listen)?;
    let hub = listener.address();
    let router = Listener::bind(config.router.listen)?;
    let ingress = Ingress::new(ingress(&config), cloud.known_nodes())?;
    cloud.open_ingress(&ingress, router);
    admin::serve(admin::State::new(&config, &cloud, log), config.admin.listen, stop.clone())?;
    tracing::info!(%hub, admin = %config.admin.listen, ca = %cloud.authority.ca(), "started");
    let ending = stop.clone();
    let running = cloud.run(listener);
    tokio::pin!(running);
    loop {
        tokio::select! {
            () = &mut running => return Ok(()),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => match ingress.reload() {
                Ok(()) => tracing::info!("certificate, token and CA of the router were read again"),
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    tracing::error!("what was read before stays in force: {error:#}");
                }
            },
        }
    }
    tracing::info!("stopping");
    ending.cancel();
    running.await;
    tracing::info!("stopped");
    Ok(())
}

fn options(config: &CloudConfig) -> CloudOptions {
    CloudOptions {
        data_dir: config.data_dir.clone(),
        zone: config.zone.as_str().into(),
        records: match &config.source {
            Source::Manifests(folder) => Records::Manifests(folder.clone()),
            Source::Kubernetes(access) => Records::Kubernetes(access.clone()),
            Source::None | Source::Cloud => Records::None,
        },
        names: config.hub.names.clone(),
        domain: config.dns.domain.clone(),
        dial: Dial { mark: None, private: [config.admin.listen.port(), 0] },
        access_log: config.access_log,
        grace: config.hub.offline_grace,
    }
}

fn ingress(config: &CloudConfig) -> IngressConfig {
    let router = &config.router;
    IngressConfig {
        tls: router.tls.as_ref().map(|files| ingress::TlsFiles {
            cert_file: files.cert_file.clone(),
            key_file: files.key_file.clone(),
        }),
        auth: match &router.auth {
            Auth::None => ingress::Auth::None,
            Auth::Token(file) => ingress::Auth::Token(file.clone()),
            Auth::ClientCa(file) => ingress::Auth::ClientCa(file.clone()),
        },
        room: INGRESS_ROOM,
    }
}

fn open(config: &CloudConfig) -> anyhow::Result<Authority> {
    Ok(Authority::open(&config.data_dir, today(), config.hub.offline_grace)?)
}

/// The authority where there is one: who removes or exports makes none.
fn existing(config: &CloudConfig) -> anyhow::Result<Authority> {
    Ok(Authority::existing(&config.data_dir, today(), config.hub.offline_grace)?)
}

fn today() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Makes a token by which a node, or only this one, can join for so long. Where there is no authority
/// yet it makes one, and says so: on a wrong machine nobody wants that.
///
/// # Errors
/// When the data folder takes no token.
pub fn token_create(
    config: &CloudConfig,
    ttl: Duration,
    node: Option<&NodeName>,
) -> anyhow::Result<String> {
    let is_new = !Authority::is_in(&config.data_dir);
    let authority = open(config)?;
    if is_new {
        let (ca, folder) = (authority.ca(), config.data_dir.display());
        say::progress(format_args!("there was no authority in {folder}: {ca} is a new one"));
    }
    Ok(authority.create_token(ttl, node, today())?.reveal())
}

/// Revokes a node and forgets its records. Says what was done, in a line for people.
///
/// # Errors
/// When there is no such node, or the data folder takes no change.
pub fn node_remove(config: &CloudConfig, node: &NodeName) -> anyhow::Result<String> {
    let name = &node.0;
    if !existing(config)?.remove(node, today())?.was_known {
        bail!(
            "node {name} is unknown here: nobody of that name has joined (`edgemesh get nodes \
             --admin http://127.0.0.1:15010` lists who has); certificates of that name that this authority may have signed are void now"
        );
    }
    Ok(format!(
        "{name} is removed: its certificates and the token that it joined by are void; a new token lets \
         it join again\nEndpointSlices that name it stay: what runs there is dialled without TLS until \
         they are deleted\n"
    ))
}

/// The authority with its secret key, as text.
///
/// # Errors
/// When the data folder has none, or it cannot be read.
pub fn ca_export(config: &CloudConfig) -> anyhow::Result<String> {
    Ok(existing(config)?.export())
}

/// Puts an exported authority into the data folder. Says what was done, in a line for people.
///
/// # Errors
/// When the text is none, or the folder has another authority.
pub fn ca_restore(config: &CloudConfig, exported: &str) -> anyhow::Result<String> {
    let ca = authority::restore(&config.data_dir, exported)?;
    Ok(format!("the authority {ca} is in {}\n", config.data_dir.display()))
}
