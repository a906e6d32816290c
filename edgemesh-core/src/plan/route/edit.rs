//! What a Route changes on a request before it is sent, and on the answer.

use edgemesh_proto::record::PathEdit;
use http::header::{Entry, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use crate::plan::Routed;
use crate::refusal::Refusal;
use crate::snapshot::{Fields, Rule};

impl Routed {
    /// Gives a request the host, path and headers that its rule wants. Once a call: what is
    /// edited is what further attempts send.
    ///
    /// # Errors
    /// When the host or path would be one that cannot be sent.
    pub fn edit_request<B>(&self, request: &mut Request<B>) -> Result<(), Refusal> {
        let (rule, share) = (self.rule(), self.share());
        fields(request.headers_mut(), &rule.edits.request);
        fields(request.headers_mut(), &share.edits.request);
        let hostname = share.edits.hostname.as_ref().or(rule.edits.hostname.as_ref());
        let path = share.edits.path.as_ref().or(rule.edits.path.as_ref());
        // CONNECT has a place to go to and no path.
        if (hostname.is_none() && path.is_none()) || request.method() == Method::CONNECT {
            return Ok(());
        }
        rewrite(rule, hostname.map(AsRef::as_ref), path, request).ok_or(Refusal::RouteFault)
    }

    /// Gives an answer the headers that the rule wants.
    pub fn edit_response(&self, headers: &mut HeaderMap) {
        fields(headers, &self.share().edits.response);
        fields(headers, &self.rule().edits.response);
    }
}

/// The path that takes the place of `path`.
pub(super) fn edited_path(rule: &Rule, edit: &PathEdit, path: &str) -> String {
    let edited = match edit {
        PathEdit::Full(whole) => whole.to_string(),
        PathEdit::Prefix(replacement) => {
            let rest = path.strip_prefix(&*rule.prefix).unwrap_or_default();
            format!("{}{rest}", replacement.trim_end_matches('/'))
        }
    };
    if edited.starts_with('/') { edited } else { format!("/{edited}") }
}

fn rewrite<B>(
    rule: &Rule,
    hostname: Option<&str>,
    path: Option<&PathEdit>,
    request: &mut Request<B>,
) -> Option<()> {
    let mut parts = request.uri().clone().into_parts();
    if let Some(edit) = path {
        let (old, query) = (request.uri().path(), request.uri().query());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let new = edited_path(rule, edit, old) + &query;
        parts.path_and_query = Some(PathAndQuery::try_from(new).ok()?);
    }
    if let Some(host) = hostname {
        let value = HeaderValue::from_str(host).ok()?;
        // HTTP/2 names the host beside the path, and may name it in a header too.
        if parts.authority.is_some() {
            parts.authority = Some(Authority::try_from(host).ok()?);
            if let Entry::Occupied(mut named) = request.headers_mut().entry(HOST) {
                named.insert(value);
            }
        } else {
            request.headers_mut().insert(HOST, value);
        }
    }
    if parts.authority.is_some() && parts.scheme.is_none() {
        parts.scheme = Some(Scheme::HTTP); // a URI has both or neither, but for CONNECT
    }
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    Some(())
}

fn fields(headers: &mut HeaderMap, edits: &Fields) {
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name, value.clone());
    }
    for name in &edits.remove {
        headers.remove(name);
    }
}
