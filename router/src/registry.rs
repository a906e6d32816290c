//! The records of a mesh, and the changes that lead there, for every agent that keeps in step.
//!
//! What [`Owner`]s say becomes one effective record each; every change of one gets the next
//! revision, and of each record only the last change is known (level-triggered), deletes for a
//! bounded while. What an agent sees depends on its selector; of each selector in use the digests
//! are kept up to date. A [`session::Session`] is the conversation with one agent.
//!
//! Pure and in memory: [`store`] keeps what must survive, [`shared`] puts it behind a lock and wakes
//! sessions.

mod counts;
mod effective;
mod entries;
mod owned;
pub mod ranges;
pub mod session;
pub mod shared;
pub mod store;
mod view;
mod walk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use edgemesh_core::digest::Hasher;
use edgemesh_core::snapshot::rules::{Source, compile};
use edgemesh_proto::message::Selector;
use edgemesh_proto::record::{
    Body, EndpointName, Key, Kind, Node, NodeName, Put, Record, Revocation, RuleName,
};

use crate::registry::effective::{Home, agent, effective};
use crate::registry::entries::{Effective, Entries};
use crate::registry::owned::Owned;
use crate::registry::view::{View, canonical};

pub use crate::registry::counts::Counted;
pub use crate::registry::owned::{Owner, Write};

/// How much a registry remembers and says at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Deletes that are remembered; agents that are further behind compare digests.
    pub deletes: usize,
    /// A part of a step is full at so many bytes of keys and bodies; only a record that is larger
    /// by itself makes a larger part.
    pub part_bytes: usize,
    /// A step of changes ends after so many bytes, although there are more: agents stage it whole.
    pub step_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { deletes: 20_000, part_bytes: 1_000_000, step_bytes: 16 << 20 }
    }
}

/// Selectors in use at once; whoever brings one more gets everything.
pub const MAX_VIEWS: usize = 1024;
/// The records, in memory.
#[derive(Debug)]
pub struct Registry {
    epoch: [u8; 16],
    bounds: Bounds,
    owned: Owned,
    entries: Entries,
    views: BTreeMap<Selector, View>,
    hasher: Hasher,
}

impl Registry {
    /// A registry of a new life: `epoch` must be random. `kept` is what a former one had.
    pub fn new(epoch: [u8; 16], kept: impl IntoIterator<Item = (Owner, Put)>) -> Self {
        Self::within(Bounds::default(), epoch, kept)
    }

    /// As [`Registry::new`], within other bounds.
    pub fn within(
        bounds: Bounds,
        epoch: [u8; 16],
        kept: impl IntoIterator<Item = (Owner, Put)>,
    ) -> Self {
        let mut new = Self {
            epoch,
            bounds,
            owned: Owned::default(),
            entries: Entries::new(bounds.deletes),
            views: BTreeMap::new(),
            hasher: Hasher::default(),
        };
        let mut keys = BTreeSet::new();
        for (owner, put) in kept {
            new.owned.set(&owner, &put.key, Some(put.body));
            keys.insert(put.key);
        }
        keys.iter().for_each(|key| new.settle(key));
        new
    }

    /// The life of this registry.
    pub const fn epoch(&self) -> [u8; 16] {
        self.epoch
    }

    /// The last change.
    pub const fn revision(&self) -> u64 {
        self.entries.revision()
    }

    /// Deletes up to here may be forgotten: who holds less must compare.
    const fn floor(&self) -> u64 {
        self.entries.floor()
    }

    /// Makes `records` everything that the manifests say. Returns what is to be kept.
    pub fn observe(&mut self, records: &BTreeMap<Key, Bytes>) -> Vec<Write> {
        let writes = self.owned.replace(&Owner::Manifests, records);
        self.settled(writes)
    }

    /// Makes `put` everything of the kinds in `whole` that the source says; of other kinds, what it says
    /// anew. Returns what is to be kept.
    pub fn supply(
        &mut self,
        whole: &BTreeSet<Kind>,
        put: &BTreeMap<Key, Bytes>,
        delete: &[Key],
    ) -> Vec<Write> {
        let owner = &Owner::Manifests;
        let gone = delete.iter().filter(|key| !put.contains_key(key));
        let mut writes: Vec<Write> =
            gone.filter_map(|key| self.owned.set(owner, key, None)).collect();
        writes.extend(self.owned.replace_of(owner, |kind| whole.contains(&kind), put));
        self.settled(writes)
    }

    /// Makes `records` everything that a node says. They are checked already, see
    /// [`edgemesh_core::sync::offer::check`].
    pub fn offer(&mut self, node: &NodeName, records: &BTreeMap<Key, Bytes>) -> Vec<Write> {
        let writes = self.owned.replace(&Owner::Node(node.clone()), records);
        self.settled(writes)
    }

    /// A node has an agent, which may be dialled at `links`.
    pub fn joined(&mut self, node: &NodeName, links: Vec<Box<str>>) -> Vec<Write> {
        self.say(&of_node(Kind::Node, node), Some(agent(links)))
    }

    /// Certificates of a node issued before that time, in seconds since 1970, are void.
    pub fn revoke(&mut self, node: &NodeName, before: i64) -> Vec<Write> {
        let body = Body::Revocation(Revocation { before });
        let record = Record { namespace: "".into(), name: node.0.clone(), body };
        self.say(&record.key(), Some(record.encode_body().into()))
    }

    /// Nothing is left that its Revocation makes void.
    pub fn forget_revocation(&mut self, node: &NodeName) -> Vec<Write> {
        self.say(&of_node(Kind::Revocation, node), None)
    }

    /// A node has no agent any more, and what it said is gone. A Revocation stays.
    pub fn forget(&mut self, node: &NodeName) -> Vec<Write> {
        let mut writes = self.offer(node, &BTreeMap::new());
        writes.extend(self.say(&of_node(Kind::Node, node), None));
        writes
    }

    /// Which messages a Rule takes, where its records say so.
    fn source_of(&self, name: &RuleName) -> Option<Source> {
        let named = |kind, namespace: &str, name: &str| {
            self.get(&Key { kind, namespace: namespace.into(), name: name.into() })
        };
        let Body::Rule(rule) = named(Kind::Rule, &name.namespace, &name.name)?.body else {
            return None;
        };
        let EndpointName { namespace, name: endpoint } = &rule.source;
        let Body::Endpoint(source) = named(Kind::Endpoint, namespace, endpoint)?.body else {
            return None;
        };
        compile(name, &rule, |of| (*of == rule.source).then_some(&source)).source
    }

    /// Of each node that was removed: certificates issued before this are void.
    pub fn revocations(&self) -> BTreeMap<NodeName, i64> {
        let of_kind = self.records().filter(|(key, _)| key.kind == Kind::Revocation);
        let before = |(key, body): (&Key, &Bytes)| {
            let record = Record::decode(key.kind, &key.namespace, &key.name, body).ok()?;
            match record.body {
                Body::Revocation(revoked) => Some((NodeName(key.name.clone()), revoked.before)),
                Body::Service(_)
                | Body::Slice(_)
                | Body::Node(_)
                | Body::Workload(_)
                | Body::Policy(_)
                | Body::Route(_)
                | Body::Endpoint(_)
                | Body::Rule(_) => None,
            }
        };
        of_kind.filter_map(before).collect()
    }

    /// Every record that counts.
    pub fn records(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        self.entries.after(None).map(|(key, _, record)| (&**key, &record.body))
    }

    /// Whether there is a record of that identity.
    pub fn has(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|(_, entry)| entry.record.is_some())
    }

    /// The record of that identity, where there is one that can be read.
    fn get(&self, key: &Key) -> Option<Record> {
        let (_, entry) = self.entries.get(key)?;
        let body = &entry.record.as_ref()?.body;
        Record::decode(key.kind, &key.namespace, &key.name, body).ok()
    }

    /// Everybody who stands for anything.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owned.owners()
    }

    /// The records that a selector sees, for tests and for people; sessions take them in parts.
    pub fn seen_by(&mut self, selector: &Selector) -> BTreeMap<Key, Bytes> {
        let selector = self.enter(selector);
        let view = &self.views[&selector];
        let seen = self.entries.after(None).filter(|(_, _, record)| view.sees(&record.home));
        let all = seen.map(|(key, _, record)| (Key::clone(key), record.body.clone())).collect();
        self.leave(&selector);
        all
    }

    /// The digest of what a selector sees.
    pub fn digest_of(&mut self, selector: &Selector) -> [u8; 32] {
        let selector = self.enter(selector);
        let digest = self.views[&selector].sums().whole();
        self.leave(&selector);
        digest
    }

    /// Keeps the digests of what a selector sees from now on, whether somebody uses it or not.
    pub fn keep(&mut self, selector: &Selector) {
        self.enter(selector);
    }

    /// Deletes that are remembered.
    pub fn remembered(&self) -> usize {
        self.entries.graves()
    }

    /// Selectors in use.
    pub fn views(&self) -> usize {
        self.views.len()
    }

    fn say(&mut self, key: &Key, body: Option<Bytes>) -> Vec<Write> {
        let write = self.owned.set(&Owner::Cloud, key, body);
        self.settled(write.into_iter().collect())
    }

    fn settled(&mut self, writes: Vec<Write>) -> Vec<Write> {
        writes.iter().for_each(|write| self.settle(&write.key));
        writes
    }

    /// Makes what the owners say of a record what counts.
    fn settle(&mut self, key: &Key) {
        let fresh = effective(key, self.owned.claims(key));
        let known = self.entries.get(key);
        let before = known.and_then(|(_, entry)| entry.record.as_ref());
        if before.map(|record| &record.body) == fresh.as_ref().map(|(body, _)| body) {
            return;
        }
        let (key, bucket) = match known {
            Some((key, entry)) => (key.clone(), entry.bucket),
            None => (Arc::new(key.clone()), self.hasher.bucket(key)),
        };
        let fresh = fresh.map(|(body, home)| {
            let digest = self.hasher.of(&key, &body);
            Effective { body, digest, home }
        });
        for view in self.views.values_mut() {
            if let Some(before) = before.filter(|record| view.sees(&record.home)) {
                view.remove(bucket, before.digest);
            }
            if let Some(fresh) = fresh.as_ref().filter(|record| view.sees(&record.home)) {
                view.add(bucket, fresh.digest);
            }
        }
        let node = fresh.as_ref().and_then(|fresh| match &fresh.home {
            Home::Itself(node) => Some(Node::clone(node)),
            Home::Everywhere | Home::On(_) => None,
        });
        self.entries.change(&key, bucket, fresh);
        if key.kind == Kind::Node {
            self.select(&NodeName(key.name.clone()), node.as_ref());
        }
    }

    /// A Node record changed: who selects it now, sees what lives there.
    fn select(&mut self, name: &NodeName, node: Option<&Node>) {
        let Self { views, entries, .. } = self;
        let mut moved = BTreeSet::new();
        if views.values().any(|view| view.would_select(name, node)) {
            entries.forget_past(name);
        }
        for view in views.values_mut().filter(|view| view.would_select(name, node)) {
            let lives = |home: &Home| match home {
                Home::On(nodes) => nodes.contains(name),
                Home::Everywhere | Home::Itself(_) => false,
            };
            let there = || entries.after(None).filter(|(_, _, record)| lives(&record.home));
            for (_, bucket, record) in there() {
                if view.sees(&record.home) {
                    view.remove(bucket, record.digest);
                }
            }
            view.select(name, node);
            for (_, bucket, record) in there() {
                if view.sees(&record.home) {
                    view.add(bucket, record.digest);
                }
            }
            moved.extend(there().map(|(key, _, _)| key.clone()));
        }
        moved.iter().for_each(|key| entries.touch(key));
    }

    /// Begins to keep the digests of what a selector sees. Returns the one to go by.
    fn enter(&mut self, selector: &Selector) -> Selector {
        let mut selector = canonical(selector);
        if !self.views.contains_key(&selector) {
            if self.views.len() >= MAX_VIEWS {
                selector = Selector::default();
            }
            self.make_view(&selector);
        }
        if let Some(view) = self.views.get_mut(&selector) {
            view.users += 1;
        }
        selector
    }

    fn make_view(&mut self, selector: &Selector) {
        let mut view = View::new(selector.clone());
        for (key, _, record) in self.entries.after(None) {
            if let Home::Itself(node) = &record.home {
                view.select(&NodeName(key.name.clone()), Some(node));
            }
        }
        for (_, bucket, record) in self.entries.after(None) {
            if view.sees(&record.home) {
                view.add(bucket, record.digest);
            }
        }
        self.views.entry(selector.clone()).or_insert(view);
    }

    /// One session less that sees it.
    fn leave(&mut self, selector: &Selector) {
        let Some(view) = self.views.get_mut(selector) else { return };
        view.users = view.users.saturating_sub(1);
        if view.users == 0 {
            self.views.remove(selector);
        }
    }
}

fn of_node(kind: Kind, node: &NodeName) -> Key {
    Key { kind, namespace: "".into(), name: node.0.clone() }
}
