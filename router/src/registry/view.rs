//! What one selector sees of the records: which nodes, with digests kept up to date.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use edgemesh_core::digest::{Digest, Sums};
use edgemesh_proto::message::Selector;
use edgemesh_proto::record::{Node, NodeName};

use crate::registry::effective::Home;
use crate::registry::entries::Entry;

/// The records that a selector selects.
#[derive(Debug)]
pub(super) struct View {
    selector: Selector,
    /// Those of its nodes; of no use where everything is selected.
    nodes: BTreeSet<NodeName>,
    sums: Sums,
    /// Sessions that see it.
    pub(super) users: usize,
    /// Everything, encoded, for as long as somebody sends it.
    pub(super) full: Weak<Full>,
    /// The step that was made last: agents that were in step get the same one.
    pub(super) recent: Option<Recent>,
}

/// All of a view at one revision, encoded once for everybody who needs it.
#[derive(Debug)]
pub(super) struct Full {
    pub(super) revision: u64,
    /// The first one resets; all say that more follows.
    pub(super) parts: Vec<Bytes>,
}

/// A first part of changes, encoded.
#[derive(Clone, Debug)]
pub(super) struct Recent {
    /// The agent's number, where the walk began, the registry's number.
    pub(super) basis: [u64; 3],
    pub(super) part: Part,
}

/// An encoded part of a step of changes, and how the walk goes on.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Empty: there was nothing to say.
    pub(super) bytes: Bytes,
    /// Where the next part begins.
    pub(super) cursor: u64,
    /// It is not the last one.
    pub(super) more: bool,
}

impl View {
    pub(super) fn new(selector: Selector) -> Self {
        Self {
            selector,
            nodes: BTreeSet::new(),
            sums: Sums::default(),
            users: 0,
            full: Weak::new(),
            recent: None,
        }
    }

    pub(super) const fn sums(&self) -> &Sums {
        &self.sums
    }

    /// Whether it sees a record that lives there.
    pub(super) fn sees(&self, home: &Home) -> bool {
        self.selector.is_everything()
            || match home {
                Home::Everywhere => true,
                Home::On(nodes) => nodes.iter().any(|node| self.nodes.contains(node)),
                Home::Itself(node) => self.selector.selects(node),
            }
    }

    /// Whether it may have seen a record that was there.
    pub(super) fn may_have_seen(&self, entry: &Entry) -> bool {
        self.selector.is_everything() || entry.has_lived(|node| self.nodes.contains(node))
    }

    /// Takes a node in or out, by its record. `true`: that made a difference.
    pub(super) fn select(&mut self, name: &NodeName, node: Option<&Node>) -> bool {
        if self.selector.is_everything() {
            return false;
        }
        match node.is_some_and(|node| self.selector.selects(node)) {
            true => self.nodes.insert(name.clone()),
            false => self.nodes.remove(name),
        }
    }

    /// Whether [`View::select`] would make a difference.
    pub(super) fn would_select(&self, name: &NodeName, node: Option<&Node>) -> bool {
        let selected = node.is_some_and(|node| self.selector.selects(node));
        !self.selector.is_everything() && selected != self.nodes.contains(name)
    }

    pub(super) fn add(&mut self, bucket: u8, digest: Digest) {
        self.sums.add(bucket, digest);
    }

    pub(super) fn remove(&mut self, bucket: u8, digest: Digest) {
        self.sums.remove(bucket, digest);
    }

    /// Keeps what is sent for whoever needs the same.
    pub(super) fn share(&mut self, full: &Arc<Full>) {
        self.full = Arc::downgrade(full);
    }
}

/// A selector of which order and repetition do not matter.
pub(super) fn canonical(selector: &Selector) -> Selector {
    let mut selector = selector.clone();
    selector.zones.sort_unstable();
    selector.zones.dedup();
    selector
}
