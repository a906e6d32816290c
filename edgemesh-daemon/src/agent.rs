//! `edgemesh agent`: opens the mesh, puts capture in place around it, and takes both down again.
//!
//! The order matters. The store serves before the source is read; loopback is bound before the
//! machine is touched, so that a second agent ends without harm; jumps are placed last and
//! deleted first.

pub(crate) mod admin;
mod alone;
#[cfg(feature = "cloud")]
pub(crate) mod api_server;
#[cfg(not(feature = "cloud"))]
#[path = "agent/no_api_server.rs"]
pub(crate) mod api_server;
mod capturing;
mod checks;
mod doors;
pub(crate) mod explain;
mod following;
mod guards;
mod leaving;
mod limits;
mod linking;
mod looks;
mod options;
mod outside;
mod page;
mod registering;
mod reload;
mod router;
pub(crate) mod rule_series;
pub(crate) mod serve;
mod signals;
mod socket;
mod sockets;
pub(crate) mod source_series;
pub(crate) mod views;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use edgemesh_core::config::{DnsIntercept, Intercept};
use edgemesh_core::dns::resolv::nameservers;
use edgemesh_core::listen::Listener;
use edgemesh_core::mesh::Mesh;
use edgemesh_core::snapshot::Snapshot;
use ipnet::IpNet;

use crate::agent::admin::State;
use crate::agent::alone::Alone;
pub(crate) use crate::agent::alone::captures_here;
use crate::agent::capturing::{Capturing, Wanted};
use crate::agent::checks::Checks;
use crate::agent::doors::{Admin, Doors, Opened};
use crate::agent::leaving::Place;
use crate::agent::signals::Signals;
use crate::agent::socket::Socket;
use crate::agent::sockets::{Sockets, in_use};
use crate::capture::Input;
use crate::config::AgentConfig;
use crate::guard::{self, Guarded, Program};
use crate::handover::{self, Inherited, Offer, Predecessor, Successor};
use crate::log::Log;
use crate::memory;

pub use crate::agent::reload::Reread;

/// Threads for what blocks: reading manifests, running iptables, and one more. Each keeps an arena
/// of the allocator, so that a handful would cost an idle agent a megabyte.
const BLOCKING_THREADS: usize = 3;

/// Memory that a change of the records needed for a moment is given back about this long after.
const TIDY_AFTER: Duration = Duration::from_secs(2);

/// A socket for hand-overs that could not be made is tried again this often.
const OFFER_AGAIN: Duration = Duration::from_secs(10);

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

/// How an agent is started.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// By a guard.
    pub guarded: bool,
    /// Takes over from the agent that serves from the same data folder, if there is one.
    pub take_over: bool,
}

/// Runs a node until SIGTERM or SIGINT, or until another agent takes over.
///
/// # Errors
/// What kept it from starting, with the remedy.
pub fn run(config: AgentConfig, reread: &Reread<'_>, log: Log, start: Start) -> anyhow::Result<()> {
    let guarded = start.guarded.then(guard::enter).transpose().context("lost the guard")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .context("cannot start the runtime")?;
    let before = match start.take_over {
        true => handover::take(&config.data_dir)?,
        false => None,
    };
    let agent = Starting { config, log, guarded, before };
    runtime.block_on(agent.serve(reread))
}

/// What an agent starts with.
struct Starting {
    config: AgentConfig,
    log: Log,
    guarded: Option<Guarded>,
    before: Option<(Predecessor, Inherited)>,
}

/// An agent that has come up.
struct Running {
    config: AgentConfig,
    mesh: Mesh,
    capturing: Capturing,
    state: Arc<State>,
    alone: Option<Alone>,
    sockets: Sockets,
    offer: Option<Offer>,
    watching: Option<linking::Watching>,
}

/// Why an agent no longer attends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// It was told to stop.
    Stopped,
    /// Another one serves.
    HandedOver,
}

impl Starting {
    async fn serve(self, reread: &Reread<'_>) -> anyhow::Result<()> {
        let (mut agent, admin) = Box::pin(self.start()).await?;
        let left = agent.attend(reread).await?;
        agent.state.stopping();
        match left {
            Left::Stopped => leaving::stop(agent.mesh, agent.capturing).await,
            Left::HandedOver => {
                // Whoever asks shall hear the one that serves; and when that one is gone, the next
                // must find the ports free.
                admin.stop();
                drop((agent.sockets, agent.offer));
                let mut signals = Signals::new()?;
                tokio::select! {
                    () = leaving::linger(agent.mesh) => {}
                    _ = signals.terminate.recv() => {}
                    _ = signals.interrupt.recv() => {}
                }
                return Ok(());
            }
        }
        admin.stop();
        Ok(())
    }

    async fn start(self) -> anyhow::Result<(Running, Opened)> {
        let Self { config, log, guarded, before } = self;
        let (before, inherited) = before.unzip();
        let mut sockets = Sockets::inheriting(inherited.unwrap_or_default());
        let max_connections = limits::raise_open_files();
        let (options, api_server) = options::options(&config, max_connections)?;
        let mut mesh = tokio::task::block_in_place(|| Mesh::open(options))?;
        let followed = api_server.map(|server| server.follow(&mesh));
        let mut listeners = loopback(&mut sockets, config.proxy.port)?;
        let peers = config.cloud.as_ref().map(|_| sockets.peer(config.peer.listen)).transpose()?;
        let admin = sockets.page(config.admin.listen)?;
        let page = sockets.page(config.metrics.listen)?;
        mesh.follow_source().await;
        let router = router::plug(&config, &mesh)?;

        let alone = match config.proxy.intercept {
            Intercept::None => None,
            Intercept::Iptables => Some(Alone::take()?),
        };
        let mut capturing = match config.proxy.intercept {
            Intercept::None => Capturing::off(),
            Intercept::Iptables => Capturing::prepare(wanted(&config, &mesh)).await?,
        };
        if capturing.is_on() {
            for address in capturing.addresses() {
                listeners.push(sockets.proxy(SocketAddr::new(address, config.proxy.port))?);
            }
            mesh.hold_names();
        }
        let listening = mesh.listen(listeners);
        let mut names = Vec::new();
        for address in dns_addresses(&config, &capturing) {
            names.push(sockets.dns(address).await?);
        }
        mesh.serve_dns(names);
        sockets.close_unclaimed();
        let links = linking::options(&config, before.is_some()).zip(peers);
        let links = links.map(|(options, listener)| mesh.link(options, listener));
        let state = Arc::new(State::new(&config, &mesh, &listening, log));
        let watching = links.clone().map(linking::Watching::new);
        if let (Some(links), Some(cloud)) = (links, &config.cloud) {
            let (live, status, servers) = (mesh.live(), mesh.status(), cloud.servers.clone());
            state.looks.linked(move || linking::view(&links, &servers, &live.load(), &status));
        }
        if let Some(report) = followed {
            state.looks.follows(move || api_server::view(&report));
        }
        state.handing_over(before.is_some());
        let admin = Admin::start(state.clone(), Doors { admin, page })?;
        if let Some(guarded) = guarded.as_ref().filter(|_| capturing.is_on()) {
            guarded.captures().context("lost the guard")?;
        }
        capturing.start().await?;
        let offer = Offer::open(&config.data_dir);
        let admin = admin.open(Socket::open(&config.data_dir));
        state.captured(capturing.view());
        if let Some(before) = before {
            before.serving()?;
            state.handing_over(false);
        }
        router.begin();
        state.looks.has_broker(router::look(&config.event_bus, router));
        if let Some(guarded) = &guarded {
            guarded.ready().context("lost the guard")?;
        }
        tracing::info!(node = config.node, revision = mesh.snapshot().revision, "started");
        let running = Running { config, mesh, capturing, state, alone, sockets, offer, watching };
        Ok((running, admin))
    }
}

impl Running {
    /// Keeps capture in step with the records until a signal or another agent ends it.
    async fn attend(&mut self, reread: &Reread<'_>) -> anyhow::Result<Left> {
        let mut signals = Signals::new()?;
        let mut changes = self.mesh.status().changes();
        // What changed during the start is not followed yet.
        changes.mark_changed();
        let mut checks = Checks::new(self.capturing.is_on());
        let mut tidy =
            tokio::time::interval_at(tokio::time::Instant::now() + TIDY_AFTER, TIDY_AFTER);
        let mut again = tokio::time::interval(OFFER_AGAIN);
        let mut littered = true;
        loop {
            tokio::select! {
                _ = signals.terminate.recv() => return Ok(Left::Stopped),
                _ = signals.interrupt.recv() => return Ok(Left::Stopped),
                _ = signals.hang_up.recv() => {
                    reload::reload(&mut self.config, reread, &self.mesh);
                    self.follow().await;
                }
                _ = signals.upgrade.recv() => {
                    tracing::warn!("SIGUSR2 is for the guard; without one, start `edgemesh agent --take-over`");
                }
                line = Offer::next(self.offer.as_ref()) => {
                    // It may take minutes where the other one hangs.
                    tokio::select! {
                        served = self.hand_over(line) => if served {
                            return Ok(Left::HandedOver);
                        },
                        _ = signals.terminate.recv() => return Ok(Left::Stopped),
                        _ = signals.interrupt.recv() => return Ok(Left::Stopped),
                    }
                }
                () = linking::watch(&mut self.watching) => {}
                _ = again.tick(), if self.offer.is_none() => self.offer = Offer::open(&self.config.data_dir),
                Ok(()) = changes.changed() => {
                    self.follow().await;
                    littered = true;
                }
                _ = tidy.tick(), if littered => {
                    memory::give_back();
                    littered = false;
                }
                () = checks.due(), if self.capturing.is_on() => {
                    // resolv.conf may name other servers by now.
                    self.follow().await;
                    checks.looked(self.capturing.check().await);
                    self.state.captured(self.capturing.view());
                }
            }
        }
    }

    /// Hands over to whoever is on the `line`. `true`: it serves.
    async fn hand_over(&mut self, line: tokio::net::UnixStream) -> bool {
        let Some(successor) = Successor::greet(line).await else { return false };
        let place = Place { mesh: &mut self.mesh, alone: &mut self.alone, sockets: &self.sockets };
        self.state.handing_over(true);
        let served = leaving::hand_over(place, successor).await;
        self.state.handing_over(served);
        let folder = &self.config.data_dir;
        // Whoever asked meanwhile is kept; the other one may have put its socket in our place.
        if !served && !self.offer.as_ref().is_some_and(|offer| offer.stands(folder)) {
            self.offer = Offer::open(folder);
        }
        served
    }

    /// Captures what the records say now, then lets names lead there.
    async fn follow(&mut self) {
        let ranges = self.mesh.status().get().service_cidrs.clone();
        let snapshot = self.mesh.snapshot();
        let serial = snapshot.serial;
        let captured = self.capturing.update(wanted_for(&self.config, &snapshot, &ranges)).await;
        self.state.captured(self.capturing.view());
        // A name whose address is not captured yet would lead clients nowhere.
        if captured {
            self.mesh.announce(snapshot);
        }
        self.state.followed(serial);
    }
}

/// The loopback listeners; a machine without IPv6 has one.
fn loopback(sockets: &mut Sockets, port: u16) -> anyhow::Result<Vec<Listener>> {
    let mut listeners = vec![sockets.proxy((Ipv4Addr::LOCALHOST, port).into())?];
    match sockets.proxy((Ipv6Addr::LOCALHOST, port).into()) {
        Ok(listener) => listeners.push(listener),
        Err(error) if in_use(&error) => return Err(error),
        Err(error) => {
            tracing::info!("no IPv6 loopback, the proxy listens on IPv4 only: {error:#}");
        }
    }
    Ok(listeners)
}

/// What is to be captured, by configuration and records.
fn wanted(config: &AgentConfig, mesh: &Mesh) -> Wanted {
    wanted_for(config, &mesh.snapshot(), &mesh.status().get().service_cidrs)
}

/// The input of the capture rules for the records of `snapshot`, for `redirect`.
pub(crate) fn capture_input(
    config: &AgentConfig,
    snapshot: &Snapshot,
    service_cidrs: &[IpNet],
) -> Input {
    wanted_for(config, snapshot, service_cidrs).into_input()
}

fn wanted_for(config: &AgentConfig, snapshot: &Snapshot, service_cidrs: &[IpNet]) -> Wanted {
    let intercepted = match config.dns.intercept {
        DnsIntercept::Auto | DnsIntercept::On => config.dns.listen.first().map(SocketAddr::port),
        DnsIntercept::Off => None,
    };
    let resolv = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    Wanted::new(config, snapshot, service_cidrs, intercepted, nameservers(&resolv, &[]))
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
