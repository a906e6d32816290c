//! Keeps the node in step with its records: what a source says becomes a change, the change is
//! stored, and only then seen.
//!
//! This is the in-process transport: a source observes *everything* it knows, and the difference
//! to what the metastore holds is the change. Level-triggered, so that a missed or repeated
//! observation heals itself. [`Sync`] is the one writer of Snapshots.

mod addresses;
mod after;
mod counting;
mod feed;
mod follower;
mod layers;
pub mod offer;
pub mod replica;
mod synced;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use edgemesh_proto::record::{Delta, Key, NodeName, Put, Record, ServiceName, Slice};
use ipnet::IpNet;

use crate::snapshot::{Builder, Change as Step, Host, Snapshot};
use crate::store::{Change, CommitError, Loaded, Store, VirtualAddress};
use crate::sync::addresses::Addresses;
use crate::sync::counting::Counting;
use crate::sync::synced::Synced;

pub use crate::sync::feed::{Asked, Feed, Following, Outlet, Published};
pub use crate::sync::follower::{Follower, Step as FollowerStep};
pub use crate::sync::synced::Heard;

/// The one writer: from observations to the store, and from there to the Snapshot.
#[derive(Debug)]
pub struct Sync {
    store: Store,
    builder: Builder,
    /// What is in the store, by identity; see [`Prints`]. Only where records are observed.
    known: BTreeMap<Key, u128>,
    prints: Prints,
    addresses: Addresses,
    epoch: [u8; 16],
    revision: u64,
    live: Arc<ArcSwap<Snapshot>>,
    outlet: Outlet,
    feed: Feed,
    /// The store lacks what is visible already: its disk refused a change.
    behind: bool,
    /// Where records come from a registry.
    synced: Option<Box<Synced>>,
    counting: Counting,
    counter: [u8; 16],
}

/// What is to be shown next.
struct Next {
    put: Vec<Record>,
    delete: Vec<Key>,
    moved: Moved,
}

/// Epoch, revision, records and virtual addresses of what is shown first.
type First = ([u8; 16], u64, Vec<Record>, Vec<VirtualAddress>);

/// What an observation led to.
#[derive(Debug)]
pub enum Observed {
    /// Nothing was different.
    Same,
    /// Stored and visible.
    Changed {
        /// The new revision.
        revision: u64,
        /// Records put and deleted.
        put: usize,
        /// Records deleted.
        deleted: usize,
    },
    /// Visible, but the disk did not take it; tried again with the next observation.
    Unsaved(CommitError),
}

impl Sync {
    /// Takes up what the store held, makes it visible, and goes on from there. Needs no source:
    /// an agent that was restarted while cut off serves what it served before.
    pub fn resume(
        store: Store,
        loaded: Loaded,
        node: NodeName,
        zone: Option<Box<str>>,
        ranges: &[IpNet],
        live: Arc<ArcSwap<Snapshot>>,
        now: Instant,
    ) -> Self {
        let Loaded { epoch, revision, records, local, addresses, counted, counter, .. } = loaded;
        let mut records: Vec<Record> = records.into_iter().map(|(record, _)| record).collect();
        // What an agent added that had a registry: the first observation says what is true of it.
        let behind = !local.is_empty();
        records.extend(local);
        let prints = Prints::default();
        let known = records.iter().map(|record| (record.key(), prints.of(record))).collect();
        let parts = (epoch, revision, records, addresses);
        let mut builder = Builder::new(node, zone);
        counted.into_iter().for_each(|(rule, tally)| builder.counted(rule, tally));
        let new = Self::showing(store, parts, builder, ranges, live, now);
        Self { known, prints, behind, counter, ..new }
    }

    /// Shows what the store held.
    fn showing(
        store: Store,
        (epoch, revision, put, addresses): First,
        mut builder: Builder,
        ranges: &[IpNet],
        live: Arc<ArcSwap<Snapshot>>,
        now: Instant,
    ) -> Self {
        builder.own_addresses(own_addresses());
        let mut addresses = Addresses::new(ranges, addresses);
        let (given, hosts) = (addresses.services(), addresses.hosts());
        let delete = Vec::new();
        let step = Step { epoch, revision, put, delete, addresses: given, hosts };
        let shown = builder.apply(step, now);
        let counting = Counting::from(&shown.rules);
        live.store(shown);
        addresses.review(&builder);
        let (feed, outlet) = feed::feed();
        Self {
            store,
            builder,
            known: BTreeMap::new(),
            prints: Prints::default(),
            addresses,
            epoch,
            revision,
            live,
            outlet,
            feed,
            behind: false,
            synced: None,
            counting,
            counter: [0; 16],
        }
    }

    /// Makes the node's records those of `records`. Durable before visible; where the disk does
    /// not take the change, it is visible all the same and [`Observed::Unsaved`] says so.
    pub async fn observe(&mut self, records: BTreeMap<Key, Record>, now: Instant) -> Observed {
        let known: BTreeMap<Key, u128> =
            records.iter().map(|(key, record)| (key.clone(), self.prints.of(record))).collect();
        let delete: Vec<Key> =
            self.known.keys().filter(|key| !known.contains_key(*key)).cloned().collect();
        // What the disk refused before is unknown to it: everything goes there again.
        let fresh = |key: &Key| self.behind || self.known.get(key) != known.get(key);
        let put: Vec<Record> =
            records.into_iter().filter(|(key, _)| fresh(key)).map(|(_, record)| record).collect();
        let moved = self.addresses.settle_put(&self.builder, &put, &delete);
        if put.is_empty() && delete.is_empty() && moved.is_empty() && !self.behind {
            return Observed::Same;
        }
        if self.epoch == [0; 16] {
            self.epoch = *uuid::Uuid::new_v4().as_bytes();
        }
        self.revision += 1;
        self.known = known;
        let (revision, deleted, count) = (self.revision, delete.len(), put.len());
        let stored = self.store.commit(self.change(&put, &delete, &moved)).await;
        self.show(Next { put, delete, moved }, now);
        match stored {
            Ok(()) => {
                self.behind = false;
                Observed::Changed { revision, put: count, deleted }
            }
            Err(error) => {
                self.behind = true;
                Observed::Unsaved(error)
            }
        }
    }

    /// Makes it visible, and tells mirrors.
    fn show(&mut self, next: Next, now: Instant) {
        let Next { put, delete, moved } = next;
        let Moved { services: addresses, hosts, .. } = moved;
        let (epoch, revision) = (self.epoch, self.revision);
        let step = Step { epoch, revision, put, delete, addresses, hosts };
        if self.outlet.is_read() {
            self.outlet.publish(published(&step));
        }
        self.builder.own_addresses(own_addresses());
        self.live.store(self.builder.apply(step, now));
    }

    /// Every record that is in force. A copy.
    pub fn records(&self) -> Vec<Record> {
        self.builder.records()
    }

    /// The Slice of that name.
    pub fn slice(&self, own: &ServiceName) -> Option<&Slice> {
        self.builder.slice(own)
    }

    /// The records as a stream, for mirrors. The whole is given by [`Sync::tell`].
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// Waits for a mirror that wants the whole. Dropping the future loses nothing.
    pub async fn asked(&mut self) -> Option<Asked> {
        self.outlet.asked().await
    }

    /// Gives it the whole.
    pub fn tell(&self, asked: Asked) {
        let put = self.builder.records();
        let (epoch, revision) = (self.epoch, self.revision);
        let (addresses, hosts) = (self.addresses.services(), self.addresses.hosts());
        let step = Step { epoch, revision, put, addresses, hosts, ..Step::default() };
        let mut whole = published(&step);
        (whole.delta.from, whole.delta.reset) = (0, true);
        self.outlet.answer(asked, whole);
    }

    /// Copies the store aside, as the fallback for a damaged one.
    pub async fn keep_good_copy(&self) -> Result<(), CommitError> {
        self.store.keep_good_copy().await
    }

    /// Closes the store, for another process to open it. What is observed meanwhile is not stored.
    pub async fn release(&mut self) {
        self.store.clone().close().await;
    }

    /// Goes on with a store that another process may have changed: the next observation writes
    /// all of it again, under a revision that neither has had.
    pub fn take_back(&mut self, store: Store, loaded: Loaded, now: Instant) {
        self.store = store;
        if self.synced.is_some() {
            return self.take_back_synced(loaded, now);
        }
        self.revision = self.revision.max(loaded.revision);
        self.behind = true;
    }

    /// Gives the store back, to be closed.
    pub fn into_store(self) -> Store {
        self.store
    }

    fn change(&self, put: &[Record], delete: &[Key], moved: &Moved) -> Change {
        Change {
            epoch: self.epoch,
            revision: self.revision,
            reset: self.behind,
            put: put.iter().map(Put::from).collect(),
            delete: delete.to_vec(),
            local_put: Vec::new(),
            local_delete: Vec::new(),
            addresses_put: if self.behind { self.addresses.entries() } else { moved.put.clone() },
            addresses_delete: moved.delete.clone(),
        }
    }
}

/// Listing them costs a fraction of what a change of the records does; where it fails, the Node's
/// record has to do.
fn own_addresses() -> Vec<IpAddr> {
    crate::io::own_addresses().into_iter().flatten().collect()
}

/// A step as mirrors get it.
fn published(step: &Step) -> Published {
    let delta = Delta {
        epoch: step.epoch,
        from: step.revision.saturating_sub(1),
        to: step.revision,
        put: step.put.iter().map(Put::from).collect(),
        delete: step.delete.clone(),
        ..Delta::default()
    };
    Published { delta, addresses: step.addresses.clone(), hosts: step.hosts.clone() }
}

/// Fingerprints of records: 128 bits of two hashes with keys of this process, so that telling a
/// changed record does not take a second copy of every record in memory.
#[derive(Debug, Default)]
struct Prints(RandomState, RandomState);

impl Prints {
    fn of(&self, record: &Record) -> u128 {
        let body = record.encode_body();
        (u128::from(self.0.hash_one(&body)) << 64) | u128::from(self.1.hash_one(&body))
    }
}

/// Virtual addresses that were given out and taken back.
#[derive(Debug, Default)]
struct Moved {
    /// For the store.
    put: Vec<VirtualAddress>,
    /// For the store.
    delete: Vec<VirtualAddress>,
    /// For the Snapshot: all addresses of each Service concerned.
    services: Vec<(ServiceName, Vec<IpAddr>)>,
    /// For the Snapshot: all hosts of each Service concerned.
    hosts: Vec<(ServiceName, Vec<Host>)>,
}

impl Moved {
    fn is_empty(&self) -> bool {
        self.services.is_empty() && self.hosts.is_empty()
    }
}
