//! Keeps the records in step with the registry in the cloud, beside what runs on this node; and with the
//! peers, while the cloud is away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use edgemesh_proto::message::{Body, Offer, Ranges, Welcome};
use edgemesh_proto::record::{Key, NodeName, Record};
use tokio_util::sync::CancellationToken;

use crate::io::now;
use crate::manifests::{Observed as Manifests, Remark, Severity, read};
use crate::mesh::Options;
use crate::mesh::local::{Local, Settled};
use crate::mesh::notes::Notes;
use crate::mesh::reading::{Folders, PANICKED, Read, Reading};
use crate::mesh::source::{Ended, looks, retries};
use crate::mesh::status::{Cell, StoreHealth};
use crate::mesh::talking::{News, Talking};
use crate::peers::PeerSaid;
use crate::sync::{Observed, Sync, offer};

/// Peers whose own records are remembered.
const MAX_PEERS: usize = 256;

/// Nothing is told to the cloud, nothing comes from there.
const NO_TALK: &str = "no conversation with the cloud";
/// What the cloud says and what is held here stay different things.
const UNLIKE: &str = "the records here are not those of the cloud, and mending does not help: this \
                      version may be too old to hold them all";

pub(super) struct CloudSource {
    node: NodeName,
    zone: Option<Box<str>>,
    /// Of this node's own Services.
    reading: Reading,
    sync: Sync,
    local: Local,
    notes: Notes,
    talking: Talking,
    /// What was said of the documents when they were last read.
    said: Vec<Remark>,
    /// What peers say of themselves: counts while the cloud is away.
    peers: BTreeMap<NodeName, Peer>,
    in_step: bool,
}

/// What a peer says of itself.
struct Peer {
    records: BTreeMap<Key, Record>,
    /// The conversations in which it did; where none is left, this is its last word.
    talks: BTreeSet<u64>,
}

impl CloudSource {
    pub(super) fn new(
        options: &Options,
        sync: Sync,
        talking: Talking,
        local: Local,
        status: Arc<Cell>,
    ) -> Self {
        let own = Folders { source: None, ..options.folders.clone() };
        Self {
            node: options.node.clone(),
            zone: options.zone.clone(),
            reading: Reading::new(own),
            sync,
            local,
            notes: Notes::new(status, &options.data_dir),
            talking,
            said: Vec::new(),
            peers: BTreeMap::new(),
            in_step: false,
        }
    }

    /// Begins to watch, then reads what this node adds once, so that no change falls between.
    pub(super) async fn begin(mut self) -> Self {
        self.reading.watch();
        self.hold(); // another process may have had the store in between
        self.notes.update(|status| status.source_trouble = Some(NO_TALK.to_owned()));
        self.read().await;
        self
    }

    /// Follows all of them until `stop`.
    pub(super) async fn follow(mut self, stop: CancellationToken) -> Ended {
        let (mut retry, mut look) = (retries(), looks());
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    return Ended { sync: self.sync, talking: Some(self.talking) };
                }
                () = self.reading.changed() => {
                    self.reading.watch();
                    self.read().await;
                }
                _ = retry.tick(), if self.notes.behind => self.save().await,
                _ = look.tick() => self.count().await,
                () = self.local.changed() => self.settle().await,
                Some(asked) = self.sync.asked() => self.sync.tell(asked),
                news = self.talking.next() => self.heard(news).await,
            }
        }
    }

    async fn heard(&mut self, news: News) {
        match news {
            News::Begun(welcome) => self.begun(&welcome).await,
            News::Said(body) => self.told(*body).await,
            News::Over => self.alone().await,
            News::Peer(PeerSaid { node, talk, offer: Some(offer) }) => {
                self.peer(node, talk, offer).await;
            }
            News::Peer(PeerSaid { node, talk, offer: None }) => self.peer_left(&node, talk),
        }
    }

    async fn begun(&mut self, welcome: &Welcome) {
        // Without a registry's records this would be another source.
        let held = self.sync.begin().unwrap_or_default();
        self.talking.introduce();
        self.talking.count(self.sync.counter(), self.sync.counts());
        // With the same number there is nothing to be told.
        if (held.epoch, held.revision) == (welcome.epoch, welcome.revision) {
            self.now_in_step().await;
        }
    }

    /// Keeps and tells what Rules have counted.
    async fn count(&mut self) {
        let counts = self.sync.count().await;
        if !counts.is_empty() {
            self.talking.count(self.sync.counter(), counts);
        }
    }

    /// What the registry says.
    async fn told(&mut self, body: Body) {
        if let Body::Ranges(Ranges { service_cidrs }) = body {
            return self.notes.service_cidrs(service_cidrs.into()).await;
        }
        let heard = match self.sync.hear(body, now()).await {
            Ok(heard) => heard,
            Err(broken) => {
                self.talking.refuse("badStep", broken.to_string()).await;
                self.notes.update(|status| status.source_trouble = Some(broken.to_string()));
                return self.alone().await;
            }
        };
        self.hold();
        let shown = !matches!(heard.observed, Observed::Same);
        self.notes.observed(heard.observed);
        let Some(answer) = heard.answer else { return };
        // An answer with buckets says that something is still missing.
        let whole = !matches!(&answer, Body::Held(held) if !held.buckets.is_empty());
        self.talking.say(answer).await;
        if shown && heard.services {
            // What was signed up may belong to other ports now.
            self.settle().await;
        }
        if whole {
            self.now_in_step().await;
        }
    }

    /// Everything that the cloud had to say is in force.
    async fn now_in_step(&mut self) {
        let unlike = self.sync.is_unlike();
        self.notes.update(|status| {
            status.source_trouble = unlike.then(|| UNLIKE.to_owned());
            status.has_records = true;
            status.in_step = true;
            status.read_at = Some(now());
        });
        if !std::mem::replace(&mut self.in_step, true) {
            for node in self.peers.keys().cloned().collect::<Vec<_>>() {
                let observed = self.sync.hush(&node, now()).await;
                self.notes.observed(observed);
            }
            // The last word of who is gone counted for as long as nobody knew better.
            self.peers.retain(|_, peer| !peer.talks.is_empty());
        }
        self.notes.keep_good_copy(&self.sync).await;
    }

    /// The conversation is over: peers know best what runs on them.
    async fn alone(&mut self) {
        self.in_step = false;
        self.notes.update(|status| {
            if std::mem::replace(&mut status.in_step, false) {
                status.read_at = Some(now());
            }
            status.source_trouble.get_or_insert_with(|| NO_TALK.to_owned());
        });
        for (node, peer) in &self.peers {
            let observed = self.sync.voice(node, peer.records.clone(), now()).await;
            self.notes.observed(observed);
        }
    }

    /// What runs on a peer, by its own word.
    async fn peer(&mut self, node: NodeName, talk: u64, offer: Offer) {
        if node == self.node || self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&node) {
            return;
        }
        let (records, bad) = offer::accepted(&node, offer.records);
        for bad in bad {
            tracing::warn!(node = %node.0, "what a peer says does not count: {bad}");
        }
        let records = offer::records(records);
        if !self.in_step {
            let observed = self.sync.voice(&node, records.clone(), now()).await;
            self.notes.observed(observed);
        }
        let mut talks = self.peers.remove(&node).map_or_else(BTreeSet::new, |peer| peer.talks);
        talks.insert(talk);
        self.peers.insert(node, Peer { records, talks });
    }

    /// A conversation with a peer is over. While the cloud is away, what it said last still counts:
    /// it leads back to it.
    fn peer_left(&mut self, node: &NodeName, talk: u64) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        peer.talks.remove(&talk);
        if peer.talks.is_empty() && self.in_step {
            self.peers.remove(node);
        }
    }

    /// What the next Hello says.
    fn hold(&self) {
        if let Some(held) = self.sync.holding() {
            self.talking.holds(held.into());
        }
    }

    /// Tries again to store what the disk refused.
    async fn save(&mut self) {
        let Some(acknowledgement) = self.sync.save().await else { return };
        tracing::info!("the metastore takes changes again");
        self.notes.behind = false;
        self.notes.stored(StoreHealth::Ok);
        self.talking.say(acknowledgement).await;
    }

    async fn read(&mut self) {
        self.read_by(read).await;
    }

    async fn read_by(&mut self, read: fn(&[PathBuf]) -> Manifests) {
        match self.reading.read_by(read).await {
            Read::All(manifests) => {
                let Manifests { records, remarks, checks, .. } = *manifests;
                self.local.read_own(records, &checks);
                self.said = remarks;
                self.settle().await;
            }
            // It has no source that could be unreadable.
            Read::Trouble(_) | Read::Ending => {}
            Read::Panicked => {
                self.notes.update(|status| status.source_trouble = Some(PANICKED.to_owned()));
            }
        }
    }

    /// Puts in force what runs here, and tells of it.
    async fn settle(&mut self) {
        let Settled { records, remarks, checked, version } = self.local.settle_own(&self.sync);
        let own = offer::rising(&self.node, self.zone.as_deref(), records.values());
        self.talking.tell(Offer { records: own });
        let said = self.said.iter().cloned().chain(remarks).chain(self.unread());
        self.notes.remarks(said.collect(), checked);
        let some = !records.is_empty();
        let observed = self.sync.voice(&self.node.clone(), records, now()).await;
        self.notes.update(|status| status.has_records |= some);
        self.notes.observed(observed);
        // Whoever signed something up may look now.
        self.local.settled(version);
    }

    /// The cloud's records that do not count here.
    fn unread(&self) -> impl Iterator<Item = Remark> {
        self.sync.unread().map(|(key, why)| Remark {
            severity: Severity::Rejected,
            file: PathBuf::new(),
            line: 0,
            object: key.to_string(),
            field: why.field.clone(),
            reason: why.reason.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
