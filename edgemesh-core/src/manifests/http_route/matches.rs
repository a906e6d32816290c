//! The matches of an HTTPRoute's rule.

use edgemesh_proto::record::{RouteField, RouteMatch, RoutePath, RouteText};
use http::HeaderName;

use crate::manifests::Severity;
use crate::manifests::field::{Fault, Field, brief};
use crate::manifests::http_route::{Notes, up_to};
use crate::manifests::syntax::known;
use crate::snapshot::pattern;

/// Bounds of the Gateway API.
const MAX_FIELDS: usize = 16;
const MAX_PATH: usize = 1024;
const MAX_VALUE: usize = 4096;
const MAX_NAME: usize = 256;

const METHODS: &[(&str, &str)] = &[
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("DELETE", "DELETE"),
    ("CONNECT", "CONNECT"),
    ("OPTIONS", "OPTIONS"),
    ("TRACE", "TRACE"),
    ("PATCH", "PATCH"),
];

/// Reads one match.
pub(super) fn read(entry: &Field<'_>, notes: &mut Notes) -> Result<RouteMatch, Fault> {
    known(entry, &["path", "headers", "queryParams", "method"])?;
    Ok(RouteMatch {
        path: entry.maybe("path", path)?.unwrap_or_default(),
        headers: fields(entry, "headers", notes)?,
        query: fields(entry, "queryParams", notes)?,
        method: entry.maybe("method", |field| field.word(METHODS))?.map(Into::into),
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Exact,
    Prefix,
    Regex,
}

fn path(field: &Field<'_>) -> Result<RoutePath, Fault> {
    const KINDS: &[(&str, Kind)] =
        &[("Exact", Kind::Exact), ("PathPrefix", Kind::Prefix), ("RegularExpression", Kind::Regex)];
    known(field, &["type", "value"])?;
    let kind = field.maybe("type", |field| field.word(KINDS))?.unwrap_or(Kind::Prefix);
    let Some(value) = field.get("value")? else {
        return Ok(match kind {
            Kind::Exact => RoutePath::Exact("/".into()),
            Kind::Prefix => RoutePath::Prefix("/".into()),
            Kind::Regex => RoutePath::Regex("/".into()),
        });
    };
    let text = bounded(&value, MAX_PATH)?;
    Ok(match kind {
        Kind::Exact => RoutePath::Exact(plain(&value, text)?),
        Kind::Prefix => RoutePath::Prefix(plain(&value, text)?),
        Kind::Regex => RoutePath::Regex(expression(&value, text)?),
    })
}

/// A path that a client can send as it stands.
fn plain(field: &Field<'_>, text: Box<str>) -> Result<Box<str>, Fault> {
    if !text.starts_with('/') {
        return Err(field.fault(format!("`{}` must begin with a slash", brief(&text))));
    }
    let small = text.to_ascii_lowercase();
    let odd = ["//", "/./", "/../", "%2f", "#", "?"].into_iter().find(|odd| small.contains(odd));
    let odd = odd.or_else(|| ["/.", "/.."].into_iter().find(|odd| small.ends_with(odd)));
    match odd {
        Some(odd) => {
            Err(field.fault(format!("`{}` has `{odd}` in it, which no path may", brief(&text))))
        }
        None => Ok(text),
    }
}

fn expression(field: &Field<'_>, text: Box<str>) -> Result<Box<str>, Fault> {
    match pattern(&text) {
        Ok(_) => Ok(text),
        Err(why) => Err(field.fault(format!("`{}` {why}", brief(&text)))),
    }
}

/// Of two entries with one name the first counts, as the Gateway API has it.
fn fields(entry: &Field<'_>, key: &str, notes: &mut Notes) -> Result<Vec<RouteField>, Fault> {
    let mut fields: Vec<RouteField> = Vec::new();
    up_to(entry, key, MAX_FIELDS, |entry| {
        let read = field(entry, key == "headers")?;
        if fields.iter().any(|known| known.name == read.name) {
            let reason = format!("`{}` is matched before; the first one counts", read.name);
            notes.push((Severity::Note, entry.fault(reason)));
        } else {
            fields.push(read);
        }
        Ok(())
    })?;
    Ok(fields)
}

fn field(entry: &Field<'_>, is_header: bool) -> Result<RouteField, Fault> {
    const KINDS: &[(&str, Kind)] = &[("Exact", Kind::Exact), ("RegularExpression", Kind::Regex)];
    known(entry, &["type", "name", "value"])?;
    let kind = entry.maybe("type", |field| field.word(KINDS))?.unwrap_or(Kind::Exact);
    let name = entry.need("name")?;
    let name = if is_header { header_name(&name)? } else { bounded(&name, MAX_NAME)? };
    let value = entry.need("value")?;
    let text = bounded(&value, MAX_VALUE)?;
    let value = match kind {
        Kind::Regex => RouteText::Regex(expression(&value, text)?),
        Kind::Exact | Kind::Prefix => RouteText::Exact(text),
    };
    Ok(RouteField { name, value })
}

/// A header's name, in lower case.
pub(super) fn header_name(field: &Field<'_>) -> Result<Box<str>, Fault> {
    let text = bounded(field, MAX_NAME)?;
    match text.parse::<HeaderName>() {
        Ok(name) => Ok(name.as_str().into()),
        Err(_) => Err(field.fault(format!("`{}` is no header name", brief(&text)))),
    }
}

/// A text of at least one and at most so many bytes.
pub(super) fn bounded(field: &Field<'_>, most: usize) -> Result<Box<str>, Fault> {
    let text = field.text()?;
    match text.len() {
        0 => Err(field.fault("is empty")),
        len if len > most => Err(field.fault(format!("has {len} bytes; {most} are the most"))),
        _ => Ok(text.into()),
    }
}
