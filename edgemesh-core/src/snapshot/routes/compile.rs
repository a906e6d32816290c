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
                rule.fault.get_or_insert_with(|| unfit.into());
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

#[cfg(test)]
mod tests {
    use edgemesh_proto::record::RouteText;

    use super::*;

    #[test]
    fn turns_survive_a_change_of_the_route() {
        let name = ServiceName::new("default", "a");
        let route = Route { rules: vec![RouteRule::default()], ..Route::default() };
        let entry = Entry::new(name.clone(), route.clone(), None);
        let changed = Route { created: 1, rules: vec![RouteRule::default(); 2], ..route };
        let next = Entry::new(name, changed, Some(&entry));
        assert!(Arc::ptr_eq(&next.rules[0].turn, &entry.rules[0].turn));
        assert!(!Arc::ptr_eq(&next.rules[1].turn, &entry.rules[0].turn));
    }

    /// What a reader of manifests would have refused may come from elsewhere.
    #[test]
    fn what_cannot_be_matched_or_sent_is_a_fault_of_its_rule() {
        let field = |name: &str, value: &str| edgemesh_proto::record::RouteField {
            name: name.into(),
            value: RouteText::Regex(value.into()),
        };
        let matching = |headers| RouteRule {
            matches: vec![RouteMatch { headers, ..RouteMatch::default() }, RouteMatch::default()],
            ..RouteRule::default()
        };
        let setting = |name: &str, value: &str| {
            let request =
                FieldEdits { set: vec![(name.into(), value.into())], ..FieldEdits::default() };
            let edits = RouteEdits { request, ..RouteEdits::default() };
            RouteRule { edits, ..RouteRule::default() }
        };
        for (rule, matches, sound) in [
            (matching(vec![field("a", "[0-9]")]), 2, true),
            (matching(vec![field("a", "[0-9")]), 1, false),
            (matching(vec![field("a b", "x")]), 1, false),
            (setting("a", "b"), 1, true),
            (setting("a", "b\n"), 1, false),
        ] {
            let route = Route { rules: vec![rule.clone()], ..Route::default() };
            let entry = Entry::new(ServiceName::new("default", "a"), route, None);
            let got = (entry.matches[0].len(), entry.rules[0].fault.is_none());
            assert_eq!(got, (matches, sound), "{rule:?}");
        }
    }
}
