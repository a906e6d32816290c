//! `edgemesh.io/v1alpha1 TrafficPolicy` as a Policy record: our own object, so no key is let pass unknown.

mod allow;
pub(super) mod balance;
mod breaker;
mod health;
mod limits;

use std::num::NonZeroU32;
use std::ops::RangeInclusive;

use edgemesh_proto::record::{Policy, PolicyOrigin, RetryPolicy};

use crate::manifests::field::{Fault, Field};
use crate::manifests::policy::balance::LoadBalancer;
use crate::manifests::syntax::known;
use crate::manifests::{field, syntax};

/// Most further attempts after the first.
const MAX_ATTEMPTS: u32 = 10;
/// What kubectl and Helm send for the key `on` where it is not in quotes: their YAML is 1.1, in which
/// that is an answer.
const ON_AS_ANSWER: &str = "true";

/// Reads the whole object.
pub(super) fn read(top: &Field<'_>, created: i64) -> Result<Policy, Fault> {
    known(top, &["apiVersion", "kind", "metadata", "spec", "status"])?;
    let spec = top.need("spec")?;
    known(
        &spec,
        &[
            "targetRef",
            "loadBalancer",
            "rateLimit",
            "circuitBreaker",
            "timeouts",
            "retries",
            "allow",
            "connections",
            "healthCheck",
        ],
    )?;
    let LoadBalancer { balance, hash_key, locality } =
        spec.maybe("loadBalancer", balance::read)?.unwrap_or_default();
    let [client_limit, server_limit] = spec.maybe("rateLimit", limits::limits)?.unwrap_or_default();
    let [connect_timeout, request_timeout, idle_timeout] =
        spec.maybe("timeouts", limits::timeouts)?.unwrap_or_default();
    Ok(Policy {
        service: target(&spec.need("targetRef")?)?,
        origin: PolicyOrigin::TrafficPolicy,
        created,
        balance,
        hash_key,
        locality,
        client_limit,
        server_limit,
        breaker: spec.maybe("circuitBreaker", breaker::breaker)?,
        connect_timeout,
        request_timeout,
        retries: spec.maybe("retries", retries)?.unwrap_or_default(),
        allow: spec.maybe("allow", allow::allow)?,
        connections: spec.maybe("connections", limits::connections)?,
        idle_timeout,
        health_check: spec.maybe("healthCheck", health::check)?,
    })
}

/// Text out of a table of words, with a hint for slips.
fn word<T: Copy>(field: &Field<'_>, table: &[(&str, T)]) -> Result<T, Fault> {
    let text = field.text()?;
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

fn retries(field: &Field<'_>) -> Result<RetryPolicy, Fault> {
    known(field, &["attempts", "on", ON_AS_ANSWER, "budgetPercent", "nonIdempotent"])?;
    let mut retries = RetryPolicy::default();
    if let Some(attempts) = field.maybe("attempts", |field| narrow(field, 0..=MAX_ATTEMPTS))? {
        retries.attempts = attempts;
    }
    let list = match [field.get("on")?, field.get(ON_AS_ANSWER)?] {
        [Some(_), Some(again)] => {
            return Err(again.fault("is there as `on` too; remove one of them"));
        }
        [on, as_answer] => on.or(as_answer),
    };
    if let Some(list) = list {
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
