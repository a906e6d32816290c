//! Any Route that is valid.

use edgemesh_proto::record::{
    FieldEdits, PathEdit, Route, RouteBackend, RouteEdits, RouteField, RouteMatch, RouteParent,
    RoutePath, RouteRedirect, RouteRule, RouteTarget, RouteText,
};
use proptest::option;
use proptest::prelude::{Strategy, any, prop_oneof};

use crate::samples::{list, name, port, text, time};

fn parent() -> impl Strategy<Value = RouteParent> {
    (name(), name(), option::of(port()), text()).prop_map(|(namespace, service, port, section)| {
        RouteParent { namespace, service, port, section }
    })
}

fn path() -> impl Strategy<Value = RoutePath> {
    prop_oneof![
        text().prop_map(RoutePath::Exact),
        text().prop_map(RoutePath::Prefix),
        text().prop_map(RoutePath::Regex),
    ]
}

fn field() -> impl Strategy<Value = RouteField> {
    let value = prop_oneof![text().prop_map(RouteText::Exact), text().prop_map(RouteText::Regex)];
    (name(), value).prop_map(|(name, value)| RouteField { name, value })
}

fn matched() -> impl Strategy<Value = RouteMatch> {
    (path(), list(field()), list(field()), option::of(text()))
        .prop_map(|(path, headers, query, method)| RouteMatch { path, headers, query, method })
}

fn field_edits() -> impl Strategy<Value = FieldEdits> {
    (list((text(), text())), list((text(), text())), list(text()))
        .prop_map(|(set, add, remove)| FieldEdits { set, add, remove })
}

fn path_edit() -> impl Strategy<Value = Option<PathEdit>> {
    let edit = prop_oneof![text().prop_map(PathEdit::Full), text().prop_map(PathEdit::Prefix)];
    option::of(edit)
}

fn edits() -> impl Strategy<Value = RouteEdits> {
    (field_edits(), field_edits(), option::of(text()), path_edit()).prop_map(
        |(request, response, hostname, path)| RouteEdits { request, response, hostname, path },
    )
}

fn redirect() -> impl Strategy<Value = Option<RouteRedirect>> {
    let fields =
        (option::of(text()), option::of(text()), path_edit(), option::of(port()), 300..400_u16);
    option::of(fields.prop_map(|(scheme, hostname, path, port, status)| RouteRedirect {
        scheme,
        hostname,
        path,
        port,
        status,
    }))
}

fn backend() -> impl Strategy<Value = RouteBackend> {
    let target = prop_oneof![
        (name(), name(), port()).prop_map(|(namespace, service, port)| Ok(RouteTarget {
            namespace,
            service,
            port
        })),
        text().prop_map(Err),
    ];
    (target, any::<u32>(), edits()).prop_map(|(target, weight, edits)| RouteBackend {
        target,
        weight,
        edits,
    })
}

fn rule() -> impl Strategy<Value = RouteRule> {
    let parts = (text(), list(matched()), edits(), redirect(), list(backend()));
    (parts, time(), time(), option::of(text())).prop_map(
        |((name, matches, edits, redirect, backends), request_timeout, backend_timeout, fault)| {
            RouteRule {
                name,
                matches,
                edits,
                redirect,
                backends,
                request_timeout,
                backend_timeout,
                fault,
            }
        },
    )
}

/// Any Route that is valid.
pub(crate) fn route() -> impl Strategy<Value = Route> {
    (any::<i64>(), list(parent()), list(rule())).prop_map(|(created, parents, rules)| Route {
        created,
        parents,
        rules,
    })
}
