//! One match of a Route: what a request must be like, and how much the match counts.

use std::cmp::Reverse;
use std::fmt::Write as _;

use edgemesh_proto::record::{RouteField, RouteMatch, RoutePath, RouteText};
use http::{HeaderMap, HeaderName, Method, Uri};
use regex::bytes::{Regex, RegexBuilder};

/// Largest compiled expression, in bytes: some thousand states, which a request passes in
/// microseconds.
const MAX_PATTERN: usize = 128 * 1024;
/// Deepest nesting of groups in an expression.
const MAX_NEST: u32 = 32;

/// What a request must be like. Everything in it must fit.
#[derive(Debug)]
pub struct Match {
    path: Path,
    headers: Vec<(HeaderName, Text)>,
    query: Vec<(Box<str>, Text)>,
    method: Option<Method>,
    /// As people read it: `prefix /v2, header version: two, GET`.
    pub text: Box<str>,
}

#[derive(Debug)]
enum Path {
    Exact(Box<str>),
    /// Without a slash at its end.
    Prefix(Box<str>),
    Regex(Regex),
}

#[derive(Debug)]
enum Text {
    Exact(Box<str>),
    Regex(Regex),
}

/// How much a match counts; the lowest wins.
pub(super) type Rank = (u8, Reverse<usize>, Reverse<bool>, Reverse<usize>, Reverse<usize>);

impl Match {
    /// The match, ready to use.
    ///
    /// # Errors
    /// Says what in it nothing can fit.
    pub fn new(said: &RouteMatch) -> Result<Self, String> {
        let path = match &said.path {
            RoutePath::Exact(path) => Path::Exact(path.clone()),
            RoutePath::Prefix(path) => Path::Prefix(path.trim_end_matches('/').into()),
            RoutePath::Regex(expression) => Path::Regex(pattern(expression)?),
        };
        let method = said
            .method
            .as_deref()
            .map(|m| m.parse::<Method>().map_err(|_| format!("`{m}` is no method")));
        let headers = said.headers.iter().map(|field| {
            let name = field.name.parse::<HeaderName>();
            Ok((name.map_err(|_| format!("`{}` is no header name", field.name))?, text(field)?))
        });
        let query = said.query.iter().map(|field| Ok((field.name.clone(), text(field)?)));
        Ok(Self {
            path,
            headers: headers.collect::<Result<_, String>>()?,
            query: query.collect::<Result<_, String>>()?,
            method: method.transpose()?,
            text: shown(said).into(),
        })
    }

    /// Whether a request fits.
    pub fn fits(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> bool {
        let path = uri.path();
        let path_fits = match &self.path {
            Path::Exact(exact) => **exact == *path,
            Path::Prefix(prefix) => element_prefix(path, prefix),
            Path::Regex(regex) => regex.is_match(path.as_bytes()),
        };
        path_fits
            && self.method.as_ref().is_none_or(|wanted| wanted == method)
            && self.headers.iter().all(|(name, text)| header_fits(headers, name, text))
            && self.query.iter().all(|(name, text)| query_fits(uri, name, text))
    }

    /// The order of the Gateway API: an exact path, then the longest prefix, then a method, then
    /// the most headers, then the most query parameters. Expressions stand between exact paths
    /// and prefixes, the longer one first.
    pub(super) fn rank(&self) -> Rank {
        let (class, length) = match &self.path {
            Path::Exact(_) => (0, 0),
            Path::Regex(regex) => (1, regex.as_str().len()),
            Path::Prefix(prefix) => (2, prefix.len()),
        };
        let (headers, query) = (self.headers.len(), self.query.len());
        (class, Reverse(length), Reverse(self.method.is_some()), Reverse(headers), Reverse(query))
    }
}

/// Whether the first elements of `path` are those of `prefix`, which has no slash at its end.
fn element_prefix(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        || prefix.is_empty()
}

/// An expression that a whole text must fit, as in Envoy and so in most of what serves the
/// Gateway API. RE2's syntax without Unicode classes; time is linear in the text.
///
/// # Errors
/// Says what is wrong with it.
pub fn pattern(expression: &str) -> Result<Regex, String> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .unicode(false)
            .size_limit(MAX_PATTERN)
            .nest_limit(MAX_NEST)
            .build()
            .map_err(|error| match error {
                regex::Error::CompiledTooBig(_) => "is too large an expression".to_owned(),
                regex::Error::Syntax(_) | _ => last_line(&error.to_string()),
            })
    };
    // By itself first: what is no expression may become one between our brackets.
    build(expression)?;
    build(&format!("^(?:{expression})$"))
}

/// The parser draws the place on lines of its own; its last line says what is wrong.
fn last_line(error: &str) -> String {
    let line = error.lines().last().unwrap_or_default();
    format!("is no regular expression: {}", line.trim_start_matches("error: "))
}

fn text(field: &RouteField) -> Result<Text, String> {
    match &field.value {
        RouteText::Exact(value) => Ok(Text::Exact(value.clone())),
        RouteText::Regex(expression) => Ok(Text::Regex(pattern(expression)?)),
    }
}

impl Text {
    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// Several lines of one header are one list (RFC 9110 §5.3).
fn header_fits(headers: &HeaderMap, name: &HeaderName, text: &Text) -> bool {
    let mut lines = headers.get_all(name).iter();
    match (lines.next(), lines.next()) {
        (None, _) => false,
        (Some(only), None) => text.fits(only.as_bytes()),
        (Some(_), Some(_)) => {
            let lines: Vec<&[u8]> = headers.get_all(name).iter().map(|v| v.as_bytes()).collect();
            text.fits(&lines.join(&b", "[..]))
        }
    }
}

/// The first parameter of that name counts; names and values are compared as written.
fn query_fits(uri: &Uri, name: &str, text: &Text) -> bool {
    let mut pairs = uri.query().unwrap_or_default().split('&');
    let value = pairs.find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    });
    value.is_some_and(|value| text.fits(value.as_bytes()))
}

fn shown(said: &RouteMatch) -> String {
    let mut out = match &said.path {
        RoutePath::Exact(path) => format!("path {path}"),
        RoutePath::Prefix(path) => format!("prefix {path}"),
        RoutePath::Regex(expression) => format!("path ~ {expression}"),
    };
    for (what, fields) in [("header", &said.headers), ("query", &said.query)] {
        for field in fields {
            let (sign, value) = match &field.value {
                RouteText::Exact(value) => (":", value),
                RouteText::Regex(expression) => (" ~", expression),
            };
            // Writing to a String cannot fail.
            let _ = write!(out, ", {what} {}{sign} {value}", field.name);
        }
    }
    if let Some(method) = &said.method {
        let _ = write!(out, ", {method}");
    }
    out
}
