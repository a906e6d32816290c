//! The parts of a step that is not whole yet, within bounds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use edgemesh_proto::record::{Delta, Key};

use crate::digest::{Digest, Hasher};
use crate::sync::replica::Broken;

/// Most bytes of keys and bodies in one step: ten times what 100,000 Backends take.
pub const STAGED_BYTES: usize = 128 << 20;
/// Most records and deletes in one step.
pub const STAGED_RECORDS: usize = 1_000_000;

/// A record that is to be put.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) body: Bytes,
    pub(super) digest: Digest,
    pub(super) bucket: u8,
}

#[derive(Debug)]
pub(super) struct Staging {
    epoch: [u8; 16],
    from: u64,
    reset: bool,
    voided: BTreeSet<u8>,
    put: BTreeMap<Key, Staged>,
    delete: BTreeSet<Key>,
    bytes: usize,
}

impl Staging {
    pub(super) const fn new(epoch: [u8; 16], from: u64) -> Self {
        Self {
            epoch,
            from,
            reset: false,
            voided: BTreeSet::new(),
            put: BTreeMap::new(),
            delete: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Whether a part belongs to the same step. One that resets begins the step anew.
    pub(super) fn continues(&self, part: &Delta) -> bool {
        part.epoch == self.epoch && (part.reset || part.from == self.from)
    }

    /// Takes a part in; deletes before puts.
    pub(super) fn take(&mut self, part: Delta, hasher: &mut Hasher) -> Result<(), Broken> {
        if part.reset {
            *self = Self { reset: true, ..Self::new(part.epoch, part.from) };
        }
        if !part.buckets.is_empty() {
            self.void(part.buckets);
        }
        for key in part.delete {
            self.bytes += size(&key);
            self.forget(&key);
            self.delete.insert(key);
        }
        for put in part.put {
            let (digest, bucket) = (hasher.of(&put.key, &put.body), hasher.bucket(&put.key));
            self.forget(&put.key);
            self.delete.remove(&put.key);
            self.bytes += size(&put.key) + put.body.len();
            self.put.insert(put.key, Staged { body: put.body, digest, bucket });
        }
        let fits =
            self.bytes <= STAGED_BYTES && self.put.len() + self.delete.len() <= STAGED_RECORDS;
        if fits { Ok(()) } else { Err(Broken::TooLarge) }
    }

    fn void(&mut self, buckets: Vec<u8>) {
        self.voided.extend(buckets);
        let gone = self.put.iter().filter(|(_, put)| self.voided.contains(&put.bucket));
        let gone: Vec<Key> = gone.map(|(key, _)| key.clone()).collect();
        gone.iter().for_each(|key| self.forget(key));
    }

    fn forget(&mut self, key: &Key) {
        if let Some(put) = self.put.remove(key) {
            self.bytes -= size(key) + put.body.len();
        }
    }

    /// Nothing counts that was held before.
    pub(super) const fn resets(&self) -> bool {
        self.reset
    }

    /// It brings everything, or whole buckets.
    pub(super) fn is_whole(&self) -> bool {
        self.reset || !self.voided.is_empty()
    }

    /// The buckets of which nothing counts that was held before.
    pub(super) fn voided(&self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(|bucket| self.reset || self.voided.contains(bucket))
    }

    pub(super) fn puts(&self, key: &Key) -> bool {
        self.put.contains_key(key)
    }

    /// Puts and deletes; no key is in both.
    pub(super) fn into_parts(self) -> (BTreeMap<Key, Staged>, BTreeSet<Key>) {
        (self.put, self.delete)
    }
}

/// What a key counts for.
const fn size(key: &Key) -> usize {
    key.namespace.len() + key.name.len()
}
