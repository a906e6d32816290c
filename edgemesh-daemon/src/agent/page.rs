//! `/metrics`: the counters of the mesh in the Prometheus text format.
//!
//! The data path counts in plain atomics; this page reads them when it is asked for, so that a
//! scrape costs the flows nothing. Every label set is bounded: protocols, outcomes and reasons
//! are closed lists, Rules are cut off ([`Series`]).

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use edgemesh_core::dns::server::Counters;
use edgemesh_core::io::now;
use edgemesh_core::mesh::StoreHealth;
use edgemesh_core::metrics::{BUCKETS_MICROS, Calls, Carried, Histogram, Metrics};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::agent::admin::State;
use crate::agent::rule_series::{self, Series};
use crate::agent::source_series;
use crate::agent::views::count_backends;
use crate::api::{SourceKind, SourceView};

/// The page.
pub(super) fn metrics(state: &Arc<State>) -> Result<String, Error> {
    let mut registry = Registry::with_prefix("edgemesh");
    registry.register_collector(Box::new(Page(state.clone())));
    let mut page = String::new();
    encode(&mut page, &registry)?;
    Ok(page)
}

struct Page(Arc<State>);

impl std::fmt::Debug for Page {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Page")
    }
}

impl Collector for Page {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> Result<(), Error> {
        let state = &self.0;
        self.connections(&mut out, &state.metrics)?;
        self.calls(&mut out, &state.metrics)?;
        if let Some(dns) = &state.dns {
            self.dns(&mut out, dns)?;
        }
        self.rules(&mut out)?;
        if let Some(source) = state.looks.source() {
            self.source(&mut out, &source)?;
        }
        self.records(&mut out)
    }
}

impl Page {
    fn connections(&self, out: &mut DescriptorEncoder<'_>, metrics: &Metrics) -> Result<(), Error> {
        let open = metrics.connections_open.load(Relaxed);
        gauge(out, "connections_open", "Connections that are being served", open)?;
        for (name, help, value) in [
            ("connections_accepted", "Connections accepted", &metrics.connections),
            ("connections_shed", "Connections reset for lack of room", &metrics.connections_shed),
            (
                "connections_passed_through",
                "Captured connections whose destination is no Service",
                &metrics.passed_through,
            ),
            ("dials_raced", "Dials raced against a silent client", &metrics.raced),
            ("retries", "Attempts after the first", &metrics.retries),
        ] {
            counter(out, name, help, value)?;
        }
        let mut bytes = out.encode_descriptor(
            "transferred_bytes",
            "Bytes carried, from clients (up) and to clients (down)",
            None,
            MetricType::Counter,
        )?;
        labelled(&mut bytes, &[("direction", "up")], metrics.bytes_up.load(Relaxed))?;
        labelled(&mut bytes, &[("direction", "down")], metrics.bytes_down.load(Relaxed))
    }

    fn calls(&self, out: &mut DescriptorEncoder<'_>, metrics: &Metrics) -> Result<(), Error> {
        let mut calls = out.encode_descriptor(
            "calls",
            "Ended calls: HTTP requests, or connections of bytes",
            None,
            MetricType::Counter,
        )?;
        for (carried, of) in of_each(metrics) {
            for (outcome, count) in [
                ("ok", &of.ok),
                ("failed", &of.failed),
                ("cancelled", &of.cancelled),
                ("refused", &of.refused),
            ] {
                let labels = [("protocol", carried.label()), ("outcome", outcome)];
                labelled(&mut calls, &labels, count.load(Relaxed))?;
            }
        }
        let mut refusals = out.encode_descriptor(
            "refusals",
            "Calls that were not served, by reason",
            None,
            MetricType::Counter,
        )?;
        for (reason, count) in metrics.refusals() {
            labelled(&mut refusals, &[("reason", reason)], count)?;
        }
        let mut durations = out.encode_descriptor(
            "call_duration_seconds",
            "How long calls took, from the head of a request or the accept of a connection",
            None,
            MetricType::Histogram,
        )?;
        for (carried, of) in of_each(metrics) {
            let (count, buckets) = buckets(&of.duration);
            let sum = of.duration.sum_micros.load(Relaxed) as f64 / 1e6;
            durations
                .encode_family(&[("protocol", carried.label())])?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }

    fn dns(&self, out: &mut DescriptorEncoder<'_>, dns: &Counters) -> Result<(), Error> {
        let mut queries = out.encode_descriptor(
            "dns_queries",
            "DNS queries by how they ended",
            None,
            MetricType::Counter,
        )?;
        for (outcome, count) in [
            ("answered", &dns.answered),
            ("forwarded", &dns.forwarded),
            ("cached", &dns.cached),
            ("failed", &dns.failed),
            ("refused", &dns.refused),
        ] {
            labelled(&mut queries, &[("outcome", outcome)], count.load(Relaxed))?;
        }
        Ok(())
    }

    fn rules(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let series = Series::of(&self.0.live.load(), |rule| rule.live.counts());
        let (name, help) = rule_series::MESSAGES;
        let mut messages = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((namespace, rule), success, fail) in &series.messages {
            for (outcome, count) in [("success", success), ("fail", fail)] {
                let labels = [("namespace", &**namespace), ("rule", rule), ("outcome", outcome)];
                labelled(&mut messages, &labels, *count)?;
            }
        }
        let (name, help) = rule_series::LATENCY;
        let mut latencies = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for ((namespace, rule), seconds) in &series.latencies {
            let labels = [("namespace", namespace), ("rule", rule)];
            latencies.encode_family(&labels)?.encode_gauge(seconds)?;
        }
        let (name, help) = rule_series::STATES;
        let mut states = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (state, count) in &series.states {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            states.encode_family(&[("state", state.word())])?.encode_gauge(&count)?;
        }
        Ok(())
    }

    fn source(&self, out: &mut DescriptorEncoder<'_>, source: &SourceView) -> Result<(), Error> {
        let mut gauge = |(name, help): (&str, &str), count: fn(&SourceKind) -> u64| {
            let mut gauge = out.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for of in &source.kinds {
                let count = i64::try_from(count(of)).unwrap_or(i64::MAX);
                gauge.encode_family(&[("kind", &*of.kind)])?.encode_gauge(&count)?;
            }
            Ok(())
        };
        gauge(source_series::OBJECTS, |of| of.objects)?;
        gauge(source_series::WRONG, |of| of.wrong)?;
        let (name, help) = source_series::FAILURES;
        let mut failures = out.encode_descriptor(name, help, None, MetricType::Counter)?;
        for SourceKind { kind, failures: count, .. } in &source.kinds {
            labelled(&mut failures, &[("kind", kind)], *count)?;
        }
        Ok(())
    }

    fn records(&self, out: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
        let snapshot = self.0.live.load();
        let (all, ejected, ill) = count_backends(&snapshot, now());
        let read_only = !matches!(self.0.status.get().store, StoreHealth::Ok);
        let age = self.0.status.data_age(now()).map_or(-1, |age| age.as_secs() as i64);
        for (name, help, value) in [
            ("snapshot_revision", "Revision of the records in force", snapshot.revision as i64),
            ("services", "Services known", snapshot.services().len() as i64),
            ("backends", "Backends known", all as i64),
            ("backends_ejected", "Backends that a breaker keeps calls away from", ejected as i64),
            ("backends_ill", "Backends whose health check fails", ill as i64),
            ("data_age_seconds", "Since the source was last read whole; -1 = not yet", age),
            ("store_read_only", "1 while the disk takes no changes", i64::from(read_only)),
            ("ready", "1 while the agent is ready", i64::from(self.0.not_ready().is_empty())),
        ] {
            gauge(out, name, help, value)?;
        }
        let lost = AtomicU64::new(self.0.log.lost());
        counter(out, "access_log_lines_lost", "Access-log lines that found no room", &lost)
    }
}

/// How many were observed, and how many in each bucket, with its upper bound in seconds.
fn buckets(histogram: &Histogram) -> (u64, Vec<(f64, u64)>) {
    let counts: Vec<u64> = histogram.counts.iter().map(|c| c.load(Relaxed)).collect();
    let bounds = BUCKETS_MICROS.iter().map(|micros| *micros as f64 / 1e6);
    let all = counts.iter().sum();
    (all, bounds.chain([f64::INFINITY]).zip(counts).collect())
}

fn of_each(metrics: &Metrics) -> impl Iterator<Item = (Carried, &Calls)> {
    Carried::ALL.into_iter().map(|carried| (carried, &metrics.calls[carried.index()]))
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: i64) -> Result<(), Error> {
    out.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
}

fn counter(
    out: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &AtomicU64,
) -> Result<(), Error> {
    let value = value.load(Relaxed);
    out.encode_descriptor(name, help, None, MetricType::Counter)?
        .encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

fn labelled(
    metric: &mut MetricEncoder<'_>,
    labels: &[(&str, &str)],
    value: u64,
) -> Result<(), Error> {
    Value(value).encode(metric.encode_family(&labels)?)
}

struct Value(u64);

impl EncodeMetric for Value {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), Error> {
        encoder.encode_counter::<NoLabelSet, u64, u64>(&self.0, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prometheus computes no quantile without the last bucket.
    #[test]
    fn histograms_end_in_infinity() {
        let histogram = Histogram::default();
        histogram.observe(std::time::Duration::from_secs(60));
        let (_, buckets) = buckets(&histogram);
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 1)));
    }
}
