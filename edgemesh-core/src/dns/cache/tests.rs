//! What is kept, for how long, and what is handed out.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Cache, ENTRIES, NEGATIVE_MAX, STALE_MAX, STALE_RECHECK, TTL_MAX};
use crate::dns::sample::{edns, query, respond};
use crate::dns::wire;

const ONE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Some moment: the cache compares moments and asks no clock.
fn moment() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn keep(cache: &mut Cache, asked: &[u8], reply: &[u8], now: Instant) {
    let query = wire::query(asked).unwrap();
    let records = wire::response(reply, query.question()).unwrap();
    cache.store(&query, reply, &records, now);
}

fn fresh(cache: &Cache, asked: &[u8], now: Instant) -> Option<Vec<u8>> {
    cache.fresh(&wire::query(asked).unwrap(), now)
}

/// Code, TTLs of addresses, TTL and minimum of the SOA → for how many seconds it is fresh.
type Freshness = (u8, &'static [u32], Option<(u32, u32)>, u64);

#[test]
fn freshness() {
    let rows: &[Freshness] = &[
        (0, &[60], None, 60),
        (0, &[60, 20], None, 20),
        (0, &[90_000], None, TTL_MAX.as_secs()),
        (0, &[0], None, 0),
        (0, &[60, 0], None, 0),
        (0, &[0x8000_0001], None, 0),
        (3, &[], Some((900, 10)), 10),
        (3, &[], Some((7, 10)), 7),
        (3, &[], Some((900, 900)), NEGATIVE_MAX.as_secs()),
        (0, &[], Some((900, 900)), NEGATIVE_MAX.as_secs()),
        (3, &[], None, 0),
        (0, &[], None, 0),
        (2, &[], Some((900, 900)), 0),
        (5, &[60], None, 0),
    ];
    let start = moment();
    for (code, ttls, soa, seconds) in rows {
        let asked = query(1, "example.com", 1);
        let addresses: Vec<_> = ttls.iter().map(|ttl| (*ttl, ONE)).collect();
        let mut cache = Cache::default();
        keep(&mut cache, &asked, &respond(&asked, *code, &addresses, *soa), start);
        let end = start + Duration::from_secs(*seconds);
        let row = format!("{code} {ttls:?} {soa:?}");
        assert!(fresh(&cache, &asked, end).is_none(), "{row}");
        let just_before = end - Duration::from_millis(1);
        assert_eq!(fresh(&cache, &asked, just_before).is_some(), *seconds > 0, "{row}");
    }
}

#[test]
fn truncated_answers_are_not_kept() {
    let asked = query(1, "example.com", 1);
    let mut reply = respond(&asked, 0, &[(60, ONE)], None);
    reply[2] |= 0x02;
    let (mut cache, now) = (Cache::default(), moment());
    keep(&mut cache, &asked, &reply, now);
    assert!(fresh(&cache, &asked, now).is_none());
}

#[test]
fn hands_out_with_the_clients_id_spelling_and_edns() {
    let now = moment();
    let asked = query(1, "example.com", 1);
    let mut cache = Cache::default();
    // Stored with the upstream's OPT record, which is not for the next client.
    let stored = edns(respond(&asked, 0, &[(60, ONE), (90, ONE)], None), 4096, 0, false);
    keep(&mut cache, &edns(asked, 512, 0, false), &stored, now);

    let other = query(2, "EXAMPLE.com", 1);
    let mut want = respond(&other, 0, &[(50, ONE), (80, ONE)], None);
    want[2] &= !0x04; // no longer with authority
    let later = now + Duration::from_secs(10);
    assert_eq!(fresh(&cache, &other, later).as_ref(), Some(&want));
    let with = edns(other, 512, 0, false);
    assert_eq!(fresh(&cache, &with, later), Some(edns(want, 1232, 0, false)));
}

#[test]
fn what_the_answer_depends_on_is_in_the_key() {
    let now = moment();
    let asked = query(1, "example.com", 1);
    let mut cache = Cache::default();
    keep(&mut cache, &asked, &respond(&asked, 0, &[(60, ONE)], None), now);
    let flagged = |at: usize, bit: u8| {
        let mut bytes = asked.clone();
        bytes[at] ^= bit;
        bytes
    };
    let rows = [
        ("the same", asked.clone(), true),
        ("another name", query(1, "example.net", 1), false),
        ("another type", query(1, "example.com", 28), false),
        ("EDNS", edns(asked.clone(), 1232, 0, false), true),
        ("EDNS with DO", edns(asked.clone(), 1232, 0, true), false),
        ("without RD", flagged(2, 0x01), false),
        ("with CD", flagged(3, 0x10), false),
    ];
    for (what, bytes, hit) in rows {
        assert_eq!(fresh(&cache, &bytes, now).is_some(), hit, "{what}");
    }
}

#[test]
fn expired_answers_serve_while_upstreams_are_away() {
    let start = moment();
    let asked = query(1, "example.com", 1);
    let read = wire::query(&asked).unwrap();
    let mut cache = Cache::default();
    keep(&mut cache, &asked, &respond(&asked, 0, &[(60, ONE)], None), start);

    let late = start + Duration::from_secs(100);
    assert!(cache.fresh(&read, late).is_none());
    let stale = cache.stale(&read, late).unwrap();
    let records = wire::response(&stale, read.question()).unwrap();
    assert_eq!(u64::from(records[0].ttl), STALE_RECHECK.as_secs());
    // Now it is served without asking, until it is time to look again.
    assert!(cache.fresh(&read, late + STALE_RECHECK / 2).is_some());
    assert!(cache.fresh(&read, late + STALE_RECHECK).is_none());

    let dead = start + Duration::from_secs(60) + STALE_MAX;
    assert!(cache.stale(&read, dead - Duration::from_secs(1)).is_some());
    assert!(cache.stale(&read, dead).is_none());
}

#[test]
fn never_more_entries_than_the_bound() {
    let now = moment();
    let mut cache = Cache::default();
    let name = |i: usize| query(1, &format!("n{i}.example"), 1);
    for i in 0..3 * ENTRIES {
        let asked = name(i);
        // All alike: even then only an eighth goes at a time.
        keep(&mut cache, &asked, &respond(&asked, 0, &[(60, ONE)], None), now);
        assert!(cache.entries.len() <= ENTRIES);
    }
    assert!(cache.entries.len() > ENTRIES / 2);
    assert!(fresh(&cache, &name(3 * ENTRIES - 1), now).is_some());
}
