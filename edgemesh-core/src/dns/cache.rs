//! Remembers upstream answers, absences too, within bounds and with the clock as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::dns::reply;
use crate::dns::wire::{self, Query, Record, flag, kind, put_u16, put_u32};

/// Most answers kept. With [`REPLY_MAX`] this bounds the memory: 8 MiB at worst, a tenth usually.
pub const ENTRIES: usize = 2048;
/// Longest answer kept, in octets.
pub const REPLY_MAX: usize = 4096;
/// Longest that an answer counts as fresh. A day would be fine by the protocol; an hour heals
/// somebody else's mistake sooner.
pub const TTL_MAX: Duration = Duration::from_secs(3600);
/// Longest that an absence counts as fresh: a name that appears should be found soon.
pub const NEGATIVE_MAX: Duration = Duration::from_secs(30);
/// How long past its end an answer may still be served while no upstream answers (RFC 8767): a
/// night without uplink.
pub const STALE_MAX: Duration = Duration::from_secs(12 * 3600);
/// For how long an expired answer is served before the upstreams are tried again; its TTL, too.
pub const STALE_RECHECK: Duration = Duration::from_secs(5);

/// What the answer depends on besides the upstream.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    /// The question, its name in lower case.
    question: Vec<u8>,
    /// RD, AD and CD of the query.
    flags: u16,
    /// The DO bit.
    dnssec: bool,
}

#[derive(Debug)]
struct Entry {
    /// The message without OPT record.
    bytes: Vec<u8>,
    /// Where its TTLs stand, and what they were.
    ttls: Vec<(usize, u32)>,
    stored: Instant,
    fresh_until: Instant,
    dead_at: Instant,
}

/// Upstream answers by question. Neither waits nor reads a clock.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
}

impl Cache {
    /// The fresh answer to a query, with its id, its spelling and the TTLs that are left.
    pub fn fresh(&self, query: &Query<'_>, now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get(&key(query)?).filter(|entry| now < entry.fresh_until)?;
        Some(hand_out(entry, query, now))
    }

    /// The answer to a query even if it has expired, for when no upstream answers. It then counts
    /// as fresh for [`STALE_RECHECK`], so that not every query waits for upstreams that are away.
    pub fn stale(&mut self, query: &Query<'_>, now: Instant) -> Option<Vec<u8>> {
        let entry = self.entries.get_mut(&key(query)?).filter(|entry| now < entry.dead_at)?;
        entry.fresh_until = entry.fresh_until.max((now + STALE_RECHECK).min(entry.dead_at));
        Some(hand_out(entry, query, now))
    }

    /// Keeps an answer, if it may be kept. `records` are those of `reply`.
    pub fn store(&mut self, query: &Query<'_>, reply: &[u8], records: &[Record], now: Instant) {
        let Some(key) = key(query) else { return };
        let Some((bytes, fresh)) = keepable(reply, records) else { return };
        if self.entries.len() >= ENTRIES && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        let kept = |record: &&Record| record.kind != kind::OPT;
        let ttls = records.iter().filter(kept).map(|r| (r.fixed + 4, r.ttl)).collect();
        let fresh_until = now + fresh;
        let dead_at = fresh_until + STALE_MAX;
        self.entries.insert(key, Entry { bytes, ttls, stored: now, fresh_until, dead_at });
    }

    /// Drops what is dead; if that is nothing, the eighth that expires first, so that the work of
    /// looking is shared by many insertions.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.dead_at);
        if self.entries.len() < ENTRIES {
            return;
        }
        let mut ends: Vec<Instant> = self.entries.values().map(|entry| entry.fresh_until).collect();
        let (_, limit, _) = ends.select_nth_unstable(ENTRIES / 8);
        let limit = *limit;
        let mut quota = ENTRIES / 8;
        self.entries.retain(|_, entry| {
            let goes = quota > 0 && entry.fresh_until <= limit;
            quota -= usize::from(goes);
            !goes
        });
    }
}

/// Nothing for queries whose answers are not to be shared: signed ones, and those about a subnet.
fn key(query: &Query<'_>) -> Option<Key> {
    if !query.plain || query.edns.is_some_and(|edns| edns.subnet) {
        return None;
    }
    let mut question = query.question().to_vec();
    let name = question.len().checked_sub(4)?;
    question[..name].make_ascii_lowercase();
    let flags = query.flags() & (flag::RD | flag::AD | flag::CD);
    Some(Key { question, flags, dnssec: query.edns.is_some_and(|edns| edns.dnssec) })
}

/// The message without its OPT record, and how long it stays fresh.
fn keepable(reply: &[u8], records: &[Record]) -> Option<(Vec<u8>, Duration)> {
    let flags = wire::u16_at(reply, 2).ok()?;
    let code = flags & flag::RCODE;
    let (fine, absent) = (code == 0, code == 3);
    if reply.len() > REPLY_MAX || flags & flag::TC != 0 || !(fine || absent) {
        return None;
    }
    let mut bytes = reply.to_vec();
    let mut seconds = u32::try_from(TTL_MAX.as_secs()).unwrap_or(u32::MAX);
    let mut soa = false;
    for record in records {
        if record.kind == kind::OPT {
            // Taking a record out of the middle would move what compressed names point to.
            if record.end != reply.len() || record.ttl >> 24 != 0 {
                return None;
            }
            bytes.truncate(record.start);
            put_u16(&mut bytes, 10, wire::u16_at(reply, 10).ok()?.saturating_sub(1));
            continue;
        }
        seconds = seconds.min(sane(record.ttl));
        if record.section == 1 && record.kind == kind::SOA {
            soa = true;
            let minimum = wire::u32_at(reply, record.end.checked_sub(4)?).ok()?;
            seconds = seconds.min(sane(minimum));
        }
    }
    let data = fine && records.iter().any(|record| record.section == 0);
    // An absence without SOA does not say how long it lasts (RFC 2308 §5).
    if seconds == 0 || (!data && !soa) {
        return None;
    }
    let fresh = Duration::from_secs(seconds.into());
    Some((bytes, if soa { fresh.min(NEGATIVE_MAX) } else { fresh }))
}

/// A TTL with the high bit set is zero (RFC 2181 §8).
fn sane(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}

fn hand_out(entry: &Entry, query: &Query<'_>, now: Instant) -> Vec<u8> {
    let mut bytes = entry.bytes.clone();
    put_u16(&mut bytes, 0, query.id());
    // From memory it is no longer the authority's own word.
    let flags = wire::u16_at(&bytes, 2).unwrap_or_default();
    put_u16(&mut bytes, 2, flags & !flag::AA);
    // Same length, perhaps other capitals; compressed names point in here.
    if let Some(place) = bytes.get_mut(wire::HEADER..query.question_end) {
        place.copy_from_slice(query.question());
    }
    let age = now.saturating_duration_since(entry.stored).as_secs();
    let age = u32::try_from(age).unwrap_or(u32::MAX);
    let shared = entry.fresh_until.saturating_duration_since(now).as_secs();
    let shared = u32::try_from(shared).unwrap_or(u32::MAX).max(1);
    for &(at, ttl) in &entry.ttls {
        let left = sane(ttl).checked_sub(age).filter(|left| *left > 0);
        put_u32(&mut bytes, at, left.unwrap_or(shared));
    }
    reply::append_opt(&mut bytes, query, 0);
    bytes
}

#[cfg(test)]
mod tests;
