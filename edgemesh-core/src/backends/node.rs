//! How another node can be reached, as whoever keeps the ways found out last.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

/// A way to the agent of another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// A Link between the two.
    Direct,
    /// Through the hub.
    Hub,
}

/// What is known of the way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: whoever needs one finds out.
    Nothing,
    /// This way works.
    Works(Way),
    /// None does, and it will be looked for again after so long.
    Lost {
        /// Until then.
        wait: Duration,
    },
}

/// Live state of one other node. Whoever keeps the ways writes it, decisions read it; each field
/// stands for itself, so that a reader may see a new way with the old time.
#[derive(Debug)]
pub struct NodeLive {
    /// Tells nodes apart where a name would be too long to carry; never 0.
    number: u32,
    /// Moments are counted from here.
    since: Instant,
    way: AtomicU8,
    /// In microseconds; 0 = nobody measured.
    round_trip: AtomicU32,
    /// In nanoseconds since `since`; read where no way works.
    lost_until: AtomicU64,
    /// Why the way is what it is, in words; absent where it is the best one.
    why: ArcSwapOption<String>,
}

const NOTHING: u8 = 0;
const DIRECT: u8 = 1;
const HUB: u8 = 2;
const LOST: u8 = 3;

impl Way {
    /// `direct` or `hub`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Hub => "hub",
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl NodeLive {
    /// A node of which nothing is known at `now`. `number` is its own among all of this process.
    pub fn new(number: u32, now: Instant) -> Self {
        Self {
            number,
            since: now,
            way: AtomicU8::new(NOTHING),
            round_trip: AtomicU32::new(0),
            lost_until: AtomicU64::new(0),
            why: ArcSwapOption::empty(),
        }
    }

    /// See [`NodeLive::new`].
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// Notes that `way` works; `why` not a better one, empty where there is none.
    pub fn works(&self, way: Way, why: &str) {
        self.explain(why);
        self.way.store(if way == Way::Direct { DIRECT } else { HUB }, Relaxed);
    }

    /// Notes that no way works, and when one will be looked for again.
    pub fn lost(&self, until: Instant, why: &str) {
        self.explain(why);
        let nanos = until.saturating_duration_since(self.since).as_nanos();
        self.lost_until.store(u64::try_from(nanos).unwrap_or(u64::MAX), Relaxed);
        self.way.store(LOST, Relaxed);
    }

    /// Notes that what was known no longer counts.
    pub fn forget(&self) {
        self.why.store(None);
        self.way.store(NOTHING, Relaxed);
    }

    /// Notes how long a question and its answer take on the way that works.
    pub fn took(&self, round_trip: Duration) {
        let micros = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
        self.round_trip.store(micros.max(1), Relaxed);
    }

    /// What is known at `now`.
    pub fn known(&self, now: Instant) -> Known {
        match self.way.load(Relaxed) {
            DIRECT => Known::Works(Way::Direct),
            HUB => Known::Works(Way::Hub),
            LOST => {
                let until = Duration::from_nanos(self.lost_until.load(Relaxed));
                let wait = until.saturating_sub(now.saturating_duration_since(self.since));
                if wait.is_zero() { Known::Nothing } else { Known::Lost { wait } }
            }
            _ => Known::Nothing,
        }
    }

    /// How long a question and its answer take; `None` = nobody measured.
    pub fn round_trip(&self) -> Option<Duration> {
        let micros = self.round_trip.load(Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros.into()))
    }

    /// Why the way is what it is.
    pub fn why(&self) -> Option<Arc<String>> {
        self.why.load_full()
    }

    fn explain(&self, why: &str) {
        let known = self.why.load();
        if known.as_ref().map_or("", |known| known.as_str()) != why {
            self.why.store((!why.is_empty()).then(|| Arc::new(why.to_owned())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any Instant will do as the start of time")]
    fn what_is_known_of_a_way() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let node = NodeLive::new(7, start);
        assert_eq!(
            (node.number(), node.known(start), node.round_trip()),
            (7, Known::Nothing, None)
        );
        node.works(Way::Hub, "its links do not answer");
        node.took(Duration::from_micros(1500));
        assert_eq!(node.known(start), Known::Works(Way::Hub));
        assert_eq!(node.why().unwrap().as_str(), "its links do not answer");
        assert_eq!(node.round_trip(), Some(Duration::from_micros(1500)));
        node.works(Way::Direct, "");
        assert_eq!((node.known(after(9)), node.why()), (Known::Works(Way::Direct), None));
        node.lost(after(250), "the hub is away");
        assert_eq!(node.known(after(50)), Known::Lost { wait: Duration::from_millis(200) });
        assert_eq!(node.known(after(250)), Known::Nothing, "somebody shall look again");
        node.forget();
        assert_eq!((node.known(after(50)), node.why()), (Known::Nothing, None));
    }
}
