//! Endpoint type `rest`: as a source requests at the ingress, as a target a URL.

use http::Uri;

use crate::snapshot::rules::kinds::{Given, Kind, Side};
use crate::snapshot::rules::path::check_names;
use crate::snapshot::rules::{Pattern, RestTarget, Source, Target};

/// See the module.
pub(super) const REST: Kind = Kind {
    name: "rest",
    properties: &[],
    source_keys: &["path"],
    target_keys: &["resource"],
    check: |_| Ok(()),
    source,
    target,
};

fn source(side: &Side<'_>, _: &Given<'_>) -> Result<Source, String> {
    let path = side.resource("path").ok_or("path: is missing")?;
    let path = Pattern::parse(path).map_err(|why| format!("path: {why}"))?;
    Ok(Source::Rest { path })
}

fn target(side: &Side<'_>, given: &Given<'_>) -> Result<Target, String> {
    let text = side.resource("resource").ok_or("resource: is missing; a URL is wanted")?;
    let target = url(text).map_err(|why| format!("resource: `{text}` {why}"))?;
    check_names(&target.path, given.path).map_err(|why| format!("resource: {why}"))?;
    Ok(Target::Rest(target))
}

fn url(text: &str) -> Result<RestTarget, String> {
    let is_braced = |part: &str| part.contains(['{', '}']);
    // Braces are no part of a URI, and are ours.
    let plain = text.replace(['{', '}'], "_");
    let uri: Uri = plain.parse().map_err(|error| format!("is no URL: {error}"))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) | None => return Err("begins with neither http:// nor https://".into()),
    };
    let authority = uri.authority().ok_or("names no host")?.clone();
    if authority.as_str().contains('@') {
        return Err("holds a user name or password, which logs would show".into());
    }
    let after = text.find("://").map_or(text, |at| &text[at + 3..]);
    let (host, path) = after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len()));
    if is_braced(host) {
        return Err("has a {name} in its host, which is one for all messages".into());
    }
    let has_port = authority.as_str().len() > authority.host().len();
    if authority.host().is_empty() || (has_port && authority.port_u16().is_none_or(|p| p == 0)) {
        return Err("names no host, or a port that is none".into());
    }
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = match path.split_once('?') {
        // A `?` alone may be lost on its way.
        Some((path, "")) => (path, None),
        Some((path, query)) => (path, Some(query.into())),
        None => (path, None),
    };
    if query.as_deref().is_some_and(is_braced) {
        return Err("has a {name} in its query; it may stand in the path".into());
    }
    let path = if path.is_empty() { "/" } else { path };
    Ok(RestTarget { tls, authority, path: path.into(), query })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, want) in [
            ("http://127.0.0.1:7777/from", Ok((false, "127.0.0.1:7777", "/from", None))),
            ("https://a.example", Ok((true, "a.example", "/", None))),
            ("http://a/x/{id}?k=v", Ok((false, "a", "/x/{id}", Some("k=v")))),
            ("http://[::1]:80?k", Ok((false, "[::1]:80", "/", Some("k")))),
            ("http://a?", Ok((false, "a", "/", None))),
            ("http://a#x/{id}", Ok((false, "a", "/", None))),
            ("ftp://a/", Err("begins with neither")),
            ("http://{id}.example/x", Err("has a {name} in its host")),
            ("http://a:{port}/", Err("has a {name} in its host")),
            ("http://a/x?i={id}", Err("has a {name} in its query")),
            ("/x", Err("begins with neither")),
            ("http://u:p@a/", Err("holds a user name")),
            ("http://", Err("is no URL")),
            ("http://a:0/", Err("or a port that is none")),
            ("http://a:99999/", Err("or a port that is none")),
        ] {
            match (url(text), want) {
                (Ok(got), Ok(want)) => {
                    let RestTarget { tls, authority, path, query } = &got;
                    assert_eq!((*tls, authority.as_str(), &**path, query.as_deref()), want);
                }
                (Err(got), Err(want)) => assert!(got.contains(want), "{text}: {got}"),
                (got, want) => panic!("{text}: got {got:?}, want {want:?}"),
            }
        }
    }
}
