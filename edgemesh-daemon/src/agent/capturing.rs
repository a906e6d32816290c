//! Capture beside a running agent: its blocking calls on threads of their own, its state for
//! `status`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use edgemesh_core::config::Include;
use edgemesh_core::io::now;
use edgemesh_core::snapshot::{Service, Snapshot};
use edgemesh_proto::record::Transport;
use ipnet::IpNet;

use crate::agent::outside::{Bounds, Counts, Outside};
use crate::api;
use crate::capture::node_ports::listening;
use crate::capture::{
    CHECK_EVERY, Capture, CaptureError, DnsCapture, Input, MAX_PREFIXES, auto_include, covers,
};
use crate::config::AgentConfig;

/// Repairs that `status` remembers.
const REPAIRS: usize = 8;
/// How long it does.
const REMEMBER: Duration = Duration::from_secs(600);

/// Most addresses of Services left to others that get a rule; calls to more of them pass through.
const LEFT_ALONE: usize = 256;

/// What is to be captured, and which Services that leaves out.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    input: Input,
    outside: Vec<api::Outside>,
    udp: Counts,
    notes: Vec<String>,
}

/// Capture, or its absence.
pub(super) struct Capturing {
    /// `None` = off, or away on a blocking thread.
    capture: Option<Capture>,
    wanted: Option<Wanted>,
    trouble: Option<String>,
    /// NodePorts that programs listen on too.
    conflicts: Vec<String>,
    /// What was put back, and when.
    repairs: VecDeque<(Instant, String)>,
}

impl Wanted {
    pub(super) fn new(
        config: &AgentConfig,
        snapshot: &Snapshot,
        service_cidrs: &[IpNet],
        dns_port: Option<u16>,
        nameservers: Vec<IpAddr>,
    ) -> Self {
        let proxy = &config.proxy;
        let (include, exclude) = destinations(config, snapshot, service_cidrs);
        let not_captured = not_captured(snapshot, &include);
        let pages = [config.admin.listen.port(), config.metrics.listen.port()];
        let names = config.dns.listen.iter().map(SocketAddr::port).chain(dns_port);
        let tcp = pages.into_iter().chain([proxy.port]).chain(names.clone());
        let own: Vec<_> = tcp
            .map(|port| (Transport::Tcp, port))
            .chain(names.map(|port| (Transport::Udp, port)))
            .collect();
        let bounds = Bounds {
            include: &include,
            exclude_ports: &proxy.exclude_ports,
            node_ports: proxy.node_ports,
            own: &own,
        };
        let Outside { node_ports, udp, counts, notes } = Outside::of(snapshot, bounds);
        let dns = dns_port.map(|port| DnsCapture { port, nameservers });
        let input = Input {
            port: proxy.port,
            addresses: proxy.address.clone(),
            mark: proxy.mark,
            include,
            exclude,
            exclude_ports: proxy.exclude_ports.clone(),
            dns,
            outward: Vec::new(),
            node_ports,
            udp,
        };
        Self { input, outside: not_captured, udp: counts, notes }
    }

    /// The rules' input, for `redirect`.
    pub(super) fn into_input(self) -> Input {
        self.input
    }
}

/// What is captured, and what of it is not.
fn destinations(
    config: &AgentConfig,
    snapshot: &Snapshot,
    service_cidrs: &[IpNet],
) -> (Vec<IpNet>, Vec<IpNet>) {
    let (proxy, virtual_range) = (&config.proxy, &config.dns.virtual_range);
    let addresses_of = |is_wanted: fn(&Service) -> bool| {
        let services = snapshot.services().iter().filter(|service| !service.is_virtual);
        let wanted = services.filter(move |service| is_wanted(service));
        wanted.flat_map(|service| service.addresses.iter().copied())
    };
    match &proxy.include {
        Include::Auto(_) => {
            let known: Vec<IpAddr> = addresses_of(is_served).collect();
            let include = auto_include(service_cidrs, &known, virtual_range);
            // In a range that is captured whole, others would get their Services' calls by way of us.
            let room = MAX_PREFIXES.saturating_sub(proxy.exclude.len()).min(LEFT_ALONE);
            let left = addresses_of(|service| !is_served(service));
            let left = left.filter(|address| covers(&include, *address)).take(room);
            let exclude = proxy.exclude.iter().copied().chain(left.map(IpNet::from)).collect();
            (include, exclude)
        }
        Include::List(list) => {
            let include = list.iter().chain(virtual_range).copied().collect();
            (include, proxy.exclude.clone())
        }
    }
}

/// A Service that is left to others has no ports here.
fn is_served(service: &Service) -> bool {
    !service.ports.is_empty()
}

fn not_captured(snapshot: &Snapshot, include: &[IpNet]) -> Vec<api::Outside> {
    let mut outside = Vec::new();
    for service in snapshot.services().iter().filter(|service| is_served(service)) {
        for address in service.addresses.iter().filter(|a| !covers(include, **a)) {
            let (service, address) = (service.name.to_string(), address.to_string());
            outside.push(api::Outside { service, address });
        }
    }
    outside
}

impl Capturing {
    pub(super) const fn off() -> Self {
        Self {
            capture: None,
            wanted: None,
            trouble: None,
            conflicts: Vec::new(),
            repairs: VecDeque::new(),
        }
    }

    /// Makes device and addresses; captures nothing yet.
    pub(super) async fn prepare(wanted: Wanted) -> Result<Self, CaptureError> {
        let input = Input { outward: outward(), ..wanted.input.clone() };
        let capture = blocking(move || Capture::prepare(input)).await?;
        for note in &capture.report().notes {
            tracing::warn!("{note}");
        }
        Ok(Self { capture: Some(capture), wanted: Some(wanted), ..Self::off() })
    }

    pub(super) const fn is_on(&self) -> bool {
        self.wanted.is_some()
    }

    /// Addresses of our device that listeners are needed on.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        let ipv6 = self.ipv6();
        let wanted = self.wanted.iter().flat_map(|w| w.input.addresses.iter().copied());
        wanted.filter(|a| a.is_ipv4() || ipv6).collect()
    }

    pub(super) fn ipv6(&self) -> bool {
        self.capture.as_ref().is_some_and(|capture| capture.report().ipv6)
    }

    /// Port that intercepted queries are sent to.
    pub(super) fn dns_port(&self) -> Option<u16> {
        self.wanted.as_ref()?.input.dns.as_ref().map(|dns| dns.port)
    }

    /// Begins to capture.
    pub(super) async fn start(&mut self) -> Result<(), CaptureError> {
        self.look_for_conflicts().await;
        self.with(Capture::start).await
    }

    /// Names the programs whose ports are NodePorts: captured, they are reached no more.
    async fn look_for_conflicts(&mut self) {
        let Some(wanted) = &self.wanted else { return };
        let ports = wanted.input.node_ports.ports.clone();
        if ports.is_empty() {
            return self.conflicts.clear();
        }
        let found = blocking(move || listening(&ports)).await;
        let say = |(port, program): (u16, Option<String>)| {
            let program = program.unwrap_or_else(|| "a program".into());
            format!("NodePort {port} hides {program}, which listens on it too")
        };
        let now: Vec<String> = found.into_iter().map(say).collect();
        for conflict in now.iter().filter(|conflict| !self.conflicts.contains(conflict)) {
            tracing::warn!("{conflict}; proxy.excludePorts leaves it alone");
        }
        self.conflicts = now;
    }

    /// Follows the records and the nameservers. A failure is named in `status`
    /// and tried again; false then.
    pub(super) async fn update(&mut self, wanted: Wanted) -> bool {
        if !self.is_on() {
            return true;
        }
        let input = wanted.input.clone();
        let done =
            self.with(move |capture| capture.update(Input { outward: outward(), ..input })).await;
        for note in wanted.notes.iter().filter(|n| !self.notes().any(|old| old == *n)) {
            tracing::warn!("{note}");
        }
        self.wanted = Some(wanted);
        self.look_for_conflicts().await;
        self.note(done.err());
        self.trouble.is_none()
    }

    /// Heals what others removed. Gives the time until it is to be looked at again.
    pub(super) async fn check(&mut self) -> Duration {
        let checked = self.with(|capture| {
            let mut repairs = Vec::new();
            // What was put back is told also when something else could not be.
            let error = capture.check(now(), &mut repairs).err();
            Ok((repairs, error))
        });
        let (repairs, error) = checked.await.unwrap_or_else(|error| (Vec::new(), Some(error)));
        for repair in repairs {
            tracing::warn!("capture was changed by others: {repair}");
            self.repairs.truncate(REPAIRS - 1);
            self.repairs.push_front((now(), repair.to_string()));
        }
        self.note(error);
        self.capture.as_ref().map_or(CHECK_EVERY, |capture| capture.check_after(now()))
    }

    pub(super) async fn stop_new(&mut self) {
        if let Err(error) = self.with(Capture::stop_new).await {
            tracing::error!(%error, "cannot remove the capture rules; `edgemesh redirect remove` does");
        }
    }

    pub(super) async fn finish(&mut self) {
        if let Err(error) = self.with(Capture::finish).await {
            tracing::error!(%error, "cannot remove all of capture; `edgemesh redirect remove` does");
        }
    }

    fn notes(&self) -> impl Iterator<Item = &String> {
        self.wanted.iter().flat_map(|wanted| &wanted.notes)
    }

    /// For `status`.
    pub(super) fn view(&self) -> api::Capture {
        let Some((capture, wanted)) = self.capture.as_ref().zip(self.wanted.as_ref()) else {
            return api::Capture::off();
        };
        let report = capture.report();
        let state = match self.trouble {
            None => api::CaptureState::Installed,
            Some(_) => api::CaptureState::Failed,
        };
        let rivals = capture.rivals(now()).map(ToString::to_string);
        let own = wanted.notes.iter().chain(&self.conflicts);
        let notes = report.notes.iter().chain(own).chain(&self.trouble).cloned();
        api::Capture {
            state,
            backend: report.backend.clone(),
            device: format!("edgemesh0 ({:?})", report.device).to_lowercase(),
            include: wanted.input.include.iter().map(IpNet::to_string).collect(),
            outside: wanted.outside.clone(),
            notes: notes.chain(rivals).chain(self.repaired()).collect(),
            udp_ports: wanted.udp.ports,
            udp_elsewhere: wanted.udp.elsewhere,
        }
    }

    fn repaired(&self) -> impl Iterator<Item = String> {
        self.repairs.iter().filter_map(|(at, what)| {
            let ago = now().saturating_duration_since(*at);
            (ago < REMEMBER).then(|| format!("{} s ago: {what}", ago.as_secs()))
        })
    }

    fn note(&mut self, error: Option<CaptureError>) {
        if let Some(error) = &error {
            tracing::error!(%error, "capture");
        }
        self.trouble = error.map(|error| error.to_string());
    }

    async fn with<T: Default + Send + 'static>(
        &mut self,
        act: impl FnOnce(&mut Capture) -> Result<T, CaptureError> + Send + 'static,
    ) -> Result<T, CaptureError> {
        let Some(mut capture) = self.capture.take() else { return Ok(T::default()) };
        let (capture, done) = blocking(move || {
            let done = act(&mut capture);
            (capture, done)
        })
        .await;
        self.capture = Some(capture);
        done
    }
}

/// Interfaces with a default route; where that cannot be told, the next check tries again.
fn outward() -> Vec<String> {
    crate::capture::outward().unwrap_or_default()
}

/// Runs `act` where blocking is allowed; child processes are waited for in there.
async fn blocking<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(act).await {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}
