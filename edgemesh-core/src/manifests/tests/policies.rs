//! TrafficPolicy: the whole example, the defaults, and everything that is refused.

use std::time::Duration;

use edgemesh_proto::record::{
    BalancePolicy, Body, BreakerPolicy, HashKey, LimitBy, Locality, Policy, RateLimit, RetryPolicy,
};

use crate::manifests::tests::{body, yaml};

/// A TrafficPolicy; what is given begins at line 6.
pub(super) fn policy(rest: &str) -> String {
    let head = "apiVersion: edgemesh.io/v1alpha1\nkind: TrafficPolicy\n\
                metadata: { name: hello, namespace: default }\nspec:\n  targetRef: { kind: Service, name: hello }\n";
    format!("{head}{rest}\n")
}

const EXAMPLE: &str = "  loadBalancer: { policy: leastRequest, locality: preferNode }     # consistentHash: { header: x-user }
  rateLimit: { client: { qps: 100, burst: 20 }, server: { qps: 50, burst: 10 } }
  circuitBreaker: { consecutiveFailures: 5, ejectFor: 10s, maxEjectFor: 5m, maxEjectedPercent: 50 }
  timeouts: { connect: 1s, request: 15s }
  retries: { attempts: 2, on: [connect, reset, 503], budgetPercent: 20, nonIdempotent: false }
  # allow: [{ namespace: shop }, { node: edge-2 }]   who may call; absent = everyone";

fn limit(qps: u32, burst: u32) -> Option<RateLimit> {
    let (qps, burst) = (qps.try_into().unwrap(), burst.try_into().unwrap());
    Some(RateLimit { qps, burst, by: LimitBy::Service })
}

#[test]
fn accepted() {
    let plain = || Policy { service: "hello".into(), ..Policy::default() };
    let hashed = |hash_key| Policy { balance: BalancePolicy::ConsistentHash, hash_key, ..plain() };
    let retries = RetryPolicy::default();
    let rows = [
        (
            EXAMPLE,
            Policy {
                balance: BalancePolicy::LeastRequest,
                client_limit: limit(100, 20),
                server_limit: limit(50, 10),
                breaker: Some(BreakerPolicy::default()),
                connect_timeout: Some(Duration::from_secs(1)),
                request_timeout: Some(Duration::from_secs(15)),
                retries: RetryPolicy { on_reset: true, on_503: true, ..retries },
                ..plain()
            },
        ),
        ("", plain()),
        ("  loadBalancer: null", plain()),
        ("  loadBalancer: {}\n  rateLimit: {}\n  timeouts: {}\n  retries: {}", plain()),
        ("  circuitBreaker: {}", Policy { breaker: Some(BreakerPolicy::default()), ..plain() }),
        ("  rateLimit: {server: {qps: 7}}", Policy { server_limit: limit(7, 7), ..plain() }),
        ("  loadBalancer: {policy: roundRobin}", plain()),
        (
            "  loadBalancer: {policy: random, locality: none}",
            Policy { balance: BalancePolicy::Random, locality: Locality::None, ..plain() },
        ),
        (
            "  loadBalancer: {policy: peakEwma}",
            Policy { balance: BalancePolicy::PeakEwma, ..plain() },
        ),
        (
            "  loadBalancer: {consistentHash: {header: X-User}}",
            hashed(HashKey::Header("x-user".into())),
        ),
        ("  loadBalancer: {consistentHash: {cookie: SID}}", hashed(HashKey::Cookie("SID".into()))),
        (
            "  loadBalancer: {consistentHash: {query: 'u[1]'}}",
            hashed(HashKey::Query("u[1]".into())),
        ),
        (
            "  loadBalancer: {policy: consistentHash, consistentHash: {sourceIp: true}}",
            hashed(HashKey::SourceIp),
        ),
        (
            "  loadBalancer: {locality: onlyNode}",
            Policy { locality: Locality::OnlyNode, ..plain() },
        ),
        (
            "  timeouts: {request: 1h30m}",
            Policy { request_timeout: Some(Duration::from_secs(5400)), ..plain() },
        ),
        (
            "  retries: {on: []}",
            Policy { retries: RetryPolicy { on_connect: false, ..retries }, ..plain() },
        ),
        (
            "  retries: {on: ['503'], nonIdempotent: true}",
            Policy {
                retries: RetryPolicy {
                    on_connect: false,
                    on_503: true,
                    non_idempotent: true,
                    ..retries
                },
                ..plain()
            },
        ),
        (
            "  retries: {true: ['503', connect]}",
            Policy { retries: RetryPolicy { on_503: true, ..retries }, ..plain() },
        ),
        (
            "  retries: {attempts: 0, budgetPercent: 100}",
            Policy {
                retries: RetryPolicy { attempts: 0, budget_percent: 100, ..retries },
                ..plain()
            },
        ),
    ];
    for (text, want) in rows {
        assert_eq!(body(&policy(text)), Body::Policy(want), "{text}");
    }
}

#[test]
fn refused() {
    for (text, line, field, reason) in [
        (
            "  loadbalancer: {}",
            6,
            "spec.loadbalancer",
            "unknown key `loadbalancer`; did you mean `loadBalancer`?",
        ),
        (
            "  sidecar:\n    x: 1",
            6,
            "spec.sidecar",
            "unknown key `sidecar`; known here: targetRef, ",
        ),
        ("extra: 1", 6, "extra", "known here: apiVersion"),
        (
            "  loadBalancer:\n    consistentHash: {}",
            7,
            "spec.loadBalancer.consistentHash",
            "exactly one of header, cookie, query, sourceIp",
        ),
        (
            "  loadBalancer: {consistentHash: {header: x, sourceIp: true}}",
            6,
            "spec.loadBalancer.consistentHash",
            "exactly one of",
        ),
        (
            "  loadBalancer: {consistentHash: {headers: x}}",
            6,
            "spec.loadBalancer.consistentHash.headers",
            "did you mean `header`?",
        ),
        (
            "  loadBalancer: {consistentHash: {header: 'x y'}}",
            6,
            "spec.loadBalancer.consistentHash.header",
            "must be the name of a header field",
        ),
        (
            "  loadBalancer: {consistentHash: {cookie: 'a=b'}}",
            6,
            "spec.loadBalancer.consistentHash.cookie",
            "must be the name of a cookie",
        ),
        (
            "  loadBalancer: {consistentHash: {query: 'a&b'}}",
            6,
            "spec.loadBalancer.consistentHash.query",
            "as it is written in a URL",
        ),
        (
            "  loadBalancer: {consistentHash: {sourceIp: false}}",
            6,
            "spec.loadBalancer.consistentHash.sourceIp",
            "not chosen by false",
        ),
        (
            "  loadBalancer: {policy: consistentHash}",
            6,
            "spec.loadBalancer.consistentHash",
            "says what is hashed",
        ),
        (
            "  loadBalancer:\n    policy: random\n    consistentHash: {header: x}",
            7,
            "spec.loadBalancer.policy",
            "is at odds with `consistentHash`",
        ),
        (
            "  loadBalancer: {policy: roundrobin}",
            6,
            "spec.loadBalancer.policy",
            "did you mean `roundRobin`?",
        ),
        (
            "  loadBalancer: {policy: best}",
            6,
            "spec.loadBalancer.policy",
            "not one of roundRobin, random, leastRequest, peakEwma, consistentHash",
        ),
        (
            "  loadBalancer: {locality: near}",
            6,
            "spec.loadBalancer.locality",
            "not one of none, preferNode, onlyNode",
        ),
        (
            "  rateLimit: {client: {qps: 0}}",
            6,
            "spec.rateLimit.client.qps",
            "from 1 to 1000000, not 0",
        ),
        ("  rateLimit: {client: {qps: 1.5}}", 6, "spec.rateLimit.client.qps", "whole number"),
        ("  rateLimit: {client: {burst: 5}}", 6, "spec.rateLimit.client.qps", "is missing"),
        ("  rateLimit: {server: {qps: 5, burst: 0}}", 6, "spec.rateLimit.server.burst", "not 0"),
        (
            "  circuitBreaker: {consecutiveFailures: 0}",
            6,
            "spec.circuitBreaker.consecutiveFailures",
            "not 0",
        ),
        ("  circuitBreaker: {ejectFor: 10}", 6, "spec.circuitBreaker.ejectFor", "has no unit"),
        ("  circuitBreaker: {ejectFor: 0s}", 6, "spec.circuitBreaker.ejectFor", "out of range"),
        ("  circuitBreaker: {ejectFor: 10m}", 6, "spec.circuitBreaker.ejectFor", "5m, the default"),
        (
            "  circuitBreaker: {maxEjectFor: 1s}",
            6,
            "spec.circuitBreaker.maxEjectFor",
            "10s, the default",
        ),
        (
            "  circuitBreaker: {ejectFor: 2s, maxEjectFor: 1s}",
            6,
            "spec.circuitBreaker.ejectFor",
            "as written",
        ),
        (
            "  circuitBreaker: {maxEjectedPercent: 101}",
            6,
            "spec.circuitBreaker.maxEjectedPercent",
            "from 0 to 100",
        ),
        ("  timeouts: {connect: 25h}", 6, "spec.timeouts.connect", "1ms to 24h"),
        ("  timeouts: {request: 1.5s}", 6, "spec.timeouts.request", "a duration such as"),
        ("  retries: {attempts: 11}", 6, "spec.retries.attempts", "from 0 to 10"),
        ("  retries: {on: [502]}", 6, "spec.retries.on[0]", "connect, reset or 503"),
        ("  retries:\n    on:\n    - conect", 8, "spec.retries.on[0]", "did you mean `connect`?"),
        ("  retries: {on: [connect], true: []}", 6, "spec.retries.true", "is there as `on` too"),
        ("  retries: {budgetPercent: -1}", 6, "spec.retries.budgetPercent", "not -1"),
        ("  retries: {nonIdempotent: maybe}", 6, "spec.retries.nonIdempotent", "true or false"),
        ("  retries: 3", 6, "spec.retries", "must be a map of keys and values, not 3"),
    ] {
        let parsed = yaml(&policy(text));
        assert_eq!(parsed.documents, [], "{text}");
        let [remark] = &parsed.remarks[..] else { panic!("{text}: {:?}", parsed.remarks) };
        assert_eq!((remark.line, &*remark.field), (line, field), "{remark:?}");
        assert!(remark.reason.contains(reason), "{remark:?}");
    }
}

#[test]
fn targets() {
    for (target, field, reason) in [
        ("{ kind: Gateway, name: a }", "spec.targetRef.kind", "must be `Service`"),
        ("{ name: a }", "spec.targetRef.kind", "is missing"),
        ("{ kind: Service }", "spec.targetRef.name", "is missing"),
        ("{ kind: Service, name: a.b }", "spec.targetRef.name", "no DNS label"),
        ("{ kind: Service, name: a, group: x }", "spec.targetRef.group", "must be empty"),
        ("{ kind: Service, name: a, namespace: x }", "spec.targetRef.namespace", "unknown key"),
    ] {
        let text = policy("").replace("{ kind: Service, name: hello }", target);
        let parsed = yaml(&text);
        let [remark] = &parsed.remarks[..] else { panic!("{text}: {:?}", parsed.remarks) };
        assert_eq!((remark.line, &*remark.field), (5, field), "{remark:?}");
        assert!(remark.reason.contains(reason), "{remark:?}");
    }
}
