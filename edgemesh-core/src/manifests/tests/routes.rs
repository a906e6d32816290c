//! HTTPRoute: what is refused, with line and field, and what is only remarked.

use edgemesh_proto::record::{Body, RoutePath};

use crate::manifests::Severity;
use crate::manifests::tests::yaml;

/// An HTTPRoute of Service `hello`; what is given begins at line 6.
fn route(rest: &str) -> String {
    let head = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
                metadata: { name: hello, namespace: default }\nspec:\n  \
                parentRefs: [{ group: '', kind: Service, name: hello }]\n";
    format!("{head}{rest}\n")
}

fn filter(filter: &str) -> String {
    format!("  rules:\n  - filters: [{filter}]")
}

fn many(key: &str, entry: &str, times: usize) -> String {
    format!("  rules: [{{ {key}: [{}] }}]", vec![entry; times].join(", "))
}

/// Line, field and a part of the reason.
type Want = (u32, &'static str, &'static str);

#[test]
fn refused() {
    let rows: &[(String, Want)] = &[
        ("  rule: []".into(), (6, "spec.rule", "did you mean `rules`?")),
        ("  rules: [{ match: [] }]".into(), (6, "spec.rules[0].match", "did you mean `matches`?")),
        ("  rules: [{ retry: {} }]".into(), (6, "spec.rules[0].retry", "is experimental")),
        ("  rules: {}".into(), (6, "spec.rules", "must be a list")),
        (many("matches", "{}", 65), (6, "spec.rules[0].matches", "65 entries; 64 are the most")),
        (
            many("backendRefs", "{ name: a, port: 80 }", 17),
            (6, "spec.rules[0].backendRefs", "17 entries; 16 are the most"),
        ),
        (
            format!("  rules: [{}]", vec!["{}"; 17].join(", ")),
            (6, "spec.rules", "17 entries; 16 are the most"),
        ),
        (
            format!(
                "  rules: [{}]",
                vec![format!("{{ matches: [{}] }}", vec!["{}"; 64].join(",")); 3].join(", ")
            ),
            (6, "spec.rules", "192 matches in all"),
        ),
        (
            "  rules:\n  - matches:\n    - path: { value: x }".into(),
            (8, "spec.rules[0].matches[0].path.value", "must begin with a slash"),
        ),
        (
            "  rules:\n  - matches: [{ path: { value: /a/../b } }]".into(),
            (7, "spec.rules[0].matches[0].path.value", "has `/../` in it"),
        ),
        (
            "  rules:\n  - matches: [{ path: { value: /a%2Fb } }]".into(),
            (7, "spec.rules[0].matches[0].path.value", "has `%2f` in it"),
        ),
        (
            "  rules:\n  - matches: [{ path: { type: Prefix, value: /a } }]".into(),
            (7, "spec.rules[0].matches[0].path.type", "is not one of Exact, PathPrefix"),
        ),
        (
            "  rules:\n  - matches: [{ path: { type: RegularExpression, value: '/a(' } }]".into(),
            (7, "spec.rules[0].matches[0].path.value", "is no regular expression: unclosed group"),
        ),
        (
            "  rules:\n  - matches: [{ path: { type: RegularExpression, value: 'a)|(b' } }]".into(),
            (7, "spec.rules[0].matches[0].path.value", "is no regular expression"),
        ),
        (
            "  rules:\n  - matches: [{ path: { type: RegularExpression, value: '(a{1000}){1000}' } }]"
                .into(),
            (7, "spec.rules[0].matches[0].path.value", "is too large an expression"),
        ),
        (
            "  rules:\n  - matches: [{ method: get }]".into(),
            (7, "spec.rules[0].matches[0].method", "is not one of GET, HEAD"),
        ),
        (
            "  rules:\n  - matches: [{ headers: [{ name: 'a b', value: x }] }]".into(),
            (7, "spec.rules[0].matches[0].headers[0].name", "is no header name"),
        ),
        (
            "  rules:\n  - matches: [{ headers: [{ name: a }] }]".into(),
            (7, "spec.rules[0].matches[0].headers[0].value", "is missing"),
        ),
        (filter("{ type: Rewrite }"), (7, "spec.rules[0].filters[0].type", "is not one of")),
        (
            filter("{ type: URLRewrite }"),
            (7, "spec.rules[0].filters[0].urlRewrite", "is missing"),
        ),
        (
            filter("{ type: URLRewrite, urlRewrite: {} }, { type: URLRewrite, urlRewrite: {} }"),
            (7, "spec.rules[0].filters[1].type", "there is a URLRewrite before"),
        ),
        (
            filter(
                "{ type: URLRewrite, urlRewrite: {} }, { type: RequestRedirect, requestRedirect: {} }",
            ),
            (7, "spec.rules[0].filters", "only one of the two"),
        ),
        (
            filter(
                "{ type: RequestHeaderModifier, requestHeaderModifier: { set: [{ name: Host, value: x }] } }",
            ),
            (7, "spec.rules[0].filters[0].requestHeaderModifier.set[0].name", "use URLRewrite"),
        ),
        (
            filter(
                "{ type: ResponseHeaderModifier, responseHeaderModifier: { remove: [Content-Length] } }",
            ),
            (
                7,
                "spec.rules[0].filters[0].responseHeaderModifier.remove[0]",
                "belongs to the connection",
            ),
        ),
        (
            filter("{ type: RequestRedirect, requestRedirect: { statusCode: 304 } }"),
            (7, "spec.rules[0].filters[0].requestRedirect.statusCode", "301, 302, 303, 307 or 308"),
        ),
        (
            format!(
                "{}\n    backendRefs: [{{ name: a, port: 80 }}]",
                filter("{ type: RequestRedirect, requestRedirect: {} }")
            ),
            (8, "spec.rules[0].backendRefs", "have no place beside a RequestRedirect"),
        ),
        (
            "  rules:\n  - matches: [{ path: { type: Exact, value: /a } }]\n    filters: \
             [{ type: URLRewrite, urlRewrite: { path: { type: ReplacePrefixMatch, replacePrefixMatch: /b } } }]"
                .into(),
            (8, "spec.rules[0].filters", "must have one match, of a path of type PathPrefix"),
        ),
        (
            "  rules:\n  - backendRefs: [{ name: a }]".into(),
            (7, "spec.rules[0].backendRefs[0].port", "is missing"),
        ),
        (
            "  rules:\n  - backendRefs: [{ name: a, port: 80, weight: -1 }]".into(),
            (7, "spec.rules[0].backendRefs[0].weight", "from 0 to 1000000"),
        ),
        (
            "  rules:\n  - timeouts: { request: 1s, backendRequest: 2s }".into(),
            (7, "spec.rules[0].timeouts.backendRequest", "is longer than `request`"),
        ),
        (
            "  rules:\n  - timeouts: { request: 1 }".into(),
            (7, "spec.rules[0].timeouts.request", "has no unit"),
        ),
    ];
    for (text, (line, field, reason)) in rows {
        let parsed = yaml(&route(text));
        assert_eq!(parsed.documents, [], "{text}");
        let [remark] = &parsed.remarks[..] else { panic!("{:?}\n{text}", parsed.remarks) };
        assert_eq!((remark.line, &*remark.field), (*line, *field), "{remark:?}\n{text}");
        assert_eq!(remark.severity, Severity::Rejected);
        assert!(remark.reason.contains(reason), "{remark:?}\n{text}");
    }
}

/// What is said of a Route that counts.
#[test]
fn remarked() {
    let gateway = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: HTTPRoute\n\
                   metadata: { name: hello }\nspec:\n  parentRefs: [{ name: gateway }";
    let rows: &[(String, usize, Severity, Want)] = &[
        (format!("{gateway}]\n"), 0, Severity::Ignored, (1, "", "no parent is a Service")),
        (
            format!("{gateway}, {{ group: '', kind: Service, name: hello }}]\n"),
            1,
            Severity::Ignored,
            (5, "spec.parentRefs[0]", "is no Service"),
        ),
        (
            route("  hostnames: [a.example]"),
            1,
            Severity::Note,
            (6, "spec.hostnames", "has no effect"),
        ),
        (
            route("  rules: [{ backendRefs: [{ name: a, namespace: b, port: 80 }] }]"),
            1,
            Severity::Note,
            (6, "spec.rules[0].backendRefs[0]", "ReferenceGrant"),
        ),
        (
            route(
                "  rules: [{ filters: [{ type: RequestMirror, requestMirror: { backendRef: { name: web, port: 80 } } }] }]",
            ),
            1,
            Severity::Note,
            (6, "spec.rules[0].filters[0].type", "get 500"),
        ),
    ];
    for (text, documents, severity, (line, field, reason)) in rows {
        let parsed = yaml(text);
        assert_eq!(parsed.documents.len(), *documents, "{text}");
        let [remark] = &parsed.remarks[..] else { panic!("{:?}\n{text}", parsed.remarks) };
        let got = (remark.severity, remark.line, &*remark.field);
        assert_eq!(got, (*severity, *line, *field), "{remark:?}\n{text}");
        assert!(remark.reason.contains(reason), "{remark:?}\n{text}");
    }
}

/// As the API server writes them.
#[test]
fn defaults() {
    let parsed = yaml(&route(""));
    let Body::Route(read) = &parsed.documents[0].records[0].body else { panic!("{parsed:?}") };
    assert_eq!(read.rules.len(), 1, "one rule for everything");
    let text = route("  rules: [{ matches: [{}], backendRefs: [{ name: a, port: 80 }] }]");
    let parsed = yaml(&text);
    let Body::Route(read) = &parsed.documents[0].records[0].body else { panic!("{parsed:?}") };
    assert_eq!(read.rules[0].matches[0].path, RoutePath::Prefix("/".into()));
    assert_eq!(read.rules[0].backends[0].weight, 1);
    assert_eq!(&*read.parents[0].namespace, "default");
}
