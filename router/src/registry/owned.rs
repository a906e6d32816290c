//! Who says what: every record that an owner stands for, before one of them counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use edgemesh_proto::record::{Key, Kind, NodeName};

/// On whose word a record is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// The manifests, or what else the cloud reads.
    Manifests,
    /// The cloud itself: which nodes have joined, which are revoked.
    Cloud,
    /// A node, about what runs there.
    Node(NodeName),
}

/// A change of what is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Whose word it is.
    pub owner: Owner,
    /// Which record.
    pub key: Key,
    /// What it says now; `None` = it is gone.
    pub body: Option<Bytes>,
}

/// What the owners say of one record, in their order.
type Claims = Vec<(Owner, Bytes)>;

/// All claims, by record and by owner.
#[derive(Debug, Default)]
pub(super) struct Owned {
    claims: BTreeMap<Arc<Key>, Claims>,
    keys: BTreeMap<Owner, BTreeSet<Arc<Key>>>,
}

impl Owned {
    /// What the owners say of a record.
    pub(super) fn claims(&self, key: &Key) -> &[(Owner, Bytes)] {
        self.claims.get(key).map_or(&[], Vec::as_slice)
    }

    /// What one owner says of a record.
    pub(super) fn claim(&self, owner: &Owner, key: &Key) -> Option<&Bytes> {
        self.claims(key).iter().find(|(known, _)| known == owner).map(|(_, body)| body)
    }

    /// Owners that stand for anything.
    pub(super) fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.keys.keys()
    }

    /// Makes `body` what `owner` says of `key`. `None`: nothing changed.
    pub(super) fn set(&mut self, owner: &Owner, key: &Key, body: Option<Bytes>) -> Option<Write> {
        if self.claim(owner, key) == body.as_ref() {
            return None;
        }
        let key = match self.claims.get_key_value(key) {
            Some((known, _)) => known.clone(),
            None => Arc::new(key.clone()),
        };
        let claims = self.claims.entry(key.clone()).or_default();
        claims.retain(|(known, _)| known != owner);
        match &body {
            Some(body) => {
                let place = claims.partition_point(|(known, _)| known < owner);
                claims.reserve_exact(1); // most records have one owner
                claims.insert(place, (owner.clone(), body.clone()));
                self.keys.entry(owner.clone()).or_default().insert(key.clone());
            }
            None => self.unlist(owner, &key),
        }
        Some(Write { owner: owner.clone(), key: Key::clone(&key), body })
    }

    fn unlist(&mut self, owner: &Owner, key: &Arc<Key>) {
        if self.claims.get(key).is_some_and(Vec::is_empty) {
            self.claims.remove(key);
        }
        if let Some(keys) = self.keys.get_mut(owner) {
            keys.remove(key);
            if keys.is_empty() {
                self.keys.remove(owner);
            }
        }
    }

    /// Makes `all` everything that `owner` says. Returns what changed.
    pub(super) fn replace(&mut self, owner: &Owner, all: &BTreeMap<Key, Bytes>) -> Vec<Write> {
        self.replace_of(owner, |_| true, all)
    }

    /// The same of some kinds: what `owner` says of others stays.
    pub(super) fn replace_of(
        &mut self,
        owner: &Owner,
        is_of: impl Fn(Kind) -> bool,
        all: &BTreeMap<Key, Bytes>,
    ) -> Vec<Write> {
        let keys = self.keys.get(owner).into_iter().flatten();
        let gone = keys.filter(|key| is_of(key.kind) && !all.contains_key(&***key));
        let gone: Vec<Arc<Key>> = gone.cloned().collect();
        let gone = gone.into_iter().map(|key| (Key::clone(&key), None));
        let fresh = all.iter().filter(|(key, body)| self.claim(owner, key) != Some(*body));
        let put = fresh.map(|(key, body)| (key.clone(), Some(body.clone())));
        let all: Vec<_> = gone.chain(put).collect();
        all.into_iter().filter_map(|(key, body)| self.set(owner, &key, body)).collect()
    }
}
