//! Counters of the data path: plain atomics, named once, read by whoever writes the page.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::refusal::Refusal;

/// What a flow carried, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carried {
    /// HTTP/1 requests.
    Http1,
    /// HTTP/2 requests, gRPC among them.
    Http2,
    /// A TLS connection.
    Tls,
    /// A connection of bytes.
    Opaque,
}

impl Carried {
    /// Every value, in the order of [`Carried::index`].
    pub const ALL: [Self; 4] = [Self::Http1, Self::Http2, Self::Tls, Self::Opaque];

    /// Label in metrics and access log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Opaque => "opaque",
        }
    }

    /// Index into per-protocol tables.
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// All counters of one mesh.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections that are being served.
    pub connections_open: AtomicI64,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections turned away because there is no room.
    pub connections_shed: AtomicU64,
    /// Captured connections whose destination is no Service.
    pub passed_through: AtomicU64,
    /// Dials raced against a silent client.
    pub raced: AtomicU64,
    /// Bytes from clients.
    pub bytes_up: AtomicU64,
    /// Bytes to clients.
    pub bytes_down: AtomicU64,
    /// Attempts after the first.
    pub retries: AtomicU64,
    /// Calls by what they carried.
    pub calls: [Calls; 4],
    refusals: [AtomicU64; Refusal::LABELS.len()],
}

/// Calls of one protocol: ended flows, split by outcome, with their durations.
#[derive(Debug, Default)]
pub struct Calls {
    /// Ended well.
    pub ok: AtomicU64,
    /// Ended badly by the backend's fault.
    pub failed: AtomicU64,
    /// Ended by the client before they were done.
    pub cancelled: AtomicU64,
    /// Not served; by reason in `refusals`.
    pub refused: AtomicU64,
    /// How long they took.
    pub duration: Histogram,
}

/// How a flow ended: its one outcome label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Served.
    Ok,
    /// The backend failed it.
    Failed,
    /// The client went away first.
    Cancelled,
    /// Not served, and why.
    Refused(Refusal),
}

impl Ended {
    /// Label in access log: the refusal's own where there is one.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refused(refusal) => refusal.row().label,
        }
    }
}

/// Upper bounds of the duration buckets, in microseconds.
pub const BUCKETS_MICROS: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000];

/// A histogram without locks.
#[derive(Debug, Default)]
pub struct Histogram {
    /// Counts a bucket, not cumulated; the last is everything longer.
    pub counts: [AtomicU64; BUCKETS_MICROS.len() + 1],
    /// Sum of all durations, in microseconds.
    pub sum_micros: AtomicU64,
}

impl Histogram {
    /// Notes one duration.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_MICROS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_micros.fetch_add(micros, Relaxed);
    }
}

impl Metrics {
    /// Counts the end of a flow.
    pub fn ended(&self, carried: Carried, ended: Ended, took: Duration) {
        let calls = &self.calls[carried.index()];
        let counter = match ended {
            Ended::Ok => &calls.ok,
            Ended::Failed => &calls.failed,
            Ended::Cancelled => &calls.cancelled,
            Ended::Refused(refusal) => {
                self.refusals[refusal.index()].fetch_add(1, Relaxed);
                &calls.refused
            }
        };
        counter.fetch_add(1, Relaxed);
        calls.duration.observe(took);
    }

    /// Counts of refusals by label; every label is there from the start.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Refusal::LABELS
            .iter()
            .zip(&self.refusals)
            .map(|(label, count)| (*label, count.load(Relaxed)))
    }

    /// Counts a connection until the guard is dropped.
    pub fn connection(self: &Arc<Self>) -> ConnectionOpen {
        self.connections.fetch_add(1, Relaxed);
        self.connections_open.fetch_add(1, Relaxed);
        ConnectionOpen(self.clone())
    }
}

/// See [`Metrics::connection`].
#[derive(Debug)]
pub struct ConnectionOpen(Arc<Metrics>);

impl Drop for ConnectionOpen {
    fn drop(&mut self) {
        self.0.connections_open.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_and_labels() {
        let metrics = Metrics::default();
        let took = Duration::from_micros(250);
        metrics.ended(Carried::Tls, Ended::Ok, took);
        metrics.ended(Carried::Http1, Ended::Refused(Refusal::NoBackend), took);
        assert_eq!(metrics.calls[Carried::Tls.index()].ok.load(Relaxed), 1);
        assert_eq!(metrics.calls[Carried::Http1.index()].duration.counts[1].load(Relaxed), 1);
        let counted: Vec<_> = metrics.refusals().filter(|(_, n)| *n > 0).collect();
        assert_eq!(counted, [("noBackend", 1)]);
    }
}
