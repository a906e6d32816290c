//! The parts of a Policy that keep callers and Backends from harm, in checked form and in protobuf.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::pb;
use crate::record::policy::optional;
use crate::record::values::{bounded, list, not_zero, required, small, span, variant};
use crate::record::{Invalid, NodeName};

/// Calls (HTTP requests, TCP connections) a second, with bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// Calls a second in the long run.
    pub qps: NonZeroU32,
    /// Calls at once after a quiet time.
    pub burst: NonZeroU32,
    /// Who shares it.
    pub by: LimitBy,
}

/// Who shares a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LimitBy {
    /// All callers of the Service.
    #[default]
    Service,
    /// Each Workload has its own.
    Workload,
    /// Each namespace has its own.
    Namespace,
    /// Each IPv4 address and each IPv6 /64 has its own.
    Ip,
}

/// When a Backend is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Failures in a row that start an ejection.
    pub consecutive_failures: NonZeroU32,
    /// First ejection; doubles with every failed probe.
    pub eject_for: Duration,
    /// Longest ejection.
    pub max_eject_for: Duration,
    /// At most this share of a pool is ejected at once (one Backend always may be).
    pub max_ejected_percent: u8,
    /// The share of good calls that starts an ejection; `None` = not looked at.
    pub success_rate: Option<SuccessRate>,
}

/// The least share of calls that must go well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessRate {
    /// 1 to 100.
    pub percent: u8,
    /// Calls that ended longer ago are forgotten.
    pub window: Duration,
    /// Fewer calls than this in the window say nothing.
    pub min_requests: NonZeroU32,
}

impl Default for BreakerPolicy {
    /// Five failures, 10 s to 5 min, half of the pool: the defaults of `circuitBreaker: {}`.
    fn default() -> Self {
        Self {
            consecutive_failures: NonZeroU32::MIN.saturating_add(4),
            eject_for: Duration::from_secs(10),
            max_eject_for: Duration::from_secs(300),
            max_ejected_percent: 50,
            success_rate: None,
        }
    }
}

/// Callers of which all that is set is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowedCaller {
    /// The namespace of their Workload.
    pub namespace: Option<Box<str>>,
    /// A Service that they are Backends of; in the namespace above, else in the Policy's.
    pub service: Option<Box<str>>,
    /// The machine they run on.
    pub node: Option<NodeName>,
}

/// How much of one Service is under way at once, as one agent sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCaps {
    /// Connections of bytes.
    pub max: Option<NonZeroU32>,
    /// HTTP requests.
    pub max_requests: Option<NonZeroU32>,
}

/// How Backends are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub how: HealthQuestion,
    /// From one question to the next.
    pub interval: Duration,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// Answers in a row that make a Backend well.
    pub healthy: NonZeroU32,
    /// Failures in a row that make it ill.
    pub unhealthy: NonZeroU32,
}

/// What a Backend is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthQuestion {
    /// A GET of this path is answered by a status of 200 to 399.
    Http(Box<str>),
    /// A connection is taken.
    Tcp,
    /// This service says SERVING by `grpc.health.v1`; empty = the server as a whole.
    Grpc(Box<str>),
}

impl From<RateLimit> for pb::RateLimit {
    fn from(limit: RateLimit) -> Self {
        let by = pb::LimitBy::from(limit.by).into();
        Self { qps: limit.qps.get(), burst: limit.burst.get(), by }
    }
}

impl TryFrom<pb::RateLimit> for RateLimit {
    type Error = Invalid;

    fn try_from(limit: pb::RateLimit) -> Result<Self, Invalid> {
        Ok(Self {
            qps: not_zero("qps", limit.qps)?,
            burst: not_zero("burst", limit.burst)?,
            by: variant::<pb::LimitBy>("by", limit.by)?.into(),
        })
    }
}

impl From<LimitBy> for pb::LimitBy {
    fn from(by: LimitBy) -> Self {
        match by {
            LimitBy::Service => Self::Service,
            LimitBy::Workload => Self::Workload,
            LimitBy::Namespace => Self::Namespace,
            LimitBy::Ip => Self::Ip,
        }
    }
}

impl From<pb::LimitBy> for LimitBy {
    fn from(by: pb::LimitBy) -> Self {
        match by {
            pb::LimitBy::Service => Self::Service,
            pb::LimitBy::Workload => Self::Workload,
            pb::LimitBy::Namespace => Self::Namespace,
            pb::LimitBy::Ip => Self::Ip,
        }
    }
}

impl From<BreakerPolicy> for pb::BreakerPolicy {
    fn from(breaker: BreakerPolicy) -> Self {
        let rate = breaker.success_rate;
        Self {
            consecutive_failures: breaker.consecutive_failures.get(),
            eject_for: Some(span(breaker.eject_for)),
            max_eject_for: Some(span(breaker.max_eject_for)),
            max_ejected_percent: breaker.max_ejected_percent.into(),
            success_rate_percent: rate.map_or(0, |rate| rate.percent.into()),
            window: rate.map(|rate| span(rate.window)),
            min_requests: rate.map_or(0, |rate| rate.min_requests.get()),
        }
    }
}

impl TryFrom<pb::BreakerPolicy> for BreakerPolicy {
    type Error = Invalid;

    fn try_from(breaker: pb::BreakerPolicy) -> Result<Self, Invalid> {
        let success_rate = match breaker.success_rate_percent {
            0 => None,
            percent => Some(SuccessRate {
                percent: small("success_rate_percent", percent, 100)?,
                window: time("window", breaker.window)?,
                min_requests: not_zero("min_requests", breaker.min_requests)?,
            }),
        };
        Ok(Self {
            consecutive_failures: not_zero("consecutive_failures", breaker.consecutive_failures)?,
            eject_for: time("eject_for", breaker.eject_for)?,
            max_eject_for: time("max_eject_for", breaker.max_eject_for)?,
            max_ejected_percent: small("max_ejected_percent", breaker.max_ejected_percent, 100)?,
            success_rate,
        })
    }
}

fn time(field: &str, time: Option<pb::Span>) -> Result<Duration, Invalid> {
    optional(field, time)?.ok_or_else(|| Invalid::new(field, "is missing"))
}

impl From<&[AllowedCaller]> for pb::Allow {
    fn from(callers: &[AllowedCaller]) -> Self {
        let text = |text: &Option<Box<str>>| text.as_deref().map(str::to_owned);
        let caller = |caller: &AllowedCaller| pb::AllowedCaller {
            namespace: text(&caller.namespace),
            service: text(&caller.service),
            node: caller.node.as_ref().map(|node| node.0.to_string()),
        };
        Self { callers: callers.iter().map(caller).collect() }
    }
}

/// An allow list. An entry that says nothing would let everyone in, so it is refused.
pub(super) fn allowed(allow: pb::Allow) -> Result<Vec<AllowedCaller>, Invalid> {
    list("callers", allow.callers, |caller| {
        let text = |field, text: Option<String>| text.map(|t| required(field, t)).transpose();
        let caller = AllowedCaller {
            namespace: text("namespace", caller.namespace)?,
            service: text("service", caller.service)?,
            node: text("node", caller.node)?.map(NodeName),
        };
        match caller == AllowedCaller::default() {
            true => Err(Invalid::new("", "says nothing: a namespace, a service or a node")),
            false => Ok(caller),
        }
    })
}

impl From<ConnectionCaps> for pb::ConnectionCaps {
    fn from(caps: ConnectionCaps) -> Self {
        let number = |cap: Option<NonZeroU32>| cap.map_or(0, NonZeroU32::get);
        Self { max: number(caps.max), max_requests: number(caps.max_requests) }
    }
}

impl From<pb::ConnectionCaps> for ConnectionCaps {
    fn from(caps: pb::ConnectionCaps) -> Self {
        let (max, max_requests) = (NonZeroU32::new(caps.max), NonZeroU32::new(caps.max_requests));
        Self { max, max_requests }
    }
}

impl From<&HealthCheck> for pb::HealthCheck {
    fn from(check: &HealthCheck) -> Self {
        Self {
            how: Some(match &check.how {
                HealthQuestion::Http(path) => pb::health_check::How::Http(path.to_string()),
                HealthQuestion::Tcp => pb::health_check::How::Tcp(true),
                HealthQuestion::Grpc(service) => pb::health_check::How::Grpc(service.to_string()),
            }),
            interval: Some(span(check.interval)),
            timeout: Some(span(check.timeout)),
            healthy: check.healthy.get(),
            unhealthy: check.unhealthy.get(),
        }
    }
}

impl TryFrom<pb::HealthCheck> for HealthCheck {
    type Error = Invalid;

    fn try_from(check: pb::HealthCheck) -> Result<Self, Invalid> {
        Ok(Self {
            how: match check.how {
                Some(pb::health_check::How::Http(path)) => {
                    HealthQuestion::Http(required("http", path)?)
                }
                Some(pb::health_check::How::Tcp(_)) => HealthQuestion::Tcp,
                Some(pb::health_check::How::Grpc(service)) => {
                    HealthQuestion::Grpc(bounded("grpc", service)?)
                }
                None => return Err(Invalid::new("how", "is missing")),
            },
            interval: time("interval", check.interval)?,
            timeout: time("timeout", check.timeout)?,
            healthy: not_zero("healthy", check.healthy)?,
            unhealthy: not_zero("unhealthy", check.unhealthy)?,
        })
    }
}
