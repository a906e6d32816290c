//! An agent's side of the sync: what it holds, by identity and digest, and what it makes of the registry's words.
//!
//! Pure: no I/O, no clock. The driver hears a [`Body`], asks [`Replica::on`], and carries out the
//! [`Reaction`]; after an [`Reaction::Apply`] it says [`Replica::done`], which gives the answer. Bodies
//! of records are not kept here and not looked into: one that this version cannot read counts
//! in the digest like any other.
//!
//! A step may come in parts ([`Delta::more`]). They are staged, within bounds, and applied together;
//! a part with `reset` or `buckets` voids what was staged of these before.

mod staging;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use edgemesh_proto::message::{Ack, BUCKETS, Body, Held};
use edgemesh_proto::record::{Delta, Key, Put};

use crate::digest::{Digest, Hasher, Sums};
use crate::sync::replica::staging::{Staged, Staging};

pub use crate::sync::replica::staging::{STAGED_BYTES, STAGED_RECORDS};

/// The registry's records as one agent holds them.
#[derive(Debug)]
pub struct Replica {
    epoch: [u8; 16],
    revision: u64,
    held: Box<[BTreeMap<Key, Digest>]>,
    sums: Sums,
    hasher: Hasher,
    staging: Option<Staging>,
    /// What was applied last is to be answered.
    owed: Owed,
    /// What is held is visible, but not durable.
    unsaved: bool,
    /// Mending did not help: only the registry asks again.
    unlike: bool,
}

/// What an agent holds, as [`edgemesh_proto::message::Hello`] says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// The registry that the revision belongs to; zeros = none.
    pub epoch: [u8; 16],
    /// Up to where.
    pub revision: u64,
    /// Digest of it.
    pub digest: [u8; 32],
}

/// A whole step, as far as it changes anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What is held after it.
    pub to: Holding,
    /// Records that are new or different.
    pub put: Vec<Put>,
    /// Records that are gone; all of them were there.
    pub delete: Vec<Key>,
    /// It brought everything, or whole buckets.
    pub whole: bool,
}

/// What is to be done about what was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing yet.
    Nothing,
    /// Make the step durable and visible, then call [`Replica::done`].
    Apply(Step),
    /// Answer.
    Say(Body),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Nothing,
    /// The records are what the registry says they are, or it did not say.
    Acknowledgement,
    /// They are not.
    Mending,
}

/// Why a conversation cannot go on. The next one begins with what is held.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Revisions only grow within an epoch.
    #[error(
        "the registry's revisions go backwards: {told} after {held} of one epoch; is an old copy of \
         it in use?"
    )]
    Backwards {
        /// Held here.
        held: u64,
        /// Told.
        told: u64,
    },
    /// A step that does not begin where the last one ended.
    #[error("a step of the records begins at {from}, but {held} is held: one was lost")]
    Gap {
        /// Held here.
        held: u64,
        /// Where it begins.
        from: u64,
    },
    /// Parts of different steps.
    #[error("a step of the records is interrupted by another one ({0})")]
    Interrupted(&'static str),
    /// A step in parts without end.
    #[error(
        "a step of the records is larger than {STAGED_RECORDS} records or {STAGED_BYTES} bytes"
    )]
    TooLarge,
    /// Somebody who is no registry.
    #[error("`{0}` is nothing that a registry says")]
    Unexpected(&'static str),
    /// A step before the last one was applied: a defect of the driver.
    #[error("a step of the records comes while another one is applied")]
    Early,
}

impl Replica {
    /// Begins with what is held already, by digest.
    pub fn new(
        epoch: [u8; 16],
        revision: u64,
        all: impl IntoIterator<Item = (Key, Digest)>,
    ) -> Self {
        let mut new = Self {
            epoch,
            revision,
            held: vec![BTreeMap::new(); BUCKETS].into(),
            sums: Sums::default(),
            hasher: Hasher::default(),
            staging: None,
            owed: Owed::Nothing,
            unsaved: false,
            unlike: false,
        };
        for (key, digest) in all {
            let bucket = new.hasher.bucket(&key);
            new.put(bucket, key, digest);
        }
        new
    }

    /// What is held.
    pub fn holding(&self) -> Holding {
        Holding { epoch: self.epoch, revision: self.revision, digest: self.sums.whole() }
    }

    /// Which of those that are held are not among `others`.
    pub fn gone(&self, others: &BTreeSet<Key>) -> Vec<Key> {
        let held = self.held.iter().flat_map(BTreeMap::keys);
        held.filter(|key| !others.contains(*key)).cloned().collect()
    }

    /// The records are not those of the registry, and mending did not help.
    pub const fn is_unlike(&self) -> bool {
        self.unlike
    }

    /// A conversation begins: what was staged of the one before is void. Says what to tell in Hello.
    pub fn begin(&mut self) -> Holding {
        (self.staging, self.owed) = (None, Owed::Nothing);
        self.unlike = false;
        self.holding()
    }

    /// Hears the registry.
    ///
    /// # Errors
    /// [`Broken`], to be told to the registry: the conversation is over.
    pub fn on(&mut self, body: Body) -> Result<Reaction, Broken> {
        if self.owed != Owed::Nothing {
            return Err(Broken::Early);
        }
        match body {
            Body::Delta(delta) => self.on_delta(delta),
            Body::Held(held) => self.on_held(&held),
            Body::Hello(_)
            | Body::Welcome(_)
            | Body::Ack(_)
            | Body::Offer(_)
            | Body::Request(_)
            | Body::Answer(_)
            | Body::Connect(_)
            | Body::Accepted(_)
            | Body::Refused(_)
            | Body::Join(_)
            | Body::Joined(_)
            | Body::DialBack(_)
            | Body::Ping(_)
            | Body::Counts(_)
            | Body::Ranges(_) => Err(Broken::Unexpected(body.operation())),
        }
    }

    /// The step that was given is visible, and `stored` or not. Gives the answer.
    pub fn done(&mut self, stored: bool) -> Body {
        self.unsaved = !stored;
        match std::mem::replace(&mut self.owed, Owed::Nothing) {
            Owed::Mending => self.mend(),
            Owed::Nothing | Owed::Acknowledgement => self.has_it(),
        }
    }

    /// All that is held is durable now. Gives the acknowledgement that [`Replica::done`] could not
    /// give.
    pub const fn saved(&mut self) -> Body {
        self.unsaved = false;
        self.acknowledge()
    }

    /// What the registry said is here.
    fn has_it(&self) -> Body {
        match self.unsaved {
            false => self.acknowledge(),
            // Visible, not durable: the registry goes on, but counts on nothing.
            true => self.said(Vec::new()),
        }
    }

    const fn acknowledge(&self) -> Body {
        Body::Ack(Ack { epoch: self.epoch, revision: self.revision })
    }

    fn mend(&self) -> Body {
        self.said(self.sums.buckets())
    }

    fn said(&self, buckets: Vec<[u8; 32]>) -> Body {
        let Holding { epoch, revision, digest } = self.holding();
        Body::Held(Held { epoch, revision, digest, buckets })
    }

    fn on_held(&mut self, held: &Held) -> Result<Reaction, Broken> {
        if self.staging.is_some() {
            return Err(Broken::Interrupted("a question for the digest"));
        }
        self.forwards(held.epoch, held.revision)?;
        if held.digest != self.sums.whole() {
            return Ok(Reaction::Say(self.mend()));
        }
        self.unlike = false;
        if (held.epoch, held.revision) == (self.epoch, self.revision) {
            return Ok(Reaction::Say(self.has_it()));
        }
        Ok(self.apply(held.epoch, held.revision, Some(held.digest), None))
    }

    fn on_delta(&mut self, delta: Delta) -> Result<Reaction, Broken> {
        let Delta { epoch, from, to, reset, more, digest, .. } = delta;
        // Of a step that resets, the later parts too lead to a number that may be lower.
        let resets = reset || self.staging.as_ref().is_some_and(Staging::resets);
        if !resets {
            self.forwards(epoch, to)?;
        }
        let mut staging = match self.staging.take() {
            Some(staging) if staging.continues(&delta) => staging,
            Some(_) => return Err(Broken::Interrupted("its parts do not belong together")),
            None => {
                self.follows(epoch, from, reset)?;
                Staging::new(epoch, from)
            }
        };
        staging.take(delta, &mut self.hasher)?;
        if more {
            self.staging = Some(staging);
            return Ok(Reaction::Nothing);
        }
        Ok(self.apply(epoch, to, digest, Some(staging)))
    }

    fn forwards(&self, epoch: [u8; 16], told: u64) -> Result<(), Broken> {
        match epoch == self.epoch && told < self.revision {
            true => Err(Broken::Backwards { held: self.revision, told }),
            false => Ok(()),
        }
    }

    /// Whether a step begins at what is held. One of another epoch has no number to begin at.
    fn follows(&self, epoch: [u8; 16], from: u64, reset: bool) -> Result<(), Broken> {
        let held = if epoch == self.epoch { self.revision } else { 0 };
        if reset || from == held {
            return Ok(());
        }
        match from < held {
            true => Err(Broken::Backwards { held, told: from }),
            false => Err(Broken::Gap { held, from }),
        }
    }

    fn apply(
        &mut self,
        epoch: [u8; 16],
        revision: u64,
        told: Option<[u8; 32]>,
        staging: Option<Staging>,
    ) -> Reaction {
        (self.epoch, self.revision) = (epoch, revision);
        let mut step = Step::default();
        if let Some(staging) = staging {
            step.whole = staging.is_whole();
            self.take_in(staging, &mut step);
        }
        step.to = self.holding();
        let like = told.is_none_or(|told| told == step.to.digest);
        self.owed =
            if like || step.whole || self.unlike { Owed::Acknowledgement } else { Owed::Mending };
        if told.is_some() {
            // What brought everything and is still not right cannot be mended from here.
            self.unlike = !like && (step.whole || self.unlike);
        }
        Reaction::Apply(step)
    }

    /// Makes the staged parts what is held, and notes what that changes.
    fn take_in(&mut self, staging: Staging, step: &mut Step) {
        for bucket in staging.voided() {
            let held = self.held[usize::from(bucket)].keys();
            step.delete.extend(held.filter(|key| !staging.puts(key)).cloned());
        }
        let (put, delete) = staging.into_parts();
        step.delete.extend(delete);
        step.delete.retain(|key| {
            let bucket = self.hasher.bucket(key);
            let gone = self.held[usize::from(bucket)].remove(key);
            gone.is_some_and(|digest| {
                self.sums.remove(bucket, digest);
                true
            })
        });
        for (key, Staged { body, digest, bucket }) in put {
            if self.put(bucket, key.clone(), digest) {
                step.put.push(Put { key, body });
            }
        }
    }

    /// `true`: it is another one than before.
    fn put(&mut self, bucket: u8, key: Key, digest: Digest) -> bool {
        let before = self.held[usize::from(bucket)].insert(key, digest);
        if before == Some(digest) {
            return false;
        }
        if let Some(before) = before {
            self.sums.remove(bucket, before);
        }
        self.sums.add(bucket, digest);
        true
    }
}
