//! `RuleEndpoint` of `rules.kubeedge.io/v1`: KubeEdge's fields and what this mesh adds to them.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::kubernetes::crds::{Status, words};

/// Where messages of Rules come from or go to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "rules.kubeedge.io",
    version = "v1",
    kind = "RuleEndpoint",
    plural = "ruleendpoints",
    shortname = "re",
    namespaced,
    status = "Status",
    category = "edgemesh",
    derive = "PartialEq",
    doc = "A RuleEndpoint is a place from which messages of Rules come, or to which they go.",
    printcolumn = r#"{"name": "Type", "type": "string", "jsonPath": ".spec.ruleEndpointType", "description": "rest, eventbus, servicebus or service"}"#,
    printcolumn = r#"{"name": "Port", "type": "string", "jsonPath": ".spec.properties.service_port", "description": "of the application on a node, for servicebus"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].reason", "description": "Accepted, Invalid or Conflicted"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].message", "priority": 1, "description": "why it is not accepted"}"#
)]
#[x_kube(
    validation = Rule::new("self.ruleEndpointType != 'servicebus' || !has(self.properties) || !has(self.properties.service_port) || !has(self.properties.service)")
        .message("service_port and service exclude each other"),
    validation = Rule::new("self.ruleEndpointType != 'servicebus' || !has(self.properties) || !has(self.properties.service_port) || (int(self.properties.service_port) >= 1 && int(self.properties.service_port) <= 65535)")
        .message("service_port must be a port, 1 to 65535"),
    validation = Rule::new("self.ruleEndpointType != 'service' || !has(self.properties) || !has(self.properties.port) || (int(self.properties.port) >= 1 && int(self.properties.port) <= 65535)")
        .message("port must be a port, 1 to 65535")
)]
#[serde(rename_all = "camelCase")]
pub struct RuleEndpointSpec {
    /// What it is: rest, requests at the cloud's ingress or a URL that the cloud calls; eventbus, topics of
    /// the MQTT broker of a node; servicebus, requests to the ServiceBus of a node or an application on a
    /// node; service, calls of a Service of the mesh or that Service. KubeEdge itself knows the first three.
    pub rule_endpoint_type: EndpointType,
    /// What else is to be known of it. Each value is a text; what the type has no use for is ignored, and
    /// noted. Where KubeEdge's own router runs too, write numbers in quotes: it reads nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<Properties>,
    /// Whether Rules of other namespaces may use it; false where it is not said. Where KubeEdge's own
    /// definition is installed, which drops this key, use the annotation edgemesh.io/shared: "true".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_shared: Option<bool>,
}

/// What a RuleEndpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EndpointType {
    /// Requests at the cloud's ingress; a URL that the cloud calls.
    Rest,
    /// Topics of the MQTT broker of a node.
    Eventbus,
    /// Requests to the ServiceBus of a node; an application on a node.
    Servicebus,
    /// Calls of a Service; that Service.
    Service,
}

/// What else is to be known of a RuleEndpoint. The map may take 10240 bytes as JSON.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!has(self.burst) || has(self.qps)").message("burst means nothing without qps")
)]
pub struct Properties {
    /// Type servicebus, as a target: the port of the application on the node's loopback address, 1 to 65535.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::text_or_number")]
    pub service_port: Option<Value>,
    /// Type service: the Service, as NAME, NAMESPACE/NAME or NAME.NAMESPACE, perhaps with :PORT; the
    /// RuleEndpoint's own name where it is not said. Type servicebus, as a target: the same, in place of
    /// service_port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::text_or_number")]
    pub service: Option<Value>,
    /// Type service: the port of the Service, 1 to 65535; its only one where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::text_or_number")]
    pub port: Option<Value>,
    /// Type eventbus or servicebus: the node, where the Rule does not name one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::scalar")]
    pub node_name: Option<Value>,
    /// Most messages a second of all its Rules together, a whole number from 1; no limit where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::count")]
    pub qps: Option<Value>,
    /// Most messages at once, a whole number from 1; as many as qps where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "words::count")]
    pub burst: Option<Value>,
    /// What other programs read.
    #[serde(flatten)]
    pub others: BTreeMap<String, Value>,
}
