//! One Kubernetes object: which kind it is, what it is called, and who reads it.

use std::path::Path;

use edgemesh_proto::record::{Body, DESTINATION_RULE, Record};

use crate::config::Check;
use crate::manifests::field::{Fault, Field, brief};
use crate::manifests::http_route::{self, Notes};
use crate::manifests::machines::{self, Pod};
use crate::manifests::plain::Shape;
use crate::manifests::tree::{Item, Tree};
use crate::manifests::{
    Document, Focus, Origin, Parsed, Remark, Severity, Sides, destination_rule, filter, plain,
    policy, rules, service, slices, syntax, weight,
};

/// Where objects live when they do not say it.
const NAMESPACE: &str = "default";
/// Asks for a check, on a Service or a Slice.
const CHECK: &str = "edgemesh.io/check";

/// Who reads a kind.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reader {
    List,
    Service,
    EndpointSlice,
    Endpoints,
    Pod,
    Node,
    TrafficPolicy,
    DestinationRule,
    HttpRoute,
    RuleEndpoint,
    Rule,
    /// An Endpoint or a Rule without `apiVersion`.
    Plain(Shape),
}

/// Kind, API group, version (empty: any), reader.
const KINDS: &[(&str, &str, &str, Reader)] = &[
    ("List", "", "v1", Reader::List),
    ("Service", "", "v1", Reader::Service),
    ("EndpointSlice", "discovery.k8s.io", "v1", Reader::EndpointSlice),
    ("Endpoints", "", "v1", Reader::Endpoints),
    ("Pod", "", "v1", Reader::Pod),
    ("Node", "", "v1", Reader::Node),
    ("TrafficPolicy", "edgemesh.io", "v1alpha1", Reader::TrafficPolicy),
    ("HTTPRoute", "gateway.networking.k8s.io", "v1", Reader::HttpRoute),
    ("HTTPRoute", "gateway.networking.k8s.io", "v1beta1", Reader::HttpRoute),
    ("DestinationRule", "networking.istio.io", "", Reader::DestinationRule),
    ("Rule", "rules.kubeedge.io", "v1", Reader::Rule),
    ("RuleEndpoint", "rules.kubeedge.io", "v1", Reader::RuleEndpoint),
];

/// Reads one object, or every item of a `List`, into `parsed`. `before` is the number of lines of
/// the file before the text in which the object was found.
pub(super) fn read(file: &Path, before: u32, item: &Item, parsed: &mut Parsed) {
    if item.tree == Tree::Null {
        return;
    }
    let top = Field::top(item);
    let object = title(&top);
    let mut remark = |severity, fault: Fault| {
        parsed.remarks.push(Remark {
            severity,
            file: file.to_owned(),
            line: before.saturating_add(fault.line),
            object: object.clone(),
            field: fault.field,
            reason: fault.reason,
        });
    };
    match reader(&top) {
        Err((severity, fault)) => remark(severity, fault),
        Ok(Reader::List) => match list(item) {
            Ok(items) => items.iter().for_each(|item| read(file, before, item, parsed)),
            Err(fault) => remark(Severity::Rejected, fault),
        },
        Ok(reader) => match whole(&top, reader) {
            Err(fault) => remark(Severity::Rejected, fault),
            Ok(Whole { found: Found::Nothing(reason), .. }) => {
                remark(Severity::Ignored, top.fault(reason));
            }
            Ok(Whole { found: Found::Records(records, notes), check, labelled, sides }) => {
                notes.into_iter().for_each(|(severity, fault)| remark(severity, fault));
                let line = before.saturating_add(item.line);
                let below =
                    |focus: Focus| Focus { line: before.saturating_add(focus.line), ..focus };
                let sides = sides.map(|Sides { source, target, embedded }| {
                    Box::new(Sides { source: below(source), target: below(target), embedded })
                });
                parsed.documents.push(Document {
                    object,
                    line,
                    focus: below(focus(&top, reader)),
                    origin: origin(reader),
                    check,
                    labelled,
                    records,
                    sides,
                });
            }
        },
    }
}

/// Everything about one object.
struct Whole {
    found: Found,
    check: Option<Check>,
    /// It is a Service with the filter's label.
    labelled: bool,
    sides: Option<Sides>,
}

fn whole(top: &Field<'_>, reader: Reader) -> Result<Whole, Fault> {
    let found = records(top, reader)?;
    let labelled = reader == Reader::Service && filter::is_labelled(&top.need("metadata")?)?;
    Ok(Whole { found, check: check(top)?, labelled, sides: sides(top, reader)? })
}

/// Where a Rule names its Endpoints, and those that it writes out.
fn sides(top: &Field<'_>, reader: Reader) -> Result<Option<Sides>, Fault> {
    let focus = |map: &Field<'_>, prefix: &str, key: &str| -> Result<Focus, Fault> {
        Ok(Focus { line: map.need(key)?.line(), field: format!("{prefix}{key}") })
    };
    let (map, prefix, embedded) = match reader {
        Reader::Rule => (top.need("spec")?, "spec.", Vec::new()),
        Reader::Plain(Shape::Rule) => (*top, "", plain::embedded(top)?),
        Reader::List
        | Reader::Service
        | Reader::EndpointSlice
        | Reader::Endpoints
        | Reader::Pod
        | Reader::Node
        | Reader::TrafficPolicy
        | Reader::DestinationRule
        | Reader::HttpRoute
        | Reader::RuleEndpoint
        | Reader::Plain(_) => return Ok(None),
    };
    let (source, target) = (focus(&map, prefix, "source")?, focus(&map, prefix, "target")?);
    Ok(Some(Sides { source, target, embedded }))
}

/// What an object says.
enum Found {
    /// And what is to be said beside them.
    Records(Vec<Record>, Notes),
    /// Not a fault, but nothing either.
    Nothing(&'static str),
}

/// `Service default/hello`, as far as it can be told of an object that may be wrong everywhere.
fn title(top: &Field<'_>) -> String {
    let text = |field: &Field<'_>, key: &str| -> Option<String> {
        field.get(key).ok().flatten()?.text().ok().map(brief)
    };
    if let Some(shape) = plain::shape(top) {
        return plain::title(top, shape);
    }
    let Some(kind) = text(top, "kind") else {
        return String::new();
    };
    let Ok(Some(metadata)) = top.get("metadata") else {
        return kind;
    };
    match (text(&metadata, "namespace"), text(&metadata, "name")) {
        (_, None) => kind,
        (_, Some(name)) if kind == "Node" => format!("{kind} {name}"),
        (None, Some(name)) => format!("{kind} {NAMESPACE}/{name}"),
        (Some(namespace), Some(name)) => format!("{kind} {namespace}/{name}"),
    }
}

fn origin(reader: Reader) -> Origin {
    match reader {
        Reader::Endpoints => Origin::Endpoints,
        Reader::List
        | Reader::Service
        | Reader::EndpointSlice
        | Reader::Pod
        | Reader::Node
        | Reader::TrafficPolicy
        | Reader::DestinationRule
        | Reader::HttpRoute
        | Reader::RuleEndpoint
        | Reader::Rule
        | Reader::Plain(_) => Origin::Itself,
    }
}

/// The field by which an object may be at odds with others.
fn focus(top: &Field<'_>, reader: Reader) -> Focus {
    let keys: &[&str] = match reader {
        Reader::Service => &["clusterIP", "clusterIPs"],
        Reader::TrafficPolicy => &["targetRef"],
        Reader::DestinationRule => &["host"],
        Reader::HttpRoute => &["parentRefs"],
        Reader::List
        | Reader::EndpointSlice
        | Reader::Endpoints
        | Reader::Pod
        | Reader::Node
        | Reader::RuleEndpoint
        | Reader::Rule
        | Reader::Plain(_) => &[],
    };
    if let Ok(Some(spec)) = top.get("spec") {
        for key in keys {
            if let Ok(Some(field)) = spec.get(key) {
                return Focus { line: field.line(), field: format!("spec.{key}") };
            }
        }
    }
    Focus { line: top.line(), field: String::new() }
}

fn reader(top: &Field<'_>) -> Result<Reader, (Severity, Fault)> {
    if let Some(shape) = plain::shape(top) {
        return Ok(Reader::Plain(shape));
    }
    let rejected = |fault| (Severity::Rejected, fault);
    let version_field = top.need("apiVersion").map_err(rejected)?;
    let kind_field = top.need("kind").map_err(rejected)?;
    let api_version = version_field.text().map_err(rejected)?;
    let kind = kind_field.text().map_err(rejected)?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let rows = || KINDS.iter().filter(|row| (row.0, row.1) == (kind, group));
    let exact = rows().find(|row| row.2 == version);
    let Some((.., wanted, reader)) = exact.or_else(|| rows().next()) else {
        let reason = "the mesh does not read objects of this kind";
        return Err((Severity::Ignored, Fault { field: String::new(), ..top.fault(reason) }));
    };
    if !wanted.is_empty() && *wanted != version {
        let slash = if group.is_empty() { "" } else { "/" };
        let reason = format!("`{}` is not read; write {group}{slash}{wanted}", brief(api_version));
        return Err(rejected(version_field.fault(reason)));
    }
    Ok(*reader)
}

/// The items of a `List`: each is an object of its own, with paths of its own.
fn list(item: &Item) -> Result<&[Item], Fault> {
    let top = Field::top(item);
    let Tree::Map(entries) = &item.tree else {
        return Err(top.wrong("a map of keys and values"));
    };
    match entries.iter().find(|entry| &*entry.key == "items").map(|entry| &entry.tree) {
        None | Some(Tree::Null) => Ok(&[]),
        Some(Tree::List(items)) => Ok(items),
        Some(_) => Err(top.need("items")?.wrong("a list")),
    }
}

fn records(top: &Field<'_>, reader: Reader) -> Result<Found, Fault> {
    if let Reader::Plain(shape) = reader {
        let record = match shape {
            Shape::Endpoint => plain::endpoint(top, None)?,
            Shape::Rule => plain::rule(top)?,
        };
        return Ok(Found::Records(vec![record], Notes::new()));
    }
    let metadata = top.need("metadata")?;
    let field = metadata.need("name")?;
    let mut name =
        if reader == Reader::Service { syntax::label } else { syntax::subdomain }(&field)?;
    let mut namespace: Box<str> = match reader {
        Reader::Node => "".into(),
        Reader::List
        | Reader::Service
        | Reader::EndpointSlice
        | Reader::Endpoints
        | Reader::Pod
        | Reader::TrafficPolicy
        | Reader::DestinationRule
        | Reader::HttpRoute
        | Reader::RuleEndpoint
        | Reader::Rule
        | Reader::Plain(_) => namespace(&metadata)?,
    };
    let created = syntax::created(&metadata)?;
    let mut notes = Notes::new();
    let body = match reader {
        Reader::Service => Body::Service(service::read(top, created)?),
        Reader::EndpointSlice => {
            let mut slice = slices::slice(top, &metadata)?;
            weight::weigh(&mut slice, weight::of(&metadata, &mut notes)?);
            Body::Slice(slice)
        }
        Reader::Endpoints => return endpoints(top, &namespace, &name),
        Reader::Pod => match machines::pod(top, &metadata)? {
            Pod::Runs(workload) => {
                weight::of(&metadata, &mut notes)?; // kept among its labels
                Body::Workload(workload)
            }
            Pod::Absent(reason) => return Ok(Found::Nothing(reason)),
        },
        Reader::Node => Body::Node(machines::node(top, &metadata)?),
        Reader::TrafficPolicy => Body::Policy(policy::read(top, created)?),
        Reader::DestinationRule => {
            let (of_service, policy) =
                destination_rule::read(top, (&namespace, created), &mut notes)?;
            // A TrafficPolicy may have the same name, and a rule of another namespace, too.
            name = match of_service == namespace {
                true => format!("{DESTINATION_RULE}{name}").into(),
                false => format!("{DESTINATION_RULE}{namespace}/{name}").into(),
            };
            namespace = of_service;
            Body::Policy(policy)
        }
        Reader::HttpRoute => match http_route::read(top, &namespace, created)? {
            Some((route, told)) => {
                notes = told;
                Body::Route(route)
            }
            None => {
                return Ok(Found::Nothing("no parent is a Service, and the mesh has no others"));
            }
        },
        Reader::RuleEndpoint => Body::Endpoint(rules::endpoint(top, (&namespace, &name), created)?),
        Reader::Rule => Body::Rule(rules::rule(top, (&namespace, &name), created)?),
        Reader::List | Reader::Plain(_) => return Ok(Found::Nothing("it holds no records")),
    };
    Ok(Found::Records(vec![Record { namespace, name, body }], notes))
}

/// The annotation that asks for a check of what runs on this node.
fn check(top: &Field<'_>) -> Result<Option<Check>, Fault> {
    let Some(metadata) = top.get("metadata")? else { return Ok(None) };
    let Some(annotations) = metadata.get("annotations")? else { return Ok(None) };
    annotations.maybe(CHECK, |field| Check::parse(field.text()?).map_err(|why| field.fault(why)))
}

fn namespace(metadata: &Field<'_>) -> Result<Box<str>, Fault> {
    let namespace = metadata.maybe("namespace", |field| {
        if field.text()?.is_empty() { Ok(NAMESPACE.into()) } else { syntax::label(field) }
    })?;
    Ok(namespace.unwrap_or_else(|| NAMESPACE.into()))
}

/// One Slice has the name of its Endpoints, several are numbered.
fn endpoints(top: &Field<'_>, namespace: &str, name: &str) -> Result<Found, Fault> {
    let slices = slices::endpoints(top, name)?;
    let several = slices.len() > 1;
    let records = slices.into_iter().enumerate().map(|(index, slice)| Record {
        namespace: namespace.into(),
        name: if several { format!("{name}-{index}").into() } else { name.into() },
        body: Body::Slice(slice),
    });
    Ok(Found::Records(records.collect(), Notes::new()))
}
