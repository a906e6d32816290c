//! Links of one kind to one place: one for everybody, and one more for each lane that is busy. What one
//! lane says on the Link of another goes from thread to thread, and they wait for one another
//! (`benches/NOTES.md`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::io::now;
use crate::lanes;
use crate::link::Link;
use crate::peers::NoWay;
use crate::peers::slot::Slot;

/// Calls at once on a Link of another thread from which on one's own is worth a connection.
const BUSY: usize = 8;
/// Pause between two, where one could not be made or did not last: the first one serves as well.
const RETRY: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slots {
    first: Arc<Slot>,
    own: [Own; lanes::MOST],
}

/// A lane's own Link.
#[derive(Debug, Default)]
struct Own {
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

/// A lane that wants a Link of its own; see [`Slots::made`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanting(usize);

impl Slots {
    /// The Link for a call in this thread, if one stands.
    pub(super) fn ready(&self) -> Option<Link> {
        let own = self.own(lanes::number()).and_then(|own| own.slot.ready());
        own.or_else(|| self.first.ready())
    }

    /// The same; beside it who wants one of its own, which is to be made now in this thread.
    pub(super) fn for_a_call(&self) -> Option<(Link, Option<Wanting>)> {
        let lane = lanes::number();
        let own = self.own(lane);
        if let Some(link) = own.and_then(|own| own.slot.ready()) {
            return Some((link, None));
        }
        let link = self.first.ready()?;
        let wants = own.is_some_and(|own| link.exchanges() >= BUSY && own.begins(now()));
        Some((link, wants.then_some(Wanting(lane))))
    }

    /// What became of that.
    pub(super) fn made(&self, wanting: Wanting, made: Option<Link>) {
        let Some(own) = self.own(wanting.0) else { return };
        if let Some(link) = made {
            own.slot.put(link);
        }
        // Also where there is one: the other side may end it at once, for the next and the next.
        *own.next.lock() = Next::From(now() + RETRY);
    }

    /// From now on the one for everybody is this one, which was made in this thread; gives the one
    /// before.
    pub(super) fn put(&self, link: Link) -> Option<Link> {
        self.note(&link);
        self.first.put(link)
    }

    /// As [`Slot::get`]. What it opens is opened in this thread.
    pub(super) async fn get(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        open: impl Future<Output = Result<Link, NoWay>> + Send + 'static,
    ) -> Result<Link, NoWay> {
        let this = self.clone();
        let open = async move { open.await.inspect(|link| this.note(link)) };
        self.first.get(tasks, stop, open).await
    }

    /// Whether one stands. Where the one for everybody has ended, that of a lane takes its place.
    pub(super) fn stands(&self) -> bool {
        if self.first.ready().is_some() {
            return true;
        }
        let own = self.own.iter().find_map(|own| own.slot.ready());
        own.map(|own| self.first.put(own)).is_some()
    }

    /// Forgets them; what is under way goes on.
    pub(super) fn end(&self) {
        self.all().for_each(Slot::end);
    }

    /// Closes those on which nothing is under way.
    pub(super) fn close_idle(&self) {
        self.all().for_each(Slot::close_idle);
    }

    fn all(&self) -> impl Iterator<Item = &Slot> {
        self.own.iter().map(|own| &own.slot).chain([&*self.first])
    }

    /// A Link was made in this thread.
    fn note(&self, link: &Link) {
        if let Some(own) = self.own(lanes::number()) {
            own.slot.put(link.clone());
        }
    }

    /// That of a lane; `None` = of who is in none.
    fn own(&self, lane: usize) -> Option<&Own> {
        self.own.get(lane.checked_sub(1)?)
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
    use crate::peers::slot::tests::link;

    #[tokio::test]
    async fn one_that_does_not_last_is_not_made_anew_at_once() {
        let (slots, tasks) = (Slots::default(), TaskTracker::new());
        let own = slots.own(1).unwrap();
        assert!(own.begins(now()));
        let made = link(&tasks).await;
        slots.made(Wanting(1), Some(made.clone()));
        assert!(own.slot.ready().is_some());
        made.cut();
        assert!(own.slot.ready().is_none() && !own.begins(now()), "its peer may want no more");
        assert!(own.begins(now() + RETRY));
    }

    #[test]
    fn one_is_made_at_a_time_and_not_too_often() {
        let (slots, t0) = (Slots::default(), now());
        let own = slots.own(2).unwrap();
        assert!(own.begins(t0) && !own.begins(t0), "somebody is at it");
        slots.made(Wanting(2), None);
        assert!(!own.begins(t0 + RETRY / 2), "the first one serves as well");
        let later = now() + RETRY;
        assert!(own.begins(later) && !own.begins(later));
        assert!(slots.own(0).is_none(), "who is in no lane uses the first one");
    }
}
