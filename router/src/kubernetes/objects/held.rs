//! What is held of objects, by kind and name.

use std::collections::{BTreeMap, HashMap};

use crate::kubernetes::objects::Name;

/// See the module.
#[derive(Debug)]
pub(super) struct Held<T>(HashMap<&'static str, BTreeMap<Name, T>>);

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Held<T> {
    pub(super) fn count(&self, kind: &str) -> usize {
        self.0.get(kind).map_or(0, BTreeMap::len)
    }

    pub(super) fn has(&self, kind: &str, name: &Name) -> bool {
        self.get(kind, name).is_some()
    }

    pub(super) fn names(&self, kind: &str) -> Vec<Name> {
        self.0.get(kind).map(|of| of.keys().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn get(&self, kind: &str, name: &Name) -> Option<&T> {
        self.0.get(kind)?.get(name)
    }

    pub(super) fn insert(&mut self, kind: &'static str, name: Name, held: T) {
        self.0.entry(kind).or_default().insert(name, held);
    }

    pub(super) fn remove(&mut self, kind: &str, name: &Name) -> Option<T> {
        self.0.get_mut(kind)?.remove(name)
    }

    /// Everything of a kind, which is held no more.
    pub(super) fn take(&mut self, kind: &str) -> impl Iterator<Item = T> + use<T> {
        self.0.remove(kind).unwrap_or_default().into_values()
    }

    /// Of every kind.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.0.values().flat_map(BTreeMap::values)
    }
}
