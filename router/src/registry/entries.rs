//! The records that count, each with its last change; deletes for a bounded while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use edgemesh_core::digest::Digest;
use edgemesh_proto::record::{Key, NodeName};

use crate::registry::effective::Home;

/// Nodes that a record is remembered to have lived on; over it, it may have lived anywhere.
const MAX_PAST: usize = 16;

/// Records by identity and by last change.
#[derive(Debug)]
pub(super) struct Entries {
    revision: u64,
    by_key: BTreeMap<Arc<Key>, Entry>,
    log: BTreeMap<u64, Arc<Key>>,
    /// Changes that are deletes.
    graves: BTreeSet<u64>,
    max_graves: usize,
    floor: u64,
}

/// A record, or where one was.
#[derive(Debug)]
pub(super) struct Entry {
    /// Of the last change.
    revision: u64,
    pub(super) bucket: u8,
    /// `None` = it was deleted.
    pub(super) record: Option<Effective>,
    past: Past,
}

/// A record that counts.
#[derive(Debug)]
pub(super) struct Effective {
    pub(super) body: Bytes,
    pub(super) digest: Digest,
    pub(super) home: Home,
}

/// Where a record has lived: whoever saw it there is told when it is gone from there.
#[derive(Debug)]
enum Past {
    Anywhere,
    On(BTreeSet<NodeName>),
}

impl Entries {
    pub(super) const fn new(max_graves: usize) -> Self {
        Self {
            revision: 0,
            by_key: BTreeMap::new(),
            log: BTreeMap::new(),
            graves: BTreeSet::new(),
            max_graves,
            floor: 0,
        }
    }

    /// The last change.
    pub(super) const fn revision(&self) -> u64 {
        self.revision
    }

    /// Deletes up to here may be forgotten.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    /// Deletes that are remembered.
    pub(super) fn graves(&self) -> usize {
        self.graves.len()
    }

    pub(super) fn get(&self, key: &Key) -> Option<(&Arc<Key>, &Entry)> {
        self.by_key.get_key_value(key)
    }

    /// Every record that counts, after that key.
    pub(super) fn after(
        &self,
        key: Option<&Arc<Key>>,
    ) -> impl Iterator<Item = (&Arc<Key>, u8, &Effective)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = key.map_or(Unbounded, Excluded);
        let all = self.by_key.range::<Arc<Key>, _>((from, Unbounded));
        all.filter_map(|(key, entry)| Some((key, entry.bucket, entry.record.as_ref()?)))
    }

    /// What changed after a revision, in the order of the changes.
    pub(super) fn since(&self, revision: u64) -> impl Iterator<Item = (u64, &Arc<Key>, &Entry)> {
        let changes = self.log.range(revision.saturating_add(1)..);
        changes.filter_map(|(at, key)| Some((*at, key, self.by_key.get(key)?)))
    }

    /// Makes a record the next change. Forgets the oldest deletes where there are too many.
    pub(super) fn change(&mut self, key: &Arc<Key>, bucket: u8, record: Option<Effective>) {
        let mut past = Past::of(record.as_ref());
        if let Some(before) = self.by_key.remove(key) {
            self.unlist(before.revision);
            past.join(before.past);
        }
        self.revision += 1;
        if record.is_none() {
            self.graves.insert(self.revision);
        }
        self.log.insert(self.revision, key.clone());
        let entry = Entry { revision: self.revision, bucket, record, past };
        self.by_key.insert(key.clone(), entry);
        self.forget();
    }

    /// Makes a record a change although it is as it was: somebody sees it now, or no longer.
    pub(super) fn touch(&mut self, key: &Arc<Key>) {
        let Some(entry) = self.by_key.get_mut(key) else { return };
        let before = entry.revision;
        self.revision += 1;
        entry.revision = self.revision;
        self.unlist(before);
        self.log.insert(self.revision, key.clone());
    }

    /// Somebody has seen a node and sees it no longer, or the other way round: where records have
    /// lived says no more who has seen them.
    pub(super) fn forget_past(&mut self, node: &NodeName) {
        for entry in self.by_key.values_mut() {
            if matches!(&entry.past, Past::On(nodes) if nodes.contains(node)) {
                entry.past = Past::Anywhere;
            }
        }
    }

    fn unlist(&mut self, revision: u64) {
        self.log.remove(&revision);
        self.graves.remove(&revision);
    }

    fn forget(&mut self) {
        while self.graves.len() > self.max_graves {
            let Some(oldest) = self.graves.pop_first() else { return };
            self.floor = oldest;
            if let Some(key) = self.log.remove(&oldest) {
                self.by_key.remove(&key);
            }
        }
    }
}

impl Entry {
    /// Whether it may have lived where `seen` says.
    pub(super) fn has_lived(&self, seen: impl Fn(&NodeName) -> bool) -> bool {
        match &self.past {
            Past::Anywhere => true,
            Past::On(nodes) => nodes.iter().any(seen),
        }
    }
}

impl Past {
    fn of(record: Option<&Effective>) -> Self {
        match record.map(|record| &record.home) {
            Some(Home::On(nodes)) => Self::On(nodes.iter().cloned().collect()),
            Some(Home::Everywhere | Home::Itself(_)) => Self::Anywhere,
            None => Self::On(BTreeSet::new()),
        }
    }

    fn join(&mut self, before: Self) {
        *self = match (std::mem::replace(self, Self::Anywhere), before) {
            (Self::On(mut nodes), Self::On(before)) if nodes.len() + before.len() <= MAX_PAST => {
                nodes.extend(before);
                Self::On(nodes)
            }
            (Self::On(_) | Self::Anywhere, Self::On(_) | Self::Anywhere) => Self::Anywhere,
        };
    }
}
