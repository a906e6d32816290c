//! Records that come from a registry: each step is stored, shown and answered, beside what this node adds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use edgemesh_proto::message::Body;
use edgemesh_proto::record::{Invalid, Key, Kind, NodeName, Put, Record, Service, ServiceName};
use ipnet::IpNet;

use crate::snapshot::{Builder, Snapshot};
use crate::store::{Change, Loaded, Store};
use crate::sync::counting::Counting;
use crate::sync::layers::{Layers, Shown};
use crate::sync::replica::{Broken, Holding, Reaction, Replica, Step};
use crate::sync::{Next, Observed, Sync};

/// Records that this version cannot read, of which is said why.
const MAX_UNREAD: usize = 256;

/// What there is besides, where records come from a registry.
#[derive(Debug)]
pub(super) struct Synced {
    node: NodeName,
    replica: Replica,
    layers: Layers,
    unread: BTreeMap<Key, Invalid>,
    /// What is shown and not stored.
    unsaved: Option<Arc<Change>>,
}

/// What came of a word of the registry.
#[derive(Debug)]
pub struct Heard {
    /// What it is to be told.
    pub answer: Option<Body>,
    /// What it led to.
    pub observed: Observed,
    /// Services are among what changed, or records that could not be read.
    pub services: bool,
}

impl Sync {
    /// As [`Sync::resume`], for records that come from a registry.
    pub fn resume_synced(
        store: Store,
        loaded: Loaded,
        node: NodeName,
        zone: Option<Box<str>>,
        ranges: &[IpNet],
        live: Arc<ArcSwap<Snapshot>>,
        now: Instant,
    ) -> Self {
        let Loaded { epoch, revision, records, held, local, addresses, counted, counter, .. } =
            loaded;
        let mut layers = Layers::new(node.clone());
        let records = records.into_iter().map(|(record, _)| record).collect();
        let Shown { put: records, .. } = layers.step(records, Vec::new());
        let parts = (epoch, revision, records, addresses);
        let mut builder = Builder::new(node.clone(), zone).below_cloud(now);
        counted.into_iter().for_each(|(rule, tally)| builder.counted(rule, tally));
        let mut new = Self::showing(store, parts, builder, ranges, live, now);
        let local = local.into_iter().map(|record| (record.key(), record)).collect();
        let Shown { put, delete } = layers.hear(&node, local, &new.builder);
        let moved = new.addresses.settle_put(&new.builder, &put, &delete);
        new.show(Next { put, delete, moved }, now);
        (new.counting, new.counter) = (Counting::from(&new.live.load().rules), counter);
        let replica = Replica::new(epoch, revision, held);
        let unread = BTreeMap::new();
        new.synced = Some(Box::new(Synced { node, replica, layers, unread, unsaved: None }));
        new
    }

    /// A conversation begins: what to say in Hello. `None`: the records do not come from a registry.
    pub fn begin(&mut self) -> Option<Holding> {
        Some(self.synced.as_mut()?.replica.begin())
    }

    /// What is held of the registry's records.
    pub fn holding(&self) -> Option<Holding> {
        Some(self.synced.as_ref()?.replica.holding())
    }

    /// Hears the registry. Durable before visible, visible before acknowledged.
    ///
    /// # Errors
    /// [`Broken`]: to be told to the registry; the conversation is over.
    pub async fn hear(&mut self, body: Body, now: Instant) -> Result<Heard, Broken> {
        let nothing = |answer| Heard { answer, observed: Observed::Same, services: false };
        let Some(synced) = &mut self.synced else { return Ok(nothing(None)) };
        let step = match synced.replica.on(body)? {
            Reaction::Nothing => return Ok(nothing(None)),
            Reaction::Say(body) => return Ok(nothing(Some(body))),
            Reaction::Apply(step) => step,
        };
        let keys = step.put.iter().map(|put| &put.key).chain(&step.delete);
        let services = keys.into_iter().any(|key| key.kind == Kind::Service);
        let unread = synced.unread.len();
        let observed = self.apply(step, now).await;
        let stored = !matches!(observed, Observed::Unsaved(_));
        let answer = self.synced.as_mut().map(|synced| synced.replica.done(stored));
        let services = services || self.unread().count() != unread;
        Ok(Heard { answer, observed, services })
    }

    async fn apply(&mut self, step: Step, now: Instant) -> Observed {
        let Step { to, put, delete, .. } = step;
        let (count, deleted) = (put.len(), delete.len());
        (self.epoch, self.revision) = (to.epoch, to.revision);
        let change = Change { put, delete, ..Change::default() };
        let Some(synced) = &mut self.synced else { return Observed::Same };
        let shown = synced.take(&change);
        match self.turn(shown, change, now).await {
            Ok(()) => Observed::Changed { revision: to.revision, put: count, deleted },
            Err(error) => Observed::Unsaved(error),
        }
    }

    /// A node says of itself `records`, and nothing else: this one, or a peer while no registry is
    /// there to tell. Of this one they are kept.
    pub async fn voice(
        &mut self,
        node: &NodeName,
        records: BTreeMap<Key, Record>,
        now: Instant,
    ) -> Observed {
        let Some(synced) = &mut self.synced else { return Observed::Same };
        let mut change = Change::default();
        if *node == synced.node {
            let known = synced.layers.heard(node);
            let before = |key: &Key| known.and_then(|known| known.get(key));
            let gone = known.into_iter().flat_map(BTreeMap::keys);
            change.local_delete.extend(gone.filter(|key| !records.contains_key(*key)).cloned());
            let fresh = records.iter().filter(|(key, record)| before(key) != Some(*record));
            change.local_put.extend(fresh.map(|(_, record)| Put::from(record)));
            if change.local_put.is_empty() && change.local_delete.is_empty() {
                return Observed::Same;
            }
        }
        let shown = synced.layers.hear(node, records, &self.builder);
        self.told(shown, change, now).await
    }

    /// A peer is heard no more.
    pub async fn hush(&mut self, node: &NodeName, now: Instant) -> Observed {
        let Some(synced) = &mut self.synced else { return Observed::Same };
        let shown = synced.layers.hush(node, &self.builder);
        self.told(shown, Change::default(), now).await
    }

    async fn told(&mut self, shown: Shown, change: Change, now: Instant) -> Observed {
        let (put, deleted) = (shown.put.len(), shown.delete.len());
        if (put, deleted) == (0, 0) && change == Change::default() {
            return Observed::Same;
        }
        match self.turn(shown, change, now).await {
            Ok(()) => Observed::Changed { revision: self.revision, put, deleted },
            Err(error) => Observed::Unsaved(error),
        }
    }

    /// Tries again to store what the disk refused. The answer is the acknowledgement that was not
    /// given.
    pub async fn save(&mut self) -> Option<Body> {
        let synced = self.synced.as_mut()?;
        let change = synced.unsaved.clone()?;
        self.store.commit(change).await.ok()?;
        synced.unsaved = None;
        Some(synced.replica.saved())
    }

    /// The Service of that name, if the registry has one.
    pub fn synced_service(&self, name: &ServiceName) -> Option<&Service> {
        let ServiceName { namespace, name: own } = name.clone();
        let key = Key { kind: Kind::Service, namespace, name: own };
        let voiced = self.synced.as_ref()?.layers.is_voiced(&key);
        self.builder.service_record(name).filter(|_| !voiced)
    }

    /// Records of the registry that are left out, and why.
    pub fn unread(&self) -> impl Iterator<Item = (&Key, &Invalid)> {
        self.synced.iter().flat_map(|synced| &synced.unread)
    }

    /// The records are not those of the registry, and mending did not help.
    pub fn is_unlike(&self) -> bool {
        self.synced.as_ref().is_some_and(|synced| synced.replica.is_unlike())
    }

    /// Stores, shows and publishes.
    async fn turn(
        &mut self,
        shown: Shown,
        mut change: Change,
        now: Instant,
    ) -> Result<(), crate::store::CommitError> {
        let Shown { put, delete } = shown;
        let moved = self.addresses.settle_put(&self.builder, &put, &delete);
        (change.epoch, change.revision) = (self.epoch, self.revision);
        change.addresses_put.clone_from(&moved.put);
        change.addresses_delete.clone_from(&moved.delete);
        let before = self.synced.as_mut().and_then(|synced| synced.unsaved.take());
        let change = Arc::new(match before {
            Some(before) => Arc::unwrap_or_clone(before).followed_by(change),
            None => change,
        });
        let stored = self.store.commit(change.clone()).await;
        if let Some(synced) = &mut self.synced {
            match &stored {
                // With it, all that was not stored before.
                Ok(()) => drop(synced.replica.saved()),
                Err(_) => synced.unsaved = Some(change),
            }
        }
        self.show(Next { put, delete, moved }, now);
        stored
    }

    /// Goes on with a store that another process may have changed: what it holds now is shown.
    pub(super) fn take_back_synced(&mut self, loaded: Loaded, now: Instant) {
        let Some(synced) = &mut self.synced else { return };
        let Loaded { epoch, revision, records, held, local, .. } = loaded;
        let stored = held.iter().map(|(key, _)| key.clone()).collect();
        let gone = synced.replica.gone(&stored);
        synced.replica = Replica::new(epoch, revision, held);
        let put = records.into_iter().map(|(record, _)| record).collect();
        let Shown { put, delete } = synced.layers.step(put, gone);
        let own = synced.layers.heard(&synced.node).into_iter().flat_map(BTreeMap::values);
        let moved = self.addresses.settle_put(&self.builder, &put, &delete);
        synced.unsaved = Some(Arc::new(Change {
            epoch,
            revision,
            local_delete: local.iter().map(Record::key).collect(),
            local_put: own.map(Put::from).collect(),
            addresses_put: self.addresses.entries(),
            addresses_delete: moved.delete.clone(),
            ..Change::default()
        }));
        (self.epoch, self.revision) = (epoch, revision);
        self.show(Next { put, delete, moved }, now);
    }
}

impl Synced {
    /// What of a step is shown. A record that cannot be read is not, and harms only itself.
    fn take(&mut self, step: &Change) -> Shown {
        let mut delete = step.delete.clone();
        delete.iter().for_each(|key| drop(self.unread.remove(key)));
        let mut put = Vec::with_capacity(step.put.len());
        for raw in &step.put {
            match raw.record() {
                Ok(record) => {
                    self.unread.remove(&raw.key);
                    put.push(record);
                }
                Err(why) => {
                    if self.unread.len() < MAX_UNREAD {
                        self.unread.insert(raw.key.clone(), why);
                    }
                    delete.push(raw.key.clone());
                }
            }
        }
        self.layers.step(put, delete)
    }
}
