//! DestinationRule: what becomes of its settings, which of them are reported, and whom it is for.

use std::num::NonZeroU32;
use std::time::Duration;

use edgemesh_proto::record::{
    BalancePolicy, Body, BreakerPolicy, ConnectionCaps, HashKey, Policy, PolicyOrigin, Record,
};

use crate::manifests::tests::{remarks, yaml};

/// A rule in namespace `shop`; what is given begins at line 5.
fn rule(spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: DestinationRule\n\
         metadata: {{name: web, namespace: shop}}\nspec:\n{spec}\n"
    )
}

fn record(spec: &str) -> Record {
    let parsed = yaml(&rule(spec));
    let [document] = &parsed.documents[..] else { panic!("{spec}: {:?}", parsed.remarks) };
    document.records[0].clone()
}

fn plain() -> Policy {
    let origin = PolicyOrigin::DestinationRule;
    Policy { service: "web".into(), origin, ..Policy::default() }
}

/// The Policy that `trafficPolicy`, a flow mapping, becomes.
fn check(traffic_policy: &str, want: Policy) {
    let record = record(&format!("  host: web\n  trafficPolicy: {traffic_policy}"));
    assert_eq!(record.body, Body::Policy(want), "{traffic_policy}");
}

#[test]
fn load_balancers() {
    for (word, balance) in [
        ("ROUND_ROBIN", BalancePolicy::RoundRobin),
        ("RANDOM", BalancePolicy::Random),
        ("LEAST_REQUEST", BalancePolicy::LeastRequest),
        ("LEAST_CONN", BalancePolicy::LeastRequest),
        ("UNSPECIFIED", BalancePolicy::RoundRobin),
        ("PASSTHROUGH", BalancePolicy::RoundRobin),
    ] {
        check(&format!("{{loadBalancer: {{simple: {word}}}}}"), Policy { balance, ..plain() });
    }
    for (key, hash_key) in [
        ("httpHeaderName: User-Agent", HashKey::Header("user-agent".into())),
        ("httpCookie: {name: SID, path: /, ttl: 0s}", HashKey::Cookie("SID".into())),
        ("httpQueryParameterName: u", HashKey::Query("u".into())),
        ("useSourceIp: true", HashKey::SourceIp),
        ("useSourceIp: false, httpHeaderName: x", HashKey::Header("x".into())),
    ] {
        let want = Policy { balance: BalancePolicy::ConsistentHash, hash_key, ..plain() };
        check(&format!("{{loadBalancer: {{consistentHash: {{{key}}}}}}}"), want);
    }
    check("{}", plain());
    check("{loadBalancer: {}}", plain());
}

#[test]
fn pools_and_outliers() {
    let usual = BreakerPolicy::default();
    let breaker = |failures: u32, seconds, longest, max_ejected_percent| {
        let mut breaker = usual;
        breaker.consecutive_failures = failures.try_into().unwrap();
        breaker.eject_for = Duration::from_secs(seconds);
        breaker.max_eject_for = Duration::from_secs(longest);
        breaker.max_ejected_percent = max_ejected_percent;
        Policy { breaker: Some(breaker), ..plain() }
    };
    let connect = Some(Duration::from_millis(300));
    check(
        "{connectionPool: {tcp: {connectTimeout: 300ms}}}",
        Policy { connect_timeout: connect, ..plain() },
    );
    let caps = |max, max_requests| Policy {
        connections: Some(ConnectionCaps {
            max: NonZeroU32::new(max),
            max_requests: NonZeroU32::new(max_requests),
        }),
        ..plain()
    };
    check("{connectionPool: {tcp: {maxConnections: 5}}}", caps(5, 0));
    check("{connectionPool: {http: {http2MaxRequests: 7}}}", caps(0, 7));
    check(
        "{connectionPool: {tcp: {maxConnections: 5, connectTimeout: 300ms}, http: {http2MaxRequests: 7}}}",
        Policy { connect_timeout: connect, ..caps(5, 7) },
    );
    check("{connectionPool: {tcp: {maxConnections: 0}}}", plain());
    check("{connectionPool: {http: {http2MaxRequests: 2147483647}}}", plain());
    check("{connectionPool: {http: {http1MaxPendingRequests: 5}}}", plain());
    // Istio's defaults
    check("{outlierDetection: {}}", breaker(5, 30, 300, 10));
    check("{outlierDetection: {consecutive5xxErrors: 7}}", breaker(7, 30, 300, 10));
    check("{outlierDetection: {consecutiveErrors: 7}}", breaker(7, 30, 300, 10));
    check("{outlierDetection: {consecutive5xxErrors: 0}}", plain());
    check(
        "{outlierDetection: {interval: 1s, baseEjectionTime: 10m, maxEjectionPercent: 100}}",
        breaker(5, 600, 600, 100),
    );
}

/// Host, and the namespace and Service that it names from namespace `shop`.
#[test]
fn hosts() {
    for (host, want) in [
        ("web", Some(("shop", "web", "istio:web"))),
        ("web.shop", Some(("shop", "web", "istio:web"))),
        ("web.shop.svc.cluster.local", Some(("shop", "web", "istio:web"))),
        ("web.shop.svc.cluster.local.", Some(("shop", "web", "istio:web"))),
        ("api.blue", Some(("blue", "api", "istio:shop/web"))),
        ("api.blue.svc", Some(("blue", "api", "istio:shop/web"))),
        ("www.example.com", None),
        ("'*.blue.svc.cluster.local'", None),
        ("'*'", None),
        ("Web", None),
        ("''", None),
    ] {
        let text = format!("  host: {host}");
        let Some((namespace, service, name)) = want else {
            let said = remarks(&rule(&text));
            let [said] = &said[..] else { panic!("{said:?}") };
            assert!(said.starts_with("rejected 5 DestinationRule shop/web [spec.host]"), "{said}");
            assert!(said.contains("names no Service of the mesh; write NAME"), "{said}");
            continue;
        };
        let record = record(&text);
        assert_eq!((&*record.namespace, &*record.name), (namespace, name), "{host}");
        let Body::Policy(policy) = record.body else { panic!("{host}") };
        assert_eq!(&*policy.service, service, "{host}");
    }
}

#[test]
fn all_versions_are_read() {
    for version in ["v1alpha3", "v1beta1", "v1"] {
        let text = rule("  host: web").replace("v1alpha3", version);
        assert_eq!(yaml(&text).documents.len(), 1, "{version}");
    }
}

#[test]
fn what_is_not_served_is_reported() {
    let text = "  host: web
  subsets: [{name: v1, labels: {version: v1}}]
  exportTo: ['.']
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL}
    portLevelSettings: [{port: {number: 80}}]
    somethingNew: 1
    loadBalancer:
      consistentHash:
        httpCookie: {name: a, ttl: 1s}
        minimumRingSize: 10
      localityLbSetting: {enabled: true}
    connectionPool:
      tcp: {tcpKeepalive: {time: 1s}}
      http: {maxRetries: 5}
    outlierDetection: {interval: 1s, consecutiveGatewayErrors: 3, minHealthPercent: 30}";
    let said = remarks(&rule(text));
    let want = [
        "6 spec.subsets",
        "7 spec.exportTo",
        "9 spec.trafficPolicy.tls",
        "10 spec.trafficPolicy.portLevelSettings",
        "11 spec.trafficPolicy.somethingNew",
        "16 spec.trafficPolicy.loadBalancer.localityLbSetting",
        "15 spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize",
        "14 spec.trafficPolicy.loadBalancer.consistentHash.httpCookie.ttl",
        "18 spec.trafficPolicy.connectionPool.tcp.tcpKeepalive",
        "19 spec.trafficPolicy.connectionPool.http.maxRetries",
        "20 spec.trafficPolicy.outlierDetection.interval",
        "20 spec.trafficPolicy.outlierDetection.consecutiveGatewayErrors",
        "20 spec.trafficPolicy.outlierDetection.minHealthPercent",
    ];
    assert_eq!(said.len(), want.len(), "{said:#?}");
    for (said, want) in said.iter().zip(want) {
        let (line, field) = want.split_once(' ').unwrap();
        let start = format!(
            "note {line} DestinationRule shop/web [{field}] is not supported and has no effect: "
        );
        assert!(said.starts_with(&start), "{said}\n  for {start}");
    }
}

#[test]
fn what_is_wrong_is_refused() {
    for (spec, line, field, reason) in [
        ("  trafficPolicy: {}", 4, "spec.host", "is missing"),
        (
            "  host: web\n  trafficPolicy: {loadBalancer: {simple: FASTEST}}",
            6,
            "spec.trafficPolicy.loadBalancer.simple",
            "not one of UNSPECIFIED, ROUND_ROBIN",
        ),
        (
            "  host: web\n  trafficPolicy:\n    loadBalancer:\n      simple: RANDOM\n      consistentHash: {useSourceIp: true}",
            8,
            "spec.trafficPolicy.loadBalancer.simple",
            "at odds with `consistentHash`",
        ),
        (
            "  host: web\n  trafficPolicy: {loadBalancer: {consistentHash: {useSourceIp: false}}}",
            6,
            "spec.trafficPolicy.loadBalancer.consistentHash",
            "exactly one of httpHeaderName",
        ),
        (
            "  host: web\n  trafficPolicy: {connectionPool: {tcp: {connectTimeout: 5}}}",
            6,
            "spec.trafficPolicy.connectionPool.tcp.connectTimeout",
            "has no unit",
        ),
        (
            "  host: web\n  trafficPolicy: {connectionPool: {tcp: {maxConnections: many}}}",
            6,
            "spec.trafficPolicy.connectionPool.tcp.maxConnections",
            "whole number",
        ),
        (
            "  host: web\n  trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}",
            6,
            "spec.trafficPolicy.outlierDetection.maxEjectionPercent",
            "from 0 to 100",
        ),
    ] {
        let parsed = yaml(&rule(spec));
        assert_eq!(parsed.documents, [], "{spec}");
        let [remark] = &parsed.remarks[..] else { panic!("{spec}: {:?}", parsed.remarks) };
        assert_eq!((remark.line, &*remark.field), (line, field), "{remark:?}");
        assert!(remark.reason.contains(reason), "{remark:?}");
    }
}
