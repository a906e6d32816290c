//! Upstream connections that wait for their next request, by Backend address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fnv::FnvHashMap;
use hyper::client::conn::http2;
use parking_lot::Mutex;

use crate::forward::http::plain::Wire;
use crate::forward::http::upload::Upload;
use crate::forward::http::upstream::Http1;
use crate::lanes;
use crate::refusal::Refusal;

/// Idle HTTP/1 connections kept for one Backend.
const IDLE_PER_BACKEND: usize = 512;
/// An idle connection is closed after this long: below the keep-alive time of common servers
/// (nginx 75 s, Node.js is shorter), so that few are lost to a close under way.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// How often [`Pools::sweep`] wants to be called.
pub const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// A connection that was idle for less than this is unlikely to be closing at this moment.
pub(super) const FRESH_FOR: Duration = Duration::from_secs(1);
/// Streams on one HTTP/2 connection before another is made: what common servers allow.
const STREAMS_PER_CONNECTION: usize = 100;
/// Locks are split by address, so that threads seldom meet.
const SHARDS: usize = 16;

/// All idle and shared upstream connections of one mesh. Each lane has its own: whoever reads of a
/// connection is to be in the thread that is told of what comes there.
#[derive(Debug)]
pub struct Pools {
    /// The first are those of whoever is in no lane.
    lanes: Box<[Shards]>,
}

type Shards = [Mutex<Shard>; SHARDS];

#[derive(Debug, Default)]
pub(super) struct Shard {
    http1: FnvHashMap<SocketAddr, Vec<Idle<Http1>>>,
    /// Those of plain requests, which nobody drives while they wait.
    plain: FnvHashMap<SocketAddr, Vec<Idle<Wire>>>,
    http2: FnvHashMap<SocketAddr, Arc<Multiplexed>>,
}

#[derive(Debug)]
pub(super) struct Idle<C> {
    connection: C,
    since: Instant,
}

/// A connection that can be kept for another request.
pub(super) trait Kept: Sized {
    /// Whether it is of no use any more.
    fn is_over(&self) -> bool;
    /// Where its kind waits.
    fn waiting(shard: &mut Shard) -> &mut FnvHashMap<SocketAddr, Vec<Idle<Self>>>;
}

impl Kept for Http1 {
    fn is_over(&self) -> bool {
        self.sender.is_closed()
    }

    fn waiting(shard: &mut Shard) -> &mut FnvHashMap<SocketAddr, Vec<Idle<Self>>> {
        &mut shard.http1
    }
}

impl Kept for Wire {
    fn is_over(&self) -> bool {
        self.is_spent()
    }

    fn waiting(shard: &mut Shard) -> &mut FnvHashMap<SocketAddr, Vec<Idle<Self>>> {
        &mut shard.plain
    }
}

/// The HTTP/2 connections to one Backend.
#[derive(Debug, Default)]
pub(super) struct Multiplexed {
    /// Held while one caller dials; the others wait for its connection instead of each making
    /// their own. Says why the last dial failed that did.
    pub(super) dialling: tokio::sync::Mutex<Option<Refusal>>,
    /// Dials that failed: who waited for one of them need not fail for itself as well.
    failed: AtomicUsize,
    open: Mutex<Vec<Http2>>,
}

#[derive(Debug)]
struct Http2 {
    sender: http2::SendRequest<Upload>,
    streams: Arc<AtomicUsize>,
    used: Instant,
}

/// A place for one stream on an HTTP/2 connection; given back on drop.
#[derive(Debug)]
pub(super) struct StreamPlace(Arc<AtomicUsize>);

impl StreamPlace {
    /// Which connection it is on, for [`Multiplexed::forget`].
    pub(super) fn connection(&self) -> Arc<AtomicUsize> {
        self.0.clone()
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Default for Pools {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Pools {
    /// For so many lanes.
    pub fn new(lanes: usize) -> Self {
        Self { lanes: (0..=lanes).map(|_| Shards::default()).collect() }
    }

    fn shard(&self, address: SocketAddr) -> &Mutex<Shard> {
        let ip = match address.ip() {
            std::net::IpAddr::V4(ip) => u64::from(ip.to_bits()),
            std::net::IpAddr::V6(ip) => ip.to_bits() as u64,
        };
        let spread = (ip ^ u64::from(address.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shards = self.lanes.get(lanes::number()).unwrap_or(&self.lanes[0]);
        &shards[(spread >> 60) as usize % SHARDS]
    }

    /// An idle connection for HTTP/1, the one used last first, and how long it was idle. With
    /// `fresh_only`, none that was idle for [`FRESH_FOR`].
    pub(super) fn take<C: Kept>(
        &self,
        address: SocketAddr,
        fresh_only: bool,
        now: Instant,
    ) -> Option<(C, Duration)> {
        let mut shard = self.shard(address).lock();
        let idle = C::waiting(&mut shard).get_mut(&address)?;
        loop {
            let age = now.saturating_duration_since(idle.last()?.since);
            if fresh_only && age >= FRESH_FOR {
                return None;
            }
            let Idle { connection, .. } = idle.pop()?;
            if !connection.is_over() && age < IDLE_FOR {
                return Some((connection, age));
            }
        }
    }

    /// Keeps a connection whose last exchange is over.
    pub(super) fn keep<C: Kept>(&self, address: SocketAddr, connection: C, now: Instant) {
        if connection.is_over() {
            return;
        }
        let mut shard = self.shard(address).lock();
        let idle = C::waiting(&mut shard).entry(address).or_default();
        if idle.len() < IDLE_PER_BACKEND {
            idle.push(Idle { connection, since: now });
        }
    }

    /// The HTTP/2 connections to a Backend.
    pub(super) fn http2(&self, address: SocketAddr) -> Arc<Multiplexed> {
        self.shard(address).lock().http2.entry(address).or_default().clone()
    }

    /// Closes what was idle for too long.
    pub fn sweep(&self, now: Instant) {
        for shard in self.lanes.iter().flatten() {
            let mut shard = shard.lock();
            sweep::<Http1>(&mut shard, now);
            sweep::<Wire>(&mut shard, now);
            shard.http2.retain(|_, all| {
                let mut open = all.open.lock();
                open.retain(|c| {
                    let idle = c.streams.load(Relaxed) == 0
                        && now.saturating_duration_since(c.used) >= IDLE_FOR;
                    !c.sender.is_closed() && !idle
                });
                !open.is_empty() || Arc::strong_count(all) > 1
            });
        }
    }

    /// Closes everything that is idle at this moment.
    pub fn sweep_all(&self) {
        for shard in self.lanes.iter().flatten() {
            let mut shard = shard.lock();
            shard.http1.clear();
            shard.plain.clear();
            shard.http2.clear();
        }
    }
}

fn sweep<C: Kept>(shard: &mut Shard, now: Instant) {
    C::waiting(shard).retain(|_, idle| {
        idle.retain(|i| {
            !i.connection.is_over() && now.saturating_duration_since(i.since) < IDLE_FOR
        });
        !idle.is_empty()
    });
}

impl Multiplexed {
    /// A sender with room for one more stream.
    pub(super) fn take(&self, now: Instant) -> Option<(http2::SendRequest<Upload>, StreamPlace)> {
        let mut open = self.open.lock();
        open.retain(|c| !c.sender.is_closed());
        let free = |c: &&mut Http2| {
            c.streams.load(Relaxed) < STREAMS_PER_CONNECTION && c.sender.is_ready()
        };
        let connection = open.iter_mut().find(free)?;
        connection.used = now;
        connection.streams.fetch_add(1, Relaxed);
        Some((connection.sender.clone(), StreamPlace(connection.streams.clone())))
    }

    /// Dials that failed so far.
    pub(super) fn failed(&self) -> usize {
        self.failed.load(Relaxed)
    }

    /// Notes one more, for those who wait.
    pub(super) fn note_failed(&self, last: &mut Option<Refusal>, refusal: Refusal) {
        *last = Some(refusal);
        self.failed.fetch_add(1, Relaxed);
    }

    /// Shares a connection no longer.
    pub(super) fn forget(&self, connection: &Arc<AtomicUsize>) {
        self.open.lock().retain(|c| !Arc::ptr_eq(&c.streams, connection));
    }

    /// Shares a new connection.
    pub(super) fn add(&self, sender: http2::SendRequest<Upload>, now: Instant) {
        self.open.lock().push(Http2 { sender, streams: Arc::default(), used: now });
    }
}
