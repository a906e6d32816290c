//! The tables of `get endpoints` and `get rules`.

use std::collections::BTreeMap;

use crate::api::EndpointObject;
use crate::api::EndpointView;
use crate::api::RuleView;
use crate::show::table::draw;

/// What people who look for the other kind of endpoint are told.
const PODS: &str = "Pod addresses: edgemesh get backends\n";
/// Wider tables than this are harder to read than lines that wrap.
const WIDEST: u16 = 80;
/// Said of a resource map first, in this order; what else is in it follows.
const TELLING: [&str; 4] = ["path", "topic", "target_url", "resource"];

/// Endpoints of the Router, and the way to what others call so.
pub fn endpoints(endpoints: &[EndpointView], width: u16) -> String {
    let rows = endpoints.iter().map(|view| {
        let endpoint = &view.endpoint;
        let mut says: Vec<String> = endpoint.properties.iter().map(said).collect();
        if endpoint.is_shared {
            says.push("shared".into());
        }
        says.extend(view.reason.iter().map(|reason| format!("faulty: {reason}")));
        vec![
            format!("{}/{}", endpoint.namespace, endpoint.name),
            endpoint.endpoint_type.clone(),
            or_none(says),
            or_none(view.used_by.clone()),
        ]
    });
    draw(&["ENDPOINT", "TYPE", "SAYS", "USED BY"], &[], rows, width.min(WIDEST)) + PODS
}

/// Rules with what they take, where it goes, and what came of it.
pub fn rules(rules: &[RuleView], width: u16) -> String {
    let rows = rules.iter().map(|rule| {
        vec![
            format!("{}/{}", rule.namespace, rule.name),
            side(rule.source.as_ref(), &rule.source_resource),
            side(rule.target.as_ref(), &rule.target_resource),
            match &rule.reason {
                Some(reason) => format!("{}: {reason}", rule.state.word()),
                None => rule.state.word().into(),
            },
            rule.success_messages.to_string(),
            rule.fail_messages.to_string(),
        ]
    });
    let head = ["RULE", "FROM", "TO", "STATE", "OK", "FAILED"];
    draw(&head, &[4, 5], rows, width.min(WIDEST))
}

/// The type of its Endpoint, and what on it the Rule is about.
fn side(endpoint: Option<&EndpointObject>, resource: &BTreeMap<String, String>) -> String {
    let mut words = vec![endpoint.map_or("?", |endpoint| &endpoint.endpoint_type).to_owned()];
    let port = endpoint.and_then(|endpoint| endpoint.properties.get("service_port"));
    let port = port.filter(|_| resource.contains_key("path"));
    words.extend(port.map(|port| format!(":{port}")));
    words.extend(TELLING.iter().filter_map(|key| resource.get(*key)).cloned());
    words.extend(resource.get("node_name").map(|node| format!("on {node}")));
    let told = |key: &str| TELLING.contains(&key) || key == "node_name";
    words.extend(resource.iter().filter(|(key, _)| !told(key)).map(said));
    words.join(" ")
}

fn said((key, value): (&String, &String)) -> String {
    format!("{key}={value}")
}

fn or_none(lines: Vec<String>) -> String {
    if lines.is_empty() { "-".into() } else { lines.join("\n") }
}
