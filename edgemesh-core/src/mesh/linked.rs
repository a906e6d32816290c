//! Joins this node to others: its certificate, the hub, the ways to peers, and the door for them.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use edgemesh_proto::message::{Offer, Selector};
use edgemesh_proto::record::NodeName;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::dial::Dial;
use crate::identity::{Clock, Identity, PERSIST_EVERY, Tls};
use crate::io::unique_id;
use crate::link::Serve;
use crate::listen::Listener;
use crate::mesh::synced::Ends;
use crate::mesh::{Keeper, Mesh};
use crate::peers::{
    Advertise, Choice, Controls, Door, DoorParts, Introduction, JoinError, Joining, Pause,
    PeerView, Peers, PeersParts, Uplink, UplinkParts, UplinkState, renew,
};

/// First and longest pause before a node asks to join again.
const JOIN_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How often a certificate's age is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(600);
/// Peers that ask to be dialled, and what they offer, at once.
const QUEUE: usize = 64;

/// How a node is joined to others.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// `host:port` of each hub, in the order in which they are tried.
    pub servers: Vec<Box<str>>,
    /// File with the join token, for a node that has no certificate yet.
    pub token_file: Option<PathBuf>,
    /// How long a certificate may have been expired.
    pub grace: Duration,
    /// Which records are wanted.
    pub selector: Selector,
    /// Which ways are used.
    pub choice: Choice,
    /// Where others may dial this node.
    pub advertise: Advertise,
    /// Grows with each start.
    pub generation: u64,
    /// It takes over from an older process.
    pub takes_over: bool,
}

/// How a node is linked at this moment; for people.
#[derive(Clone, Debug, Default)]
pub struct LinkStatus {
    /// What its certificate says: name, and until when it is good, in seconds since 1970.
    pub certificate: Option<(NodeName, i64)>,
    /// Why it has none, or keeps an old one.
    pub join_trouble: Option<String>,
    /// The hub.
    pub uplink: UplinkState,
    /// Nodes that were called.
    pub peers: Vec<PeerView>,
}

/// What is known of the Links of a mesh. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    made: OnceLock<(Arc<Tls>, Uplink, Peers)>,
    trouble: parking_lot::Mutex<Option<String>>,
}

impl Links {
    /// How it is.
    pub fn status(&self) -> LinkStatus {
        let join_trouble = self.0.trouble.lock().clone();
        let Some((tls, uplink, peers)) = self.0.made.get() else {
            return LinkStatus { join_trouble, ..LinkStatus::default() };
        };
        let identity = tls.identity();
        LinkStatus {
            certificate: Some((identity.node().clone(), identity.not_after())),
            join_trouble,
            uplink: uplink.state().borrow().clone(),
            peers: peers.views(),
        }
    }

    /// The network changed: what failed is worth a try.
    pub fn network_changed(&self) {
        if let Some((_, uplink, peers)) = self.0.made.get() {
            uplink.network_changed();
            peers.network_changed();
        }
    }

    fn trouble(&self, trouble: Option<&JoinError>) {
        let text = trouble.map(describe);
        let mut before = self.0.trouble.lock();
        if let Some(text) = text.as_ref().filter(|text| before.as_ref() != Some(text)) {
            tracing::warn!("{text}");
        }
        *before = text;
    }
}

fn describe(error: &JoinError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

impl Mesh {
    /// Links this node with others, for as long as the mesh runs; once a mesh. `listener` is where
    /// peers come in. Returns at once: a node that has not joined yet goes on trying.
    pub fn link(&mut self, options: LinkOptions, listener: Listener) -> Links {
        let links = Links::default();
        let Some(Keeper { ends, .. }) = &mut self.keeper else { return links };
        let Some(ends) = ends.take() else { return links };
        let linking = Linking {
            node: self.options.node.clone(),
            data_dir: self.options.data_dir.clone(),
            options,
            ends,
            links: links.clone(),
        };
        let shared = self.shared.clone();
        let (accepting, stop) = (self.accepting.clone(), self.stop.clone());
        self.tasks.spawn(stop.clone().run_until_cancelled_owned(async move {
            let (tls, clock) = linking.identity(&shared.dial, &shared.tasks).await;
            let calls: Arc<dyn Serve> = Arc::new(crate::proxy::Linked::new(shared.clone()));
            let made = linking.make(tls, calls, &shared, accepting, stop);
            // Set once: this task is the only one.
            let _ = shared.ways.set(Arc::new(made.peers.clone()));
            let _ = linking.links.0.made.set((
                made.tls.clone(),
                made.uplink.clone(),
                made.peers.clone(),
            ));
            made.run(listener, linking, clock).await;
        }));
        links
    }
}

struct Linking {
    node: NodeName,
    data_dir: PathBuf,
    options: LinkOptions,
    ends: Ends,
    links: Links,
}

struct Made {
    tls: Arc<Tls>,
    uplink: Uplink,
    peers: Peers,
    door: Door,
    asked: mpsc::Receiver<edgemesh_proto::message::DialBack>,
    offered: mpsc::Receiver<(NodeName, Offer)>,
    tasks: TaskTracker,
}

impl Linking {
    /// The certificate that is there, or the one that the cloud gives, however long that takes.
    async fn identity(&self, dial: &Dial, tasks: &TaskTracker) -> (Arc<Tls>, Arc<Clock>) {
        let clock = Arc::new(Clock::open(&self.data_dir));
        let mut pause = Pause::new(JOIN_PAUSE.0, JOIN_PAUSE.1);
        loop {
            let joining = Joining {
                node: &self.node,
                data_dir: &self.data_dir,
                token_file: self.options.token_file.as_deref(),
                servers: &self.options.servers,
                dial: *dial,
                clock: &clock,
                grace: self.options.grace,
                tasks,
            };
            let found = match Identity::load(&self.data_dir) {
                Ok(Some(identity)) if *identity.node() == self.node => Ok(identity),
                Ok(Some(identity)) => {
                    tracing::warn!(
                        "the certificate in {} is for node {}: joining as {}",
                        self.data_dir.display(),
                        identity.node().0,
                        self.node.0
                    );
                    joining.join().await
                }
                Ok(None) => joining.join().await,
                Err(damaged) => {
                    tracing::error!("{damaged}: joining again");
                    joining.join().await
                }
            };
            match found {
                Ok(identity) => {
                    self.links.trouble(None);
                    let tls = Tls::new(identity, clock.clone(), self.options.grace);
                    return (Arc::new(tls), clock);
                }
                Err(error) => {
                    self.links.trouble(Some(&error));
                    tokio::time::sleep(pause.next(unique_id() as u64)).await;
                }
            }
        }
    }

    fn make(
        &self,
        tls: Arc<Tls>,
        calls: Arc<dyn Serve>,
        shared: &Arc<crate::forward::Shared>,
        accepting: tokio_util::sync::CancellationToken,
        stop: tokio_util::sync::CancellationToken,
    ) -> Made {
        let (asking, asked) = mpsc::channel(QUEUE);
        let (offering, offered) = mpsc::channel(QUEUE);
        let instance = unique_id().to_le_bytes();
        let introduction = Introduction {
            servers: self.options.servers.clone(),
            links: self.options.advertise.clone(),
            selector: self.options.selector.clone(),
            generation: self.options.generation,
            takes_over: self.options.takes_over,
        };
        let (dial, tasks, live) = (shared.dial, shared.tasks.clone(), shared.live.clone());
        let uplink = Uplink::new(UplinkParts {
            node: self.node.clone(),
            instance,
            introduction,
            dial,
            tls: tls.clone(),
            handler: calls.clone(),
            asked: asking.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let controls = Controls {
            node: self.node.clone(),
            instance,
            generation: self.options.generation,
            own: self.ends.own.clone(),
            offered: offering,
            asked: asking,
            live: live.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let begin = controls.clone();
        let peers = Peers::new(PeersParts {
            choice: self.options.choice,
            dial,
            tls: tls.clone(),
            live: live.clone(),
            uplink: uplink.clone(),
            handler: calls.clone(),
            made: Arc::new(move |link, node| begin.begin(link, node)),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let door = Door::new(DoorParts {
            tls: tls.clone(),
            live,
            calls,
            controls,
            peers: peers.clone(),
            tasks: tasks.clone(),
            accepting,
            stop,
        });
        Made { tls, uplink, peers, door, asked, offered, tasks }
    }
}

impl Made {
    /// Until the task is dropped.
    async fn run(mut self, listener: Listener, linking: Linking, clock: Arc<Clock>) {
        let Linking { data_dir, ends, links, .. } = linking;
        let Ends { talks, position, .. } = ends;
        self.tasks.spawn(self.door.clone().run(listener));
        self.tasks.spawn(self.uplink.clone().run(position, talks));
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut state = self.uplink.state();
        loop {
            tokio::select! {
                Some(asked) = self.asked.recv() => self.peers.dial_back(&asked),
                Some((node, offer)) = self.offered.recv() => {
                    tracing::debug!(node = %node.0, records = offer.records.len(), "a peer tells what runs on it");
                }
                _ = look.tick() => self.renewed(&data_dir, &links, &clock).await,
                Ok(()) = linked(&mut state) => self.renewed(&data_dir, &links, &clock).await,
            }
        }
    }

    /// Renews the certificate daily, when it can.
    async fn renewed(&self, data_dir: &std::path::Path, links: &Links, clock: &Clock) {
        if let Err(error) = clock.persist() {
            tracing::debug!("the time is not persisted: {error}");
        }
        let identity = self.tls.identity();
        let due = clock.seconds() - identity.not_before() >= 24 * PERSIST_EVERY;
        if !due || self.uplink.state().borrow().linked.is_none() {
            return;
        }
        let Ok(link) = self.uplink.link().await else { return };
        match renew(&link, &identity).await {
            Ok(newer) => {
                if let Err(error) = newer.save(data_dir) {
                    tracing::error!("the renewed certificate cannot be kept: {error}");
                }
                tracing::info!(not_after = newer.not_after(), "the certificate was renewed");
                self.tls.renew(newer);
                links.trouble(None);
            }
            Err(error) => links.trouble(Some(&error)),
        }
    }
}

/// Resolves when Control has come to stand.
async fn linked(state: &mut watch::Receiver<UplinkState>) -> Result<(), watch::error::RecvError> {
    loop {
        state.changed().await?;
        if state.borrow_and_update().linked.is_some() {
            return Ok(());
        }
    }
}
