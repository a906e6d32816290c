//! What a TrafficPolicy says of callers, caps, breakers, idle connections and health checks.

use std::time::Duration;

use edgemesh_proto::record::{
    AllowedCaller, Body, BreakerPolicy, ConnectionCaps, HealthCheck, HealthQuestion, LimitBy,
    NodeName, Policy, RateLimit, SuccessRate,
};

use crate::manifests::tests::policies::policy;
use crate::manifests::tests::{body, yaml};

fn limit(qps: u32, burst: u32, by: LimitBy) -> Option<RateLimit> {
    Some(RateLimit { qps: qps.try_into().unwrap(), burst: burst.try_into().unwrap(), by })
}

fn rate(percent: u8, seconds: u64, min: u32) -> Option<BreakerPolicy> {
    let (window, min_requests) = (Duration::from_secs(seconds), min.try_into().unwrap());
    let success_rate = Some(SuccessRate { percent, window, min_requests });
    Some(BreakerPolicy { success_rate, ..BreakerPolicy::default() })
}

fn health(how: HealthQuestion, millis: [u64; 2], rows: [u32; 2]) -> Option<HealthCheck> {
    let [interval, timeout] = millis.map(Duration::from_millis);
    let [healthy, unhealthy] = rows.map(|row| row.try_into().unwrap());
    Some(HealthCheck { how, interval, timeout, healthy, unhealthy })
}

#[test]
fn accepted() {
    let plain = || Policy { service: "hello".into(), ..Policy::default() };
    let caps = |max: u32, requests: u32| {
        let (max, max_requests) = (max.try_into().ok(), requests.try_into().ok());
        Some(ConnectionCaps { max, max_requests })
    };
    let caller = |namespace: &str, service: &str, node: &str| {
        let text = |text: &str| (!text.is_empty()).then(|| text.into());
        let node = text(node).map(NodeName);
        AllowedCaller { namespace: text(namespace), service: text(service), node }
    };
    let rows = [
        ("allow: []", Policy { allow: Some(Vec::new()), ..plain() }),
        ("allow: null", plain()),
        (
            "allow: [{ namespace: shop }, { service: web }, { namespace: shop, service: web }, { node: edge-2 }]",
            Policy {
                allow: Some(vec![
                    caller("shop", "", ""),
                    caller("", "web", ""),
                    caller("shop", "web", ""),
                    caller("", "", "edge-2"),
                ]),
                ..plain()
            },
        ),
        (
            "rateLimit: { client: { qps: 5, by: workload }, server: { qps: 7, burst: 9, by: ip } }",
            Policy {
                client_limit: limit(5, 5, LimitBy::Workload),
                server_limit: limit(7, 9, LimitBy::Ip),
                ..plain()
            },
        ),
        (
            "rateLimit: { client: { qps: 5, by: namespace }, server: { qps: 7, by: service } }",
            Policy {
                client_limit: limit(5, 5, LimitBy::Namespace),
                server_limit: limit(7, 7, LimitBy::Service),
                ..plain()
            },
        ),
        (
            "circuitBreaker: { successRatePercent: 90 }",
            Policy { breaker: rate(90, 30, 20), ..plain() },
        ),
        (
            "circuitBreaker: { successRatePercent: 50, window: 1m, minRequests: 5 }",
            Policy { breaker: rate(50, 60, 5), ..plain() },
        ),
        (
            "connections: { max: 100, maxRequests: 10 }",
            Policy { connections: caps(100, 10), ..plain() },
        ),
        ("connections: { max: 100 }", Policy { connections: caps(100, 0), ..plain() }),
        (
            "timeouts: { idle: 1h }",
            Policy { idle_timeout: Some(Duration::from_secs(3600)), ..plain() },
        ),
        (
            "healthCheck: { http: /healthz }",
            Policy {
                health_check: health(HealthQuestion::Http("/healthz".into()), [5000, 1000], [1, 3]),
                ..plain()
            },
        ),
        (
            "healthCheck: { grpc: shop.Cart }",
            Policy {
                health_check: health(
                    HealthQuestion::Grpc("shop.Cart".into()),
                    [5000, 1000],
                    [1, 3],
                ),
                ..plain()
            },
        ),
        (
            "healthCheck: { tcp: true, interval: 1s, timeout: 200ms, healthy: 2, unhealthy: 1 }",
            Policy { health_check: health(HealthQuestion::Tcp, [1000, 200], [2, 1]), ..plain() },
        ),
    ];
    for (text, want) in rows {
        assert_eq!(body(&policy(&format!("  {text}"))), Body::Policy(want), "{text}");
    }
}

#[test]
fn refused() {
    let many = format!("allow: [{}]", "{ namespace: a }, ".repeat(65));
    for (text, field, reason) in [
        ("allow: [{}]", "spec.allow[0]", "says nothing; add `namespace`"),
        ("allow: [{ namspace: shop }]", "spec.allow[0].namspace", "did you mean `namespace`?"),
        ("allow: [{ namespace: Shop }]", "spec.allow[0].namespace", "no DNS label"),
        ("allow: { namespace: shop }", "spec.allow", "must be a list"),
        (&many, "spec.allow", "65 entries: at most 64"),
        (
            "rateLimit: { client: { qps: 1, by: caller } }",
            "spec.rateLimit.client.by",
            "not one of service, workload, namespace, ip",
        ),
        ("rateLimit: { perCaller: {} }", "spec.rateLimit.perCaller", "known here: client, server"),
        (
            "circuitBreaker: { successRatePercent: 0 }",
            "spec.circuitBreaker.successRatePercent",
            "from 1 to 100",
        ),
        (
            "circuitBreaker: { minRequests: 5 }",
            "spec.circuitBreaker.minRequests",
            "means nothing without `successRatePercent`",
        ),
        (
            "circuitBreaker: { successRatePercent: 90, window: 100ms }",
            "spec.circuitBreaker.window",
            "1s to 1h",
        ),
        ("connections: { max: 0 }", "spec.connections.max", "not 0"),
        ("connections: { maxPending: 5 }", "spec.connections.maxPending", "nothing waits"),
        ("timeouts: { idle: 10ms }", "spec.timeouts.idle", "1s or more"),
        ("healthCheck: {}", "spec.healthCheck", "asks nothing"),
        ("healthCheck: { tcp: false }", "spec.healthCheck.tcp", "must be `true`"),
        ("healthCheck: { http: healthz }", "spec.healthCheck.http", "wants a path"),
        ("healthCheck: { http: /, tcp: true }", "spec.healthCheck.tcp", "one question too many"),
        ("healthCheck: { tcp: true, interval: 1ms }", "spec.healthCheck.interval", "100ms"),
        ("healthCheck: { tcp: true, healthy: 0 }", "spec.healthCheck.healthy", "not 0"),
    ] {
        let parsed = yaml(&policy(&format!("  {text}")));
        assert_eq!(parsed.documents, [], "{text}");
        let [remark] = &parsed.remarks[..] else { panic!("{text}: {:?}", parsed.remarks) };
        assert_eq!(&*remark.field, field, "{remark:?}");
        assert!(remark.reason.contains(reason), "{remark:?}");
    }
}
