//! Routes, from protobuf to checked form and back.

use std::num::NonZeroU16;

use crate::pb;
use crate::record::values::{bounded, duration, list, port, required, span, text, variant};
use crate::record::{
    FieldEdits, Invalid, PathEdit, Route, RouteBackend, RouteEdits, RouteField, RouteMatch,
    RouteParent, RoutePath, RouteRedirect, RouteRule, RouteTarget, RouteText,
};

impl From<&Route> for pb::HttpRoute {
    fn from(route: &Route) -> Self {
        Self {
            created: route.created,
            parents: route.parents.iter().map(Into::into).collect(),
            rules: route.rules.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::HttpRoute> for Route {
    type Error = Invalid;

    fn try_from(route: pb::HttpRoute) -> Result<Self, Invalid> {
        Ok(Self {
            created: route.created,
            parents: list("parents", route.parents, RouteParent::try_from)?,
            rules: list("rules", route.rules, RouteRule::try_from)?,
        })
    }
}

impl From<&RouteParent> for pb::RouteParent {
    fn from(parent: &RouteParent) -> Self {
        Self {
            namespace: (&*parent.namespace).into(),
            service: (&*parent.service).into(),
            port: number(parent.port),
            section: (&*parent.section).into(),
        }
    }
}

impl TryFrom<pb::RouteParent> for RouteParent {
    type Error = Invalid;

    fn try_from(parent: pb::RouteParent) -> Result<Self, Invalid> {
        Ok(Self {
            namespace: required("namespace", parent.namespace)?,
            service: required("service", parent.service)?,
            port: maybe_port("port", parent.port)?,
            section: bounded("section", parent.section)?,
        })
    }
}

impl From<&RouteRule> for pb::RouteRule {
    fn from(rule: &RouteRule) -> Self {
        Self {
            name: (&*rule.name).into(),
            matches: rule.matches.iter().map(Into::into).collect(),
            edits: edits(&rule.edits),
            redirect: rule.redirect.as_ref().map(Into::into),
            backends: rule.backends.iter().map(Into::into).collect(),
            request_timeout: rule.request_timeout.map(span),
            backend_timeout: rule.backend_timeout.map(span),
            fault: text(rule.fault.as_deref()),
        }
    }
}

impl TryFrom<pb::RouteRule> for RouteRule {
    type Error = Invalid;

    fn try_from(rule: pb::RouteRule) -> Result<Self, Invalid> {
        let time =
            |field, time: Option<pb::Span>| time.map(|span| duration(field, span)).transpose();
        let redirect = rule.redirect.map(RouteRedirect::try_from).transpose();
        Ok(Self {
            name: rule.name.into(),
            matches: list("matches", rule.matches, RouteMatch::try_from)?,
            edits: rule.edits.unwrap_or_default().into(),
            redirect: redirect.map_err(|e| e.under("redirect"))?,
            backends: list("backends", rule.backends, RouteBackend::try_from)?,
            request_timeout: time("request_timeout", rule.request_timeout)?,
            backend_timeout: time("backend_timeout", rule.backend_timeout)?,
            fault: rule.fault.map(Into::into),
        })
    }
}

impl From<&RouteMatch> for pb::RouteMatch {
    fn from(entry: &RouteMatch) -> Self {
        Self {
            path: (entry.path != RoutePath::default()).then(|| (&entry.path).into()),
            headers: entry.headers.iter().map(Into::into).collect(),
            query: entry.query.iter().map(Into::into).collect(),
            method: text(entry.method.as_deref()),
        }
    }
}

impl TryFrom<pb::RouteMatch> for RouteMatch {
    type Error = Invalid;

    fn try_from(entry: pb::RouteMatch) -> Result<Self, Invalid> {
        let path = entry.path.map(RoutePath::try_from).transpose();
        Ok(Self {
            path: path.map_err(|e| e.under("path"))?.unwrap_or_default(),
            headers: list("headers", entry.headers, RouteField::try_from)?,
            query: list("query", entry.query, RouteField::try_from)?,
            method: entry.method.map(Into::into),
        })
    }
}

impl From<&RoutePath> for pb::RoutePath {
    fn from(path: &RoutePath) -> Self {
        let (kind, value) = match path {
            RoutePath::Exact(value) => (pb::RouteText::Exact, value),
            RoutePath::Prefix(value) => (pb::RouteText::Prefix, value),
            RoutePath::Regex(value) => (pb::RouteText::Regex, value),
        };
        Self { kind: kind.into(), value: (&**value).into() }
    }
}

impl TryFrom<pb::RoutePath> for RoutePath {
    type Error = Invalid;

    fn try_from(path: pb::RoutePath) -> Result<Self, Invalid> {
        let value = path.value.into();
        Ok(match variant::<pb::RouteText>("kind", path.kind)? {
            pb::RouteText::Exact => Self::Exact(value),
            pb::RouteText::Prefix => Self::Prefix(value),
            pb::RouteText::Regex => Self::Regex(value),
        })
    }
}

impl From<&RouteField> for pb::RouteField {
    fn from(field: &RouteField) -> Self {
        let (kind, value) = match &field.value {
            RouteText::Exact(value) => (pb::RouteText::Exact, value),
            RouteText::Regex(value) => (pb::RouteText::Regex, value),
        };
        Self { name: (&*field.name).into(), kind: kind.into(), value: (&**value).into() }
    }
}

impl TryFrom<pb::RouteField> for RouteField {
    type Error = Invalid;

    fn try_from(field: pb::RouteField) -> Result<Self, Invalid> {
        let value = field.value.into();
        let value = match variant::<pb::RouteText>("kind", field.kind)? {
            pb::RouteText::Exact => RouteText::Exact(value),
            pb::RouteText::Regex => RouteText::Regex(value),
            pb::RouteText::Prefix => {
                return Err(Invalid::new("kind", "a prefix is for paths only"));
            }
        };
        Ok(Self { name: required("name", field.name)?, value })
    }
}

/// Nothing to change is nothing to write.
fn edits(edits: &RouteEdits) -> Option<pb::RouteEdits> {
    (*edits != RouteEdits::default()).then(|| pb::RouteEdits {
        request: fields(&edits.request),
        response: fields(&edits.response),
        hostname: text(edits.hostname.as_deref()),
        path: edits.path.as_ref().map(Into::into),
    })
}

impl From<pb::RouteEdits> for RouteEdits {
    fn from(edits: pb::RouteEdits) -> Self {
        Self {
            request: edits.request.unwrap_or_default().into(),
            response: edits.response.unwrap_or_default().into(),
            hostname: edits.hostname.map(Into::into),
            path: edits.path.map(Into::into),
        }
    }
}

fn fields(edits: &FieldEdits) -> Option<pb::FieldEdits> {
    let list = |fields: &[(Box<str>, Box<str>)]| {
        let field = |(name, value): &(Box<str>, Box<str>)| pb::Field {
            name: (&**name).into(),
            value: (&**value).into(),
        };
        fields.iter().map(field).collect()
    };
    (*edits != FieldEdits::default()).then(|| pb::FieldEdits {
        set: list(&edits.set),
        add: list(&edits.add),
        remove: edits.remove.iter().map(|name| (&**name).into()).collect(),
    })
}

impl From<pb::FieldEdits> for FieldEdits {
    fn from(edits: pb::FieldEdits) -> Self {
        let list = |fields: Vec<pb::Field>| {
            fields.into_iter().map(|f| (f.name.into(), f.value.into())).collect()
        };
        Self {
            set: list(edits.set),
            add: list(edits.add),
            remove: edits.remove.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<&PathEdit> for pb::PathEdit {
    fn from(edit: &PathEdit) -> Self {
        match edit {
            PathEdit::Full(value) => Self { whole: true, value: (&**value).into() },
            PathEdit::Prefix(value) => Self { whole: false, value: (&**value).into() },
        }
    }
}

impl From<pb::PathEdit> for PathEdit {
    fn from(edit: pb::PathEdit) -> Self {
        let value = edit.value.into();
        if edit.whole { Self::Full(value) } else { Self::Prefix(value) }
    }
}

impl From<&RouteRedirect> for pb::RouteRedirect {
    fn from(redirect: &RouteRedirect) -> Self {
        Self {
            scheme: text(redirect.scheme.as_deref()),
            hostname: text(redirect.hostname.as_deref()),
            path: redirect.path.as_ref().map(Into::into),
            port: number(redirect.port),
            status: redirect.status.into(),
        }
    }
}

impl TryFrom<pb::RouteRedirect> for RouteRedirect {
    type Error = Invalid;

    fn try_from(redirect: pb::RouteRedirect) -> Result<Self, Invalid> {
        let status = u16::try_from(redirect.status).ok().filter(|s| (300..400).contains(s));
        let wrong = || Invalid::new("status", format!("{}: 300 to 399", redirect.status));
        Ok(Self {
            status: status.ok_or_else(wrong)?,
            scheme: redirect.scheme.map(Into::into),
            hostname: redirect.hostname.map(Into::into),
            path: redirect.path.map(Into::into),
            port: maybe_port("port", redirect.port)?,
        })
    }
}

impl From<&RouteBackend> for pb::RouteBackend {
    fn from(backend: &RouteBackend) -> Self {
        let (weight, edits) = (backend.weight, edits(&backend.edits));
        match &backend.target {
            Ok(target) => Self {
                namespace: (&*target.namespace).into(),
                service: (&*target.service).into(),
                port: target.port.get().into(),
                weight,
                edits,
                fault: None,
            },
            Err(fault) => Self { weight, edits, fault: Some((&**fault).into()), ..Self::default() },
        }
    }
}

impl TryFrom<pb::RouteBackend> for RouteBackend {
    type Error = Invalid;

    fn try_from(backend: pb::RouteBackend) -> Result<Self, Invalid> {
        let target = match backend.fault {
            Some(fault) => Err(fault.into()),
            None => Ok(RouteTarget {
                namespace: required("namespace", backend.namespace)?,
                service: required("service", backend.service)?,
                port: port("port", backend.port)?,
            }),
        };
        let edits = backend.edits.unwrap_or_default().into();
        Ok(Self { target, weight: backend.weight, edits })
    }
}

fn number(port: Option<NonZeroU16>) -> u32 {
    port.map_or(0, |port| port.get().into())
}

fn maybe_port(field: &str, number: u32) -> Result<Option<NonZeroU16>, Invalid> {
    (number != 0).then(|| port(field, number)).transpose()
}
