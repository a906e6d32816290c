//! What guards callers and Backends of a Service, in a few words each.

use std::time::Duration;

use edgemesh_core::snapshot::Active;
use edgemesh_proto::record::{
    AllowedCaller, BreakerPolicy, ConnectionCaps, HealthCheck, HealthQuestion, LimitBy, Policy,
    RateLimit,
};

/// The parts of a Policy that guard, whether it is in force or not.
struct Parts<'p> {
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
    words(&Parts {
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
    words(&Parts {
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
    let by = |side, limit: Option<RateLimit>| {
        let by = match limit?.by {
            LimitBy::Service => return None,
            LimitBy::Workload => "workload",
            LimitBy::Namespace => "namespace",
            LimitBy::Ip => "ip",
        };
        Some(format!("{side} by {by}"))
    };
    let rate = parts.breaker.and_then(|breaker| breaker.success_rate);
    let allow = parts.allow.map(|entries| match entries.len() {
        0 => "allow nobody".into(),
        1 => "allow 1 entry".into(),
        n => format!("allow {n} entries"),
    });
    let caps = parts.connections.unwrap_or_default();
    let all = [
        by("client", parts.client),
        by("server", parts.server),
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
