//! Who is connected: one process a node. Pure, so that what happens to a second one can be tested.

use std::collections::BTreeMap;

use edgemesh_proto::message::Hello;
use edgemesh_proto::record::NodeName;

/// The processes that hold a Control stream, and what the hub knows each of them by.
#[derive(Debug)]
pub(super) struct Roster<T> {
    present: BTreeMap<NodeName, Present<T>>,
    last: Seat,
}

/// One Control stream, for as long as it lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat(u64);

#[derive(Debug)]
struct Present<T> {
    seat: Seat,
    instance: [u8; 16],
    generation: u64,
    who: T,
}

/// What becomes of whoever says hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival<T> {
    /// It is in.
    Seated(T),
    /// It is in, in the place of an older stream, which is to be ended.
    Replaces {
        /// Its own.
        new: T,
        /// That of the older one.
        older: T,
    },
    /// Another process of the same name is alive.
    Duplicate {
        /// How often that one's agent had started.
        generation: u64,
    },
}

impl<T> Default for Roster<T> {
    fn default() -> Self {
        Self { present: BTreeMap::new(), last: Seat::default() }
    }
}

impl<T: Clone> Roster<T> {
    /// Seats whoever says hello, or not. The same process may come again, since its end of a broken
    /// connection is noticed first; another one only when it says that it takes over, and is newer.
    pub(super) fn arrives(&mut self, hello: &Hello, who: impl FnOnce(Seat) -> T) -> Arrival<T> {
        if let Some(present) = self.present.get(&hello.node) {
            let same = present.instance == hello.instance;
            let successor = hello.takes_over && hello.generation > present.generation;
            if !same && !successor {
                return Arrival::Duplicate { generation: present.generation };
            }
        }
        self.last = Seat(self.last.0 + 1);
        let (seat, instance, generation) = (self.last, hello.instance, hello.generation);
        let new = who(seat);
        let present = Present { seat, instance, generation, who: new.clone() };
        match self.present.insert(hello.node.clone(), present) {
            None => Arrival::Seated(new),
            Some(before) => Arrival::Replaces { new, older: before.who },
        }
    }

    /// Its stream ended. `true`: nobody of that name is left.
    pub(super) fn leaves(&mut self, node: &NodeName, seat: Seat) -> bool {
        let here = self.present.get(node).is_some_and(|present| present.seat == seat);
        if here {
            self.present.remove(node);
        }
        here
    }

    /// Who has that name.
    pub(super) fn get(&self, node: &NodeName) -> Option<&T> {
        self.present.get(node).map(|present| &present.who)
    }

    /// Everybody, by name.
    pub(super) fn all(&self) -> impl ExactSizeIterator<Item = &T> {
        self.present.values().map(|present| &present.who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(instance: u8, generation: u64, takes_over: bool) -> Hello {
        Hello {
            node: NodeName("edge-1".into()),
            instance: [instance; 16],
            generation,
            version: String::new(),
            epoch: [0; 16],
            revision: 0,
            digest: [0; 32],
            selector: Default::default(),
            links: Vec::new(),
            takes_over,
        }
    }

    /// Instance, generation and whether it takes over; what becomes of it while instance 1 of
    /// generation 5 is there.
    #[test]
    fn a_second_process_of_a_name() {
        let (first, next) = (Seat(1), Seat(2));
        let replaces = Arrival::Replaces { new: next, older: first };
        let duplicate = Arrival::Duplicate { generation: 5 };
        for (instance, generation, takes_over, want) in [
            (1, 5, false, replaces),
            (2, 6, false, duplicate),
            (2, 6, true, replaces),
            (2, 5, true, duplicate),
            (2, 4, true, duplicate),
        ] {
            let mut roster = Roster::default();
            assert_eq!(roster.arrives(&hello(1, 5, false), |seat| seat), Arrival::Seated(first));
            assert_eq!(roster.arrives(&hello(instance, generation, takes_over), |seat| seat), want);
        }
    }

    #[test]
    fn the_end_of_an_older_stream_takes_nobody_away() {
        let (mut roster, node) = (Roster::default(), NodeName("edge-1".into()));
        let Arrival::Seated(first) = roster.arrives(&hello(1, 1, false), |seat| seat) else {
            panic!()
        };
        let Arrival::Replaces { new: seat, .. } = roster.arrives(&hello(1, 1, false), |seat| seat)
        else {
            panic!()
        };
        assert!(!roster.leaves(&node, first));
        assert_eq!(roster.get(&node), Some(&seat));
        assert!(roster.leaves(&node, seat));
        assert!(matches!(roster.arrives(&hello(2, 1, false), |seat| seat), Arrival::Seated(_)));
    }
}
