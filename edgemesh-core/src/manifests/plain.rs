//! Plain documents: an Endpoint or a Rule by the JSON names of its row, without `apiVersion`.

use edgemesh_proto::record::{Body, Endpoint, EndpointName, Kind, MAX_NAME, Record, Rule};
use edgemesh_proto::rule::{DomainId, Id, Name, object_id, project_id};

use crate::manifests::field::{Fault, Field};
use crate::manifests::rules::{checked, named, properties, resource, sound};
use crate::manifests::{field, syntax};

/// Where a document lives that does not say it.
const NAMESPACE: &str = "default";

/// Keys of an Endpoint.
const OF_ENDPOINT: &[&str] = &[
    "kind",
    "id",
    "type",
    "name",
    "namespace",
    "project_id",
    "is_shared",
    "properties",
    "created_at",
    "updated_at",
];
/// Keys of a Rule.
const OF_RULE: &[&str] = &[
    "kind",
    "id",
    "name",
    "namespace",
    "project_id",
    "domain_id",
    "source",
    "source_resource",
    "target",
    "target_resource",
    "in_use",
    "is_deleted",
    "created_at",
    "updated_at",
    // Counted by each node for itself.
    "success_messages",
    "fail_messages",
];
/// What the admin API adds to a row, so that what it says can be read again.
const OF_SIGHT: &[&str] =
    &["state", "reason", "since", "last_success", "latency_ms", "errors", "notes", "used_by"];

/// What a plain document is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    Endpoint,
    Rule,
}

/// Whether a document is plain, and what it is: it says so, or it has the shape.
pub(super) fn shape(top: &Field<'_>) -> Option<Shape> {
    let has = |key: &str| top.get(key).is_ok_and(|found| found.is_some());
    // An object that forgot its `apiVersion` is to be told that.
    if ["apiVersion", "metadata", "spec"].into_iter().any(has) {
        return None;
    }
    match top.get("kind").ok().flatten() {
        Some(kind) => match kind.text().ok()? {
            "Endpoint" => Some(Shape::Endpoint),
            "Rule" => Some(Shape::Rule),
            _ => None,
        },
        None if has("source") && has("target") => Some(Shape::Rule),
        None if has("type") && has("name") => Some(Shape::Endpoint),
        None => None,
    }
}

/// Reads an Endpoint; `namespace` where it says none.
pub(super) fn endpoint(top: &Field<'_>, namespace: Option<&str>) -> Result<Record, Fault> {
    syntax::known(top, &[OF_ENDPOINT, OF_SIGHT].concat())?;
    let namespace = own_namespace(top, namespace)?;
    let name = name(&top.need("name")?)?;
    let kind = top.need("type")?;
    let usual = || (object_id(Kind::Endpoint, &namespace, &name), project_id(&namespace));
    let (created_at, updated_at) = times(top)?;
    let endpoint = Endpoint {
        id: top.maybe("id", id)?.unwrap_or_else(|| usual().0),
        endpoint_type: checked(&kind, |text| Name::new("", text))?,
        project_id: Some(top.maybe("project_id", id)?.unwrap_or_else(|| usual().1)),
        is_shared: top.maybe("is_shared", field::boolean)?.unwrap_or(false),
        properties: top.maybe("properties", properties)?.unwrap_or_default(),
        created_at,
        updated_at,
    };
    sound(&endpoint, top, "type")?;
    Ok(Record { namespace, name, body: Body::Endpoint(endpoint) })
}

/// Reads a Rule. Its Endpoints may be written out ([`embedded`]).
pub(super) fn rule(top: &Field<'_>) -> Result<Record, Fault> {
    syntax::known(top, &[OF_RULE, OF_SIGHT].concat())?;
    let namespace = own_namespace(top, None)?;
    let name = name(&top.need("name")?)?;
    let (source, target) = (top.need("source")?, top.need("target")?);
    let domain = |field: &Field<'_>| checked(field, |text| DomainId::new("", text));
    let (created_at, updated_at) = times(top)?;
    let project = top.maybe("project_id", id)?;
    let rule = Rule {
        id: top.maybe("id", id)?.unwrap_or_else(|| object_id(Kind::Rule, &namespace, &name)),
        project_id: project.unwrap_or_else(|| project_id(&namespace)),
        domain_id: top.maybe("domain_id", domain)?.unwrap_or_default(),
        source: side(&source, &namespace)?,
        source_resource: top.maybe("source_resource", resource)?.unwrap_or_default(),
        target: side(&target, &namespace)?,
        target_resource: top.maybe("target_resource", resource)?.unwrap_or_default(),
        in_use: top.maybe("in_use", field::boolean)?.unwrap_or(true),
        is_deleted: top.maybe("is_deleted", field::boolean)?.unwrap_or(false),
        created_at,
        updated_at,
    };
    Ok(Record { namespace, name, body: Body::Rule(rule) })
}

/// The Endpoints that are written out in a Rule: of its source, of its target.
pub(super) fn embedded(top: &Field<'_>) -> Result<Vec<Record>, Fault> {
    let namespace = own_namespace(top, None)?;
    let mut embedded = Vec::new();
    for side in ["source", "target"] {
        let field = top.need(side)?;
        if field.is_map() {
            embedded.push(endpoint(&field, Some(&namespace))?);
        }
    }
    Ok(embedded)
}

/// By what a Rule names an Endpoint: all of it, its id, its name, or `namespace/name`. Which of the
/// first two a text is tells only who knows all documents.
fn side(field: &Field<'_>, namespace: &str) -> Result<EndpointName, Fault> {
    if !field.is_map() {
        return named(field, namespace, name_of);
    }
    let Record { namespace, name, .. } = endpoint(field, Some(namespace))?;
    Ok(EndpointName { namespace, name })
}

/// `Rule default/hello`, as far as it can be told.
pub(super) fn title(top: &Field<'_>, shape: Shape) -> String {
    let text = |key| Some(field::brief(top.get(key).ok()??.text().ok()?));
    let kind = match shape {
        Shape::Endpoint => "Endpoint",
        Shape::Rule => "Rule",
    };
    match text("name") {
        Some(name) => {
            format!("{kind} {}/{name}", text("namespace").unwrap_or_else(|| NAMESPACE.into()))
        }
        None => kind.into(),
    }
}

fn own_namespace(top: &Field<'_>, usual: Option<&str>) -> Result<Box<str>, Fault> {
    let said = top.maybe("namespace", syntax::label)?;
    Ok(said.unwrap_or_else(|| usual.unwrap_or(NAMESPACE).into()))
}

/// Freer than Kubernetes' names; a slash would make `namespace/name` mean two things.
fn name(field: &Field<'_>) -> Result<Box<str>, Fault> {
    name_of(field, field.text()?)
}

/// The same, of a text that is a part of the field's.
fn name_of(of: &Field<'_>, text: &str) -> Result<Box<str>, Fault> {
    let is_clean = !text.contains(|c: char| c == '/' || c.is_control());
    if is_clean && (1..=MAX_NAME).contains(&text.len()) {
        return Ok(text.into());
    }
    let wanted = format!("must be a name of 1 to {MAX_NAME} bytes without slashes");
    Err(of.fault(format!("{wanted}, not `{}`", field::brief(text))))
}

fn id(field: &Field<'_>) -> Result<Id, Fault> {
    checked(field, |text| Id::new("", text))
}

fn times(top: &Field<'_>) -> Result<(i64, i64), Fault> {
    let created = top.maybe("created_at", syntax::moment)?.unwrap_or(0);
    let updated = top.maybe("updated_at", syntax::moment)?;
    Ok((created, updated.unwrap_or(created)))
}
