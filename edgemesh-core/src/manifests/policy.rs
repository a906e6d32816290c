//! `edgemesh.io/v1alpha1 TrafficPolicy` as a Policy record: our own object, so no key is let pass unknown.

pub(super) mod balance;

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use edgemesh_proto::record::{BreakerPolicy, Policy, PolicyOrigin, RateLimit, RetryPolicy};

use crate::manifests::field::{Fault, Field};
use crate::manifests::policy::balance::LoadBalancer;
use crate::manifests::{field, syntax};

/// Most calls a second and most calls at once that a limit may name.
const MAX_RATE: u32 = 1_000_000;
/// Most failures in a row that a breaker may wait for.
const MAX_FAILURES: u32 = 10_000;
/// Most further attempts after the first.
const MAX_ATTEMPTS: u32 = 10;

/// Keys and words of the design that this version cannot honour; they are refused, since a
/// Policy that does less than it says is worse than none.
const LATER: &[(&str, &str)] = &[
    ("allow", "callers cannot be restricted by this version, every caller would be let in"),
    ("by", CALLER),
    ("byCaller", CALLER),
    ("perCaller", CALLER),
    ("caller", CALLER),
    ("key", CALLER),
];
const CALLER: &str = "this version limits each Service as a whole, not by caller; remove it";

/// Reads the whole object.
pub(super) fn read(top: &Field<'_>, created: i64) -> Result<Policy, Fault> {
    known(top, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    let spec = top.need("spec")?;
    known(
        &spec,
        &["targetRef", "loadBalancer", "rateLimit", "circuitBreaker", "timeouts", "retries"],
    )?;
    let LoadBalancer { balance, hash_key, locality } =
        spec.maybe("loadBalancer", balance::read)?.unwrap_or_default();
    let [client_limit, server_limit] = spec.maybe("rateLimit", limits)?.unwrap_or_default();
    let [connect_timeout, request_timeout] = spec.maybe("timeouts", timeouts)?.unwrap_or_default();
    Ok(Policy {
        service: target(&spec.need("targetRef")?)?,
        origin: PolicyOrigin::TrafficPolicy,
        created,
        balance,
        hash_key,
        locality,
        client_limit,
        server_limit,
        breaker: spec.maybe("circuitBreaker", breaker)?,
        connect_timeout,
        request_timeout,
        retries: spec.maybe("retries", retries)?.unwrap_or_default(),
    })
}

/// Rejects a key that nobody reads: one of later versions by its reason.
fn known(map: &Field<'_>, keys: &[&str]) -> Result<(), Fault> {
    for (key, field) in map.entries()?.filter(|(key, _)| !keys.contains(key)) {
        if let Some(reason) = later(key) {
            return Err(field.fault(reason));
        }
    }
    syntax::known(map, keys)
}

fn later(word: &str) -> Option<String> {
    let (_, why) = LATER.iter().find(|(known, _)| *known == word)?;
    Some(format!("`{word}` is not served by this version yet: {why}"))
}

/// Text out of a table of words, with a hint for those of later versions and for slips.
fn word<T: Copy>(field: &Field<'_>, table: &[(&str, T)]) -> Result<T, Fault> {
    let text = field.text()?;
    if let Some(reason) = later(text) {
        return Err(field.fault(reason));
    }
    let near = syntax::nearest(text, table.iter().map(|(word, _)| *word));
    field.word(table).map_err(|fault| match near {
        Some(near) => {
            Fault { reason: format!("{}; did you mean `{near}`?", fault.reason), ..fault }
        }
        None => fault,
    })
}

fn target(field: &Field<'_>) -> Result<Box<str>, Fault> {
    known(field, &["group", "kind", "name"])?;
    if let Some(group) = field.get("group")?
        && !group.text()?.is_empty()
    {
        return Err(group.fault("must be empty: a Service is in the core group; remove it"));
    }
    let kind = field.need("kind")?;
    if kind.text()? != "Service" {
        return Err(kind.wrong("`Service`, which is all that a TrafficPolicy applies to"));
    }
    syntax::label(&field.need("name")?)
}

/// The client's limit and the server's.
fn limits(field: &Field<'_>) -> Result<[Option<RateLimit>; 2], Fault> {
    known(field, &["client", "server"])?;
    Ok([field.maybe("client", limit)?, field.maybe("server", limit)?])
}

fn limit(field: &Field<'_>) -> Result<RateLimit, Fault> {
    known(field, &["qps", "burst"])?;
    let qps = positive(&field.need("qps")?, MAX_RATE)?;
    let burst = field.maybe("burst", |field| positive(field, MAX_RATE))?.unwrap_or(qps);
    Ok(RateLimit { qps, burst })
}

fn breaker(field: &Field<'_>) -> Result<BreakerPolicy, Fault> {
    known(field, &["consecutiveFailures", "ejectFor", "maxEjectFor", "maxEjectedPercent"])?;
    let usual = BreakerPolicy::default();
    let failures = field.maybe("consecutiveFailures", |field| positive(field, MAX_FAILURES))?;
    let eject_for = field.maybe("ejectFor", syntax::duration)?.unwrap_or(usual.eject_for);
    let longest = field.maybe("maxEjectFor", syntax::duration)?.unwrap_or(usual.max_eject_for);
    if eject_for > longest {
        let reason = format!(
            "is longer than `maxEjectFor` ({}); raise that or shorten this",
            field.get("maxEjectFor")?.map_or("5m, the default", |_| "as written")
        );
        // Where only `maxEjectFor` is written, that is the line to change.
        return Err(match field.get("ejectFor")? {
            Some(field) => field.fault(reason),
            None => {
                field.need("maxEjectFor")?.fault("is shorter than `ejectFor` (10s, the default)")
            }
        });
    }
    let percent = field.maybe("maxEjectedPercent", |field| narrow(field, 0..=100))?;
    Ok(BreakerPolicy {
        consecutive_failures: failures.unwrap_or(usual.consecutive_failures),
        eject_for,
        max_eject_for: longest,
        max_ejected_percent: percent.unwrap_or(usual.max_ejected_percent),
    })
}

/// The time for a connect and the one for a request.
fn timeouts(field: &Field<'_>) -> Result<[Option<Duration>; 2], Fault> {
    known(field, &["connect", "request"])?;
    Ok([field.maybe("connect", syntax::duration)?, field.maybe("request", syntax::duration)?])
}

fn retries(field: &Field<'_>) -> Result<RetryPolicy, Fault> {
    known(field, &["attempts", "on", "budgetPercent", "nonIdempotent"])?;
    let mut retries = RetryPolicy::default();
    if let Some(attempts) = field.maybe("attempts", |field| narrow(field, 0..=MAX_ATTEMPTS))? {
        retries.attempts = attempts;
    }
    if let Some(list) = field.get("on")? {
        let when = list.items()?.map(|item| occasion(&item)).collect::<Result<Vec<_>, _>>()?;
        retries.on_connect = when.contains(&Occasion::Connect);
        retries.on_reset = when.contains(&Occasion::Reset);
        retries.on_503 = when.contains(&Occasion::Unavailable);
    }
    if let Some(percent) = field.maybe("budgetPercent", |field| narrow(field, 0..=100))? {
        retries.budget_percent = percent;
    }
    if let Some(allowed) = field.maybe("nonIdempotent", field::boolean)? {
        retries.non_idempotent = allowed;
    }
    Ok(retries)
}

#[derive(Clone, Copy, PartialEq)]
enum Occasion {
    Connect,
    Reset,
    Unavailable,
}

fn occasion(field: &Field<'_>) -> Result<Occasion, Fault> {
    const OCCASIONS: &[(&str, Occasion)] = &[
        ("connect", Occasion::Connect),
        ("reset", Occasion::Reset),
        ("503", Occasion::Unavailable),
    ];
    if field.is_int() {
        return match field.int(503..=503) {
            Ok(_) => Ok(Occasion::Unavailable),
            Err(_) => Err(field.wrong("connect, reset or 503")),
        };
    }
    word(field, OCCASIONS)
}

fn positive(field: &Field<'_>, most: u32) -> Result<NonZeroU32, Fault> {
    let number = field.int(1..=most)?;
    NonZeroU32::new(number).ok_or_else(|| field.wrong("a number above 0"))
}

/// A number in a range that fits a byte.
fn narrow(field: &Field<'_>, range: RangeInclusive<u32>) -> Result<u8, Fault> {
    u8::try_from(field.int(range)?).map_err(|_| field.wrong("a number up to 255"))
}
