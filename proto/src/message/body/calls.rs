//! What opens an exchange on a Link, and what is said to it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use bytes::Bytes;

use crate::message::Body;
use crate::message::MAX_RESOURCE;
use crate::message::body::codec::{address, header_fields, port, socket};
use crate::pb;
use crate::record::{Invalid, MAX_NAME, ServiceName};

/// Services of which a caller is told that it backs them.
pub const MAX_BACKED: usize = 256;

/// Header fields of one head.
pub const MAX_FIELDS: usize = 256;

/// Which Service port a call is for, and who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The Service.
    pub service: ServiceName,
    /// Its port.
    pub port: NonZeroU16,
    /// A Backend's own name, where just that one is meant.
    pub hostname: Option<Box<str>>,
    /// The Backend that the sender chose. A wish: only Backends of the Service count.
    pub backend: Option<SocketAddr>,
    /// Who calls.
    pub caller: Caller,
}

/// Who calls, as the sender's node vouches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// `None` = the application that embeds the mesh.
    pub address: Option<IpAddr>,
    /// Namespace of the Workload behind it.
    pub namespace: Option<Box<str>>,
    /// The Workload, as `namespace/name` or a name in its namespace.
    pub workload: Option<Box<str>>,
    /// Services that it backs, as `namespace/name` or a name in its namespace; at most [`MAX_BACKED`].
    pub services: Vec<Box<str>>,
}

/// Opens an HTTP exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// For whom.
    pub target: Target,
    /// Method.
    pub method: String,
    /// Scheme, where the client named one.
    pub scheme: String,
    /// Empty = none was sent.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Without those of a connection.
    pub headers: Vec<HeaderField>,
    /// The client speaks HTTP/2.
    pub http2: bool,
    /// Bytes may follow the answer, both ways (HTTP/1.1 Upgrade).
    pub upgrade: bool,
}

/// A header field as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderField {
    /// Lower case.
    pub name: Bytes,
    /// Any bytes that HTTP allows.
    pub value: Bytes,
}

/// The head of the answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<HeaderField>,
}

/// Opens a connection of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// For whom.
    pub target: Target,
    /// Its client is silent, and it is dialled in case its server speaks first: answered once that
    /// has spoken.
    pub race: bool,
}

/// A Backend took the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Which one.
    pub backend: Option<SocketAddr>,
}

/// Why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// A label that code reads.
    pub label: String,
    /// Words that people read.
    pub text: String,
    /// Milliseconds; 0 = not said.
    pub retry_after_ms: u64,
}

impl From<Refused> for Body {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<&Target> for pb::Target {
    fn from(target: &Target) -> Self {
        Self {
            namespace: target.service.namespace.to_string(),
            service: target.service.name.to_string(),
            port: target.port.get().into(),
            hostname: target.hostname.as_deref().unwrap_or_default().to_owned(),
            backend: target.backend.map(|at| at.to_string()).unwrap_or_default(),
            caller: Some((&target.caller).into()),
        }
    }
}

impl TryFrom<pb::Target> for Target {
    type Error = Invalid;

    fn try_from(target: pb::Target) -> Result<Self, Invalid> {
        if target.service.is_empty() || target.namespace.is_empty() {
            return Err(Invalid::new("target.service", "is missing"));
        }
        let service = ServiceName::new(&target.namespace, &target.service);
        Ok(Self {
            service,
            port: port("target.port", target.port)?,
            hostname: (!target.hostname.is_empty()).then(|| target.hostname.into()),
            backend: socket("target.backend", &target.backend)?,
            caller: target.caller.unwrap_or_default().try_into()?,
        })
    }
}

impl From<&Caller> for pb::Caller {
    fn from(caller: &Caller) -> Self {
        Self {
            address: match caller.address {
                None => Bytes::new(),
                Some(IpAddr::V4(v4)) => Bytes::copy_from_slice(&v4.octets()),
                Some(IpAddr::V6(v6)) => Bytes::copy_from_slice(&v6.octets()),
            },
            namespace: caller.namespace.as_deref().unwrap_or_default().to_owned(),
            workload: caller.workload.as_deref().unwrap_or_default().to_owned(),
            services: caller.services.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<pb::Caller> for Caller {
    type Error = Invalid;

    fn try_from(caller: pb::Caller) -> Result<Self, Invalid> {
        let services = caller.services.len();
        if services > MAX_BACKED {
            let reason = format!("{services} names: at most {MAX_BACKED}");
            return Err(Invalid::new("caller.services", reason));
        }
        let name = |name: String| bounded("caller.services", name, 2 * MAX_NAME + 1);
        let services = caller.services.into_iter().map(name);
        let some = |text: Box<str>| (!text.is_empty()).then_some(text);
        Ok(Self {
            address: address("caller.address", &caller.address)?,
            namespace: some(bounded("caller.namespace", caller.namespace, MAX_NAME)?),
            workload: some(bounded("caller.workload", caller.workload, 2 * MAX_NAME + 1)?),
            services: services.collect::<Result<_, _>>()?,
        })
    }
}

/// Names of callers are remembered where calls are counted, so they may not be of any length.
fn bounded(field: &str, name: String, most: usize) -> Result<Box<str>, Invalid> {
    match name.len() {
        n if n > most => Err(Invalid::new(field, format!("{n} bytes: at most {most}"))),
        _ => Ok(name.into()),
    }
}

impl From<&Request> for pb::Request {
    fn from(request: &Request) -> Self {
        Self {
            target: Some((&request.target).into()),
            method: request.method.clone(),
            scheme: request.scheme.clone(),
            authority: request.authority.clone(),
            path: request.path.clone(),
            headers: request.headers.iter().map(Into::into).collect(),
            http2: request.http2,
            upgrade: request.upgrade,
        }
    }
}

impl TryFrom<pb::Request> for Request {
    type Error = Invalid;

    fn try_from(request: pb::Request) -> Result<Self, Invalid> {
        if request.path.len() > 4 * MAX_RESOURCE {
            return Err(Invalid::new("request.path", format!("{} bytes", request.path.len())));
        }
        let target = request.target.ok_or_else(|| Invalid::new("target", "is missing"))?;
        Ok(Self {
            target: target.try_into()?,
            method: request.method,
            scheme: request.scheme,
            authority: request.authority,
            path: request.path,
            headers: header_fields(request.headers)?,
            http2: request.http2,
            upgrade: request.upgrade,
        })
    }
}

impl From<&HeaderField> for pb::HeaderField {
    fn from(field: &HeaderField) -> Self {
        Self { name: field.name.clone(), value: field.value.clone() }
    }
}

impl From<&Answer> for pb::Answer {
    fn from(answer: &Answer) -> Self {
        Self {
            status: answer.status.into(),
            headers: answer.headers.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::Answer> for Answer {
    type Error = Invalid;

    fn try_from(answer: pb::Answer) -> Result<Self, Invalid> {
        let status = u16::try_from(answer.status).ok().filter(|s| (100..=999).contains(s));
        let wrong = || Invalid::new("answer.status", format!("{} is no status", answer.status));
        Ok(Self { status: status.ok_or_else(wrong)?, headers: header_fields(answer.headers)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_callers_are_bounded() {
        let good = || pb::Caller {
            address: Bytes::new(),
            namespace: "n".repeat(MAX_NAME),
            workload: format!("{}/{}", "n".repeat(MAX_NAME), "w".repeat(MAX_NAME)),
            services: vec!["s".repeat(2 * MAX_NAME + 1); MAX_BACKED],
        };
        assert!(Caller::try_from(good()).is_ok());
        let long = |name: &str| format!("{name}x");
        for (bad, field) in [
            (pb::Caller { namespace: long(&good().namespace), ..good() }, "caller.namespace"),
            (pb::Caller { workload: long(&good().workload), ..good() }, "caller.workload"),
            (pb::Caller { services: vec![long(&good().services[0])], ..good() }, "caller.services"),
            (
                pb::Caller { services: vec![String::new(); MAX_BACKED + 1], ..good() },
                "caller.services",
            ),
        ] {
            assert_eq!(&*Caller::try_from(bad).unwrap_err().field, field);
        }
    }
}
