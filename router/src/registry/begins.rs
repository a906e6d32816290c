//! On which nodes messages of a Rule may enter the mesh, as its records say: only those may count them.

use edgemesh_proto::record::{Body, Endpoint, EndpointName, Key, Kind, NodeName, Rule, RuleName};

use crate::registry::Registry;

/// Where a Rule may begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// Nowhere: the Rule or its source is missing, or of a kind that is not known here.
    Nowhere,
    /// At the ingress.
    InTheCloud,
    /// On that node.
    On(NodeName),
    /// On each.
    Everywhere,
}

impl Begins {
    pub(super) fn of(registry: &Registry, name: &RuleName) -> Self {
        let Some(rule) = rule(registry, name) else { return Self::Nowhere };
        let Some(source) = endpoint(registry, &rule.source) else { return Self::Nowhere };
        match source.endpoint_type.as_str() {
            "rest" => Self::InTheCloud,
            "service" => Self::Everywhere,
            "eventbus" | "servicebus" => {
                let said = rule.source_resource.get("node_name");
                match said.or_else(|| source.properties.get("node_name")) {
                    None | Some("") => Self::Everywhere,
                    Some(node) => Self::On(NodeName(node.into())),
                }
            }
            _ => Self::Nowhere,
        }
    }

    /// Whether that node may count messages of it; the cloud is asked by nobody.
    pub(super) fn is_on(&self, node: &NodeName) -> bool {
        match self {
            Self::Nowhere | Self::InTheCloud => false,
            Self::On(of) => of == node,
            Self::Everywhere => true,
        }
    }
}

fn rule(registry: &Registry, RuleName { namespace, name }: &RuleName) -> Option<Rule> {
    let key = Key { kind: Kind::Rule, namespace: namespace.clone(), name: name.clone() };
    let Body::Rule(rule) = registry.get(&key)?.body else { return None };
    Some(rule)
}

fn endpoint(registry: &Registry, name: &EndpointName) -> Option<Endpoint> {
    let EndpointName { namespace, name } = name.clone();
    let key = Key { kind: Kind::Endpoint, namespace, name };
    let Body::Endpoint(endpoint) = registry.get(&key)?.body else { return None };
    Some(endpoint)
}
