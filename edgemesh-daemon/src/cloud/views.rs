//! What the cloud's pages say.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use edgemesh_core::identity::CLOUD;
use edgemesh_core::io::now;
use edgemesh_core::snapshot::rules::Rule;
use edgemesh_router::cloud::count_own;
use edgemesh_router::hub::Node;

use crate::agent::api_server;
use crate::agent::rule_series::{self, Series};
use crate::agent::source_series;
use crate::agent::views as snapshots;
use crate::api;
use crate::cloud::admin::State;
use crate::cloud::rules;

/// What is missing; empty = ready.
pub(super) fn not_ready(state: &State) -> Vec<String> {
    let mut missing = Vec::new();
    let read = state.source.get();
    let known = state.registry.revision() > 0;
    if let Some(trouble) = read.trouble.as_ref().filter(|_| !known) {
        missing.push(trouble.clone());
    }
    if known && !state.mesh.status().get().has_records {
        missing.push("the cloud's own records are not read yet".into());
    }
    missing
}

/// `/v1/status`
pub(super) fn status(state: &State) -> api::Status {
    let (snapshot, missing) = (state.mesh.snapshot(), not_ready(state));
    let (metrics, status) = (state.mesh.metrics(), state.mesh.status());
    let read = state.source.get();
    let (backends, ejected, _) = snapshots::count_backends(&snapshot, now());
    let refusals: BTreeMap<String, u64> = metrics
        .refusals()
        .filter(|(_, count)| *count > 0)
        .map(|(label, count)| (label.to_owned(), count))
        .collect();
    api::Status {
        node: CLOUD.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ready: missing.is_empty(),
        not_ready: missing,
        revision: state.registry.revision(),
        epoch: state.registry.epoch().iter().map(|byte| format!("{byte:02x}")).collect(),
        data_age_seconds: status.data_age(now()).map(|age| age.as_secs()),
        store: match state.registry.trouble() {
            None => api::StoreState::Ok,
            Some(_) => api::StoreState::StoreReadOnly,
        },
        repairs: state.registry.repairs().iter().map(ToString::to_string).collect(),
        links: links(state),
        broker: None,
        source: followed(state),
        capture: api::Capture::off(),
        listeners: state.listeners.clone(),
        services: snapshot.services().len() as u64,
        backends,
        ejected,
        flows: api::Flows {
            open: metrics.connections_open.load(Relaxed).try_into().unwrap_or(0),
            total: metrics.connections.load(Relaxed),
        },
        refusals,
        remarks: snapshots::remarks(read.trouble.as_ref(), &read.remarks),
    }
}

/// The API server, where records come from one.
fn followed(state: &State) -> Option<api::SourceView> {
    state.followed.as_ref().map(api_server::view)
}

/// Every node that is linked to the hub.
pub(super) fn links(state: &State) -> api::Links {
    let peer = |node: Arc<Node>| api::PeerLink {
        node: node.name.0.to_string(),
        path: api::Path::Direct,
        reason: format!("linked to this hub, edgemesh {}", node.version),
        rtt_ms: node.round_trip().map(|took| (took.as_micros() as f64) / 1e3),
        since_seconds: node.since.elapsed().map_or(0, |since| since.as_secs()),
        address: node.address.to_string(),
    };
    api::Links { cloud: None, peers: state.hub.nodes().into_iter().map(peer).collect() }
}

/// `/v1/nodes`
pub(super) fn nodes(state: &State) -> impl serde::Serialize + use<> {
    snapshots::nodes(&state.mesh.snapshot(), None, &links(state))
}

/// `/v1/backends`
pub(super) fn backends(state: &State) -> impl serde::Serialize + use<> {
    let checked = &state.mesh.status().get().checked;
    snapshots::backends(&state.mesh.snapshot(), checked, &links(state), now())
}

/// `/v1/rules`
pub(super) fn rules(state: &State) -> Vec<api::RuleView> {
    let snapshot = state.mesh.snapshot();
    count_own(&state.registry, &snapshot);
    rules::of_all_nodes(&snapshot, &state.registry.counts())
}

/// `/metrics`
pub(super) fn metrics(state: &State) -> String {
    let metrics = state.mesh.metrics();
    let rows = [
        ("edgemesh_cloud_nodes", "gauge", "Nodes that are linked.", state.hub.nodes().len() as u64),
        ("edgemesh_cloud_revision", "gauge", "Revision of the records.", state.registry.revision()),
        (
            "edgemesh_cloud_connections",
            "counter",
            "Connections and requests that this process carried itself.",
            metrics.connections.load(Relaxed),
        ),
    ];
    let mut page = String::new();
    for (name, kind, help, value) in rows {
        let total = if kind == "counter" { "_total" } else { "" };
        // A String takes everything.
        let _ = write!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{total} {value}\n");
    }
    source_series(state, &mut page);
    rule_series(state, &mut page);
    page + "# EOF\n"
}

fn source_series(state: &State, page: &mut String) {
    let Some(source) = followed(state) else { return };
    let line =
        |suffix: &str, kind: &str, value: u64| format!("{suffix}{{kind=\"{kind}\"}} {value}");
    let of = source.kinds.iter();
    let objects = of.clone().map(|of| line("", &of.kind, of.objects)).collect();
    head(page, source_series::OBJECTS, "gauge", objects);
    let wrong = of.clone().map(|of| line("", &of.kind, of.wrong)).collect();
    head(page, source_series::WRONG, "gauge", wrong);
    let failures = of.map(|of| line("_total", &of.kind, of.failures)).collect();
    head(page, source_series::FAILURES, "counter", failures);
}

/// A metric with its lines.
fn head(page: &mut String, (name, help): (&str, &str), kind: &str, lines: Vec<String>) {
    // A String takes everything.
    let _ = write!(page, "# HELP edgemesh_{name} {help}.\n# TYPE edgemesh_{name} {kind}\n");
    for line in lines {
        let _ = writeln!(page, "edgemesh_{name}{line}");
    }
}

/// As an agent's, with what all nodes together counted.
fn rule_series(state: &State, page: &mut String) {
    let snapshot = state.mesh.snapshot();
    count_own(&state.registry, &snapshot);
    let counts = state.registry.counts();
    let of = |rule: &Rule| counts.get(&rule.name).map_or((0, 0), |sum| (sum.success, sum.fail));
    let series = Series::of(&snapshot, of);
    let mut head = |named: (&str, &str), kind: &str, lines: Vec<String>| {
        head(page, named, kind, lines);
    };
    let labels = |(namespace, rule): &rule_series::Of| {
        format!("namespace=\"{}\",rule=\"{}\"", escaped(namespace), escaped(rule))
    };
    let messages = series.messages.iter().flat_map(|(of, success, fail)| {
        [("success", success), ("fail", fail)].map(|(outcome, count)| {
            format!("_total{{{},outcome=\"{outcome}\"}} {count}", labels(of))
        })
    });
    head(rule_series::MESSAGES, "counter", messages.collect());
    let latencies =
        series.latencies.iter().map(|(of, seconds)| format!("{{{}}} {seconds}", labels(of)));
    head(rule_series::LATENCY, "gauge", latencies.collect());
    let states = series
        .states
        .iter()
        .map(|(state, count)| format!("{{state=\"{}\"}} {count}", state.word()));
    head(rule_series::STATES, "gauge", states.collect());
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
