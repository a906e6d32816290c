//! Makes an [`Entry`] of a Route record.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use edgemesh_proto::record::{
    FieldEdits, Route, RouteBackend, RouteEdits, RouteMatch, RoutePath, RouteRule, ServiceName,
};
use http::{HeaderName, HeaderValue};

use crate::snapshot::routes::{Edits, Entry, Fields, Match, Rule, Share, Split};

impl Entry {
    /// Reads the record. Turns go on from those of `before`, the same Route until now.
    pub(in crate::snapshot) fn new(
        name: ServiceName,
        record: Route,
        before: Option<&Self>,
    ) -> Self {
        let (mut rules, mut matches) = (Vec::new(), Vec::new());
        for (index, said) in record.rules.iter().enumerate() {
            let turn = before.and_then(|before| before.rules.get(index)).map(|r| r.turn.clone());
            let (of_rule, unfit) = read_matches(&said.matches);
            let mut rule = rule(&name, index, said, turn.unwrap_or_default());
            if let Some(unfit) = unfit {
                rule.fault.get_or_insert(unfit.into());
            }
            rules.push(Arc::new(rule));
            matches.push(of_rule);
        }
        Self { name, record, rules, matches }
    }

    /// Whether the Route is for this port of `service`.
    pub fn is_for(&self, service: &ServiceName, number: u16, name: &str) -> bool {
        self.record.parents.iter().any(|parent| {
            (&*parent.namespace, &*parent.service) == (&*service.namespace, &*service.name)
                && parent.port.is_none_or(|port| port.get() == number)
                && (parent.section.is_empty() || *parent.section == *name)
        })
    }
}

/// The matches that something can fit, and what is wrong with another.
fn read_matches(said: &[RouteMatch]) -> (Vec<Arc<Match>>, Option<String>) {
    let every = [RouteMatch::default()];
    let said = if said.is_empty() { &every[..] } else { said };
    let (mut fit, mut unfit) = (Vec::new(), None);
    for entry in said {
        match Match::new(entry) {
            Ok(entry) => fit.push(Arc::new(entry)),
            Err(why) => unfit = Some(why),
        }
    }
    (fit, unfit)
}

fn rule(route: &ServiceName, index: usize, said: &RouteRule, turn: Arc<AtomicU64>) -> Rule {
    let mut fault = said.fault.clone();
    let edits = read_edits(&said.edits, &mut fault);
    let mut share = |backend: &RouteBackend| {
        let (mut target, mut unfit) = (backend.target.clone(), None);
        let edits = read_edits(&backend.edits, &mut unfit);
        if let Some(unfit) = unfit {
            target = Err(unfit);
        }
        Share { target, weight: backend.weight, edits }
    };
    let shares: Vec<_> = said.backends.iter().map(&mut share).collect();
    let weights: Vec<_> = shares.iter().map(|share| share.weight).collect();
    let prefix = match said.matches.first().map(|m| &m.path) {
        Some(RoutePath::Prefix(prefix)) => prefix.trim_end_matches('/').into(),
        Some(RoutePath::Exact(_) | RoutePath::Regex(_)) | None => "".into(),
    };
    Rule {
        route: route.clone(),
        index,
        name: said.name.clone(),
        edits,
        redirect: said.redirect.clone(),
        prefix,
        shares,
        split: Split::new(&weights),
        request_timeout: said.request_timeout,
        backend_timeout: said.backend_timeout.filter(|time| !time.is_zero()),
        fault,
        turn,
    }
}

fn read_edits(said: &RouteEdits, fault: &mut Option<Box<str>>) -> Edits {
    Edits {
        request: fields(&said.request, fault),
        response: fields(&said.response, fault),
        hostname: said.hostname.clone(),
        path: said.path.clone(),
    }
}

fn fields(said: &FieldEdits, fault: &mut Option<Box<str>>) -> Fields {
    let mut pairs = |list: &[(Box<str>, Box<str>)]| {
        let pair = |(name, value): &(Box<str>, Box<str>)| {
            Some((name.parse::<HeaderName>().ok()?, HeaderValue::from_str(value).ok()?))
        };
        let read: Vec<_> = list.iter().filter_map(pair).collect();
        if read.len() < list.len() {
            fault.get_or_insert("a header edit has a name or value that cannot be sent".into());
        }
        read
    };
    let (set, add) = (pairs(&said.set), pairs(&said.add));
    Fields { set, add, remove: said.remove.iter().filter_map(|name| name.parse().ok()).collect() }
}
