//! Checked records: what the mesh synchronises, in a form in which wrong values cannot be written.
//!
//! A record is one object that sources produce, the metastore keeps and a Snapshot indexes. The
//! protobuf forms live in [`crate::pb`]; [`Record::decode`] is the one border where bytes become
//! these types, and it names the field that does not fit.

mod balance;
mod codec;
mod invalid;
mod names;
mod nodes;
mod policy;
mod resilience;
mod route;
mod rules;
mod service;
mod values;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

pub use crate::record::balance::{BalancePolicy, HashKey, Locality};
pub(crate) use crate::record::codec::fitting;
pub use crate::record::codec::{Delta, MAX_BODY, Put};
pub use crate::record::invalid::Invalid;
pub use crate::record::resilience::{
    AllowedCaller, BreakerPolicy, ConnectionCaps, HealthCheck, HealthQuestion, LimitBy, RateLimit,
    SuccessRate,
};
pub use crate::record::route::{
    FieldEdits, PathEdit, Route, RouteBackend, RouteEdits, RouteField, RouteMatch, RouteParent,
    RoutePath, RouteRedirect, RouteRule, RouteTarget, RouteText,
};
pub use crate::record::rules::{Endpoint, EndpointName, Rule, RuleName};
pub use crate::record::values::{MAX_NAME, MAX_WEIGHT, WEIGHT_LABEL};
pub(crate) use crate::record::values::{bounded, required};

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A name with virtual addresses and ports.
    Service,
    /// A group of backends of one Service.
    Slice,
    /// A machine.
    Node,
    /// Who is behind an address: a Pod or a registered process.
    Workload,
    /// How calls to one Service are balanced, limited, broken, retried and timed.
    Policy,
    /// How requests to one Service are matched and split (Gateway API).
    Route,
    /// A messaging endpoint of the Router. Never a Pod address.
    Endpoint,
    /// Source Endpoint to target Endpoint.
    Rule,
    /// A node whose identity no longer counts.
    Revocation,
}

/// Identity of a record. `namespace` is empty for records that have none (Node, Revocation).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// What the record is about.
    pub kind: Kind,
    /// Kubernetes namespace, or empty.
    pub namespace: Box<str>,
    /// Kubernetes object name.
    pub name: Box<str>,
}

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName {
    /// Kubernetes namespace.
    pub namespace: Box<str>,
    /// Kubernetes object name.
    pub name: Box<str>,
}

/// Name of a machine in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub Box<str>);

/// One record: identity and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Kubernetes namespace, or empty.
    pub namespace: Box<str>,
    /// Kubernetes object name.
    pub name: Box<str>,
    /// The body; its variant is the record's [`Kind`].
    pub body: Body,
}

/// The body of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// See [`Service`].
    Service(Service),
    /// See [`Slice`].
    Slice(Slice),
    /// See [`Node`].
    Node(Node),
    /// See [`Workload`].
    Workload(Workload),
    /// See [`Policy`].
    Policy(Policy),
    /// See [`Route`].
    Route(Route),
    /// See [`Endpoint`].
    Endpoint(Endpoint),
    /// See [`Rule`].
    Rule(Rule),
    /// See [`Revocation`].
    Revocation(Revocation),
}

/// A name with virtual addresses and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// In the order of the manifest.
    pub ports: Vec<ServicePort>,
    /// Cluster IPs; empty for headless Services and those that have none.
    pub cluster_ips: Vec<IpAddr>,
    /// External IPs (captured only with `nodePorts: true`).
    pub external_ips: Vec<IpAddr>,
    /// `clusterIP: None`.
    pub headless: bool,
    /// `type: ExternalName`: the DNS name that this Service stands for.
    pub external_name: Option<Box<str>>,
    /// Labels of the Pods that back it; empty means that Slices are made by hand.
    pub selector: BTreeMap<Box<str>, Box<str>>,
    /// `sessionAffinity: ClientIP` with its time-out.
    pub affinity: Option<Duration>,
    /// Backends count although not ready.
    pub publish_not_ready: bool,
    /// Creation time, seconds since 1970; 0 when unknown.
    pub created: i64,
    /// Every connection to a Backend begins with a PROXY protocol header, version 2.
    pub proxy_protocol: bool,
}

/// Transport of a Service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, the default.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: kept, not carried.
    Sctp,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty only when the Service has one port.
    pub name: Box<str>,
    /// The port clients dial.
    pub port: NonZeroU16,
    /// Where Pods listen (only for Backends made from Workloads; Slices name their own ports).
    pub target: TargetPort,
    /// TCP unless said otherwise.
    pub transport: Transport,
    /// `appProtocol`, as written.
    pub app_protocol: Option<Box<str>>,
    /// NodePort, if one was allocated.
    pub node_port: Option<NonZeroU16>,
}

/// Where a Pod listens for a Service port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TargetPort {
    /// The Service port itself.
    #[default]
    Same,
    /// A number.
    Number(NonZeroU16),
    /// A named container port.
    Name(Box<str>),
}

/// A group of Backends of one Service, the unit in which they are synced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Name of the Service, in the namespace of the record.
    pub service: Box<str>,
    /// Ports of every Backend in this Slice.
    pub ports: Vec<SlicePort>,
    /// The Backends.
    pub backends: Vec<Backend>,
}

/// One port of a Slice, matched with a Service port by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    /// Name of the Service port; empty for an unnamed one.
    pub name: Box<str>,
    /// Where Backends listen.
    pub port: NonZeroU16,
    /// TCP unless said otherwise.
    pub transport: Transport,
    /// `appProtocol`, as written; wins over the Service port's.
    pub app_protocol: Option<Box<str>>,
}

/// One place where a Service runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its addresses: those of one entry are the same machine.
    pub addresses: Vec<IpAddr>,
    /// Takes new connections.
    pub ready: bool,
    /// Answers, although it may be terminating.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
    /// Name of its own, below the Service's.
    pub hostname: Option<Box<str>>,
    /// The machine it runs on.
    pub node: Option<NodeName>,
    /// The zone it runs in.
    pub zone: Option<Box<str>>,
    /// Pod or process behind the address.
    pub workload: Option<Box<str>>,
    /// Share of the calls, up to [`MAX_WEIGHT`], against 1 of those that say nothing; 0 = only
    /// when nobody else is left.
    pub weight: Option<u16>,
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Internal addresses.
    pub addresses: Vec<IpAddr>,
    /// `topology.kubernetes.io/zone`.
    pub zone: Option<Box<str>>,
    /// All labels.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// The agent that runs there: its Backends are reached by Links. `None` = none does.
    pub agent: Option<Agent>,
    /// Its Backends are reached through the cloud process.
    pub via_cloud: bool,
}

/// The agent of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// `host:port` at which other agents may dial it; none = behind NAT.
    pub links: Vec<Box<str>>,
}

/// A node whose identity no longer counts; the record's name is the node's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Revocation {
    /// Certificates whose validity begins before this, in seconds since 1970, are void.
    pub before: i64,
}

/// Who is behind an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Workload {
    /// Pod addresses.
    pub addresses: Vec<IpAddr>,
    /// The machine it runs on.
    pub node: Option<NodeName>,
    /// Labels that selectors match.
    pub labels: BTreeMap<Box<str>, Box<str>>,
    /// `Ready` condition.
    pub ready: bool,
    /// On its way out.
    pub terminating: bool,
    /// Named container ports.
    pub ports: Vec<NamedPort>,
    /// Kind and name of the owner (`ReplicaSet`, `web-6d4f`), empty when it has none.
    pub owner: Box<str>,
}

/// A container port with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedPort {
    /// The name.
    pub name: Box<str>,
    /// The number.
    pub port: NonZeroU16,
}

/// How calls to one Service are balanced, limited, broken, retried and timed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Name of the Service, in the namespace of the record.
    pub service: Box<str>,
    /// Where the Policy comes from; a TrafficPolicy wins whole over a DestinationRule.
    pub origin: PolicyOrigin,
    /// Creation time, seconds since 1970; 0 when unknown. Of two of one origin the older wins.
    pub created: i64,
    /// Load-balancing policy.
    pub balance: BalancePolicy,
    /// What is hashed; read where `balance` is [`BalancePolicy::ConsistentHash`].
    pub hash_key: HashKey,
    /// Which Backends come first.
    pub locality: Locality,
    /// Limit on the caller's side.
    pub client_limit: Option<RateLimit>,
    /// Limit on the Backend's side.
    pub server_limit: Option<RateLimit>,
    /// When to stop sending to a Backend; `None` = never.
    pub breaker: Option<BreakerPolicy>,
    /// Longest time for a TCP connect; `None` = the agent's default.
    pub connect_timeout: Option<Duration>,
    /// Longest time for a whole request; `None` = no bound.
    pub request_timeout: Option<Duration>,
    /// What is tried again.
    pub retries: RetryPolicy,
    /// Who may call; `None` = everyone, an empty list = nobody.
    pub allow: Option<Vec<AllowedCaller>>,
    /// How much may be under way at once; `None` = no cap.
    pub connections: Option<ConnectionCaps>,
    /// A connection of bytes on which nothing is said for so long is closed; `None` = never.
    pub idle_timeout: Option<Duration>,
    /// How Backends are asked whether they are well; `None` = they are not asked.
    pub health_check: Option<HealthCheck>,
}

/// Begins the names of Policy records that were made from DestinationRules, so that these never
/// meet those of TrafficPolicies; no Kubernetes object can be called so.
pub const DESTINATION_RULE: &str = "istio:";

/// The kind of object a Policy was made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyOrigin {
    /// `edgemesh.io/v1alpha1 TrafficPolicy`.
    #[default]
    TrafficPolicy,
    /// Istio `DestinationRule`.
    DestinationRule,
}

/// What is tried again, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Further attempts after the first.
    pub attempts: u8,
    /// A connect failure is tried again (always safe).
    pub on_connect: bool,
    /// A reset before the answer began is tried again (idempotent calls).
    pub on_reset: bool,
    /// A 503 is tried again (idempotent calls).
    pub on_503: bool,
    /// Retries may add at most this share to the calls.
    pub budget_percent: u8,
    /// The application says that its non-idempotent calls may be repeated.
    pub non_idempotent: bool,
}

impl Default for RetryPolicy {
    /// Two more attempts, after connect failures only: safe for every application.
    fn default() -> Self {
        Self {
            attempts: 2,
            on_connect: true,
            on_reset: false,
            on_503: false,
            budget_percent: 20,
            non_idempotent: false,
        }
    }
}
