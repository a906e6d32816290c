//! Links of the agent: what the configuration says of them, and how they are, for people.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use edgemesh_core::backends::Way;
use edgemesh_core::io::now;
use edgemesh_core::mesh::{LinkOptions, LinkStatus, Links, StatusCell};
use edgemesh_core::peers::{Advertise, Choice, PeerView};
use edgemesh_core::snapshot::Snapshot;

use crate::api;
use crate::capture::watch::Network;
use crate::config::{AgentConfig, Cloud, PeerPath};

/// Counts the starts of the agents of one data folder.
const GENERATION: &str = "generation";

/// What the mesh is told of Links; `None`: there is no cloud.
pub(super) fn options(config: &AgentConfig, takes_over: bool) -> Option<LinkOptions> {
    let Cloud { servers, token_file, offline_grace, select } = config.cloud.clone()?;
    let peer = &config.peer;
    let fixed: Vec<Box<str>> = peer.advertise.iter().map(|link| link.as_str().into()).collect();
    let advertise = match (fixed.is_empty(), peer.listen.ip().is_unspecified()) {
        (false, _) => Advertise::Fixed(fixed),
        (true, true) => {
            Advertise::Own { port: peer.listen.port(), except: config.proxy.address.clone() }
        }
        (true, false) => Advertise::Fixed(vec![peer.listen.to_string().into()]),
    };
    Some(LinkOptions {
        servers: servers.into_iter().map(Into::into).collect(),
        token_file,
        grace: offline_grace,
        selector: select,
        choice: match peer.path {
            PeerPath::Auto => Choice::Auto,
            PeerPath::Direct => Choice::Direct,
            PeerPath::Hub => Choice::Hub,
        },
        advertise,
        generation: next_generation(&config.data_dir),
        takes_over,
    })
}

/// One more than the last start. A folder that cannot be written gives the time of day.
fn next_generation(folder: &Path) -> u64 {
    let file = folder.join(GENERATION);
    let last = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
    let next: u64 = last.map_or(1, |last: u64| last.saturating_add(1));
    match fs::write(&file, next.to_string()) {
        Ok(()) => next,
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(next, |t| t.as_secs()),
    }
}

/// Tells the Links of changes of the network, so that what failed is tried again at once.
pub(super) struct Watching {
    links: Links,
    network: Option<Network>,
}

/// The kernel tells of one change in many words.
const SETTLED_AFTER: Duration = Duration::from_millis(300);

impl Watching {
    /// Without a line to the kernel what failed is tried again after its pause.
    pub(super) fn new(links: Links) -> Self {
        let network = Network::open();
        let network = network.map_err(|error| tracing::warn!(%error, "the network is not watched"));
        Self { links, network: network.ok() }
    }

    /// Waits for the next change, and tells of it. Dropping the future loses nothing.
    pub(super) async fn pass_on(&mut self) {
        match &self.network {
            None => std::future::pending().await,
            Some(network) => match network.changed().await {
                Ok(()) => tokio::time::sleep(SETTLED_AFTER).await,
                Err(error) => {
                    tracing::warn!(%error, "the network is no longer watched");
                    self.network = None;
                }
            },
        }
        self.links.network_changed();
    }
}

/// What the agent attends to.
pub(super) async fn watch(watching: &mut Option<Watching>) {
    match watching {
        Some(watching) => watching.pass_on().await,
        None => std::future::pending().await,
    }
}

/// How the Links are, as the admin API tells it.
pub(super) fn view(
    links: &Links,
    servers: &[String],
    snapshot: &Snapshot,
    status: &StatusCell,
) -> api::Links {
    let LinkStatus { certificate, join_trouble, uplink, peers } = links.status();
    let seconds = |at: SystemTime| at.elapsed().map_or(0, |since| since.as_secs());
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let unix = i64::try_from(unix).unwrap_or(i64::MAX);
    let linked = uplink.linked.as_ref();
    let is_refused = uplink.refused || join_trouble.as_ref().is_some_and(|join| join.is_final);
    // Before the first certificate there is no uplink that could be away.
    let since = match (&certificate, &join_trouble) {
        (None, Some(join)) => join.since,
        _ => uplink.since,
    };
    let trouble = match (uplink.trouble, join_trouble) {
        (Some(uplink), Some(join)) => Some(format!("{uplink}; {}", join.text)),
        (Some(uplink), None) => Some(uplink.to_string()),
        (None, join) => join.map(|join| join.text),
    };
    let state = match (linked, &trouble) {
        (Some(_), _) => api::CloudState::Linked,
        (None, None) => api::CloudState::Connecting,
        (None, Some(_)) if is_refused => api::CloudState::Refused,
        (None, Some(_)) => api::CloudState::Away,
    };
    let server = linked.map(|linked| linked.server.to_string());
    let cloud = api::CloudLink {
        state,
        since_seconds: seconds(linked.map_or(since, |linked| linked.since)),
        server: server.or_else(|| servers.first().cloned()).unwrap_or_default(),
        rtt_ms: linked.and_then(|linked| linked.round_trip).map(millis),
        epoch: match snapshot.epoch == [0; 16] {
            true => String::new(),
            false => snapshot.epoch.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
        revision: snapshot.revision,
        data_age_seconds: status.data_age(now()).map(|age| age.as_secs()),
        certificate: certificate
            .map(|(node, not_after)| api::Certificate::new(&node.0, not_after, unix)),
        last_error: trouble.filter(|_| linked.is_none()),
    };
    let peers = peers.into_iter().map(|peer| peer_view(peer, seconds)).collect();
    api::Links { cloud: Some(cloud), peers }
}

fn peer_view(peer: PeerView, seconds: impl Fn(SystemTime) -> u64) -> api::PeerLink {
    api::PeerLink {
        node: peer.node.0.to_string(),
        path: match peer.way {
            Some(Way::Direct) => api::Path::Direct,
            Some(Way::Hub) => api::Path::Hub,
            None => api::Path::None,
        },
        reason: peer.why,
        rtt_ms: peer.round_trip.map(millis),
        since_seconds: peer.since.map_or(0, seconds),
        address: peer.address.map(|address| address.to_string()).unwrap_or_default(),
    }
}

fn millis(took: Duration) -> f64 {
    (took.as_micros() as f64) / 1e3
}
