//! `/v1/explain?rule=…`: what would become of a message of a Rule, dry.

use std::fmt::Write as _;

use edgemesh_core::io::now;
use edgemesh_core::plan::{Arrival, Destination, Head, Purpose, Target, explain};
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::{Rule, Source, TOPIC, Target as Aim};
use edgemesh_proto::record::RuleName;
use http::{HeaderValue, Request};

use crate::agent::explain::view;
use crate::api;

/// Explains the message that the query describes: `rule`, `namespace` (`default` without), `node` that
/// the message names, `path` of its request, `bytes` of its body.
pub(super) fn explained(
    snapshot: &Snapshot,
    query: &[(String, String)],
) -> Result<api::Explanation, String> {
    let asked = Asked::read(query)?;
    let Some(rule) = snapshot.rules.get(&asked.rule) else {
        return Err(format!("there is no Rule {}: `edgemesh get rules` lists them", asked.rule));
    };
    let path = asked.path.unwrap_or_else(|| usual_path(rule));
    let mut request = Request::post(&path).body(()).map_err(|error| format!("path: {error}"))?;
    let made = rule.onto_target(request.uri().path(), request.uri().query());
    if let Ok(Ok(topic)) = made.as_deref().map(HeaderValue::from_str) {
        request.headers_mut().insert(TOPIC, topic);
    }
    let to = Target::Rule { rule: &asked.rule, node: asked.node.as_deref() };
    let destination = Destination {
        request: Some(Head::of(&request)),
        ..Destination::new(to, Arrival::Library, Purpose::Call)
    };
    let explanation = explain(snapshot, &destination, now());
    let mut view = view(&format!("Rule {}", asked.rule), to, snapshot, explanation);
    let path = request.uri().path();
    let target = match &made {
        Ok(made) => sent(rule, made),
        Err(_) => format!("{}: nothing, since the Rule does not take {path}", rule.record.target),
    };
    let mut steps = vec![step("source", taken(rule, path)), step("target", target)];
    if let Some(bytes) = asked.bytes {
        steps.push(step("body", fits(rule, bytes)));
    }
    steps.extend(rule.notes.iter().map(|note| step("note", note.to_string())));
    view.steps.splice(0..0, steps);
    let fitting = made.and_then(|_| match asked.bytes.is_some_and(|bytes| bytes > rule.max_body) {
        true => Err(Refusal::BodyTooLarge),
        false => Ok(()),
    });
    if let Err(refusal) = fitting {
        let row = refusal.row();
        let (label, text) = (row.label.into(), row.text.into());
        (view.verdict, view.backend) = (api::Verdict::Refused, None);
        view.refusal = Some(api::RefusalView { label, status: row.http, text });
    }
    Ok(view)
}

struct Asked {
    rule: RuleName,
    node: Option<String>,
    path: Option<String>,
    bytes: Option<u64>,
}

impl Asked {
    fn read(query: &[(String, String)]) -> Result<Self, String> {
        let (mut name, mut namespace) = (String::new(), "default".to_owned());
        let (mut node, mut path, mut bytes) = (None, None, None);
        for (key, value) in query {
            match key.as_str() {
                "rule" => name.clone_from(value),
                "namespace" => namespace.clone_from(value),
                "node" => node = Some(value.clone()),
                "path" if value.starts_with('/') => path = Some(value.clone()),
                "path" => return Err(format!("path: `{value}` does not begin with `/`")),
                "bytes" => {
                    let wrong = |_| format!("bytes: `{value}` is no number");
                    bytes = Some(value.parse().map_err(wrong)?);
                }
                _ => {
                    let known = "rule, namespace, node, path, bytes";
                    return Err(format!("unknown key `{key}`; known are {known}"));
                }
            }
        }
        if let Some((within, own)) = name.clone().split_once('/') {
            (namespace, name) = (within.to_owned(), own.to_owned());
        }
        Ok(Self { rule: RuleName::new(&namespace, &name), node, path, bytes })
    }
}

/// A path that the source takes: its own, with `{name}` standing for itself.
fn usual_path(rule: &Rule) -> String {
    let path = rule.path().map_or_else(|| "/".to_owned(), ToString::to_string);
    path.replace(['{', '}'], "")
}

fn taken(rule: &Rule, path: &str) -> String {
    let of = &rule.record.source;
    match &rule.source {
        Some(Source::Rest { path: pattern }) => {
            let namespace = &rule.name.namespace;
            let takes = match rule.onto_target(path, None) {
                Ok(_) => "takes",
                Err(_) => "does not take",
            };
            format!("rest {of}: /{{node}}/{namespace}{pattern} {takes} {path}")
        }
        Some(Source::EventBus { topic, node }) => {
            format!("eventbus {of}: topic {}{}", topic.as_str(), on(node.as_ref().map(|n| &*n.0)))
        }
        Some(Source::ServiceBus { url, node }) => {
            format!("servicebus {of}: targetURL {url}{}", on(node.as_ref().map(|n| &*n.0)))
        }
        Some(Source::Service { service, port, path }) => {
            let mut text = format!("service {of}: calls of {service}");
            if let Some(port) = port {
                let _ = write!(text, ":{port}");
            }
            if let Some(path) = path {
                let _ = write!(text, " whose path begins with {path}");
            }
            text
        }
        None => format!("{of}: not understood, see below"),
    }
}

fn sent(rule: &Rule, made: &str) -> String {
    let of = &rule.record.target;
    match &rule.target {
        Some(Aim::Rest(target)) => {
            let scheme = if target.tls { "https" } else { "http" };
            format!("rest {of}: {scheme}://{}{made}", target.authority)
        }
        Some(Aim::EventBus(target)) => {
            let qos = u8::from(target.confirmed);
            let retained = if target.retain { ", retained" } else { "" };
            format!("eventbus {of}: topic {made}, QoS {qos}{retained}")
        }
        Some(Aim::ServiceBus { port, .. }) => format!("servicebus {of}: 127.0.0.1:{port}{made}"),
        Some(Aim::Service { service, .. }) => {
            format!("service {of}: Service {service}, path {made}")
        }
        None => format!("{of}: not understood, see below"),
    }
}

fn fits(rule: &Rule, bytes: u64) -> String {
    let most = rule.max_body;
    match bytes <= most {
        true => format!("{bytes} bytes of at most {most}"),
        false => format!("{bytes} bytes are more than the {most} that the Rule takes"),
    }
}

fn on(node: Option<&str>) -> String {
    node.map_or_else(|| " on each node".into(), |node| format!(" on node {node}"))
}

fn step(step: &str, what: String) -> api::Step {
    api::Step { step: step.into(), what, why: String::new() }
}
