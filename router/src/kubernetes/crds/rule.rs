//! `Rule` of `rules.kubeedge.io/v1`: KubeEdge's fields, what this mesh adds to them, and what it says of a Rule.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kubernetes::crds::{Condition, words};

/// Which messages go where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "rules.kubeedge.io",
    version = "v1",
    kind = "Rule",
    plural = "rules",
    namespaced,
    status = "RuleStatus",
    category = "edgemesh",
    derive = "PartialEq",
    doc = "A Rule takes messages from one RuleEndpoint, its source, to another, its target.",
    printcolumn = r#"{"name": "Source", "type": "string", "jsonPath": ".spec.source", "description": "RuleEndpoint from which messages come"}"#,
    printcolumn = r#"{"name": "Target", "type": "string", "jsonPath": ".spec.target", "description": "RuleEndpoint to which they go"}"#,
    printcolumn = r#"{"name": "State", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Active\")].reason", "description": "Active, Degraded, Paused, Waiting, Faulty or Overruled"}"#,
    printcolumn = r#"{"name": "Success", "type": "integer", "jsonPath": ".status.successMessages", "description": "messages that arrived"}"#,
    printcolumn = r#"{"name": "Fail", "type": "integer", "jsonPath": ".status.failMessages", "description": "messages that did not"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason", "priority": 1, "description": "whether the mesh goes by it"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Active\")].message", "priority": 1, "description": "why it takes no messages"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RuleSpec {
    /// Name of the RuleEndpoint from which messages come: NAME in the Rule's namespace, or
    /// NAMESPACE/NAME of one that is shared.
    #[schemars(schema_with = "words::endpoint_name")]
    pub source: String,
    /// Which of its messages the Rule takes, and how many. Each value is a text; what the source has no
    /// use for is ignored, and noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_resource: Option<SourceResource>,
    /// Name of the RuleEndpoint to which they go: NAME in the Rule's namespace, or NAMESPACE/NAME of one
    /// that is shared.
    #[schemars(schema_with = "words::endpoint_name")]
    pub target: String,
    /// Where at the target they go, and how. Each value is a text; what the target has no use for is
    /// ignored, and noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_resource: Option<TargetResource>,
    /// Whether the Rule takes messages; true where it is not said. False pauses it: what it would take is
    /// refused with 503. Where KubeEdge's own definition is installed, which drops this key, use the
    /// annotation edgemesh.io/in-use: "false".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<bool>,
}

/// Which messages of a source. The map may take 1024 bytes as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct SourceResource {
    /// Source rest: the path below /NODE/NAMESPACE with which requests begin. Source service: the path with
    /// which requests begin; all calls where there is none. A whole segment may be {name}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub path: Option<Value>,
    /// Source eventbus: the MQTT topic below the namespace; + and # are wildcards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub topic: Option<Value>,
    /// Source servicebus: the URL that callers of the node's ServiceBus name, to the letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub target_url: Option<Value>,
    /// Source eventbus or servicebus: only messages of this node; of every node where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub node_name: Option<Value>,
    /// Most messages a second of this Rule, a whole number from 1; no limit where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub qps: Option<Value>,
    /// Most messages at once, a whole number from 1; as many as qps where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub burst: Option<Value>,
    /// Largest body in bytes, up to 1073741824; 12582912 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub max_body: Option<Value>,
    /// What other programs read.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// Where at a target. The map may take 1024 bytes as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct TargetResource {
    /// Target rest: the URL that is called, http:// or https://; {name} in its path stands for what the
    /// source's path has there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub resource: Option<Value>,
    /// Target servicebus or service: what the part of the path that the source names becomes; / or, for a
    /// service, what it was, where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub path: Option<Value>,
    /// Target eventbus: the MQTT topic on which messages are published, as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub topic: Option<Value>,
    /// Target eventbus or servicebus: the node; the one that a message names or comes from where it is not
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub node_name: Option<Value>,
    /// Target eventbus: 1, the broker confirms each message, or 0; 1 where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub qos: Option<Value>,
    /// Target eventbus: true lets the broker keep the last message for who subscribes later; false where it
    /// is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub retain: Option<Value>,
    /// Longest time for the whole answer, 1ms to 1h, such as 500ms, 10s or 2m (a number alone is seconds);
    /// 60s where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub timeout: Option<Value>,
    /// What other programs read.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}

/// What the mesh says of a Rule. The first three fields are KubeEdge's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleStatus {
    /// Messages that arrived, over all nodes, since the Rule was made. Written now and then, not per message.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub success_messages: i64,
    /// Messages that did not arrive, over all nodes, since the Rule was made.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub fail_messages: i64,
    /// Why messages do not arrive now, with the node on which they fail for longest; empty when they arrive.
    #[serde(default, deserialize_with = "words::list")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub errors: Vec<String>,
    /// Which generation of the Rule (metadata.generation) this is said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// Whether the mesh goes by the Rule (Accepted) and whether it takes messages (Active), and why not.
    #[serde(default, deserialize_with = "words::list")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
