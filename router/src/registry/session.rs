//! The conversation with one agent: what it is to hear next, given what it holds.
//!
//! One step is out at a time. The next is made from what the agent holds then and what the records
//! are then, so that a slow agent gets of each record only the last change, and nothing is queued
//! for it. [`Session::next`] gives one Message at a time; with [`Said::Delta`] of many parts it is
//! asked again, whenever the Link has room.

use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use edgemesh_proto::message::{Ack, BUCKETS, Body, Held, Hello, Refused, Selector};

use crate::registry::Registry;
use crate::registry::walk::Walk;

/// An agent that has heard nothing for so long is asked for its digest.
pub const DIGEST_EVERY: Duration = Duration::from_secs(300);
/// Longest lists of a selector.
const MAX_SELECTED: usize = 64;

/// One agent's conversation.
#[derive(Debug)]
pub struct Session {
    selector: Selector,
    /// What the agent holds, as it counts: a revision of this epoch, else 0.
    number: u64,
    /// Everything that concerns it up to here is with the agent, or needs no telling.
    cursor: u64,
    acknowledged: u64,
    state: State,
    ask_at: Instant,
}

#[derive(Debug)]
enum State {
    /// Nothing is out.
    Idle,
    /// It is to be asked what it holds.
    Asking,
    Sending(Walk),
    /// The step that leads there is out.
    Waiting {
        to: u64,
    },
    /// The question is out, asked at that revision.
    Asked {
        at: u64,
    },
}

/// What the agent is to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// The protobuf of a [`edgemesh_proto::record::Delta`], shared with other sessions that send
    /// the same. See [`edgemesh_proto::message::Message::encode_with_delta`].
    Delta(Bytes),
    /// What the agent is to compare with.
    Held(Held),
}

/// What an agent may not say; the conversation is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Revisions only grow within a conversation.
    #[error("the agent's revisions go backwards: {told} after {known}")]
    Backwards {
        /// Acknowledged before.
        known: u64,
        /// Told.
        told: u64,
    },
    /// A selector without end.
    #[error("the agent's selector has {0} entries: at most {MAX_SELECTED}")]
    Selector(usize),
    /// What only a registry says.
    #[error("`{0}` is nothing that an agent says of its records")]
    Unexpected(&'static str),
}

impl Violation {
    /// As the agent is told.
    pub fn refused(&self) -> Refused {
        let label = match self {
            Self::Backwards { .. } => "revisionBackwards",
            Self::Selector(_) => "badSelector",
            Self::Unexpected(_) => "unexpected",
        };
        Refused { label: label.to_owned(), text: self.to_string(), retry_after_ms: 0 }
    }
}

impl Session {
    /// Begins with what an agent says that it holds. [`Session::end`] must follow.
    ///
    /// # Errors
    /// A selector that is too long.
    pub fn begin(registry: &mut Registry, hello: &Hello, now: Instant) -> Result<Self, Violation> {
        let entries = hello.selector.zones.len().max(hello.selector.labels.len());
        if entries > MAX_SELECTED {
            return Err(Violation::Selector(entries));
        }
        let selector = registry.enter(&hello.selector);
        let known = hello.epoch == registry.epoch() && hello.revision <= registry.revision();
        let number = if known { hello.revision } else { 0 };
        let mut new = Self {
            selector,
            number,
            cursor: number,
            acknowledged: number,
            state: State::Idle,
            ask_at: now,
        };
        new.state = new.opening(registry, hello);
        Ok(new)
    }

    fn opening(&mut self, registry: &mut Registry, hello: &Hello) -> State {
        let ours = hello.epoch == registry.epoch();
        if ours && hello.revision > registry.revision() {
            // It counts further than this registry has: nothing that it says can be trusted, and
            // nothing but a reset leads it back.
            return self.everything(registry);
        }
        if hello.digest == registry.views[&self.selector].sums().whole() {
            let current = ours && hello.revision == registry.revision();
            return if current { State::Idle } else { self.adopting(registry) };
        }
        if hello.digest == [0; 32] {
            return self.everything(registry);
        }
        match ours && hello.revision >= registry.floor() {
            true => State::Sending(Walk::changes(self.number, self.cursor)),
            false => State::Asking,
        }
    }

    fn everything(&mut self, registry: &mut Registry) -> State {
        State::Sending(Walk::everything(registry, &self.selector))
    }

    /// It has what the registry has now, under another number.
    const fn adopting(&self, registry: &Registry) -> State {
        State::Sending(Walk::adopting(self.number, registry.revision()))
    }

    /// Up to where the agent has stored everything.
    pub const fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// It has heard everything, and answered.
    pub fn is_settled(&self, registry: &Registry) -> bool {
        matches!(self.state, State::Idle) && self.cursor == registry.revision()
    }

    /// When [`Session::next`] has something to say although nothing changed.
    pub const fn due(&self) -> Instant {
        self.ask_at
    }

    /// Hears the agent: `ack` and `digest`.
    ///
    /// # Errors
    /// [`Violation`], to be told to the agent: the conversation is over.
    pub fn on(
        &mut self,
        registry: &mut Registry,
        body: &Body,
        now: Instant,
    ) -> Result<(), Violation> {
        match body {
            Body::Ack(ack) => self.on_ack(registry, *ack, now),
            Body::Held(held) if held.buckets.is_empty() => {
                // It shows it, but could not store it: nothing is acknowledged, and it goes on.
                if held.epoch == registry.epoch() {
                    self.answered(held.revision, now);
                }
                Ok(())
            }
            Body::Held(held) => self.on_held(registry, held),
            Body::Hello(_)
            | Body::Welcome(_)
            | Body::Delta(_)
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
            | Body::Ranges(_) => Err(Violation::Unexpected(body.operation())),
        }
    }

    /// What the agent is to hear next; `None` = nothing until it answers, something changes, or
    /// [`Session::due`].
    pub fn next(&mut self, registry: &mut Registry, now: Instant) -> Option<Said> {
        loop {
            match &mut self.state {
                State::Waiting { .. } | State::Asked { .. } => return None,
                State::Asking => return Some(self.ask(registry)),
                State::Idle if self.cursor < registry.floor() => self.state = State::Asking,
                State::Idle if self.cursor < registry.revision() => {
                    self.state = State::Sending(Walk::changes(self.number, self.cursor));
                }
                State::Idle if now >= self.ask_at => self.state = State::Asking,
                State::Idle => return None,
                State::Sending(walk) => {
                    let part = walk.part(registry, &self.selector);
                    if let Some(to) = part.ends {
                        self.cursor = to;
                        self.state = match part.delta.is_empty() {
                            true => State::Idle,
                            false => State::Waiting { to },
                        };
                    }
                    if !part.delta.is_empty() {
                        return Some(Said::Delta(part.delta));
                    }
                }
            }
        }
    }

    /// The conversation is over.
    pub fn end(&self, registry: &mut Registry) {
        registry.leave(&self.selector);
    }

    fn ask(&mut self, registry: &Registry) -> Said {
        let (epoch, revision) = (registry.epoch(), registry.revision());
        let digest = registry.views[&self.selector].sums().whole();
        self.state = State::Asked { at: revision };
        Said::Held(Held { epoch, revision, digest, buckets: Vec::new() })
    }

    fn on_ack(&mut self, registry: &mut Registry, ack: Ack, now: Instant) -> Result<(), Violation> {
        if ack.epoch != registry.epoch() {
            return Ok(()); // it speaks of what it had before this conversation
        }
        if ack.revision > registry.revision() {
            self.state = self.everything(registry);
            return Ok(());
        }
        if ack.revision < self.acknowledged {
            let (known, told) = (self.acknowledged, ack.revision);
            return Err(Violation::Backwards { known, told });
        }
        self.acknowledged = ack.revision;
        self.answered(ack.revision, now);
        Ok(())
    }

    /// The agent has what was out, whole.
    fn answered(&mut self, revision: u64, now: Instant) {
        let out = match self.state {
            State::Waiting { to } => to,
            State::Asked { at } => at,
            State::Idle | State::Asking | State::Sending(_) => return,
        };
        if revision == out {
            (self.number, self.cursor) = (revision, self.cursor.max(revision));
            (self.state, self.ask_at) = (State::Idle, now + DIGEST_EVERY);
        }
    }

    /// The agent holds something else: it gets the buckets that differ.
    fn on_held(&mut self, registry: &mut Registry, held: &Held) -> Result<(), Violation> {
        let ours = held.epoch == registry.epoch();
        if ours && held.revision < self.acknowledged {
            let (known, told) = (self.acknowledged, held.revision);
            return Err(Violation::Backwards { known, told });
        }
        match self.state {
            // What it held before; the answer to what is sent comes later.
            State::Sending(_) | State::Asking => return Ok(()),
            State::Idle | State::Waiting { .. } | State::Asked { .. } => {}
        }
        if ours && held.revision > registry.revision() {
            self.state = self.everything(registry);
            return Ok(());
        }
        self.number = if ours { held.revision } else { 0 };
        let differing = registry.views[&self.selector].sums().differing(&held.buckets);
        self.state = if differing.is_empty() {
            self.adopting(registry)
        } else if differing.len() > MOST_BUCKETS {
            self.everything(registry)
        } else {
            State::Sending(Walk::buckets(registry, self.number, differing))
        };
        Ok(())
    }
}

/// Where more differ, everything is sent, which is encoded once for all.
const MOST_BUCKETS: usize = BUCKETS / 2;

impl fmt::Display for Session {
    /// For logs: up to where, and what is out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Idle => "idle",
            State::Asking | State::Asked { .. } => "comparing",
            State::Sending(_) => "sending",
            State::Waiting { .. } => "waiting",
        };
        write!(f, "{state} at {}", self.acknowledged)
    }
}
