//! A direct Link for each lane that is busy: what one lane says on the Link of another goes from thread to
//! thread, and both wait for one another (`benches/NOTES.md`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::io::now;
use crate::lanes;
use crate::link::{Link, Role};
use crate::peers::agents::{Known, Peers};
use crate::peers::slot::Slot;

/// Calls at once on a Link of another thread from which on one's own is worth a connection.
const BUSY: usize = 8;
/// Pause after one that could not be made: the first one serves as well.
const RETRY: Duration = Duration::from_secs(30);

/// A lane's own Link to one node.
#[derive(Debug, Default)]
pub(super) struct Own {
    slot: Slot,
    next: Mutex<Next>,
}

/// When one is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Next {
    /// As soon as it is wanted.
    #[default]
    Now,
    /// Somebody is at it.
    Trying,
    /// Not before.
    From(Instant),
}

impl Known {
    /// Where direct Links may stand.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.own.iter().map(|own| &own.slot).chain([&self.direct])
    }

    /// The Link was made in this thread.
    pub(super) fn is_of_this_lane(&self, link: &Link) {
        if let Some(own) = self.own_of(lanes::number()) {
            own.slot.put(link.clone());
        }
    }

    /// The Link that others than busy lanes use. Where it has ended, that of a lane becomes it.
    pub(super) fn stands(&self) -> Option<Link> {
        self.direct.ready().or_else(|| {
            let link = self.own.iter().find_map(|own| own.slot.ready())?;
            self.direct.put(link.clone());
            Some(link)
        })
    }

    /// That of a lane; `None` = of who is in none.
    fn own_of(&self, lane: usize) -> Option<&Own> {
        self.own.get(lane.checked_sub(1)?)
    }
}

impl Peers {
    /// The direct Link for a call in this thread, if one stands.
    pub(super) fn direct(&self, known: &Arc<Known>) -> Option<Link> {
        let lane = lanes::number();
        let own = known.own_of(lane);
        if let Some(link) = own.and_then(|own| own.slot.ready()) {
            return Some(link);
        }
        let link = known.direct.ready()?;
        if own.is_some_and(|own| link.exchanges() >= BUSY && own.begins(now())) {
            self.make_own(known.clone(), lane);
        }
        Some(link)
    }

    /// Makes a Link in this lane, behind the back of who asks.
    fn make_own(&self, known: Arc<Known>, lane: usize) {
        let (_, links) = self.record(&known.node);
        let this = self.clone();
        self.spawn(async move {
            let Some(own) = known.own_of(lane) else { return };
            let made = this.make(&known.node, &links).await;
            let entered = made.and_then(|(link, how)| {
                let entered = this.0.parts.standing.enter(link.peer(), Role::Opens);
                entered.map(|stay| (link, how, stay)).map_err(|error| error.to_string())
            });
            match entered {
                Ok((link, how, stay)) => {
                    tracing::debug!(node = %known.node.0, lane, "a Link of its own: {how}");
                    own.slot.put(link.clone());
                    *own.next.lock() = Next::Now;
                    this.watch(&known, link, stay);
                }
                Err(why) => {
                    tracing::debug!(node = %known.node.0, lane, "no Link of its own: {why}");
                    *own.next.lock() = Next::From(now() + RETRY);
                }
            }
        });
    }
}

impl Own {
    /// Whether one is to be made now; after that the caller says what became of it.
    fn begins(&self, now: Instant) -> bool {
        let mut next = self.next.lock();
        let begins = match *next {
            Next::Now => true,
            Next::Trying => false,
            Next::From(then) => then <= now,
        };
        if begins {
            *next = Next::Trying;
        }
        begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_made_at_a_time_and_not_too_often() {
        let (own, t0) = (Own::default(), now());
        assert!(own.begins(t0) && !own.begins(t0), "somebody is at it");
        *own.next.lock() = Next::From(t0 + RETRY);
        assert!(!own.begins(t0));
        assert!(own.begins(t0 + RETRY) && !own.begins(t0 + RETRY));
    }
}
