//! The filters of an HTTPRoute's rule, or of one of its backends.

use edgemesh_proto::record::{FieldEdits, PathEdit, RouteEdits, RouteRedirect};
use http::HeaderValue;

use crate::manifests::field::{Fault, Field, brief};
use crate::manifests::http_route::matches::{bounded, header_name};
use crate::manifests::http_route::up_to;
use crate::manifests::syntax::{self, known};

/// Bounds of the Gateway API.
const MAX_FILTERS: usize = 16;
const MAX_FIELDS: usize = 16;
const MAX_PATH: usize = 1024;
const MAX_VALUE: usize = 4096;

/// Redirects by default (RFC 9110 §15.4.3).
const FOUND: u16 = 302;

/// Headers that frame a message or stand between two neighbours: an edit would break both.
const NOT_TO_EDIT: &[&str] = &[
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// What a list of filters amounts to.
#[derive(Default)]
pub(super) struct Filters {
    pub(super) edits: RouteEdits,
    pub(super) redirect: Option<RouteRedirect>,
    /// What in it this version cannot do.
    pub(super) fault: Option<Fault>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Request,
    Response,
    Redirect,
    Rewrite,
    /// Of the Gateway API, and not served.
    Other,
}

/// Type, key of its settings, what it is here.
const KINDS: &[(&str, &str, Kind)] = &[
    ("RequestHeaderModifier", "requestHeaderModifier", Kind::Request),
    ("ResponseHeaderModifier", "responseHeaderModifier", Kind::Response),
    ("RequestRedirect", "requestRedirect", Kind::Redirect),
    ("URLRewrite", "urlRewrite", Kind::Rewrite),
    ("RequestMirror", "requestMirror", Kind::Other),
    ("ExtensionRef", "extensionRef", Kind::Other),
    ("CORS", "cors", Kind::Other),
    ("ExternalAuth", "externalAuth", Kind::Other),
];

/// Reads `filters` of a rule or a backend.
pub(super) fn read(of: &Field<'_>) -> Result<Filters, Fault> {
    let (mut filters, mut seen) = (Filters::default(), Vec::new());
    up_to(of, "filters", MAX_FILTERS, |filter| {
        let field = filter.need("type")?;
        let types: Vec<_> = KINDS.iter().map(|row| (row.0, *row)).collect();
        let (name, key, kind) = field.word(&types)?;
        known(filter, &["type", key])?;
        let settings = filter.need(key)?;
        if kind == Kind::Other {
            let reason = format!("{name} is not served by this version");
            filters.fault.get_or_insert_with(|| field.fault(reason));
            return Ok(());
        }
        if seen.contains(&key) {
            return Err(field.fault(format!("there is a {name} before; write both as one")));
        }
        seen.push(key);
        match kind {
            Kind::Request => filters.edits.request = headers(&settings)?,
            Kind::Response => filters.edits.response = headers(&settings)?,
            Kind::Redirect => filters.redirect = Some(redirect(&settings)?),
            Kind::Rewrite => {
                known(&settings, &["hostname", "path"])?;
                filters.edits.hostname = settings.maybe("hostname", syntax::subdomain)?;
                filters.edits.path = settings.maybe("path", path)?;
            }
            Kind::Other => {}
        }
        Ok(())
    })?;
    if seen.contains(&"urlRewrite") && filters.redirect.is_some() {
        let reason = "has RequestRedirect and URLRewrite; only one of the two can count";
        return Err(of.need("filters")?.fault(reason));
    }
    Ok(filters)
}

/// Name and value.
type Pair = (Box<str>, Box<str>);

fn headers(field: &Field<'_>) -> Result<FieldEdits, Fault> {
    known(field, &["set", "add", "remove"])?;
    let list = |key| -> Result<Vec<Pair>, Fault> {
        let mut pairs: Vec<Pair> = Vec::new();
        up_to(field, key, MAX_FIELDS, |entry| {
            known(entry, &["name", "value"])?;
            let name = editable(&entry.need("name")?)?;
            if pairs.iter().any(|(known, _)| *known == name) {
                return Err(entry.fault(format!("`{name}` is there before; remove one")));
            }
            pairs.push((name, value(&entry.need("value")?)?));
            Ok(())
        })?;
        Ok(pairs)
    };
    let (set, add) = (list("set")?, list("add")?);
    let remove = up_to(field, "remove", MAX_FIELDS, editable)?;
    Ok(FieldEdits { set, add, remove })
}

fn editable(field: &Field<'_>) -> Result<Box<str>, Fault> {
    let name = header_name(field)?;
    if *name == *"host" {
        return Err(field.fault("the host is not edited as a header; use URLRewrite's hostname"));
    }
    if NOT_TO_EDIT.contains(&&*name) {
        return Err(field.fault(format!("`{name}` belongs to the connection; it cannot be edited")));
    }
    Ok(name)
}

fn value(field: &Field<'_>) -> Result<Box<str>, Fault> {
    let text = bounded(field, MAX_VALUE)?;
    match HeaderValue::from_str(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err(field.fault(format!("`{}` cannot stand in a header", brief(&text)))),
    }
}

fn redirect(field: &Field<'_>) -> Result<RouteRedirect, Fault> {
    const SCHEMES: &[(&str, &str)] = &[("http", "http"), ("https", "https")];
    known(field, &["scheme", "hostname", "path", "port", "statusCode"])?;
    let status = field.maybe("statusCode", |field| {
        let status = field.int(301..=308)?;
        u16::try_from(status)
            .ok()
            .filter(|status| [301, 302, 303, 307, 308].contains(status))
            .ok_or_else(|| field.wrong("301, 302, 303, 307 or 308"))
    })?;
    Ok(RouteRedirect {
        scheme: field.maybe("scheme", |field| field.word(SCHEMES))?.map(Into::into),
        hostname: field.maybe("hostname", syntax::subdomain)?,
        path: field.maybe("path", path)?,
        port: field.maybe("port", syntax::port)?,
        status: status.unwrap_or(FOUND),
    })
}

fn path(field: &Field<'_>) -> Result<PathEdit, Fault> {
    const TYPES: &[(&str, bool)] = &[("ReplaceFullPath", true), ("ReplacePrefixMatch", false)];
    let whole = field.need("type")?.word(TYPES)?;
    let key = if whole { "replaceFullPath" } else { "replacePrefixMatch" };
    known(field, &["type", key])?;
    let value = field.need(key)?;
    let text = value.text()?;
    if text.len() > MAX_PATH {
        return Err(value.fault(format!("has {} bytes; {MAX_PATH} are the most", text.len())));
    }
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"?#".contains(&byte);
    if !text.bytes().all(fits) {
        return Err(value.fault(format!("`{}` is no path", brief(text))));
    }
    Ok(if whole { PathEdit::Full(text.into()) } else { PathEdit::Prefix(text.into()) })
}
