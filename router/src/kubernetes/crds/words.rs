//! The small grammars of manifests as schemas: names, times, and texts that may be written as numbers.
//!
//! Each is as strict as `edgemesh_core::manifests::syntax` where a pattern can be, else less: what a
//! folder takes, `kubectl apply` takes too. A text has a bound only where a rule computes with it, since
//! the server refuses rules whose cost it cannot bound.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

/// One or more of whole `h`, `m`, `s` and `ms`, not all of them zero.
const TIME: &str = "^(0+(h|m|s|ms))*0*[1-9][0-9]*(h|m|s|ms)([0-9]+(h|m|s|ms))*$";
/// Nobody writes a longer time.
const LONGEST_TIME: u32 = 256;
/// A DNS label, or the labels of a DNS name; how long they are is said beside it.
const LABEL: &str = "[a-z0-9]([a-z0-9-]*[a-z0-9])?";

/// A time from 1 ms to 24 h.
pub(super) fn time(_: &mut SchemaGenerator) -> Schema {
    between("1ms", "24h")
}

/// A time from 1 s: how long a connection is silent.
pub(super) fn silence(_: &mut SchemaGenerator) -> Schema {
    between("1s", "24h")
}

/// A time from 1 s to 1 h: what a breaker looks back at.
pub(super) fn window(_: &mut SchemaGenerator) -> Schema {
    between("1s", "1h")
}

/// A time from 100 ms: between the questions of a health check, and for an answer.
pub(super) fn pause(_: &mut SchemaGenerator) -> Schema {
    between("100ms", "24h")
}

fn between(least: &str, most: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": LONGEST_TIME,
        "pattern": TIME,
        "x-kubernetes-validations": [{
            "rule": format!(
                "duration(self) >= duration('{least}') && duration(self) <= duration('{most}')"
            ),
            "message": format!("must be a time from {least} to {most}, such as 500ms, 10s or 1m30s"),
        }],
    })
}

/// A DNS label: the name of a Service or a namespace.
pub(super) fn label(_: &mut SchemaGenerator) -> Schema {
    text(&format!("^{LABEL}$"), 63)
}

/// A DNS name: the name of a Node.
pub(super) fn subdomain(_: &mut SchemaGenerator) -> Schema {
    text(&format!("^{LABEL}(\\.{LABEL})*$"), 253)
}

/// The name of a RuleEndpoint, perhaps with its namespace before a slash.
pub(super) fn endpoint_name(_: &mut SchemaGenerator) -> Schema {
    text(&format!("^({LABEL}/)?{LABEL}(\\.{LABEL})*$"), 63 + 1 + 253)
}

/// The name of a header field or a cookie.
pub(super) fn token(_: &mut SchemaGenerator) -> Schema {
    text("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", 65_535)
}

/// A name in the query of a URL, as it stands there.
pub(super) fn query(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[^&=# \\t\\r\\n]+$" })
}

/// A path and perhaps a query, without a host.
pub(super) fn path(_: &mut SchemaGenerator) -> Schema {
    text("^/([!-\"$-.0-~][!-\"$-~]*)?$", 253)
}

/// The name of a gRPC service; empty for the server as a whole.
pub(super) fn grpc(_: &mut SchemaGenerator) -> Schema {
    text("^[!-\"$-~]*$", 253)
}

/// The empty text.
pub(super) fn empty(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "maxLength": 0 })
}

fn text(pattern: &str, longest: u32) -> Schema {
    json_schema!({ "type": "string", "maxLength": longest, "pattern": pattern })
}

/// `connect`, `reset`, and 503 as text or number. The pattern is for texts, the bounds are for numbers.
pub(super) fn occasions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "x-kubernetes-list-type": "atomic",
        "items": {
            "x-kubernetes-int-or-string": true,
            "pattern": "^(connect|reset|503)$",
            "minimum": 503,
            "maximum": 503,
        },
    })
}

/// A whole number from 1 that fits 32 bits, as a number or as text.
pub(super) fn count(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": "^[+]?[0-9]+$",
        "minimum": 1,
        "maximum": u32::MAX,
    })
}

/// A text, or a whole number that counts as it is written.
pub(super) fn text_or_number(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

/// A text, a number or an answer, which count as they are written. There is no schema for just these:
/// what else is written, the mesh rejects.
pub(super) fn scalar(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// A moment.
pub(super) fn moment(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

/// A text of a condition by which programs go.
pub(super) fn identifier(longest: u32) -> Value {
    json!({
        "type": "string",
        "minLength": 1,
        "maxLength": longest,
        "pattern": "^[A-Za-z]([A-Za-z0-9_,:./-]*[A-Za-z0-9_])?$",
    })
}

/// A list that may be null, as Go writes one that is empty.
pub(super) fn list<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
