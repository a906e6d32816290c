//! Which of several records of one identity is shown: the registry's, or what a node says itself.
//!
//! Of what runs on a node the node knows best, so its Slices and Workloads stand before the
//! registry's; everything else the registry knows better. What a node says arrives twice, from
//! itself and risen through the registry: the latter is hidden while the former is heard. This
//! node is always heard.

use std::collections::{BTreeMap, BTreeSet};

use edgemesh_proto::record::{Key, Kind, NodeName, Record, Slice};

use crate::snapshot::{Builder, LOCAL_SLICES};
use crate::sync::offer;

/// See the module.
#[derive(Debug)]
pub(super) struct Layers {
    node: NodeName,
    voices: BTreeMap<NodeName, BTreeMap<Key, Record>>,
    /// The registry's records that are not shown.
    under: BTreeMap<Key, Record>,
    /// Those that are shown on a node's word.
    voiced: BTreeSet<Key>,
}

/// What a change of one layer means for what is shown.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) put: Vec<Record>,
    pub(super) delete: Vec<Key>,
}

impl Layers {
    /// Of this node; nothing is known yet.
    pub(super) fn new(node: NodeName) -> Self {
        let voices = BTreeMap::from([(node.clone(), BTreeMap::new())]);
        Self { node, voices, under: BTreeMap::new(), voiced: BTreeSet::new() }
    }

    /// The registry has other records.
    pub(super) fn step(&mut self, put: Vec<Record>, delete: Vec<Key>) -> Shown {
        let mut shown = Shown::default();
        for key in delete {
            self.settle(key, None, true, &mut shown);
        }
        for record in put {
            self.settle(record.key(), Some(record), true, &mut shown);
        }
        shown
    }

    /// A node says `records`, and nothing else. `before` = what is shown.
    pub(super) fn hear(
        &mut self,
        node: &NodeName,
        records: BTreeMap<Key, Record>,
        before: &Builder,
    ) -> Shown {
        let mut touched = match self.voices.contains_key(node) {
            true => BTreeSet::new(),
            false => self.risen(node, before),
        };
        let known = self.voices.insert(node.clone(), records).unwrap_or_default();
        let records = &self.voices[node];
        touched.extend(known.keys().filter(|key| !records.contains_key(*key)).cloned());
        let fresh = records.iter().filter(|(key, record)| known.get(*key) != Some(*record));
        touched.extend(fresh.map(|(key, _)| key.clone()));
        self.again(touched, before)
    }

    /// A node is heard no more: what rose from it counts.
    pub(super) fn hush(&mut self, node: &NodeName, before: &Builder) -> Shown {
        if *node == self.node {
            return Shown::default();
        }
        let Some(known) = self.voices.remove(node) else { return Shown::default() };
        let mut touched = self.risen(node, before);
        touched.extend(known.into_keys());
        self.again(touched, before)
    }

    /// What a node says.
    pub(super) fn heard(&self, node: &NodeName) -> Option<&BTreeMap<Key, Record>> {
        self.voices.get(node)
    }

    /// Whether it is shown on a node's word, and not on the registry's.
    pub(super) fn is_voiced(&self, key: &Key) -> bool {
        self.voiced.contains(key)
    }

    /// The registry's records by which others see what runs on `node`.
    fn risen(&self, node: &NodeName, before: &Builder) -> BTreeSet<Key> {
        let of_node = |key: &Key, slice: &Slice| rose_from(node, &key.name, slice);
        let shown = before.all_slices().map(|(name, slice)| {
            (Key { kind: Kind::Slice, namespace: name.namespace, name: name.name }, slice)
        });
        let shown = shown.filter(|(key, slice)| of_node(key, slice)).map(|(key, _)| key);
        let under = self
            .under
            .iter()
            .filter(|(key, record)| record.body.slice().is_some_and(|slice| of_node(key, slice)));
        shown.chain(under.map(|(key, _)| key.clone())).collect()
    }

    /// Decides anew about records of which the registry says what it said before.
    fn again(&mut self, touched: BTreeSet<Key>, before: &Builder) -> Shown {
        let mut shown = Shown::default();
        for key in touched {
            let theirs = || (!self.voiced.contains(&key)).then(|| before.record(&key)).flatten();
            let synced = self.under.get(&key).cloned().or_else(theirs);
            self.settle(key, synced, false, &mut shown);
        }
        shown
    }

    /// Decides what is shown, given what the registry says. `fresh`: that is new.
    fn settle(&mut self, key: Key, synced: Option<Record>, fresh: bool, shown: &mut Shown) {
        let voice = self.voice(&key);
        let yields = synced.as_ref().is_some_and(|record| {
            self.is_hidden(record) || (voice.is_some() && knows_better(key.kind))
        });
        let (was_voiced, was_under) = (self.voiced.remove(&key), self.under.remove(&key).is_some());
        let synced = match synced {
            Some(record) if !yields => {
                if fresh || was_voiced || was_under {
                    shown.put.push(record);
                }
                return;
            }
            other => other,
        };
        if let Some(hidden) = synced {
            self.under.insert(key.clone(), hidden);
        }
        match voice {
            Some(record) => {
                self.voiced.insert(key);
                if !(fresh && was_voiced) {
                    shown.put.push(record);
                }
            }
            None => shown.delete.push(key),
        }
    }

    /// What nodes say of it: this one, else the first by name.
    fn voice(&self, key: &Key) -> Option<Record> {
        let own = self.voices[&self.node].get(key);
        own.or_else(|| self.voices.values().find_map(|said| said.get(key))).cloned()
    }

    /// A Slice that rose from a node that is heard itself, or that no registry can mean.
    fn is_hidden(&self, record: &Record) -> bool {
        record.body.slice().is_some_and(|slice| {
            record.name.starts_with(LOCAL_SLICES)
                || self.voices.keys().any(|node| rose_from(node, &record.name, slice))
        })
    }
}

/// Whether a Slice of the registry is what `node` said of itself.
fn rose_from(node: &NodeName, name: &str, slice: &Slice) -> bool {
    name.starts_with(&offer::prefix(node))
        && slice.backends.iter().all(|backend| backend.node.as_ref() == Some(node))
}

/// Whether a node knows such records better than the registry.
const fn knows_better(kind: Kind) -> bool {
    match kind {
        Kind::Slice | Kind::Workload => true,
        Kind::Service
        | Kind::Node
        | Kind::Policy
        | Kind::Route
        | Kind::Endpoint
        | Kind::Rule
        | Kind::Revocation => false,
    }
}
