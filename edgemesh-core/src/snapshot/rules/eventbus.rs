//! Endpoint type `eventbus`: topics of the MQTT broker of a node.
//!
//! As in KubeEdge, a source's topic is below the namespace of its Endpoint, a target's is not.

use edgemesh_proto::record::NodeName;

use crate::snapshot::rules::kinds::{Given, Kind, Side};
use crate::snapshot::rules::path::check_names;
use crate::snapshot::rules::{Filter, Source, Target, TopicTarget, check_topic, settings};

/// See the module.
pub(super) const EVENTBUS: Kind = Kind {
    name: "eventbus",
    properties: &["node_name"],
    source_keys: &["topic", "node_name"],
    target_keys: &["topic", "node_name", "qos", "retain"],
    check: |_| Ok(()),
    source,
    target,
};

fn source(side: &Side<'_>, _: &Given<'_>) -> Result<Source, String> {
    let topic = below(&side.name.namespace, topic(side)?);
    let topic = Filter::parse(&topic).map_err(|why| format!("topic: {why}"))?;
    Ok(Source::EventBus { topic, node: node(side) })
}

/// The topic below a namespace. As in KubeEdge it is joined like a path: without slashes around it, and
/// one where there are several.
fn below(namespace: &str, topic: &str) -> String {
    let levels = topic.split('/').filter(|level| !level.is_empty());
    std::iter::once(namespace).chain(levels).collect::<Vec<_>>().join("/")
}

fn target(side: &Side<'_>, given: &Given<'_>) -> Result<Target, String> {
    let topic = topic(side)?;
    check_topic(topic)
        .and_then(|()| check_names(topic, given.path))
        .map_err(|why| format!("topic: {why}"))?;
    let confirmed = match side.resource("qos") {
        None | Some("1") => true,
        Some("0") => false,
        Some(text) => return Err(format!("qos: `{text}` is neither 0 nor 1")),
    };
    let retain = settings::yes(&|key| side.resource(key), "retain", false)?;
    Ok(Target::EventBus(TopicTarget { topic: topic.into(), node: node(side), confirmed, retain }))
}

fn topic<'a>(side: &Side<'a>) -> Result<&'a str, String> {
    side.resource("topic")
        .filter(|topic| !topic.is_empty())
        .ok_or_else(|| "topic: is missing".to_owned())
}

fn node(side: &Side<'_>) -> Option<NodeName> {
    settings::node(&|key| side.either(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_joined_like_paths() {
        for (topic, want) in [
            ("up", "ns/up"),
            ("/up/", "ns/up"),
            ("a//b/+", "ns/a/b/+"),
            ("#", "ns/#"),
            ("//", "ns"),
        ] {
            assert_eq!(below("ns", topic), want, "{topic}");
        }
    }
}
