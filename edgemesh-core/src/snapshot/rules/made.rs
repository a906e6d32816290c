//! What a Rule makes of a message for its target, and whether it could have made what another node did.

use crate::refusal::Refusal;
use crate::snapshot::rules::{
    Matched, Pattern, RestTarget, Rule, Source, Target, TopicTarget, path,
};

impl Rule {
    /// What a request's path and query become, or the topic: all that its target wants to know.
    ///
    /// # Errors
    /// [`Refusal::NoRule`]: it does not take this path. [`Refusal::BadRequest`]: what would become of it
    /// could leave what the target is for.
    pub fn onto_target(&self, path: &str, query: Option<&str>) -> Result<String, Refusal> {
        let whole = Pattern::default();
        // Messages of a topic, or for a URL of a ServiceBus, have neither.
        let (path, query) = if self.has_paths() { (path, query) } else { ("", None) };
        let matched = self.path().unwrap_or(&whole).matches(path).ok_or(Refusal::NoRule)?;
        let onto =
            |matched: &Matched<'_>, target: &str, query: Option<&str>| match matched.has_dots() {
                true => Err(Refusal::BadRequest),
                false => Ok(matched.onto(target, query)),
            };
        match &self.target {
            Some(Target::Rest(RestTarget { path: base, query: own, .. })) => {
                let both = match (own.as_deref(), query) {
                    (Some(own), Some(query)) => Some(format!("{own}&{query}")),
                    (own, query) => own.or(query).map(str::to_owned),
                };
                onto(&matched, base, both.as_deref())
            }
            Some(Target::EventBus(TopicTarget { topic, .. })) => onto(&matched, topic, query),
            Some(Target::ServiceBus { path: base, .. }) => onto(&matched, base, query),
            Some(Target::Service { path: Some(base), .. }) => onto(&matched, base, query),
            Some(Target::Service { path: None, .. }) | None => match &self.source {
                // A call of a Service stays what it is.
                Some(Source::Service { .. }) | None => {
                    Ok(whole.matches(path).ok_or(Refusal::NoRule)?.onto("", query))
                }
                Some(Source::Rest { .. } | Source::EventBus { .. } | Source::ServiceBus { .. }) => {
                    onto(&matched, "", query)
                }
            },
        }
    }

    /// Whether what another node made of a message is what this Rule could make of one: the path of its
    /// request and the query, or the topic, beside which a query says nothing.
    pub fn could_make(&self, made: &str, query: Option<&str>) -> bool {
        let could = |target: &str, made: &str| match self.has_paths() {
            true => path::could_be(made, target),
            false => made == target,
        };
        let asks = |own: Option<&str>| match (own, query) {
            (own, query) if !self.has_paths() => own == query,
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(query)) => {
                query.strip_prefix(own).is_some_and(|more| more.is_empty() || more.starts_with('&'))
            }
        };
        match &self.target {
            Some(Target::Rest(target)) => {
                could(&target.path, made) && asks(target.query.as_deref())
            }
            Some(Target::EventBus(TopicTarget { topic, .. })) => {
                // The query of a request is part of the topic; no path has a `?`.
                let own = topic.matches('?').count();
                let query = made.match_indices('?').nth(own).filter(|_| self.has_paths());
                could(topic, query.map_or(made, |(at, _)| &made[..at]))
            }
            Some(Target::ServiceBus { path, .. }) => could(path, made) && asks(None),
            Some(Target::Service { .. }) | None => false,
        }
    }

    /// Whether what its source takes are requests, each with a path of its own.
    const fn has_paths(&self) -> bool {
        match &self.source {
            Some(Source::Rest { .. } | Source::Service { .. }) | None => true,
            Some(Source::EventBus { .. } | Source::ServiceBus { .. }) => false,
        }
    }
}
