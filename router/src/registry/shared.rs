//! The registry as the hub uses it: behind a lock, kept on disk, with sessions that wait.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use edgemesh_core::backends::Tally;
use edgemesh_core::identity::CLOUD;
use edgemesh_core::io::now;
use edgemesh_core::mesh::Supplied;
use edgemesh_core::store::{CommitError, OpenError};
use edgemesh_core::sync::offer;
use edgemesh_proto::message::{Body, Counts as Told, Hello};
use edgemesh_proto::record::{Invalid, Key, Kind, NodeName, Put, Record, RuleName};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::registry::counts::{At, Counts, Line};
use crate::registry::ranges::Ranges;
use crate::registry::session::{Said, Session, Violation};
use crate::registry::store::{Outcome, Repair, Store};
use crate::registry::{Counted, Registry, Write};

/// The registry. Clones share it.
#[derive(Clone, Debug)]
pub struct Shared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Mutex<Registry>,
    counts: Mutex<Counts>,
    /// `None` = it is kept nowhere.
    store: Option<Store>,
    /// Why the disk does not take changes.
    trouble: Mutex<Option<String>>,
    /// What was repaired at the start.
    repairs: Vec<Repair>,
    /// The last revision.
    changed: watch::Sender<u64>,
    ranges: Ranges,
    /// What [`Registry::revocations`] says, for those who ask with each call.
    revoked: watch::Sender<Arc<Revoked>>,
}

/// Since when certificates of a node count, in seconds since 1970: older ones are void.
pub type Revoked = BTreeMap<NodeName, i64>;

/// One agent's conversation, which ends when this is dropped.
#[derive(Debug)]
pub struct Talk {
    shared: Shared,
    session: Mutex<Session>,
    heard: Notify,
}

impl Shared {
    /// A registry that is kept nowhere.
    pub fn in_memory(epoch: [u8; 16]) -> Self {
        Self::of(Registry::new(epoch, []), Vec::new(), None, Vec::new())
    }

    /// Goes on with what is kept in `folder`, under a new epoch. Blocks for as long as that takes.
    /// [`Shared::repairs`] tells what was repaired.
    ///
    /// # Errors
    /// When another process has it, or the disk does not allow it.
    pub fn open(folder: &Path) -> Result<Self, OpenError> {
        let (store, kept, repairs) = Store::open(folder)?;
        let epoch = *uuid::Uuid::new_v4().as_bytes();
        let registry = Registry::new(epoch, kept.records);
        Ok(Self::of(registry, kept.counts, Some(store), repairs))
    }

    fn of(
        registry: Registry,
        counts: Vec<(At, Line)>,
        store: Option<Store>,
        repairs: Vec<Repair>,
    ) -> Self {
        let counts = Mutex::new(Counts::new(counts, |rule| registry.has(&key_of(rule))));
        let changed = watch::Sender::new(registry.revision());
        let revoked = watch::Sender::new(Arc::new(registry.revocations()));
        let trouble = repairs.iter().find(|repair| repair.is_unwritable()).map(Repair::to_string);
        let (registry, trouble) = (Mutex::new(registry), Mutex::new(trouble));
        let ranges = Ranges::default();
        Self(Arc::new(Inner {
            registry,
            counts,
            store,
            trouble,
            repairs,
            changed,
            ranges,
            revoked,
        }))
    }

    /// Why the disk does not take changes; they count all the same.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().clone()
    }

    /// What was repaired at the start, for people.
    pub fn repairs(&self) -> &[Repair] {
        &self.0.repairs
    }

    /// Keeps what is still to be kept, and closes the store.
    pub async fn close(&self) {
        if let Some(store) = self.0.store.clone() {
            store.close().await;
        }
    }

    /// The life of this registry.
    pub fn epoch(&self) -> [u8; 16] {
        self.0.registry.lock().epoch()
    }

    /// The last change.
    pub fn revision(&self) -> u64 {
        self.0.registry.lock().revision()
    }

    /// Wakes at each change, with its revision.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Makes `records` everything that the manifests say.
    pub async fn observe(&self, records: BTreeMap<Key, Record>) {
        let encode = |(key, record): (Key, Record)| (key, record.encode_body().into());
        let encoding = tokio::task::spawn_blocking(move || {
            records.into_iter().map(encode).collect::<BTreeMap<Key, _>>()
        });
        // An end of the runtime, which nobody waits for.
        let Ok(encoded) = encoding.await else { return };
        self.change(|registry| registry.observe(&encoded)).await;
    }

    /// Takes in a step of a source. What it replaces of a kind is replaced at once.
    pub async fn supply(&self, step: Supplied) {
        let Supplied { whole, put, delete, service_cidrs, .. } = step;
        if let Some(ranges) = service_cidrs {
            self.0.ranges.are(ranges);
        }
        let encode = |record: Record| (record.key(), record.encode_body().into());
        let encoding = tokio::task::spawn_blocking(move || {
            put.into_iter().map(encode).collect::<BTreeMap<Key, _>>()
        });
        // An end of the runtime, which nobody waits for.
        let Ok(put) = encoding.await else { return };
        self.change(|registry| registry.supply(&whole, &put, &delete)).await;
    }

    /// Where addresses of Services lie.
    pub fn ranges(&self) -> &Ranges {
        &self.0.ranges
    }

    /// Makes `records` everything that a node says which is here by a certificate `issued` then.
    /// Returns what it may not say, which is left out.
    pub async fn offer(&self, node: &NodeName, issued: i64, records: Vec<Put>) -> Vec<Invalid> {
        let (records, bad) = offer::accepted(node, records);
        self.change_by((node, issued), |registry| registry.offer(node, &records)).await;
        bad
    }

    /// A node has an agent, which may be dialled at `links`.
    pub async fn joined(&self, node: &NodeName, issued: i64, links: Vec<Box<str>>) {
        self.change_by((node, issued), |registry| registry.joined(node, links)).await;
    }

    /// Certificates of a node issued before that time, in seconds since 1970, are void. From now on
    /// it says nothing by one of them; and unless it `is_back` by a newer one, it has no agent any
    /// more, and what it said is gone.
    pub async fn remove(&self, node: &NodeName, before: i64, is_back: impl FnOnce() -> bool) {
        self.change(|registry| {
            let mut writes = registry.revoke(node, before);
            if !is_back() {
                writes.extend(registry.forget(node));
            }
            writes
        })
        .await;
    }

    /// Nothing is left that the Revocation of a node makes void. One that has not come back by now
    /// is no longer told apart in what Rules have counted.
    pub async fn forget_revocation(&self, node: &NodeName) {
        self.change(|registry| {
            let agent = Key { kind: Kind::Node, namespace: "".into(), name: node.0.clone() };
            if !registry.has(&agent) {
                self.0.counts.lock().fold(&node.0);
            }
            registry.forget_revocation(node)
        })
        .await;
    }

    /// As [`Shared::change`], by a node whose certificate is not void when the change is made.
    async fn change_by(
        &self,
        (node, issued): (&NodeName, i64),
        change: impl FnOnce(&mut Registry) -> Vec<Write>,
    ) {
        self.change(|registry| match self.revoked(node).is_some_and(|before| issued < before) {
            true => Vec::new(),
            false => change(registry),
        })
        .await;
    }

    /// Certificates of that node issued before this are void. Waits for nobody who changes records.
    pub fn revoked(&self, node: &NodeName) -> Option<i64> {
        self.0.revoked.borrow().get(node).copied()
    }

    /// Wakes whenever certificates became void.
    pub fn revocations(&self) -> watch::Receiver<Arc<Revoked>> {
        self.0.revoked.subscribe()
    }

    /// A node which is here by a certificate `issued` then tells what Rules have counted there: only of
    /// those that may begin there. It is kept with the next [`Shared::keep_counts`].
    pub fn count(&self, node: &NodeName, issued: i64, told: &Told) {
        if self.revoked(node).is_none_or(|before| issued >= before) {
            let registry = self.0.registry.lock();
            let is_on = |rule: &RuleName| {
                registry.source_of(rule).is_some_and(|source| source.may_begin_on(node))
            };
            self.0.counts.lock().hear(&node.0, told, is_on);
        }
    }

    /// The same of this process.
    pub fn count_own(&self, told: &Told) {
        let registry = self.0.registry.lock();
        self.0.counts.lock().hear(CLOUD, told, |rule| registry.has(&key_of(rule)));
    }

    /// What Rules have counted, over all nodes.
    pub fn counts(&self) -> BTreeMap<RuleName, Counted> {
        self.0.counts.lock().sums()
    }

    /// What they have counted in earlier lives of this process.
    pub fn own_counts(&self) -> Vec<(RuleName, Tally)> {
        self.0.counts.lock().of(CLOUD)
    }

    /// Keeps what was counted, and returns when that is kept.
    pub async fn keep_counts(&self) {
        let Some(store) = &self.0.store else { return };
        let Some(room) = store.room().await else { return };
        let counts = self.0.counts.lock().take_unkept();
        if !counts.is_empty() {
            let kept = room.keep(Vec::new(), counts);
            self.note(kept.await.unwrap_or_else(|_| Err(Arc::new(CommitError::Closed))));
        }
    }

    /// Every record that counts. Bodies are shared, keys are copies.
    pub fn records(&self) -> Vec<Put> {
        let registry = self.0.registry.lock();
        let put = |(key, body): (&Key, &bytes::Bytes)| Put { key: key.clone(), body: body.clone() };
        registry.records().map(put).collect()
    }

    /// Begins a conversation with an agent.
    ///
    /// # Errors
    /// A Hello that no conversation can begin with.
    pub fn talk(&self, hello: &Hello) -> Result<Talk, Violation> {
        let session = Session::begin(&mut self.0.registry.lock(), hello, now())?;
        let (session, heard) = (Mutex::new(session), Notify::new());
        Ok(Talk { shared: self.clone(), session, heard })
    }

    /// Changes the registry, and returns when that is kept.
    async fn change(&self, change: impl FnOnce(&mut Registry) -> Vec<Write>) {
        let room = match &self.0.store {
            Some(store) => store.room().await,
            None => None,
        };
        // From here to the queue nothing waits: what is decided first is kept first, and is kept
        // also when the caller goes away.
        let (kept, revision) = {
            let mut registry = self.0.registry.lock();
            let writes = change(&mut registry);
            if writes.iter().any(|write| write.key.kind == Kind::Revocation) {
                self.0.revoked.send_replace(Arc::new(registry.revocations()));
            }
            self.settle_counts(&registry, &writes);
            let kept = room.filter(|_| !writes.is_empty());
            let kept = kept.map(|room| room.keep(writes, Vec::new()));
            (kept, registry.revision())
        };
        self.0.changed.send_if_modified(|known| {
            let news = revision > *known;
            *known = revision.max(*known);
            news
        });
        if let Some(kept) = kept {
            self.note(kept.await.unwrap_or_else(|_| Err(Arc::new(CommitError::Closed))));
        }
    }

    /// With a Rule goes what it counted, and with a change of it what was wrong before.
    fn settle_counts(&self, registry: &Registry, writes: &[Write]) {
        let keys = || writes.iter().map(|write| &write.key);
        if keys().any(|key| key.kind == Kind::Endpoint) {
            self.0.counts.lock().calm(None);
        }
        for key in keys().filter(|key| key.kind == Kind::Rule) {
            let rule = RuleName::new(&key.namespace, &key.name);
            match registry.has(key) {
                true => self.0.counts.lock().calm(Some(&rule)),
                false => self.0.counts.lock().forget(&rule),
            }
        }
    }

    fn note(&self, kept: Outcome) {
        let trouble = kept.err().map(|error| error.to_string());
        let mut known = self.0.trouble.lock();
        match &trouble {
            Some(trouble) if known.is_none() => {
                tracing::error!("the registry is not kept: {trouble}; its changes count meanwhile");
            }
            None if known.is_some() => tracing::info!("the registry is kept again"),
            Some(_) | None => {}
        }
        *known = trouble;
    }
}

fn key_of(rule: &RuleName) -> Key {
    let RuleName { namespace, name } = rule.clone();
    Key { kind: Kind::Rule, namespace, name }
}

impl Talk {
    /// Hears the agent: `ack` and `digest`.
    ///
    /// # Errors
    /// [`Violation`]: tell the agent ([`Violation::refused`]) and end.
    pub fn hear(&self, body: &Body) -> Result<(), Violation> {
        let mut registry = self.shared.0.registry.lock();
        self.session.lock().on(&mut registry, body, now())?;
        self.heard.notify_one();
        Ok(())
    }

    /// What the agent is to hear next; waits until there is something. Dropping the future loses
    /// nothing.
    pub async fn next(&self) -> Said {
        let mut changed = self.shared.changed();
        loop {
            changed.mark_unchanged();
            let due = {
                let mut registry = self.shared.0.registry.lock();
                let mut session = self.session.lock();
                if let Some(said) = session.next(&mut registry, now()) {
                    return said;
                }
                session.due()
            };
            tokio::select! {
                () = self.heard.notified() => {}
                // The sender lives in `shared`.
                Ok(()) = changed.changed() => {}
                () = tokio::time::sleep_until(due.into()) => {}
            }
        }
    }

    /// Up to where the agent has stored everything.
    pub fn acknowledged(&self) -> u64 {
        self.session.lock().acknowledged()
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.session.lock().end(&mut self.shared.0.registry.lock());
    }
}

#[cfg(test)]
mod tests;
