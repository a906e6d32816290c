//! The table of Endpoint types, and how a Rule is read by those of its two Endpoints.

use std::time::Duration;

use edgemesh_proto::record::{Endpoint, EndpointName, RateLimit, Rule as RuleRecord, RuleName};
use edgemesh_proto::rule::ResourceMap;

use crate::snapshot::rules::eventbus::EVENTBUS;
use crate::snapshot::rules::rest::REST;
use crate::snapshot::rules::service::SERVICE;
use crate::snapshot::rules::servicebus::SERVICEBUS;
use crate::snapshot::rules::{Pattern, Source, Standing, Step, Target, settings};

/// Every type that is served.
const KINDS: &[Kind] = &[REST, EVENTBUS, SERVICEBUS, SERVICE];

/// Longest time for an answer where a Rule says nothing: KubeEdge's `restTimeout`.
const USUAL_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest body where a Rule says nothing: KubeEdge's bound.
const USUAL_BODY: u64 = 12 * 1024 * 1024;
/// Properties that every Endpoint may have.
const OF_ALL: [&str; 2] = ["qps", "burst"];
/// Keys that every source's resource map may have, for the Rule.
const OF_SOURCES: [&str; 3] = ["qps", "burst", "max_body"];
/// Keys that every target's resource map may have, for the Rule.
const OF_TARGETS: [&str; 1] = ["timeout"];

/// Why a Rule from topic to topic is none.
const GOES_ROUND: &str = "its target is a topic that it takes: a message would go round for ever";

/// One type.
pub(super) struct Kind {
    pub(super) name: &'static str,
    /// Properties that it reads.
    pub(super) properties: &'static [&'static str],
    /// Keys that it reads as a source.
    pub(super) source_keys: &'static [&'static str],
    /// Keys that it reads as a target.
    pub(super) target_keys: &'static [&'static str],
    /// What is wrong with an Endpoint by itself.
    pub(super) check: fn(&Endpoint) -> Result<(), String>,
    pub(super) source: fn(&Side<'_>, &Given<'_>) -> Result<Source, String>,
    pub(super) target: fn(&Side<'_>, &Given<'_>) -> Result<Target, String>,
}

/// One side of a Rule.
pub(super) struct Side<'a> {
    /// Of the Endpoint.
    pub(super) name: &'a EndpointName,
    pub(super) endpoint: &'a Endpoint,
    pub(super) map: &'a ResourceMap,
}

/// What else is known of the Rule.
pub(super) struct Given<'a> {
    /// The pattern of the source's path.
    pub(super) path: Option<&'a Pattern>,
}

impl<'a> Side<'a> {
    pub(super) fn resource(&self, key: &str) -> Option<&'a str> {
        self.map.get(key)
    }

    pub(super) fn property(&self, key: &str) -> Option<&'a str> {
        self.endpoint.properties.get(key)
    }

    /// What the Rule says, else its Endpoint.
    pub(super) fn either(&self, key: &str) -> Option<&'a str> {
        self.resource(key).or_else(|| self.property(key))
    }
}

/// What a Rule says.
#[derive(Debug)]
pub struct Compiled {
    /// [`Standing::Active`], or why it takes no messages, as far as it stands alone.
    pub standing: Standing,
    /// Which messages it takes, where that can be told.
    pub source: Option<Source>,
    /// Where they go, where that can be told.
    pub target: Option<Target>,
    /// Messages a second of the Rule.
    pub limit: Option<RateLimit>,
    /// Largest body, in bytes.
    pub max_body: u64,
    /// Longest time for the answer; `None` = what the Service's Policy says.
    pub timeout: Option<Duration>,
    /// What an operator should know: keys that nobody reads.
    pub notes: Vec<Box<str>>,
}

/// Reads a Rule by its Endpoints.
pub fn compile<'e>(
    name: &RuleName,
    record: &RuleRecord,
    endpoint: impl Fn(&EndpointName) -> Option<&'e Endpoint>,
) -> Compiled {
    let mut compiled = Compiled {
        standing: Standing::Active,
        source: None,
        target: None,
        limit: None,
        max_body: USUAL_BODY,
        timeout: None,
        notes: Vec::new(),
    };
    let source = found(name, record, &record.source, "source", &endpoint);
    let target = found(name, record, &record.target, "target", &endpoint);
    let read = source.and_then(|(kind, of)| {
        let side = Side { name: &record.source, endpoint: of, map: &record.source_resource };
        compiled.source = Some(source_of(kind, &side, &mut compiled).map_err(faulty("source"))?);
        Ok(())
    });
    let aimed = target.and_then(|(kind, of)| {
        let side = Side { name: &record.target, endpoint: of, map: &record.target_resource };
        let path = match &compiled.source {
            Some(Source::Rest { path }) => Some(path.clone()),
            Some(Source::Service { path, .. }) => path.clone(),
            Some(Source::EventBus { .. } | Source::ServiceBus { .. }) | None => None,
        };
        let target = target_of(kind, &side, path.as_ref(), &mut compiled);
        let target = compiled.target.insert(target.map_err(faulty("target"))?);
        let step = compiled.source.as_ref().and_then(|source| Step::of(name, source, target));
        match step.is_some_and(|step| step.is_round()) {
            true => Err(Standing::Faulty(GOES_ROUND.into())),
            false => Ok(()),
        }
    });
    // What can never work is said before what may come.
    compiled.standing = match (read, aimed, record) {
        (_, _, RuleRecord { is_deleted: true, .. }) => Standing::Deleted,
        (Err(Standing::Faulty(why)), ..) | (_, Err(Standing::Faulty(why)), _) => {
            Standing::Faulty(why)
        }
        (Err(waits), ..) | (_, Err(waits), _) => waits,
        (_, _, RuleRecord { in_use: false, .. }) => Standing::Paused,
        (Ok(()), Ok(()), _) => Standing::Active,
    };
    compiled
}

fn faulty(side: &'static str) -> impl Fn(String) -> Standing {
    move |why| Standing::Faulty(format!("{side}: {why}").into())
}

fn found<'e>(
    name: &RuleName,
    record: &RuleRecord,
    wanted: &EndpointName,
    side: &'static str,
    endpoint: impl Fn(&EndpointName) -> Option<&'e Endpoint>,
) -> Result<(&'static Kind, &'e Endpoint), Standing> {
    let Some(endpoint) = endpoint(wanted) else {
        return Err(Standing::Waiting(format!("{side}: there is no Endpoint {wanted} yet").into()));
    };
    let faulty = faulty(side);
    let is_own = wanted.namespace == name.namespace
        || endpoint.project_id.as_ref() == Some(&record.project_id);
    if !is_own && !endpoint.is_shared {
        return Err(faulty(format!("Endpoint {wanted} of another namespace is not shared")));
    }
    let kind =
        kind_of(endpoint).map_err(|why| faulty(format!("Endpoint {wanted}: type: {why}")))?;
    Ok((kind, endpoint))
}

fn kind_of(endpoint: &Endpoint) -> Result<&'static Kind, String> {
    let name = endpoint.endpoint_type.as_str();
    KINDS.iter().find(|kind| kind.name == name).ok_or_else(|| {
        let known: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        format!("`{name}` is not known; known are {}", known.join(", "))
    })
}

/// What is wrong with an Endpoint by itself, whatever Rules want of it.
///
/// # Errors
/// In words.
pub fn check(endpoint: &Endpoint) -> Result<(), String> {
    let kind = kind_of(endpoint).map_err(|why| format!("type: {why}"))?;
    settings::limit(&|key| endpoint.properties.get(key))?;
    (kind.check)(endpoint)
}

/// Messages a second of an Endpoint, where it says so.
pub(in crate::snapshot) fn limit_of(endpoint: &Endpoint) -> Option<RateLimit> {
    settings::limit(&|key| endpoint.properties.get(key)).ok().flatten()
}

fn source_of(kind: &Kind, side: &Side<'_>, into: &mut Compiled) -> Result<Source, String> {
    check(side.endpoint)?;
    let source = (kind.source)(side, &Given { path: None })?;
    note_unread(kind, side, [kind.source_keys, &OF_SOURCES], into);
    // From here on it is known what is refused, and in which words.
    into.source = Some(source.clone());
    into.limit = settings::limit(&|key| side.resource(key))?;
    into.max_body = settings::max_body(&|key| side.resource(key))?.unwrap_or(USUAL_BODY);
    Ok(source)
}

fn target_of(
    kind: &Kind,
    side: &Side<'_>,
    path: Option<&Pattern>,
    into: &mut Compiled,
) -> Result<Target, String> {
    check(side.endpoint)?;
    note_unread(kind, side, [kind.target_keys, &OF_TARGETS], into);
    let target = (kind.target)(side, &Given { path })?;
    // A call of one Service that another answers may take as long as it could before.
    let calls_on =
        matches!((&into.source, &target), (Some(Source::Service { .. }), Target::Service { .. }));
    let usual = Some(USUAL_TIMEOUT).filter(|_| !calls_on);
    into.timeout = settings::timeout(&|key| side.resource(key))?.or(usual);
    Ok(target)
}

/// A typing mistake must not go unseen; but what another program may read is no fault.
fn note_unread(kind: &Kind, side: &Side<'_>, known: [&[&str]; 2], into: &mut Compiled) {
    let unread = |key: &str, known: [&[&str]; 2]| !known.concat().contains(&key);
    for (key, _) in side.map.iter().filter(|(key, _)| unread(key, known)) {
        into.notes.push(format!("`{key}` means nothing to a Rule with {}", kind.name).into());
    }
    let of_endpoint = [kind.properties, &OF_ALL];
    for (key, _) in side.endpoint.properties.iter().filter(|(key, _)| unread(key, of_endpoint)) {
        let text = format!("`{key}` of Endpoint {} means nothing to {}", side.name, kind.name);
        into.notes.push(text.into());
    }
}
