//! Joins this node to others: its certificate, the hub, the ways to peers, and the door for them.

mod joined;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use edgemesh_proto::message::Selector;
use edgemesh_proto::record::NodeName;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::dial::Dial;
use crate::identity::Tls;
use crate::io::unique_id;
use crate::lanes::Seats;
use crate::link::Serve;
use crate::listen::Listener;
use crate::mesh::talking::Ends;
use crate::mesh::{Keeper, Mesh};
use crate::peers::{
    Advertise, Answers, Choice, Controls, Door, DoorParts, Introduction, PeerView, Peers,
    PeersParts, Standing, Uplink, UplinkParts, UplinkState,
};
use crate::proxy::Linked;

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
    pub join_trouble: Option<JoinTrouble>,
    /// The hub.
    pub uplink: UplinkState,
    /// Nodes that were called.
    pub peers: Vec<PeerView>,
}

/// Why this node has no certificate, or keeps an old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinTrouble {
    /// In words.
    pub text: String,
    /// The cloud says no, or the token cannot be used: trying again changes nothing.
    pub is_final: bool,
    /// Since when it is this.
    pub since: SystemTime,
}

/// What is known of the Links of a mesh. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Links(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    made: OnceLock<(Arc<Tls>, Uplink, Peers)>,
    trouble: parking_lot::Mutex<Option<JoinTrouble>>,
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
            seats: self.lanes.seats(),
            changes: self.status.changes(),
        };
        let shared = self.shared.clone();
        let (accepting, stop) = (self.accepting.clone(), self.stop.clone());
        self.tasks.spawn(stop.clone().run_until_cancelled_owned(Box::pin(async move {
            let tls = linking.identity(shared.dial, &shared.tasks).await;
            let calls: Arc<dyn Serve> = Arc::new(Linked::new(shared.clone()));
            let made = linking.make(tls, calls, &shared, accepting, stop);
            // Set once: this task is the only one.
            let _ = shared.ways.set(Arc::new(made.peers.clone()));
            let _ = linking.links.0.made.set((
                made.tls.clone(),
                made.uplink.clone(),
                made.peers.clone(),
            ));
            made.run(listener, linking, shared.dial).await;
        })));
        links
    }
}

struct Linking {
    node: NodeName,
    data_dir: PathBuf,
    options: LinkOptions,
    ends: Ends,
    links: Links,
    seats: Seats,
    /// Tells that the records changed.
    changes: watch::Receiver<u64>,
}

struct Made {
    tls: Arc<Tls>,
    uplink: Uplink,
    peers: Peers,
    door: Door,
    asked: mpsc::Receiver<edgemesh_proto::message::DialBack>,
    tasks: TaskTracker,
}

impl Linking {
    fn make(
        &self,
        tls: Arc<Tls>,
        calls: Arc<dyn Serve>,
        shared: &Arc<crate::forward::Shared>,
        accepting: tokio_util::sync::CancellationToken,
        stop: tokio_util::sync::CancellationToken,
    ) -> Made {
        let (asking, asked) = mpsc::channel(QUEUE);
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
            seats: self.seats.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let controls = Controls {
            node: self.node.clone(),
            instance,
            generation: self.options.generation,
            own: self.ends.own.clone(),
            offered: self.ends.offered.clone(),
            asked: asking,
            live: live.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let begin = controls.clone();
        let standing = Standing::new(live.clone(), tls.clock().clone());
        let following = standing.clone().follow(self.changes.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(following));
        let answers = Arc::new(Answers { standing: standing.clone(), calls, controls });
        let peers = Peers::new(PeersParts {
            choice: self.options.choice,
            dial,
            tls: tls.clone(),
            live,
            uplink: uplink.clone(),
            standing: standing.clone(),
            handler: answers.clone(),
            made: Arc::new(move |link, node| begin.begin(link, node)),
            seats: self.seats.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        });
        let door = Door::new(DoorParts {
            tls: tls.clone(),
            answers,
            standing: standing.clone(),
            peers: peers.clone(),
            seats: self.seats.clone(),
            tasks: tasks.clone(),
            accepting,
            stop,
        });
        Made { tls, uplink, peers, door, asked, tasks }
    }
}

impl Made {
    /// Until the task is dropped.
    async fn run(mut self, listener: Listener, linking: Linking, dial: Dial) {
        let Ends { talks, position, .. } = linking.ends.clone();
        self.tasks.spawn(self.door.clone().run(listener));
        self.tasks.spawn(self.uplink.clone().run(position, talks));
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut state = self.uplink.state();
        loop {
            tokio::select! {
                Some(asked) = self.asked.recv() => self.peers.dial_back(&asked),
                _ = look.tick() => linking.renew(&self.tls, &self.uplink).await,
                Ok(()) = state.changed() => {
                    let removed = state.borrow_and_update().is_removed;
                    match removed {
                        true => {
                            if linking.rejoin(&self.tls, dial, &self.tasks).await {
                                self.peers.begin_anew();
                            }
                        }
                        false => linking.renew(&self.tls, &self.uplink).await,
                    }
                }
            }
        }
    }
}
