//! What guards callers and Backends of a Service, in a few words each.

use std::time::Duration;

use edgemesh_core::snapshot::Active;
use edgemesh_proto::record::{
    AllowedCaller, BalancePolicy, BreakerPolicy, ConnectionCaps, HashKey, HealthCheck,
    HealthQuestion, LimitBy, Policy, RateLimit,
};

/// The parts of a Policy that guard, whether it is in force or not.
struct Parts<'p> {
    hash: Option<&'p HashKey>,
    client: Option<RateLimit>,
    server: Option<RateLimit>,
    breaker: Option<BreakerPolicy>,
    allow: Option<&'p [AllowedCaller]>,
    connections: Option<ConnectionCaps>,
    idle: Option<Duration>,
    health: Option<&'p HealthCheck>,
}

/// Of a Policy in force.
pub(super) fn active(active: &Active) -> Vec<String> {
    let hashes = active.balance == BalancePolicy::ConsistentHash;
    words(&Parts {
        hash: hashes.then_some(&active.hash_key),
        client: active.client.as_ref().map(|limiter| limiter.limit()),
        server: active.server.as_ref().map(|limiter| limiter.limit()),
        breaker: active.breaker,
        allow: active.allow.as_deref(),
        connections: active.connections,
        idle: active.idle_timeout,
        health: active.health_check.as_ref(),
    })
}

/// Of a Policy as it was written.
pub(super) fn written(policy: &Policy) -> Vec<String> {
    let hashes = policy.balance == BalancePolicy::ConsistentHash;
    words(&Parts {
        hash: hashes.then_some(&policy.hash_key),
        client: policy.client_limit,
        server: policy.server_limit,
        breaker: policy.breaker,
        allow: policy.allow.as_deref(),
        connections: policy.connections,
        idle: policy.idle_timeout,
        health: policy.health_check.as_ref(),
    })
}

fn words(parts: &Parts<'_>) -> Vec<String> {
    let limit = |side, limit: Option<RateLimit>| {
        let RateLimit { burst, by, .. } = limit?;
        let by = match by {
            LimitBy::Service => "",
            LimitBy::Workload => " by workload",
            LimitBy::Namespace => " by namespace",
            LimitBy::Ip => " by ip",
        };
        Some(format!("{side}{by} burst {burst}"))
    };
    let rate = parts.breaker.and_then(|breaker| breaker.success_rate);
    let allow = parts.allow.map(|entries| {
        let written: Vec<_> = entries.iter().map(caller).collect();
        match entries.len() {
            0 => "allow nobody".into(),
            1 => format!("allow {}", written.join("")),
            n => format!("allow {n} entries: {}", written.join("; ")),
        }
    });
    let caps = parts.connections.unwrap_or_default();
    let all = [
        parts.hash.map(hashed),
        limit("client", parts.client),
        limit("server", parts.server),
        rate.map(|rate| format!("eject below {}% in {:?}", rate.percent, rate.window)),
        allow,
        caps.max.map(|max| format!("at most {max} connections")),
        caps.max_requests.map(|max| format!("at most {max} requests")),
        parts.idle.map(|idle| format!("idle {idle:?}")),
        parts.health.map(|check| match &check.how {
            HealthQuestion::Http(path) => format!("check http:{path}"),
            HealthQuestion::Tcp => "check tcp".into(),
            HealthQuestion::Grpc(service) => format!("check grpc:{service}"),
        }),
    ];
    all.into_iter().flatten().collect()
}

fn hashed(key: &HashKey) -> String {
    match key {
        HashKey::SourceIp => "hash of sourceIp".into(),
        HashKey::Header(name) => format!("hash of header {name}"),
        HashKey::Cookie(name) => format!("hash of cookie {name}"),
        HashKey::Query(name) => format!("hash of query {name}"),
    }
}

fn caller(entry: &AllowedCaller) -> String {
    let words = [
        entry.namespace.as_ref().map(|name| format!("namespace {name}")),
        entry.service.as_ref().map(|name| format!("service {name}")),
        entry.node.as_ref().map(|name| format!("node {name}")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
