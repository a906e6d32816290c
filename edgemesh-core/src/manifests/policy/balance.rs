//! `loadBalancer` of a TrafficPolicy: policy, locality, and what consistent hashing hashes.

use edgemesh_proto::record::{BalancePolicy, HashKey, Locality};
use http::HeaderName;

use crate::manifests::field;
use crate::manifests::field::{Fault, Field};
use crate::manifests::policy::{known, word};

/// How the Backend of a call is chosen.
#[derive(Debug, Default)]
pub(super) struct LoadBalancer {
    pub(super) balance: BalancePolicy,
    pub(super) hash_key: HashKey,
    pub(super) locality: Locality,
}

pub(super) fn read(field: &Field<'_>) -> Result<LoadBalancer, Fault> {
    const POLICIES: &[(&str, BalancePolicy)] = &[
        ("roundRobin", BalancePolicy::RoundRobin),
        ("random", BalancePolicy::Random),
        ("leastRequest", BalancePolicy::LeastRequest),
        ("peakEwma", BalancePolicy::PeakEwma),
        ("consistentHash", BalancePolicy::ConsistentHash),
    ];
    const LOCALITIES: &[(&str, Locality)] = &[
        ("none", Locality::None),
        ("preferNode", Locality::PreferNode),
        ("onlyNode", Locality::OnlyNode),
    ];
    known(field, &["policy", "locality", "consistentHash"])?;
    let policy = field.maybe("policy", |field| word(field, POLICIES))?;
    let locality = field.maybe("locality", |field| word(field, LOCALITIES))?.unwrap_or_default();
    let hash_key = field.maybe("consistentHash", hash_key)?;
    let balance = match (policy, &hash_key) {
        (None, Some(_)) => BalancePolicy::ConsistentHash,
        (Some(BalancePolicy::ConsistentHash), None) => {
            let reason = "says what is hashed: add `consistentHash: { header: NAME }`, or cookie, \
                          query, sourceIp: true";
            return Err(field.missing("consistentHash", reason));
        }
        (Some(BalancePolicy::ConsistentHash) | None, _) => policy.unwrap_or_default(),
        (Some(_), Some(_)) => {
            let reason = "is at odds with `consistentHash`; keep one of the two";
            return Err(field.need("policy")?.fault(reason));
        }
        (Some(policy), None) => policy,
    };
    Ok(LoadBalancer { balance, hash_key: hash_key.unwrap_or_default(), locality })
}

fn hash_key(field: &Field<'_>) -> Result<HashKey, Fault> {
    known(field, &["header", "cookie", "query", "sourceIp"])?;
    let found = [
        field.maybe("header", header)?.map(HashKey::Header),
        field.maybe("cookie", cookie)?.map(HashKey::Cookie),
        field.maybe("query", query)?.map(HashKey::Query),
        field.maybe("sourceIp", source_ip)?,
    ];
    let mut found = found.into_iter().flatten();
    match (found.next(), found.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(field.fault("needs exactly one of header, cookie, query, sourceIp")),
    }
}

/// The name of a header field, in lower case.
pub(in crate::manifests) fn header(field: &Field<'_>) -> Result<Box<str>, Fault> {
    let name = HeaderName::from_bytes(field.text()?.as_bytes());
    name.map(|name| name.as_str().into()).map_err(|_| field.wrong("the name of a header field"))
}

/// The name of a cookie: letters, digits and the marks that field names may have, too.
pub(in crate::manifests) fn cookie(field: &Field<'_>) -> Result<Box<str>, Fault> {
    let name = field.text()?;
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(_) => Ok(name.into()),
        Err(_) => Err(field.wrong("the name of a cookie")),
    }
}

/// A name in a query, as it is written there.
pub(in crate::manifests) fn query(field: &Field<'_>) -> Result<Box<str>, Fault> {
    let name = field.text()?;
    if name.is_empty() || name.contains(|c: char| "&=#".contains(c) || c.is_whitespace()) {
        return Err(field.wrong("a name as it is written in a URL"));
    }
    Ok(name.into())
}

fn source_ip(field: &Field<'_>) -> Result<HashKey, Fault> {
    match field::boolean(field)? {
        true => Ok(HashKey::SourceIp),
        false => Err(field.fault("is not chosen by false; remove it, and name another key")),
    }
}
