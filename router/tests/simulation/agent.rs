//! An agent of the little world: replica, what it shows, and a disk that may be full or old.

use std::collections::BTreeMap;

use bytes::Bytes;
use edgemesh_core::digest::Hasher;
use edgemesh_core::sync::replica::{Broken, Holding, Reaction, Replica, Step};
use edgemesh_proto::message::{Body, Hello, Selector};
use edgemesh_proto::record::{Key, NodeName};

pub(crate) struct Agent {
    pub(crate) name: NodeName,
    pub(crate) selector: Selector,
    replica: Replica,
    /// What is visible.
    pub(crate) shown: BTreeMap<Key, Bytes>,
    pub(crate) disk: Disk,
    pub(crate) disk_full: bool,
    /// It holds what it says that it holds, and the registry keeps its view: steps lead exactly to
    /// where they say, and nothing needs mending.
    pub(crate) exact: bool,
}

/// What is durable: always a whole state.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    epoch: [u8; 16],
    revision: u64,
    pub(crate) records: BTreeMap<Key, Bytes>,
}

impl Agent {
    pub(crate) fn new(name: &str, selector: Selector) -> Self {
        Self {
            name: NodeName(name.into()),
            selector,
            replica: Replica::new([0; 16], 0, []),
            shown: BTreeMap::new(),
            disk: Disk::default(),
            disk_full: false,
            exact: true,
        }
    }

    pub(crate) fn holding(&self) -> Holding {
        self.replica.holding()
    }

    pub(crate) fn hello(&mut self) -> Hello {
        let Holding { epoch, revision, digest } = self.replica.begin();
        Hello {
            node: self.name.clone(),
            instance: [0; 16],
            generation: 1,
            version: String::new(),
            epoch,
            revision,
            digest,
            selector: self.selector.clone(),
            links: Vec::new(),
            takes_over: false,
        }
    }

    /// Hears the registry; gives the answer, if one is due.
    pub(crate) fn hear(&mut self, body: Body) -> Result<Option<Body>, Broken> {
        let answer = match self.replica.on(body)? {
            Reaction::Nothing => return Ok(None),
            Reaction::Say(body) => body,
            Reaction::Apply(step) => {
                self.show(&step);
                let stored = self.store();
                let answer = self.replica.done(stored);
                let mends = matches!(&answer, Body::Held(held) if !held.buckets.is_empty());
                assert!(!mends || !self.exact, "{} went astray", self.name);
                assert!(!self.replica.is_unlike(), "{} cannot be mended", self.name);
                answer
            }
        };
        self.check(&answer);
        Ok(Some(answer))
    }

    fn show(&mut self, step: &Step) {
        for key in &step.delete {
            assert!(self.shown.remove(key).is_some(), "{key} was not there");
        }
        for put in &step.put {
            let before = self.shown.insert(put.key.clone(), put.body.clone());
            assert_ne!(before.as_ref(), Some(&put.body), "{} did not change", put.key);
        }
        assert_eq!(step.to, self.replica.holding());
    }

    fn store(&mut self) -> bool {
        if self.disk_full {
            return false;
        }
        let Holding { epoch, revision, .. } = self.replica.holding();
        self.disk = Disk { epoch, revision, records: self.shown.clone() };
        true
    }

    /// The disk has room again: what was not acknowledged is.
    pub(crate) fn make_room(&mut self) -> Option<Body> {
        if !std::mem::replace(&mut self.disk_full, false) {
            return None;
        }
        self.store();
        let acknowledgement = self.replica.saved();
        self.check(&acknowledgement);
        Some(acknowledgement)
    }

    /// Nothing is acknowledged that is not durable.
    fn check(&self, answer: &Body) {
        if let Body::Ack(ack) = answer {
            assert_eq!((ack.epoch, ack.revision), (self.disk.epoch, self.disk.revision));
        }
    }

    /// Starts with what `disk` holds.
    pub(crate) fn start_from(&mut self, disk: Disk) {
        let mut hasher = Hasher::default();
        let all = disk.records.iter().map(|(key, body)| (key.clone(), hasher.of(key, body)));
        self.replica = Replica::new(disk.epoch, disk.revision, all.collect::<Vec<_>>());
        self.shown = disk.records.clone();
        self.disk = disk;
    }
}
