//! Endpoints and Rules as records, from protobuf to checked form and back.
//!
//! They are kept as the rule table wants them ([`crate::rule`]); only, a Rule names its Endpoints,
//! which may come later or be another namespace's.

use std::fmt;

use crate::pb;
use crate::record::Invalid;
use crate::record::values::required;
use crate::rule::{DomainId, Id, Name, Properties, ResourceMap};

/// Namespace and name of an Endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointName {
    /// Kubernetes namespace.
    pub namespace: Box<str>,
    /// Object name, in full.
    pub name: Box<str>,
}

/// Namespace and name of a Rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleName {
    /// Kubernetes namespace.
    pub namespace: Box<str>,
    /// Object name, in full.
    pub name: Box<str>,
}

/// A messaging endpoint of the Router. Never a Pod address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// See [`crate::rule::object_id`].
    pub id: Id,
    /// `rest`, `eventbus`, `servicebus` or `service`; what serves a type is the Router's to know.
    pub endpoint_type: Name,
    /// Who owns it; see [`crate::rule::project_id`].
    pub project_id: Option<Id>,
    /// Rules of other projects may use it.
    pub is_shared: bool,
    /// Type-dependent settings.
    pub properties: Properties,
    /// Milliseconds since 1970; 0 when unknown.
    pub created_at: i64,
    /// Milliseconds since 1970; 0 when unknown.
    pub updated_at: i64,
}

/// Source Endpoint to target Endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// See [`crate::rule::object_id`].
    pub id: Id,
    /// Who owns it; see [`crate::rule::project_id`].
    pub project_id: Id,
    /// The domain of the owner, or empty.
    pub domain_id: DomainId,
    /// Where messages come from.
    pub source: EndpointName,
    /// What on the source the Rule is about (`path`, `topic`, …).
    pub source_resource: ResourceMap,
    /// Where messages go.
    pub target: EndpointName,
    /// What on the target the Rule is about.
    pub target_resource: ResourceMap,
    /// `false` pauses the Rule.
    pub in_use: bool,
    /// Gone, but kept until nothing is queued for it.
    pub is_deleted: bool,
    /// Milliseconds since 1970; 0 when unknown.
    pub created_at: i64,
    /// Milliseconds since 1970; 0 when unknown.
    pub updated_at: i64,
}

impl EndpointName {
    /// From namespace and name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl RuleName {
    /// From namespace and name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for EndpointName {
    /// `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Display for RuleName {
    /// `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl From<&Endpoint> for pb::Endpoint {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.to_string(),
            r#type: endpoint.endpoint_type.to_string(),
            project_id: endpoint.project_id.as_ref().map(ToString::to_string),
            is_shared: endpoint.is_shared,
            properties: endpoint.properties.clone().into(),
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
        }
    }
}

impl TryFrom<pb::Endpoint> for Endpoint {
    type Error = Invalid;

    fn try_from(endpoint: pb::Endpoint) -> Result<Self, Invalid> {
        let project_id = endpoint.project_id.map(|id| Id::new("project_id", &id)).transpose()?;
        Ok(Self {
            id: Id::new("id", &endpoint.id)?,
            endpoint_type: Name::new("type", &endpoint.r#type)?,
            project_id,
            is_shared: endpoint.is_shared,
            properties: Properties::new("properties", endpoint.properties)?,
            created_at: endpoint.created_at,
            updated_at: endpoint.updated_at,
        })
    }
}

impl From<&Rule> for pb::Rule {
    fn from(rule: &Rule) -> Self {
        Self {
            id: rule.id.to_string(),
            project_id: rule.project_id.to_string(),
            domain_id: rule.domain_id.to_string(),
            source: Some((&rule.source).into()),
            source_resource: rule.source_resource.clone().into(),
            target: Some((&rule.target).into()),
            target_resource: rule.target_resource.clone().into(),
            is_paused: !rule.in_use,
            is_deleted: rule.is_deleted,
            created_at: rule.created_at,
            updated_at: rule.updated_at,
        }
    }
}

impl TryFrom<pb::Rule> for Rule {
    type Error = Invalid;

    fn try_from(rule: pb::Rule) -> Result<Self, Invalid> {
        Ok(Self {
            id: Id::new("id", &rule.id)?,
            project_id: Id::new("project_id", &rule.project_id)?,
            domain_id: DomainId::new("domain_id", &rule.domain_id)?,
            source: side("source", rule.source)?,
            source_resource: ResourceMap::new("source_resource", rule.source_resource)?,
            target: side("target", rule.target)?,
            target_resource: ResourceMap::new("target_resource", rule.target_resource)?,
            in_use: !rule.is_paused,
            is_deleted: rule.is_deleted,
            created_at: rule.created_at,
            updated_at: rule.updated_at,
        })
    }
}

impl From<&EndpointName> for pb::EndpointRef {
    fn from(name: &EndpointName) -> Self {
        Self { namespace: name.namespace.to_string(), name: name.name.to_string() }
    }
}

fn side(field: &str, said: Option<pb::EndpointRef>) -> Result<EndpointName, Invalid> {
    let said = said.ok_or_else(|| Invalid::new(field, "is missing"))?;
    let whole = || {
        Ok(EndpointName {
            namespace: required("namespace", said.namespace)?,
            name: required("name", said.name)?,
        })
    };
    whole().map_err(|error: Invalid| error.under(field))
}
