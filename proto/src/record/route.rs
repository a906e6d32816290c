//! Routes: how requests to Services are matched, edited and split (Gateway API `HTTPRoute`).

mod codec;

use std::num::NonZeroU16;
use std::time::Duration;

/// How requests to Services are matched, edited and split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// Creation time, seconds since 1970; 0 when unknown. Of two equal matches the older wins.
    pub created: i64,
    /// The Services whose requests it is for.
    pub parents: Vec<RouteParent>,
    /// In the order of the manifest.
    pub rules: Vec<RouteRule>,
}

/// A Service whose requests a Route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteParent {
    /// Namespace of the Service. Another one than the Route's makes it a consumer's Route.
    pub namespace: Box<str>,
    /// Name of the Service.
    pub service: Box<str>,
    /// Only this port; `None` = all.
    pub port: Option<NonZeroU16>,
    /// Only the port of this name; empty = all.
    pub section: Box<str>,
}

/// What happens to the requests that one of the matches fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteRule {
    /// May be empty.
    pub name: Box<str>,
    /// None = every request.
    pub matches: Vec<RouteMatch>,
    /// What is changed on the way.
    pub edits: RouteEdits,
    /// The client is sent elsewhere; there are no Backends then.
    pub redirect: Option<RouteRedirect>,
    /// Who takes the requests.
    pub backends: Vec<RouteBackend>,
    /// Longest time for a request with all its attempts; zero = no bound, `None` = the Policy's.
    pub request_timeout: Option<Duration>,
    /// Longest time for one attempt; zero or `None` = no bound of its own.
    pub backend_timeout: Option<Duration>,
    /// Why this rule cannot be served: requests that it matches are refused.
    pub fault: Option<Box<str>>,
}

/// What a request must be like: everything that is named must fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// The path, without its query.
    pub path: RoutePath,
    /// Headers, by name in lower case.
    pub headers: Vec<RouteField>,
    /// Query parameters, as written.
    pub query: Vec<RouteField>,
    /// The method.
    pub method: Option<Box<str>>,
}

/// A path as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutePath {
    /// The whole path.
    Exact(Box<str>),
    /// Its first elements; a slash at the end means nothing.
    Prefix(Box<str>),
    /// A regular expression for the whole path.
    Regex(Box<str>),
}

impl Default for RoutePath {
    /// Every path.
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

/// A header or query parameter as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteField {
    /// Its name.
    pub name: Box<str>,
    /// Its value.
    pub value: RouteText,
}

/// A text as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteText {
    /// The whole text.
    Exact(Box<str>),
    /// A regular expression for the whole text.
    Regex(Box<str>),
}

/// What is changed on the way to a Backend and back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteEdits {
    /// Headers of the request.
    pub request: FieldEdits,
    /// Headers of the answer.
    pub response: FieldEdits,
    /// The host that the Backend is told.
    pub hostname: Option<Box<str>>,
    /// The path that the Backend is told.
    pub path: Option<PathEdit>,
}

/// Headers that are changed: set replaces, add appends, remove comes last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Name in lower case, and value.
    pub set: Vec<(Box<str>, Box<str>)>,
    /// Name in lower case, and value.
    pub add: Vec<(Box<str>, Box<str>)>,
    /// Name in lower case.
    pub remove: Vec<Box<str>>,
}

/// What a path becomes; its query stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    /// This, whatever it was.
    Full(Box<str>),
    /// This in place of the prefix that matched.
    Prefix(Box<str>),
}

/// Where a client is sent instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRedirect {
    /// `http` or `https`; `None` = as it came.
    pub scheme: Option<Box<str>>,
    /// `None` = as it came.
    pub hostname: Option<Box<str>>,
    /// `None` = as it came.
    pub path: Option<PathEdit>,
    /// `None` = that of the scheme, where one is named, else the Service's.
    pub port: Option<NonZeroU16>,
    /// HTTP status, 300 to 399.
    pub status: u16,
}

/// A share of the requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteBackend {
    /// The Service that takes it, or why nobody can.
    pub target: Result<RouteTarget, Box<str>>,
    /// Of the sum of all weights; 0 = nothing.
    pub weight: u32,
    /// What is changed for this one only, after the rule's edits.
    pub edits: RouteEdits,
}

/// A Service port that takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTarget {
    /// Namespace of the Service.
    pub namespace: Box<str>,
    /// Name of the Service.
    pub service: Box<str>,
    /// Its port.
    pub port: NonZeroU16,
}
