//! A step for one agent, in parts: everything, some buckets, or what changed.
//!
//! Nothing of a step is kept but how far it has come. What changes meanwhile comes last, so that
//! whoever has all parts has exactly the records of the last one's revision.

use std::sync::Arc;

use bytes::Bytes;
use edgemesh_proto::message::Selector;
use edgemesh_proto::record::{Delta, Key, Put};

use crate::registry::Registry;
use crate::registry::view::{Full, Part, Recent, View};

/// What a record takes besides its texts.
const OVERHEAD: usize = 24;

/// How far a step has come.
#[derive(Debug)]
pub(super) struct Walk {
    /// What the agent holds; 0 of another epoch, and where everything is sent.
    from: u64,
    phase: Phase,
    /// Bytes of the last phase.
    sent: usize,
}

#[derive(Debug)]
enum Phase {
    Everything { full: Arc<Full>, next: usize },
    Buckets { buckets: Vec<u8>, first: bool, after: Option<Arc<Key>>, since: u64 },
    Changes { cursor: u64, first: bool },
}

/// One part of a step.
pub(super) struct Said {
    /// The protobuf of a Delta. Empty = there is nothing to say.
    pub(super) delta: Bytes,
    /// The step ends here, at this revision.
    pub(super) ends: Option<u64>,
}

impl Walk {
    pub(super) fn everything(registry: &mut Registry, selector: &Selector) -> Self {
        let full = registry.full(selector);
        Self { from: 0, phase: Phase::Everything { full, next: 0 }, sent: 0 }
    }

    pub(super) const fn buckets(registry: &Registry, from: u64, buckets: Vec<u8>) -> Self {
        let since = registry.revision();
        let phase = Phase::Buckets { buckets, first: true, after: None, since };
        Self { from, phase, sent: 0 }
    }

    pub(super) const fn changes(from: u64, cursor: u64) -> Self {
        Self { from, phase: Phase::Changes { cursor, first: true }, sent: 0 }
    }

    /// As [`Walk::changes`], and said even if nothing has changed.
    pub(super) const fn adopting(from: u64, cursor: u64) -> Self {
        Self { from, phase: Phase::Changes { cursor, first: false }, sent: 0 }
    }

    /// The next part.
    pub(super) fn part(&mut self, registry: &mut Registry, selector: &Selector) -> Said {
        if let Phase::Changes { cursor, .. } | Phase::Buckets { since: cursor, .. } = &self.phase
            && *cursor < registry.entries.floor()
        {
            // Deletes that it needs are forgotten.
            *self = Self::everything(registry, selector);
        }
        match &mut self.phase {
            Phase::Everything { full, next } => {
                let delta = full.parts[*next].clone();
                *next += 1;
                if *next == full.parts.len() {
                    let cursor = full.revision;
                    self.phase = Phase::Changes { cursor, first: false };
                }
                Said { delta, ends: None }
            }
            Phase::Buckets { .. } => self.of_buckets(registry, selector),
            Phase::Changes { .. } => self.of_changes(registry, selector),
        }
    }

    fn of_buckets(&mut self, registry: &Registry, selector: &Selector) -> Said {
        let Phase::Buckets { buckets, first, after, since } = &mut self.phase else {
            return Said { delta: Bytes::new(), ends: None };
        };
        let view = &registry.views[selector];
        let mut delta = Gathered::new(registry, self.from);
        if std::mem::replace(first, false) {
            delta.delta.buckets.clone_from(buckets);
        }
        let wanted = registry
            .entries
            .after(after.as_ref())
            .filter(|(_, bucket, record)| buckets.contains(bucket) && view.sees(&record.home));
        let mut last = None;
        let mut full = false;
        for (key, _, record) in wanted {
            full = !delta.put(key, &record.body);
            if full {
                break;
            }
            last = Some(key.clone());
        }
        match full {
            true => *after = last,
            false => self.phase = Phase::Changes { cursor: *since, first: false },
        }
        delta.delta.more = true;
        Said { delta: delta.delta.encode().into(), ends: None }
    }

    fn of_changes(&mut self, registry: &mut Registry, selector: &Selector) -> Said {
        let Phase::Changes { cursor, first } = &mut self.phase else {
            return Said { delta: Bytes::new(), ends: None };
        };
        let basis = [self.from, *cursor, registry.revision()];
        let recent = registry.views[selector].recent.as_ref();
        let part = match recent.filter(|recent| *first && recent.basis == basis) {
            Some(recent) => recent.part.clone(),
            None => {
                let part = changes(registry, &registry.views[selector], basis, self.sent);
                if *first && let Some(view) = registry.views.get_mut(selector) {
                    view.recent = Some(Recent { basis, part: part.clone() });
                }
                part
            }
        };
        // The end of a step that has begun must be said, be there anything in it or not.
        let Part { bytes: delta, cursor: reached, more } = part;
        let delta = match delta.is_empty() && !*first {
            true => ending(registry, selector, self.from),
            false => delta,
        };
        self.sent += delta.len();
        (*cursor, *first) = (reached, false);
        Said { delta, ends: (!more).then_some(reached) }
    }
}

/// What changed after the cursor, up to a full part.
fn changes(
    registry: &Registry,
    view: &View,
    [from, mut cursor, revision]: [u64; 3],
    sent: usize,
) -> Part {
    let mut delta = Gathered::new(registry, from);
    let mut full = false;
    for (at, key, entry) in registry.entries.since(cursor) {
        let seen = entry.record.as_ref().filter(|record| view.sees(&record.home));
        full = match seen {
            Some(record) => !delta.put(key, &record.body),
            None if view.may_have_seen(entry) => !delta.delete(key),
            None => false,
        };
        if full {
            break;
        }
        cursor = at;
    }
    let mut delta = delta.delta;
    if full {
        // A step that is cut off says no digest: it is none that the registry has had.
        delta.more = sent < registry.bounds.step_bytes;
        delta.to = cursor;
    } else {
        delta.digest = Some(view.sums().whole());
        cursor = revision;
    }
    let nothing = delta.put.is_empty() && delta.delete.is_empty();
    let bytes = if nothing { Bytes::new() } else { delta.encode().into() };
    Part { bytes, cursor, more: delta.more }
}

/// An empty part that ends a step.
fn ending(registry: &Registry, selector: &Selector, from: u64) -> Bytes {
    let mut delta = Gathered::new(registry, from).delta;
    delta.digest = Some(registry.views[selector].sums().whole());
    delta.encode().into()
}

impl Registry {
    /// Everything that a selector sees, encoded; what somebody sends already, if it is not too old.
    fn full(&mut self, selector: &Selector) -> Arc<Full> {
        let view = &self.views[selector];
        if let Some(full) = view.full.upgrade().filter(|full| self.is_fresh(full)) {
            return full;
        }
        let (mut parts, mut delta) = (Vec::new(), Gathered::new(self, 0));
        delta.delta.reset = true;
        let seen = self.entries.after(None).filter(|(_, _, record)| view.sees(&record.home));
        for (key, _, record) in seen {
            if !delta.put(key, &record.body) {
                parts.push(delta.finish());
                delta = Gathered::new(self, 0);
                delta.put(key, &record.body);
            }
        }
        parts.push(delta.finish());
        let full = Arc::new(Full { revision: self.revision(), parts });
        if let Some(view) = self.views.get_mut(selector) {
            view.share(&full);
        }
        full
    }

    /// What changed since is little, and no delete of it is forgotten.
    fn is_fresh(&self, full: &Full) -> bool {
        full.revision >= self.entries.floor() && self.revision() - full.revision <= STALE
    }
}

/// Changes after which everything is encoded anew: they would take as long to send.
const STALE: u64 = 10_000;

/// A Delta that fills.
struct Gathered {
    delta: Delta,
    bytes: usize,
    most: usize,
}

impl Gathered {
    fn new(registry: &Registry, from: u64) -> Self {
        let (epoch, to) = (registry.epoch(), registry.revision());
        let delta = Delta { epoch, from, to, ..Delta::default() };
        Self { delta, bytes: 0, most: registry.bounds.part_bytes }
    }

    /// `false`: it is full, and the record is not in it.
    fn put(&mut self, key: &Arc<Key>, body: &Bytes) -> bool {
        let fits = self.fits(key, body.len());
        if fits {
            self.delta.put.push(Put { key: Key::clone(key), body: body.clone() });
        }
        fits
    }

    fn delete(&mut self, key: &Arc<Key>) -> bool {
        let fits = self.fits(key, 0);
        if fits {
            self.delta.delete.push(Key::clone(key));
        }
        fits
    }

    fn fits(&mut self, key: &Key, body: usize) -> bool {
        let more = OVERHEAD + key.namespace.len() + key.name.len() + body;
        let fits = self.bytes == 0 || self.bytes + more <= self.most;
        if fits {
            self.bytes += more;
        }
        fits
    }

    fn finish(mut self) -> Bytes {
        self.delta.more = true;
        self.delta.encode().into()
    }
}
