//! `rules.kubeedge.io/v1` RuleEndpoint and Rule as Endpoint and Rule records.

use std::collections::BTreeMap;

use edgemesh_proto::record::{Endpoint, EndpointName, Invalid, Kind, Rule};
use edgemesh_proto::rule::{DomainId, Name, Properties, ResourceMap, object_id, project_id};

use crate::manifests::field::{Fault, Field, brief};
use crate::manifests::{field, syntax};
use crate::snapshot::rules::check;

/// `"false"` on a Rule pauses it: the CRDs of KubeEdge drop `spec.inUse`.
const IN_USE: &str = "edgemesh.io/in-use";
/// `"true"` on a RuleEndpoint lets Rules of other namespaces use it.
const SHARED: &str = "edgemesh.io/shared";

/// Namespace and name of the object that is read.
pub(super) type Own<'a> = (&'a str, &'a str);

/// Reads a RuleEndpoint; `created` is in seconds since 1970.
pub(super) fn endpoint(
    top: &Field<'_>,
    (namespace, name): Own<'_>,
    created: i64,
) -> Result<Endpoint, Fault> {
    let spec = top.need("spec")?;
    syntax::known(&spec, &["ruleEndpointType", "properties", "isShared"])?;
    let kind = spec.need("ruleEndpointType")?;
    let endpoint = Endpoint {
        id: object_id(Kind::Endpoint, namespace, name),
        endpoint_type: checked(&kind, |text| Name::new("", text))?,
        project_id: Some(project_id(namespace)),
        is_shared: said(top, &spec, ("isShared", SHARED))?.unwrap_or(false),
        properties: spec.maybe("properties", properties)?.unwrap_or_default(),
        created_at: milliseconds(created),
        updated_at: milliseconds(created),
    };
    sound(&endpoint, &spec, "ruleEndpointType")?;
    Ok(endpoint)
}

/// Reads a Rule; `created` is in seconds since 1970.
pub(super) fn rule(
    top: &Field<'_>,
    (namespace, name): Own<'_>,
    created: i64,
) -> Result<Rule, Fault> {
    let spec = top.need("spec")?;
    let keys = ["source", "sourceResource", "target", "targetResource", "inUse"];
    syntax::known(&spec, &keys)?;
    let (source, target) = (spec.need("source")?, spec.need("target")?);
    Ok(Rule {
        id: object_id(Kind::Rule, namespace, name),
        project_id: project_id(namespace),
        domain_id: DomainId::default(),
        source: named(&source, namespace, syntax::subdomain_of)?,
        source_resource: spec.maybe("sourceResource", resource)?.unwrap_or_default(),
        target: named(&target, namespace, syntax::subdomain_of)?,
        target_resource: spec.maybe("targetResource", resource)?.unwrap_or_default(),
        in_use: said(top, &spec, ("inUse", IN_USE))?.unwrap_or(true),
        is_deleted: false,
        created_at: milliseconds(created),
        updated_at: milliseconds(created),
    })
}

/// An Endpoint: its name, in `namespace`, or `namespace/name`.
pub(super) fn named(
    field: &Field<'_>,
    namespace: &str,
    name: fn(&Field<'_>, &str) -> Result<Box<str>, Fault>,
) -> Result<EndpointName, Fault> {
    let text = field.text()?;
    let Some((namespace, rest)) = text.split_once('/') else {
        return Ok(EndpointName { namespace: namespace.into(), name: name(field, text)? });
    };
    if syntax::is_label(namespace) && !rest.is_empty() && !rest.contains('/') {
        return Ok(EndpointName { namespace: namespace.into(), name: name(field, rest)? });
    }
    let reason = format!("`{}` names no Endpoint; write NAME or NAMESPACE/NAME", brief(text));
    Err(field.fault(reason))
}

/// What is wrong with an Endpoint by itself is said of the field that it is in.
pub(super) fn sound(endpoint: &Endpoint, map: &Field<'_>, kind: &str) -> Result<(), Fault> {
    let Err(reason) = check(endpoint) else { return Ok(()) };
    let (key, why) = reason.split_once(": ").unwrap_or(("", &reason));
    if key == "type" {
        return Err(map.need(kind)?.fault(why));
    }
    let Some(properties) = map.get("properties")? else { return Err(map.fault(reason)) };
    match properties.get(key)? {
        Some(property) => Err(property.fault(why)),
        None => Err(properties.fault(reason)),
    }
}

/// The properties of an Endpoint.
pub(super) fn properties(field: &Field<'_>) -> Result<Properties, Fault> {
    let pairs = pairs(field)?;
    Properties::new("", pairs).map_err(|invalid| misfit(field, invalid))
}

/// What a Rule says about one of its sides.
pub(super) fn resource(field: &Field<'_>) -> Result<ResourceMap, Fault> {
    let pairs = pairs(field)?;
    ResourceMap::new("", pairs).map_err(|invalid| misfit(field, invalid))
}

/// A text within its size.
pub(super) fn checked<T>(
    field: &Field<'_>,
    new: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Result<T, Fault> {
    new(field.text()?).map_err(|invalid| misfit(field, invalid))
}

fn misfit(field: &Field<'_>, invalid: Invalid) -> Fault {
    field.fault(format!("has {}", invalid.reason))
}

/// Texts by name; numbers and answers count as they are written.
fn pairs(field: &Field<'_>) -> Result<BTreeMap<String, String>, Fault> {
    field.entries()?.map(|(key, value)| Ok((key.to_owned(), value.scalar()?))).collect()
}

/// `true` or `false` by a key of `spec`, else by an annotation.
fn said(
    top: &Field<'_>,
    spec: &Field<'_>,
    (key, annotation): (&str, &str),
) -> Result<Option<bool>, Fault> {
    if let Some(said) = spec.maybe(key, field::boolean)? {
        return Ok(Some(said));
    }
    let metadata = top.need("metadata")?;
    let Some(annotations) = metadata.get("annotations")? else { return Ok(None) };
    annotations.maybe(annotation, |field| field.word(&[("true", true), ("false", false)]))
}

fn milliseconds(seconds: i64) -> i64 {
    seconds.saturating_mul(1000)
}
