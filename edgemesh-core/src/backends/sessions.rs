//! Session affinity: which Backend a caller had last, for a bounded number of callers, without a lock.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Callers that one pool remembers; with more, the one that was away longest gives way.
pub const MAX_SESSIONS: usize = WAYS * (SETS[0] + SETS[1] + SETS[2] + SETS[3]);

/// Sets of each storey: a Service with few callers fills the first, 2 KiB, and asks for no more.
const SETS: [usize; 4] = [16, 64, 256, 914];
/// Places in which a caller may be found, in each storey.
const WAYS: usize = 8;

/// Caller and Backend, by their hashes. A storey is made when those below are full where a new
/// caller belongs, and stays.
///
/// Two words a session, written one after the other: who reads between them sends one call to
/// a Backend that another caller had, which is a Backend of the same Service all the same.
#[derive(Default)]
pub struct Sessions {
    storeys: [OnceLock<Box<[Set]>>; SETS.len()],
}

#[derive(Default)]
struct Set([Session; WAYS]);

#[derive(Default)]
struct Session {
    /// Hash of the caller; 0 = free.
    caller: AtomicU64,
    /// Tag of the Backend, and in the lower half the second of the last call.
    place: AtomicU64,
}

impl Sessions {
    /// The tag that `caller` was last seen with, if that was less than `timeout` seconds before
    /// `now`.
    pub fn get(&self, caller: u64, now: u32, timeout: u32) -> Option<u32> {
        let (_, place) = self.find(caller)?;
        is_fresh(place, now, timeout).then_some((place >> 32) as u32)
    }

    /// Notes that `caller` went to the Backend of that tag. Sessions that timed out give their
    /// place to whoever comes next, so that there is nothing to sweep.
    pub fn put(&self, caller: u64, tag: u32, now: u32, timeout: u32) {
        let place = u64::from(tag) << 32 | u64::from(now);
        match self.find(caller) {
            // Once a second is enough: threads do not fight for a word that says the same.
            Some((_, before)) if before == place => {}
            Some((session, _)) => session.place.store(place, Relaxed),
            None => self.room(caller, now, timeout).take(caller, place),
        }
    }

    fn find(&self, caller: u64) -> Option<(&Session, u64)> {
        let caller = caller.max(1);
        let mut all = self.storeys.iter().map_while(OnceLock::get).flat_map(|s| &set(s, caller).0);
        let session = all.find(|session| session.caller.load(Relaxed) == caller)?;
        Some((session, session.place.load(Relaxed)))
    }

    /// A place that is free or whose session timed out, in the lowest storey that has one.
    fn room(&self, caller: u64, now: u32, timeout: u32) -> &Session {
        let free = |session: &&Session| {
            session.caller.load(Relaxed) == 0
                || !is_fresh(session.place.load(Relaxed), now, timeout)
        };
        let mut full = None;
        for (storey, sets) in self.storeys.iter().zip(SETS) {
            let sets = storey.get().unwrap_or_else(|| {
                // Made before it is offered, so that nobody waits for an allocation.
                let made = (0..sets).map(|_| Set::default()).collect();
                storey.get_or_init(|| made)
            });
            let Set(set) = set(sets, caller.max(1));
            if let Some(session) = set.iter().find(free) {
                return session;
            }
            full = Some(set);
        }
        let oldest = full.and_then(|set| set.iter().min_by_key(|s| s.place.load(Relaxed) as u32));
        oldest.expect("there are storeys, and a set has places")
    }
}

impl Session {
    fn take(&self, caller: u64, place: u64) {
        self.place.store(place, Relaxed);
        self.caller.store(caller.max(1), Relaxed);
    }
}

fn set(storey: &[Set], caller: u64) -> &Set {
    &storey[(((caller >> 32) * storey.len() as u64) >> 32) as usize]
}

fn is_fresh(place: u64, now: u32, timeout: u32) -> bool {
    now.saturating_sub(place as u32) < timeout
}

impl fmt::Debug for Sessions {
    /// Every session, for tests that want nothing to change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.storeys.iter().filter_map(OnceLock::get).flatten().flat_map(|set| &set.0);
        let words = |s: &Session| (s.caller.load(Relaxed), s.place.load(Relaxed));
        f.debug_list().entries(all.map(words).filter(|(caller, _)| *caller != 0)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::mix;

    const TIMEOUT: u32 = 100;

    fn in_use(sessions: &Sessions) -> usize {
        let all = sessions.storeys.iter().filter_map(OnceLock::get).flatten().flat_map(|s| &s.0);
        all.filter(|session| session.caller.load(Relaxed) != 0).count()
    }

    #[test]
    fn a_session_lasts_from_its_last_call() {
        let sessions = Sessions::default();
        assert_eq!(sessions.get(7, 0, TIMEOUT), None);
        sessions.put(7, 1, 0, TIMEOUT);
        for (second, want) in [(0, Some(1)), (99, Some(1)), (100, None)] {
            assert_eq!(sessions.get(7, second, TIMEOUT), want, "{second}");
        }
        sessions.put(7, 1, 60, TIMEOUT);
        assert_eq!(sessions.get(7, 159, TIMEOUT), Some(1));
        // moved; a caller whose hash is 0 is a caller, too
        sessions.put(7, 2, 61, TIMEOUT);
        sessions.put(0, 3, 61, TIMEOUT);
        assert_eq!(
            [sessions.get(7, 61, TIMEOUT), sessions.get(0, 61, TIMEOUT)],
            [Some(2), Some(3)]
        );
        assert_eq!(in_use(&sessions), 2);
    }

    #[test]
    fn few_callers_take_little_and_many_are_bounded() {
        let sessions = Sessions::default();
        (0..20).for_each(|caller| sessions.put(mix(caller), 1, 0, TIMEOUT));
        assert!(sessions.storeys[2].get().is_none(), "20 callers need no more than 640 places");
        // Not all of the bound can be used: a caller has 8 places in each storey, and no others.
        const CALLERS: u64 = 8000;
        (0..CALLERS).for_each(|caller| sessions.put(mix(caller), caller as u32, 1, TIMEOUT));
        let kept = |c: &u64| sessions.get(mix(*c), 1, TIMEOUT) == Some(*c as u32);
        let kept = (0..CALLERS).filter(kept).count();
        assert!(kept > 7700, "{kept} of {CALLERS}");
        (0..100_000).for_each(|caller| sessions.put(mix(caller), 1, 2, TIMEOUT));
        assert!(in_use(&sessions) <= MAX_SESSIONS);
        assert_eq!(MAX_SESSIONS, 10_000);
        // all are timed out: who comes finds a place in the lowest storey
        sessions.put(5, 1, 500, TIMEOUT);
        let Set(lowest) = set(sessions.storeys[0].get().unwrap(), 5);
        assert!(lowest.iter().any(|session| session.caller.load(Relaxed) == 5));
    }
}
