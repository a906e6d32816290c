//! Policies, from protobuf to checked form and back.

use std::time::Duration;

use crate::pb;
use crate::record::resilience::allowed;
use crate::record::values::{duration, required, small, span, variant};
use crate::record::{
    BalancePolicy, BreakerPolicy, HashKey, HealthCheck, Invalid, Locality, Policy, PolicyOrigin,
    RateLimit, RetryPolicy,
};

impl From<&Policy> for pb::Policy {
    fn from(policy: &Policy) -> Self {
        Self {
            service: (&*policy.service).into(),
            origin: pb::PolicyOrigin::from(policy.origin).into(),
            created: policy.created,
            balance: pb::BalancePolicy::from(policy.balance).into(),
            locality: pb::Locality::from(policy.locality).into(),
            client_limit: policy.client_limit.map(Into::into),
            server_limit: policy.server_limit.map(Into::into),
            breaker: policy.breaker.map(Into::into),
            connect_timeout: policy.connect_timeout.map(span),
            request_timeout: policy.request_timeout.map(span),
            retries: Some(policy.retries.into()),
            allow: policy.allow.as_deref().map(Into::into),
            connections: policy.connections.map(Into::into),
            idle_timeout: policy.idle_timeout.map(span),
            health_check: policy.health_check.as_ref().map(Into::into),
            hash_key: hash_key(&policy.hash_key),
        }
    }
}

impl TryFrom<pb::Policy> for Policy {
    type Error = Invalid;

    fn try_from(policy: pb::Policy) -> Result<Self, Invalid> {
        let limit = |field, limit: Option<pb::RateLimit>| {
            limit.map(RateLimit::try_from).transpose().map_err(|e: Invalid| e.under(field))
        };
        let breaker = policy.breaker.map(BreakerPolicy::try_from).transpose();
        let retries = policy.retries.map(RetryPolicy::try_from).transpose();
        let health = policy.health_check.map(HealthCheck::try_from).transpose();
        Ok(Self {
            service: required("service", policy.service)?,
            origin: variant::<pb::PolicyOrigin>("origin", policy.origin)?.into(),
            created: policy.created,
            balance: variant::<pb::BalancePolicy>("balance", policy.balance)?.into(),
            hash_key: policy
                .hash_key
                .map_or_else(|| Ok(HashKey::default()), HashKey::try_from)
                .map_err(|e| e.under("hash_key"))?,
            locality: variant::<pb::Locality>("locality", policy.locality)?.into(),
            client_limit: limit("client_limit", policy.client_limit)?,
            server_limit: limit("server_limit", policy.server_limit)?,
            breaker: breaker.map_err(|e| e.under("breaker"))?,
            connect_timeout: optional("connect_timeout", policy.connect_timeout)?,
            request_timeout: optional("request_timeout", policy.request_timeout)?,
            retries: retries.map_err(|e| e.under("retries"))?.unwrap_or_default(),
            allow: policy.allow.map(allowed).transpose().map_err(|e| e.under("allow"))?,
            connections: policy.connections.map(Into::into),
            idle_timeout: optional("idle_timeout", policy.idle_timeout)?,
            health_check: health.map_err(|e| e.under("health_check"))?,
        })
    }
}

pub(super) fn optional(field: &str, time: Option<pb::Span>) -> Result<Option<Duration>, Invalid> {
    time.map(|span| duration(field, span)).transpose()
}

/// Absent for the default, so that equal policies give equal bytes.
fn hash_key(key: &HashKey) -> Option<pb::HashKey> {
    let of = match key {
        HashKey::SourceIp => return None,
        HashKey::Header(name) => pb::hash_key::Of::Header((&**name).into()),
        HashKey::Cookie(name) => pb::hash_key::Of::Cookie((&**name).into()),
        HashKey::Query(name) => pb::hash_key::Of::Query((&**name).into()),
    };
    Some(pb::HashKey { of: Some(of) })
}

impl TryFrom<pb::HashKey> for HashKey {
    type Error = Invalid;

    fn try_from(key: pb::HashKey) -> Result<Self, Invalid> {
        Ok(match key.of {
            None => Self::SourceIp,
            Some(pb::hash_key::Of::Header(name)) => Self::Header(required("header", name)?),
            Some(pb::hash_key::Of::Cookie(name)) => Self::Cookie(required("cookie", name)?),
            Some(pb::hash_key::Of::Query(name)) => Self::Query(required("query", name)?),
        })
    }
}

impl From<RetryPolicy> for pb::RetryPolicy {
    fn from(retries: RetryPolicy) -> Self {
        Self {
            attempts: retries.attempts.into(),
            on_connect: retries.on_connect,
            on_reset: retries.on_reset,
            on_503: retries.on_503,
            budget_percent: retries.budget_percent.into(),
            non_idempotent: retries.non_idempotent,
        }
    }
}

impl TryFrom<pb::RetryPolicy> for RetryPolicy {
    type Error = Invalid;

    fn try_from(retries: pb::RetryPolicy) -> Result<Self, Invalid> {
        Ok(Self {
            attempts: small("attempts", retries.attempts, u8::MAX)?,
            on_connect: retries.on_connect,
            on_reset: retries.on_reset,
            on_503: retries.on_503,
            budget_percent: small("budget_percent", retries.budget_percent, u8::MAX)?,
            non_idempotent: retries.non_idempotent,
        })
    }
}

impl From<PolicyOrigin> for pb::PolicyOrigin {
    fn from(origin: PolicyOrigin) -> Self {
        match origin {
            PolicyOrigin::TrafficPolicy => Self::TrafficPolicy,
            PolicyOrigin::DestinationRule => Self::DestinationRule,
        }
    }
}

impl From<pb::PolicyOrigin> for PolicyOrigin {
    fn from(origin: pb::PolicyOrigin) -> Self {
        match origin {
            pb::PolicyOrigin::TrafficPolicy => Self::TrafficPolicy,
            pb::PolicyOrigin::DestinationRule => Self::DestinationRule,
        }
    }
}

impl From<BalancePolicy> for pb::BalancePolicy {
    fn from(balance: BalancePolicy) -> Self {
        match balance {
            BalancePolicy::RoundRobin => Self::RoundRobin,
            BalancePolicy::Random => Self::Random,
            BalancePolicy::LeastRequest => Self::LeastRequest,
            BalancePolicy::PeakEwma => Self::PeakEwma,
            BalancePolicy::ConsistentHash => Self::ConsistentHash,
        }
    }
}

impl From<pb::BalancePolicy> for BalancePolicy {
    fn from(balance: pb::BalancePolicy) -> Self {
        match balance {
            pb::BalancePolicy::RoundRobin => Self::RoundRobin,
            pb::BalancePolicy::Random => Self::Random,
            pb::BalancePolicy::LeastRequest => Self::LeastRequest,
            pb::BalancePolicy::PeakEwma => Self::PeakEwma,
            pb::BalancePolicy::ConsistentHash => Self::ConsistentHash,
        }
    }
}

impl From<Locality> for pb::Locality {
    fn from(locality: Locality) -> Self {
        match locality {
            Locality::PreferNode => Self::PreferNode,
            Locality::None => Self::None,
            Locality::OnlyNode => Self::OnlyNode,
        }
    }
}

impl From<pb::Locality> for Locality {
    fn from(locality: pb::Locality) -> Self {
        match locality {
            pb::Locality::PreferNode => Self::PreferNode,
            pb::Locality::None => Self::None,
            pb::Locality::OnlyNode => Self::OnlyNode,
        }
    }
}
