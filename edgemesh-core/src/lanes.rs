//! Lanes: threads that serve connections, each of them from its accept to its last byte.
//!
//! A lane has a runtime and upstream pools of its own, so that nothing of a connection moves from thread
//! to thread, as it does where threads take work from one another: that costs waiting
//! (`benches/NOTES.md`). The listener is one for all of them, so that there is one queue, for the
//! kernel to fill and for another agent to take over.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Most lanes that are of use: every one of them wakes for each new connection, and all but one find
/// it taken.
pub const MOST: usize = 4;
/// A lane that has more connections than the emptiest one by more than this gives it the next.
const SLACK: usize = 2;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Number of the lane whose thread this is, from 1 on; 0 = it is none.
pub(crate) fn number() -> usize {
    NUMBER.get()
}

/// The lanes of a mesh. They end when this is dropped, with all that is still served in them.
#[derive(Debug, Default)]
pub struct Lanes {
    all: Arc<[One]>,
    _ends: Option<DropGuard>,
}

#[derive(Debug)]
struct One {
    handle: Handle,
    /// Connections that it serves.
    open: AtomicUsize,
    /// Those of them that were not accepted there: Links, of which each may carry the calls of many.
    links: AtomicUsize,
}

impl Lanes {
    /// Starts `count` threads; with 0, whoever serves does so in the runtime that it is called in.
    ///
    /// # Errors
    /// When the system gives no threads or files.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let ends = stop.clone().drop_guard();
        let all =
            (1..=count).map(|number| start(number, stop.clone())).collect::<io::Result<_>>()?;
        Ok(Self { all, _ends: Some(ends) })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.all.len()
    }

    /// Who gives seats in them to what is accepted elsewhere.
    pub(crate) fn seats(&self) -> Seats {
        Seats(self.all.clone())
    }

    /// Each of them.
    pub(crate) fn each(&self) -> impl Iterator<Item = Lane> {
        (0..self.all.len()).map(|own| Lane { all: self.all.clone(), own })
    }
}

fn start(number: usize, stop: CancellationToken) -> io::Result<One> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    let run = move || {
        NUMBER.set(number);
        runtime.block_on(stop.cancelled());
    };
    thread::Builder::new().name(format!("lane {number}")).spawn(run)?;
    Ok(One { handle, open: AtomicUsize::new(0), links: AtomicUsize::new(0) })
}

/// One of them.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    all: Arc<[One]>,
    own: usize,
}

impl Lane {
    /// Where its tasks run.
    pub(crate) fn handle(&self) -> &Handle {
        &self.all[self.own].handle
    }

    /// A seat for a connection that was accepted here: in this lane, unless another has far fewer.
    pub(crate) fn seat(&self) -> Seat {
        let open = |lane: &usize| self.all[*lane].open.load(Relaxed);
        let emptiest = (0..self.all.len()).min_by_key(open).unwrap_or(self.own);
        let own = if open(&self.own) > open(&emptiest) + SLACK { emptiest } else { self.own };
        self.all[own].open.fetch_add(1, Relaxed);
        Seat { lane: Self { all: self.all.clone(), own }, is_link: false }
    }
}

/// Gives Links seats in lanes; by default there are none. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Seats(Arc<[One]>);

impl Seats {
    /// Starts the task of a Link in the lane that has fewest; in this runtime, where there are none.
    pub(crate) fn spawn(
        &self,
        tasks: &TaskTracker,
        task: impl Future<Output: Send + 'static> + Send + 'static,
    ) {
        match self.take() {
            None => drop(tasks.spawn(task)),
            Some(seat) => {
                let lane = seat.lane.handle().clone();
                let seated = async move {
                    let _seat = seat;
                    task.await;
                };
                tasks.spawn_on(seated, &lane);
            }
        }
    }

    fn take(&self) -> Option<Seat> {
        let load = |lane: &usize| {
            let One { links, open, .. } = &self.0[*lane];
            (links.load(Relaxed), open.load(Relaxed))
        };
        let own = (0..self.0.len()).min_by_key(load)?;
        self.0[own].open.fetch_add(1, Relaxed);
        self.0[own].links.fetch_add(1, Relaxed);
        Some(Seat { lane: Lane { all: self.0.clone(), own }, is_link: true })
    }
}

/// A connection's place in a lane; given back on drop.
#[derive(Debug)]
pub struct Seat {
    lane: Lane,
    is_link: bool,
}

impl Seat {
    /// Where it is served, if that is not in `lane`.
    pub(crate) fn outside(&self, lane: &Lane) -> Option<Handle> {
        (self.lane.own != lane.own).then(|| self.lane.handle().clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let One { open, links, .. } = &self.lane.all[self.lane.own];
        open.fetch_sub(1, Relaxed);
        links.fetch_sub(usize::from(self.is_link), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn each_has_a_thread_of_its_own() {
        let lanes = Lanes::start(3).unwrap();
        let (said, heard) = sync_channel(3);
        for lane in lanes.each() {
            let said = said.clone();
            lane.handle().spawn(async move { said.send((number(), thread::current().id())) });
        }
        let mut seen: Vec<_> = (0..3).map(|_| heard.recv().unwrap()).collect();
        seen.sort_by_key(|(number, _)| *number);
        assert_eq!(seen.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 2, 3]);
        seen.dedup_by_key(|(_, thread)| *thread);
        assert_eq!((seen.len(), number()), (3, 0));
    }

    #[test]
    fn what_is_served_in_them_ends_with_them() {
        let lanes = Lanes::start(1).unwrap();
        let (said, heard) = sync_channel::<()>(1);
        let lane = lanes.each().next().unwrap();
        lane.handle().spawn(async move {
            let _said = said;
            std::future::pending::<()>().await;
        });
        drop(lanes);
        assert!(heard.recv().is_err(), "the task is gone");
    }

    #[test]
    fn a_lane_keeps_what_it_accepts_unless_another_has_far_fewer() {
        let lanes = Lanes::start(2).unwrap();
        let [one, other] = [0, 1].map(|own| lanes.each().nth(own).unwrap());
        let seats: Vec<Seat> = (0..40).map(|_| one.seat()).collect();
        let away = seats.iter().filter(|seat| seat.outside(&one).is_some()).count();
        assert_eq!(away, (40 - SLACK) / 2);
        assert!(other.seat().outside(&other).is_none());
        drop(seats);
        let open = || lanes.all.iter().map(|lane| lane.open.load(Relaxed)).collect::<Vec<_>>();
        assert_eq!(open(), [0, 0]);
        let seat = other.seat();
        let links: Vec<Seat> = (0..4).map(|_| lanes.seats().take().unwrap()).collect();
        let seated: Vec<_> = links.iter().map(|seat| seat.lane.own).collect();
        assert_eq!(seated, [0, 1, 0, 1], "Links are spread by themselves");
        assert!(Seats::default().take().is_none());
        drop((seat, links));
        assert_eq!(open(), [0, 0]);
        assert!(lanes.all.iter().all(|lane| lane.links.load(Relaxed) == 0));
    }
}
