//! Routes as decisions read them: matches in the order in which they count, rules ready to apply.
//!
//! A Route is compiled once, when its record comes ([`Entry`]); each Service port that it is for
//! has a [`PortRoutes`] with the matches of all its Routes, sorted as the Gateway API demands.

mod compile;
mod matching;
mod split;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use edgemesh_proto::record::{PathEdit, Route, RouteRedirect, RouteTarget, ServiceName};
use http::{HeaderName, HeaderValue};

pub use matching::{Match, pattern};
pub use split::Split;

/// A Route, ready to use.
#[derive(Debug)]
pub struct Entry {
    /// Namespace and name of the record.
    pub name: ServiceName,
    /// What it says.
    pub record: Route,
    /// In the order of the record.
    pub rules: Vec<Arc<Rule>>,
    /// The matches of each rule.
    matches: Vec<Vec<Arc<Match>>>,
}

/// What happens to the requests that one of its matches fits.
#[derive(Debug)]
pub struct Rule {
    /// Namespace and name of the Route.
    pub route: ServiceName,
    /// Its place in the Route, from 0.
    pub index: usize,
    /// May be empty.
    pub name: Box<str>,
    /// What is changed on the way.
    pub edits: Edits,
    /// The client is sent elsewhere.
    pub redirect: Option<RouteRedirect>,
    /// What `PathEdit::Prefix` replaces.
    pub prefix: Box<str>,
    /// Who takes the requests.
    pub shares: Vec<Share>,
    /// Which of them takes which.
    pub split: Split,
    /// Longest request with all its attempts; zero = no bound, `None` = the Policy's.
    pub request_timeout: Option<Duration>,
    /// Longest attempt.
    pub backend_timeout: Option<Duration>,
    /// Why the rule cannot be served.
    pub fault: Option<Box<str>>,
    /// Grows with every request; survives a change of the Route.
    pub turn: Arc<AtomicU64>,
}

/// A share of a rule's requests.
#[derive(Debug)]
pub struct Share {
    /// The Service that takes it, or why nobody can.
    pub target: Result<RouteTarget, Box<str>>,
    /// Of the sum of all.
    pub weight: u32,
    /// What is changed for this one only, after the rule's edits.
    pub edits: Edits,
}

/// What is changed on the way to a Backend and back.
#[derive(Debug, Default)]
pub struct Edits {
    /// Headers of the request.
    pub request: Fields,
    /// Headers of the answer.
    pub response: Fields,
    /// The host that the Backend is told.
    pub hostname: Option<Box<str>>,
    /// The path that the Backend is told.
    pub path: Option<PathEdit>,
}

/// Headers that are changed: set, then add, then remove.
#[derive(Debug, Default)]
pub struct Fields {
    /// Replaced.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Appended.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Taken away.
    pub remove: Vec<HeaderName>,
}

/// One match, and the rule that it leads to.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What a request must be like.
    pub matched: Arc<Match>,
    /// What happens then.
    pub rule: Arc<Rule>,
}

/// The Routes of one Service port.
#[derive(Debug, Default)]
pub struct PortRoutes {
    /// For everyone: Routes in the namespace of the Service. The first that fits counts.
    pub producer: Vec<Candidate>,
    /// There is a Route for everyone, if only one that matches nothing.
    has_producer: bool,
    /// For callers of a namespace, in place of the producer's: Routes of that namespace.
    pub consumers: BTreeMap<Box<str>, Vec<Candidate>>,
}

impl Entry {
    /// The matches of a rule, as people read them.
    pub fn matches(&self, rule: usize) -> Vec<String> {
        let matches = self.matches.get(rule).into_iter().flatten();
        matches.map(|matched| matched.text.to_string()).collect()
    }
}

impl PortRoutes {
    /// Those of `routes` that are for a port of `service`; `None` when none is.
    pub(super) fn new<'e>(
        routes: impl Iterator<Item = &'e Arc<Entry>>,
        service: &ServiceName,
        (number, name): (u16, &str),
    ) -> Option<Arc<Self>> {
        let mut entries: Vec<_> =
            routes.filter(|entry| entry.is_for(service, number, name)).collect();
        if entries.is_empty() {
            return None;
        }
        // An unknown age is the youngest: whoever knows better wins.
        entries.sort_by_key(|e| (e.record.created == 0, e.record.created, &e.name));
        let mut all = Self::default();
        for entry in entries {
            let into = match entry.name.namespace == service.namespace {
                true => {
                    all.has_producer = true;
                    &mut all.producer
                }
                false => all.consumers.entry(entry.name.namespace.clone()).or_default(),
            };
            for (rule, matches) in entry.rules.iter().zip(&entry.matches) {
                let candidate =
                    |m: &Arc<Match>| Candidate { matched: m.clone(), rule: rule.clone() };
                into.extend(matches.iter().map(candidate));
            }
        }
        // Stable: of equal matches the older Route, its name, and then the order within decide.
        all.producer.sort_by_key(|candidate| candidate.matched.rank());
        for of_caller in all.consumers.values_mut() {
            of_caller.sort_by_key(|candidate| candidate.matched.rank());
        }
        Some(Arc::new(all))
    }

    /// What counts for callers of `namespace`; `None` = nothing does, the Service takes the call.
    pub fn of(&self, namespace: Option<&str>) -> Option<&[Candidate]> {
        let own = namespace.and_then(|namespace| self.consumers.get(namespace));
        let table = own.unwrap_or(&self.producer);
        // A Route without a match that fits anything is a Route all the same.
        (own.is_some() || self.has_producer).then_some(table)
    }
}
