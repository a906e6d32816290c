//! Istio's `DestinationRule` as a Policy record: what the mesh can honour, and notes on the rest.

use std::num::NonZeroU32;
use std::time::Duration;

use edgemesh_proto::record::{
    BalancePolicy, BreakerPolicy, ConnectionCaps, HashKey, Policy, PolicyOrigin, ServiceName,
};

use crate::manifests::Severity;
use crate::manifests::field::{self, Fault, Field, brief};
use crate::manifests::http_route::Notes;
use crate::manifests::policy::balance::{cookie, header, query};
use crate::manifests::syntax;

/// Istio's defaults of `outlierDetection`, where they are not ours.
const EJECT_FOR: Duration = Duration::from_secs(30);
const MAX_EJECTED_PERCENT: u8 = 10;
const FAILURES: NonZeroU32 = NonZeroU32::MIN.saturating_add(4);

/// Why a key has no effect. Keys that are not here are not known to the mesh at all.
const UNSERVED: &[(&str, &str)] = &[
    ("subsets", "subsets are not served: all backends of the Service are one set"),
    ("portLevelSettings", "settings of single ports are not served: one Policy holds for all"),
    ("exportTo", "a rule holds for callers of every namespace"),
    ("workloadSelector", "a rule holds for every caller"),
    ("tls", "the mesh opens no TLS of its own: what a client sends is passed on"),
    ("localityLbSetting", "use a TrafficPolicy with `loadBalancer.locality`; nearest first holds"),
    ("minimumRingSize", "there is no ring to size: keys are spread by rendezvous"),
    ("ringHash", "there is no ring to size: keys are spread by rendezvous"),
    ("maglev", "there is no table to size: keys are spread by rendezvous"),
    ("ttl", "the mesh sets no cookie: a call without it goes by chance"),
    ("path", "the mesh sets no cookie: a call without it goes by chance"),
    ("interval", "failures are counted as they happen, not at intervals"),
    ("minHealthPercent", "use `maxEjectionPercent`"),
    ("consecutiveGatewayErrors", "`consecutive5xxErrors` counts those, too"),
];

/// Reads the whole object: the Policy, and the namespace of the Service that it is for.
pub(super) fn read(
    top: &Field<'_>,
    (namespace, created): (&str, i64),
    notes: &mut Notes,
) -> Result<(Box<str>, Policy), Fault> {
    let spec = top.need("spec")?;
    note(&spec, &["host", "trafficPolicy"], notes)?;
    let service = host(&spec.need("host")?, namespace)?;
    let mut policy = Policy {
        service: service.name,
        origin: PolicyOrigin::DestinationRule,
        created,
        ..Policy::default()
    };
    if let Some(field) = spec.get("trafficPolicy")? {
        note(&field, &["loadBalancer", "connectionPool", "outlierDetection"], notes)?;
        if let Some(field) = field.get("loadBalancer")? {
            (policy.balance, policy.hash_key) = load_balancer(&field, notes)?;
        }
        if let Some(field) = field.get("connectionPool")? {
            (policy.connect_timeout, policy.connections) = connection_pool(&field, notes)?;
        }
        if let Some(field) = field.get("outlierDetection")? {
            policy.breaker = outlier_detection(&field, notes)?;
        }
    }
    Ok((service.namespace, policy))
}

/// Notes each key of a map that is not `served`.
fn note(map: &Field<'_>, served: &[&str], notes: &mut Notes) -> Result<(), Fault> {
    for (key, field) in map.entries()?.filter(|(key, _)| !served.contains(key)) {
        let known = UNSERVED.iter().find(|(unserved, _)| *unserved == key);
        let why = known.map_or("the mesh does not read it", |(_, why)| why);
        let fault = field.fault(format!("is not supported and has no effect: {why}"));
        notes.push((Severity::Note, fault));
    }
    Ok(())
}

/// `web`, `web.shop`, `web.shop.svc` or `web.shop.svc.DOMAIN`.
fn host(field: &Field<'_>, namespace: &str) -> Result<ServiceName, Fault> {
    let text = field.text()?;
    let mut parts = text.strip_suffix('.').unwrap_or(text).split('.');
    let name = parts.next().unwrap_or_default();
    let namespace = parts.next().unwrap_or(namespace);
    let rest = parts.next();
    if [name, namespace].iter().all(|part| syntax::is_label(part))
        && matches!(rest, None | Some("svc"))
    {
        return Ok(ServiceName::new(namespace, name));
    }
    Err(field.fault(format!(
        "`{}` names no Service of the mesh; write NAME, NAME.NAMESPACE or \
         NAME.NAMESPACE.svc.cluster.local",
        brief(text)
    )))
}

fn load_balancer(field: &Field<'_>, notes: &mut Notes) -> Result<(BalancePolicy, HashKey), Fault> {
    const SIMPLE: &[(&str, Option<BalancePolicy>)] = &[
        ("UNSPECIFIED", Some(BalancePolicy::RoundRobin)),
        ("ROUND_ROBIN", Some(BalancePolicy::RoundRobin)),
        ("RANDOM", Some(BalancePolicy::Random)),
        ("LEAST_REQUEST", Some(BalancePolicy::LeastRequest)),
        ("LEAST_CONN", Some(BalancePolicy::LeastRequest)),
        ("PASSTHROUGH", None),
    ];
    note(field, &["simple", "consistentHash"], notes)?;
    let simple = field.get("simple")?;
    if let Some(hash) = field.get("consistentHash")? {
        if let Some(simple) = simple {
            return Err(simple.fault("is at odds with `consistentHash`; keep one of the two"));
        }
        return Ok((BalancePolicy::ConsistentHash, hash_key(&hash, notes)?));
    }
    let Some(simple) = simple else { return Ok(Default::default()) };
    let balance = simple.word(SIMPLE)?.unwrap_or_else(|| {
        let why = "is not supported: the mesh chooses among the backends, in turn";
        notes.push((Severity::Note, simple.fault(why)));
        BalancePolicy::RoundRobin
    });
    Ok((balance, HashKey::default()))
}

fn hash_key(field: &Field<'_>, notes: &mut Notes) -> Result<HashKey, Fault> {
    const KEYS: [&str; 4] =
        ["httpHeaderName", "httpCookie", "httpQueryParameterName", "useSourceIp"];
    note(field, &KEYS, notes)?;
    let of_cookie = |field: &Field<'_>| {
        note(field, &["name"], notes)?;
        cookie(&field.need("name")?)
    };
    let source_ip = field.maybe("useSourceIp", field::boolean)?.unwrap_or(false);
    let found = [
        field.maybe("httpHeaderName", header)?.map(HashKey::Header),
        field.maybe("httpCookie", of_cookie)?.map(HashKey::Cookie),
        field.maybe("httpQueryParameterName", query)?.map(HashKey::Query),
        source_ip.then_some(HashKey::SourceIp),
    ];
    let mut found = found.into_iter().flatten();
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(field.fault(format!("needs exactly one of {}", KEYS.join(", ")))),
    }
}

/// The time for a connect, and how much may be under way. `http2MaxRequests` holds for HTTP/1 too,
/// as it does in Istio.
fn connection_pool(
    field: &Field<'_>,
    notes: &mut Notes,
) -> Result<(Option<Duration>, Option<ConnectionCaps>), Fault> {
    note(field, &["tcp", "http"], notes)?;
    let (mut connect_timeout, mut caps) = (None, ConnectionCaps::default());
    if let Some(tcp) = field.get("tcp")? {
        note(&tcp, &["connectTimeout", "maxConnections"], notes)?;
        connect_timeout = tcp.maybe("connectTimeout", syntax::duration)?;
        caps.max = tcp.maybe("maxConnections", cap)?.flatten();
    }
    if let Some(http) = field.get("http")? {
        note(&http, &["http2MaxRequests"], notes)?;
        caps.max_requests = http.maybe("http2MaxRequests", cap)?.flatten();
    }
    Ok((connect_timeout, (caps != ConnectionCaps::default()).then_some(caps)))
}

/// 0 stands for no bound of its own, as unset does; Istio's usual one, 2^31 - 1, is none either.
fn cap(field: &Field<'_>) -> Result<Option<NonZeroU32>, Fault> {
    let cap = field.int(0..=i32::MAX.unsigned_abs())?;
    Ok(NonZeroU32::new(cap).filter(|cap| cap.get() < i32::MAX.unsigned_abs()))
}

fn outlier_detection(field: &Field<'_>, notes: &mut Notes) -> Result<Option<BreakerPolicy>, Fault> {
    // The older name, still in many a file.
    let name = match field.get("consecutive5xxErrors")? {
        None if field.get("consecutiveErrors")?.is_some() => "consecutiveErrors",
        _ => "consecutive5xxErrors",
    };
    note(field, &[name, "baseEjectionTime", "maxEjectionPercent"], notes)?;
    let failures = field.maybe(name, |field| field.int(0..=10_000))?;
    let eject_for = field.maybe("baseEjectionTime", syntax::duration)?.unwrap_or(EJECT_FOR);
    let percent = field.maybe("maxEjectionPercent", |field| field.int(0..=100))?;
    let max_ejected_percent = percent.and_then(|percent| u8::try_from(percent).ok());
    let usual = BreakerPolicy::default();
    // 0 failures turn it off, says Istio.
    let failures = failures.map_or(Some(FAILURES), NonZeroU32::new);
    Ok(failures.map(|failures| {
        let mut breaker = usual;
        breaker.consecutive_failures = failures;
        breaker.eject_for = eject_for;
        breaker.max_eject_for = usual.max_eject_for.max(eject_for);
        breaker.max_ejected_percent = max_ejected_percent.unwrap_or(MAX_EJECTED_PERCENT);
        breaker
    }))
}
