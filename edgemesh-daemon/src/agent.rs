//! `edgemesh agent`: opens the mesh, puts capture in place around it, and takes both down again.
//!
//! The order matters. The store serves before the source is read; loopback is bound before the
//! machine is touched, so that a second agent ends without harm; jumps are placed last and
//! deleted first.

mod admin;
mod alone;
mod capturing;
mod explain;
mod limits;
mod memory;
mod outside;
mod page;
mod serve;
mod views;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use edgemesh_core::config::{DnsIntercept, Intercept};
use edgemesh_core::dns::resolv::nameservers;
use edgemesh_core::listen::Listener;
use edgemesh_core::mesh::{Folders, Mesh, Options};
use edgemesh_core::snapshot::Snapshot;
use edgemesh_proto::record::NodeName;
use edgemesh_router::sources::{self, Named};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::admin::{Admin, State};
use crate::agent::alone::Alone;
use crate::agent::capturing::{Capturing, Wanted};
use crate::capture::Input;
use crate::config::{AgentConfig, Source};
use crate::guard::{self, Guarded, Program};
use crate::log::Log;

/// Longest wait for flows to end when the agent stops: what Kubernetes grants a Pod.
const DRAIN: Duration = Duration::from_secs(30);

/// Threads for what blocks: reading manifests, running iptables, and one more. Each keeps an arena
/// of the allocator, so that a handful would cost an idle agent a megabyte.
const BLOCKING_THREADS: usize = 3;

/// Memory that a change of the records needed for a moment is given back about this long after.
const TIDY_AFTER: Duration = Duration::from_secs(2);

/// Runs the guard of an agent: this very command once more, as its child.
///
/// # Errors
/// When the child cannot be started.
pub fn guard(config: &AgentConfig) -> anyhow::Result<u8> {
    let path = std::env::current_exe().context("cannot find this program's own file")?;
    let mut args: Vec<_> = std::env::args_os().skip(1).collect();
    args.push("--guarded".into());
    // The routes of last resort go too: without the jumps they would lead nowhere.
    let mut clean = || {
        if let Err(error) = crate::capture::remove_leftovers(&config.proxy.address) {
            tracing::error!(%error, "cannot remove the capture rules; `edgemesh redirect remove` does");
        }
    };
    guard::run(&Program { path, args }, &mut clean).context("cannot run the agent")
}

/// Whether an agent of this configuration needs a guard: without capture there is nothing to
/// clean up after it.
pub fn needs_guard(config: &AgentConfig) -> bool {
    config.proxy.intercept == Intercept::Iptables
}

/// Runs a node until SIGTERM or SIGINT.
///
/// # Errors
/// What kept it from starting, with the remedy.
pub fn run(config: AgentConfig, log: Log, guarded: bool) -> anyhow::Result<()> {
    let guarded = guarded.then(guard::enter).transpose().context("lost the guard")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(config, log, guarded))
}

async fn serve(config: AgentConfig, log: Log, guarded: Option<Guarded>) -> anyhow::Result<()> {
    let max_connections = limits::raise_open_files();
    let options = options(&config, max_connections)?;
    let mut mesh = tokio::task::block_in_place(|| Mesh::open(options))?;
    let mut listeners = loopback(config.proxy.port)?;
    let (admin, page) = (bind_page(&config.admin.listen)?, bind_page(&config.metrics.listen)?);
    mesh.follow_source().await;

    let _alone = match config.proxy.intercept {
        Intercept::None => None,
        Intercept::Iptables => Some(Alone::take()?),
    };
    let mut capturing = match config.proxy.intercept {
        Intercept::None => Capturing::off(),
        Intercept::Iptables => Capturing::prepare(wanted(&config, &mesh)).await?,
    };
    if capturing.is_on() {
        for address in capturing.addresses() {
            listeners.push(Listener::bind(SocketAddr::new(address, config.proxy.port))?);
        }
    }
    if capturing.is_on() {
        mesh.hold_names();
    }
    let listening = mesh.listen(listeners);
    mesh.serve_dns(&dns_addresses(&config, &capturing)).await?;
    let state = State::new(&config, &mesh, &listening, log);
    let state = Arc::new(state);
    let admin = Admin::start(state.clone(), admin, page)?;
    if let Some(guarded) = guarded.as_ref().filter(|_| capturing.is_on()) {
        guarded.captures().context("lost the guard")?;
    }
    capturing.start().await?;
    state.captured(capturing.view());
    if let Some(guarded) = &guarded {
        guarded.ready().context("lost the guard")?;
    }
    tracing::info!(node = config.node, revision = mesh.snapshot().revision, "started");

    attend(&config, &mut mesh, &mut capturing, &state).await?;
    state.stopping();
    stop(mesh, capturing).await;
    admin.stop();
    Ok(())
}

/// Keeps capture in step with the records until a signal ends it.
async fn attend(
    config: &AgentConfig,
    mesh: &mut Mesh,
    capturing: &mut Capturing,
    state: &State,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut changes = mesh.status().changes();
    let mut check = tokio::time::interval(crate::capture::CHECK_EVERY);
    let mut tidy = tokio::time::interval_at(tokio::time::Instant::now() + TIDY_AFTER, TIDY_AFTER);
    let mut littered = true;
    check.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                tracing::warn!("SIGHUP: changed configuration takes effect at the next start; manifests are followed anyway");
            }
            Ok(()) = changes.changed() => {
                follow(config, mesh, capturing, state).await;
                littered = true;
            }
            _ = tidy.tick(), if littered => {
                memory::give_back();
                littered = false;
            }
            _ = check.tick(), if capturing.is_on() => {
                // resolv.conf may name other servers by now.
                follow(config, mesh, capturing, state).await;
                capturing.check().await;
                state.captured(capturing.view());
            }
        }
    }
    Ok(())
}

/// Captures what the records say now, then lets names lead there.
async fn follow(config: &AgentConfig, mesh: &Mesh, capturing: &mut Capturing, state: &State) {
    let snapshot = mesh.snapshot();
    let captured = capturing.update(wanted_for(config, &snapshot)).await;
    state.captured(capturing.view());
    // A name whose address is not captured yet would lead clients nowhere.
    if captured {
        mesh.announce(snapshot);
    }
}

/// Nothing new is captured; what is under way may end; then nothing of us is left.
async fn stop(mesh: Mesh, mut capturing: Capturing) {
    tracing::info!("stopping: no new connections; waiting for open ones");
    capturing.stop_new().await;
    let cut = mesh.drain(DRAIN).await;
    if cut > 0 {
        tracing::warn!(cut, seconds = DRAIN.as_secs(), "connections were still open and are cut");
    }
    capturing.finish().await;
    tracing::info!("stopped");
}

fn options(config: &AgentConfig, max_connections: usize) -> anyhow::Result<Options> {
    let (word, folder) = match &config.source {
        Source::Manifests(folder) => ("manifests", Some(folder.clone())),
        Source::Cloud => ("cloud", None),
        Source::Kubernetes { .. } => ("kubernetes", None),
    };
    let folders = sources::open(Named { word, folder })?;
    Ok(Options {
        node: NodeName(config.node.as_str().into()),
        zone: config.zone.as_deref().map(Into::into),
        data_dir: config.data_dir.clone(),
        folders: Folders { services: Some(config.services.clone()), ..folders },
        virtual_range: config.dns.virtual_range.clone(),
        domain: config.dns.domain.clone(),
        mark: needs_guard(config).then_some(config.proxy.mark),
        access_log: config.access_log,
        max_connections,
    })
}

/// The loopback listeners; a machine without IPv6 has one.
fn loopback(port: u16) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = vec![Listener::bind((Ipv4Addr::LOCALHOST, port).into())?];
    match Listener::bind((Ipv6Addr::LOCALHOST, port).into()) {
        Ok(listener) => listeners.push(listener),
        Err(error) if error.source.kind() == std::io::ErrorKind::AddrInUse => {
            return Err(error.into());
        }
        Err(error) => tracing::info!(%error, "no IPv6 loopback; the proxy listens on IPv4 only"),
    }
    Ok(listeners)
}

fn bind_page(address: &SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.with_context(|| {
        format!(
            "cannot listen on {address} (is another agent running? `ss -ltnp` names who holds it)"
        )
    })
}

/// What is to be captured, by configuration and records.
fn wanted(config: &AgentConfig, mesh: &Mesh) -> Wanted {
    wanted_for(config, &mesh.snapshot())
}

/// The input of the capture rules for the records of `snapshot`, for `redirect`.
pub(crate) fn capture_input(config: &AgentConfig, snapshot: &Snapshot) -> Input {
    wanted_for(config, snapshot).into_input()
}

fn wanted_for(config: &AgentConfig, snapshot: &Snapshot) -> Wanted {
    let intercepted = match config.dns.intercept {
        DnsIntercept::Auto | DnsIntercept::On => config.dns.listen.first().map(SocketAddr::port),
        DnsIntercept::Off => None,
    };
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    Wanted::new(config, snapshot, intercepted, nameservers(&resolv, &[]))
}

/// Where the name server listens: as configured, and where capture sends queries to.
fn dns_addresses(config: &AgentConfig, capturing: &Capturing) -> Vec<SocketAddr> {
    let mut addresses = config.dns.listen.clone();
    if let Some(port) = capturing.dns_port() {
        let own: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        let own = own.into_iter().filter(|ip| ip.is_ipv4() || capturing.ipv6());
        addresses.extend(own.chain(capturing.addresses()).map(|ip| SocketAddr::new(ip, port)));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
