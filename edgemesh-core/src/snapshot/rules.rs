//! Rules, ready to be decided on: which messages each takes, where they go, and why some take none.
//!
//! An Endpoint type is one file here, which reads its properties and resource maps, and one line in
//! [`kinds::KINDS`]; what a target does when a message arrives is the Router's (`edgemesh-router`).

mod eventbus;
mod kinds;
mod made;
mod path;
mod precedence;
mod rest;
mod rounds;
mod service;
mod servicebus;
mod settings;
mod topic;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use edgemesh_proto::record::{
    Endpoint, EndpointName, NodeName, Rule as RuleRecord, RuleName, ServiceName,
};

use http::HeaderName;

use crate::backends::{NodeLive, RuleLive};
use crate::identity::CLOUD;
use crate::limit::Limiter;
use crate::snapshot::Service;

pub(in crate::snapshot) use kinds::limit_of;
pub use kinds::{Compiled, check, compile};
pub use path::{Matched, Pattern};
pub use precedence::{Claim, overruled, rank};
pub use rounds::{Step, rounds};
pub use topic::{Filter, check_topic};

/// Begins the name of the Service that stands for a Rule's target, where that is none; no Kubernetes
/// object can be called so. The Rule's name follows.
pub const STAND_IN: &str = "rule:";

/// Header of a message for, or from, a broker that says its topic.
pub const TOPIC: HeaderName = HeaderName::from_static("x-edgemesh-topic");

/// Header of a message from a broker that has kept it for whoever subscribes.
pub const RETAINED: HeaderName = HeaderName::from_static("x-edgemesh-retained");

/// Every Rule and Endpoint of one revision.
#[derive(Debug, Default)]
pub struct Rules {
    /// Who this is.
    pub seat: Seat,
    by_name: BTreeMap<RuleName, Arc<Rule>>,
    endpoints: BTreeMap<EndpointName, Endpoint>,
    /// Those whose source is `rest`, by namespace, in the order in which they are tried.
    rest: HashMap<Box<str>, Vec<Arc<Rule>>>,
    /// Those whose source is a Service.
    of_service: HashMap<ServiceName, Vec<Arc<Rule>>>,
}

/// Who decides, as far as targets depend on it.
#[derive(Clone, Debug)]
pub struct Seat {
    /// This node.
    pub node: NodeName,
    /// It is the cloud's own process, on which no application runs.
    pub is_cloud: bool,
    /// Who calls the URLs of targets.
    pub rest: Rest,
}

/// Who calls the URLs of `rest` targets.
#[derive(Clone, Debug)]
pub enum Rest {
    /// This process.
    Here,
    /// The cloud's.
    Cloud(Arc<NodeLive>),
}

/// One Rule.
#[derive(Debug)]
pub struct Rule {
    /// Namespace and name.
    pub name: RuleName,
    /// As it is recorded.
    pub record: Arc<RuleRecord>,
    /// Whether it takes messages.
    pub standing: Standing,
    /// Which messages it takes, where that can be told.
    pub source: Option<Source>,
    /// Where they go, where that can be told.
    pub target: Option<Target>,
    /// Of the Rule itself, of its source and of its target: all must admit a message.
    pub limits: [Option<Arc<Limiter>>; 3],
    /// Largest body, in bytes.
    pub max_body: u64,
    /// Longest time for the answer; `None` = what the Service's Policy says.
    pub timeout: Option<Duration>,
    /// What an operator should know.
    pub notes: Vec<Box<str>>,
    /// What messages leave behind.
    pub live: Arc<RuleLive>,
    /// Stands for a target that is no Service.
    pub stand_in: Option<Arc<Service>>,
}

/// Whether a Rule takes messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    Active,
    /// `in_use` is false: what it takes is refused.
    Paused,
    /// It waits for an Endpoint, which this names.
    Waiting(Box<str>),
    /// It can never be served as it is, for this reason.
    Faulty(Box<str>),
    /// This older Rule takes the same messages.
    Overruled(RuleName),
    /// It is gone, and kept for what is queued.
    Deleted,
}

/// Which messages a Rule takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Requests at the ingress whose path begins so, below node and namespace.
    Rest {
        /// What the path begins with.
        path: Pattern,
    },
    /// Messages on a topic of a node's broker.
    EventBus {
        /// Which topics, the namespace before them.
        topic: Filter,
        /// Of this node; `None` = of each.
        node: Option<NodeName>,
    },
    /// Requests to a node's ServiceBus that name this URL.
    ServiceBus {
        /// What they name, to the letter.
        url: Box<str>,
        /// On this node; `None` = on each.
        node: Option<NodeName>,
    },
    /// Calls of a Service.
    Service {
        /// The Service.
        service: ServiceName,
        /// Of this port only.
        port: Option<u16>,
        /// Whose path begins so; without one, connections of bytes too.
        path: Option<Pattern>,
    },
}

/// Where messages of a Rule go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A URL that the cloud calls; a node without a cloud calls it itself.
    Rest(RestTarget),
    /// A topic of a node's broker.
    EventBus(TopicTarget),
    /// An application on a node, at a port of its loopback address.
    ServiceBus {
        /// The port.
        port: u16,
        /// What its path becomes.
        path: Box<str>,
        /// On this node; `None` = the one that the message names, or where it began.
        node: Option<NodeName>,
    },
    /// A Service, wherever it runs.
    Service {
        /// The Service.
        service: ServiceName,
        /// Its port; `None` = its only one.
        port: Option<u16>,
        /// What the path becomes; `None` = what it was.
        path: Option<Box<str>>,
    },
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestTarget {
    /// `https`.
    pub tls: bool,
    /// Host and, where one is named, port.
    pub authority: http::uri::Authority,
    /// What the path becomes.
    pub path: Box<str>,
    /// What stands in the URL after `?`.
    pub query: Option<Box<str>>,
}

/// A topic on which messages are published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicTarget {
    /// The topic; it may hold `{name}`.
    pub topic: Box<str>,
    /// On the broker of this node; `None` = of the one that the message names, or where it began.
    pub node: Option<NodeName>,
    /// Whether the broker confirms each message (QoS 1).
    pub confirmed: bool,
    /// Whether the broker keeps the last message for whoever subscribes later.
    pub retain: bool,
}

impl Default for Seat {
    fn default() -> Self {
        Self { node: NodeName("".into()), is_cloud: false, rest: Rest::Here }
    }
}

impl Rules {
    /// Sorts them; `rules` hold those that are overruled too.
    pub(super) fn new(
        seat: Seat,
        rules: BTreeMap<RuleName, Arc<Rule>>,
        endpoints: BTreeMap<EndpointName, Endpoint>,
    ) -> Self {
        let (mut rest, mut of_service) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for rule in rules.values().filter(|rule| rule.standing.is_heard()) {
            match &rule.source {
                Some(Source::Rest { .. }) => {
                    rest.entry(rule.name.namespace.clone()).or_default().push(rule.clone());
                }
                Some(Source::Service { service, .. }) => {
                    of_service.entry(service.clone()).or_default().push(rule.clone());
                }
                Some(Source::EventBus { .. } | Source::ServiceBus { .. }) | None => {}
            }
        }
        rest.values_mut()
            .chain(of_service.values_mut())
            .for_each(|of| of.sort_by(precedence::order));
        Self { seat, by_name: rules, endpoints, rest, of_service }
    }

    /// The Rule of that name.
    pub fn get(&self, name: &RuleName) -> Option<&Arc<Rule>> {
        self.by_name.get(name)
    }

    /// Every Rule, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Rule>> {
        self.by_name.values()
    }

    /// Every Endpoint, by name.
    pub fn endpoints(&self) -> impl Iterator<Item = (&EndpointName, &Endpoint)> {
        self.endpoints.iter()
    }

    /// The Endpoint of that name.
    pub fn endpoint(&self, name: &EndpointName) -> Option<&Endpoint> {
        self.endpoints.get(name)
    }

    /// The Rule that takes a request at the ingress whose path, below node and namespace, is `path`.
    pub fn rest(&self, namespace: &str, path: &str) -> Option<&Arc<Rule>> {
        let fits = |rule: &&Arc<Rule>| rule.path().is_some_and(|p| p.matches(path).is_some());
        self.rest.get(namespace)?.iter().find(fits)
    }

    /// Whether calls of Services may be Rules' to take.
    pub fn has_services(&self) -> bool {
        !self.of_service.is_empty()
    }

    /// Whether a Rule may take calls of a Service.
    pub fn may_take(&self, service: &ServiceName) -> bool {
        !self.of_service.is_empty() && self.of_service.contains_key(service)
    }

    /// The Rule that takes a call of a Service port; `path` is that of its request, if it is one.
    pub fn of_service(
        &self,
        service: &ServiceName,
        port: u16,
        path: Option<&str>,
    ) -> Option<&Arc<Rule>> {
        if self.of_service.is_empty() {
            return None;
        }
        self.of_service.get(service)?.iter().find(|rule| match &rule.source {
            Some(Source::Service { port: only, path: prefix, .. }) => {
                let fits = match (prefix, path) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(prefix), Some(path)) => prefix.matches(path).is_some(),
                };
                fits && only.is_none_or(|only| only == port)
            }
            _ => false,
        })
    }
}

impl Rule {
    /// Whether messages fare with both as they do with one.
    pub(super) fn serves_alike(&self, other: &Self) -> bool {
        (&self.standing, &self.source, &self.target)
            == (&other.standing, &other.source, &other.target)
    }

    /// The pattern of its path, where it has one.
    pub const fn path(&self) -> Option<&Pattern> {
        match &self.source {
            Some(Source::Rest { path }) => Some(path),
            Some(Source::Service { path, .. }) => path.as_ref(),
            Some(Source::EventBus { .. } | Source::ServiceBus { .. }) | None => None,
        }
    }

    /// The node on which its target is, where the Rule says so.
    pub const fn target_node(&self) -> Option<&NodeName> {
        match &self.target {
            Some(Target::EventBus(TopicTarget { node, .. }) | Target::ServiceBus { node, .. }) => {
                node.as_ref()
            }
            Some(Target::Rest(_) | Target::Service { .. }) | None => None,
        }
    }

    /// Whether somebody on `node` is to listen for its messages.
    pub fn is_heard_on(&self, node: &NodeName) -> bool {
        self.standing.is_heard() && self.may_begin_on(node)
    }

    /// Whether its messages can enter the mesh on `node`.
    pub fn may_begin_on(&self, node: &NodeName) -> bool {
        self.source.as_ref().is_some_and(|source| source.may_begin_on(node))
    }
}

impl Standing {
    /// Whether messages are its own to take, or to refuse with the reason.
    pub const fn is_heard(&self) -> bool {
        match self {
            Self::Active | Self::Paused | Self::Waiting(_) | Self::Faulty(_) => true,
            Self::Overruled(_) | Self::Deleted => false,
        }
    }
}

impl Source {
    /// Whether what it takes can enter the mesh on `node`: nobody else may pass it on, or count it.
    pub fn may_begin_on(&self, node: &NodeName) -> bool {
        match self {
            Self::Rest { .. } => *node.0 == *CLOUD,
            Self::EventBus { node: of, .. } | Self::ServiceBus { node: of, .. } => {
                of.as_ref().is_none_or(|of| of == node)
            }
            Self::Service { .. } => true,
        }
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Active => f.write_str("active"),
            Self::Paused => f.write_str("paused: in_use is false"),
            Self::Waiting(why) => write!(f, "waits: {why}"),
            Self::Faulty(why) => write!(f, "faulty: {why}"),
            Self::Overruled(by) => write!(f, "overruled by the older Rule {by}"),
            Self::Deleted => f.write_str("deleted"),
        }
    }
}
