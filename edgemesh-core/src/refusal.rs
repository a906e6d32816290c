//! Why the mesh did not serve a flow: the one table from reason to status, label and culprit.

mod labels;

use std::time::Duration;

/// Who has to act for the flow to succeed next time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Culprit {
    /// The caller asked for something impossible, or too often.
    Client,
    /// The backend is down, slow or absent.
    Backend,
    /// The mesh itself.
    Mesh,
}

/// A reason not to serve a flow. A closed list: a new reason makes every `match` below fail to
/// compile until it has its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No Service has this name or address.
    NoService,
    /// The Service has no such port.
    NoPort,
    /// The Service has Routes, and no rule of theirs fits the request.
    NoRoute,
    /// The rule that fits cannot be served: it names nobody, or asks for what this version cannot do.
    RouteFault,
    /// The rule that fits sends the client elsewhere.
    Redirected,
    /// The Service has no backend at all.
    NoBackend,
    /// Locality `onlyNode`, or a request from a Link, and no backend on this node.
    NoLocalBackend,
    /// The client-side or server-side limit is spent.
    RateLimited {
        /// When the next call would be admitted.
        retry_after: Duration,
    },
    /// Every backend's breaker rejects.
    Unhealthy {
        /// When the first breaker will let a probe through.
        retry_after: Duration,
    },
    /// No backend took the connection.
    ConnectFailed,
    /// No backend took the connection in time.
    ConnectTimeout,
    /// The backend broke the connection before its answer began.
    BackendReset,
    /// The backend's answer did not begin in time.
    RequestTimeout,
    /// The backend speaks something else than was asked for.
    BackendProtocol,
    /// The client's bytes are not the protocol they began as, or break its limits.
    BadRequest,
    /// The Service's `allow` list does not name the caller.
    NotAllowed,
    /// Nothing was said on a connection of bytes for as long as its Policy allows.
    IdleTimeout,
    /// The head of the request is larger than the mesh reads.
    HeadTooLarge,
    /// The target of the request is longer than the mesh passes on.
    TargetTooLong,
    /// What was asked for cannot be carried in the protocol that the backend is declared to speak.
    Unsupported,
    /// The connection would have come back to the mesh itself.
    Loop,
    /// More connections than the mesh has room for, or than the Policy lets be under way.
    Overloaded,
    /// The process is shutting down.
    Draining,
    /// The Service is a DNS name for something outside of the mesh.
    ExternalName,
    /// The Service wants to be told who its client is, which requests of many clients on one
    /// connection cannot tell.
    ProxyProtocol,
    /// No way leads to the nodes of the backends: neither a direct Link nor one through the hub.
    NoPath,
    /// The ingress wants to be told who calls, and was not.
    Unauthenticated,
    /// No Rule takes the message, or the one that was named is not there.
    NoRule,
    /// The Rule is paused: its `in_use` is false.
    RulePaused,
    /// The Rule waits for one of its Endpoints.
    RuleWaiting,
    /// The Rule can never be served as it is written.
    RuleFault,
    /// The body is larger than the Rule takes.
    BodyTooLarge,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// HTTP status code.
    pub http: u16,
    /// gRPC status code.
    pub grpc: u8,
    /// Label in metrics, access log and `x-edgemesh-refusal`.
    pub label: &'static str,
    /// Who has to act.
    pub culprit: Culprit,
    /// One line that a person understands.
    pub text: &'static str,
}

impl Refusal {
    /// The row of this reason.
    pub const fn row(self) -> Row {
        use Culprit::{Backend, Client, Mesh};
        const fn row(
            http: u16,
            grpc: u8,
            label: &'static str,
            culprit: Culprit,
            text: &'static str,
        ) -> Row {
            Row { http, grpc, label, culprit, text }
        }
        match self {
            Self::NoService => row(404, 5, "noService", Client, "no Service has this name"),
            Self::NoPort => row(404, 5, "noPort", Client, "the Service has no such port"),
            Self::NoBackend => row(503, 14, "noBackend", Backend, "the Service has no backend"),
            Self::NoLocalBackend => {
                row(503, 14, "noLocalBackend", Backend, "the Service has no backend on this node")
            }
            Self::RateLimited { .. } => {
                row(429, 8, "rateLimited", Client, "the rate limit of the Service is spent")
            }
            Self::Unhealthy { .. } => {
                row(503, 14, "unhealthy", Backend, "every backend failed lately and is ejected")
            }
            Self::ConnectFailed => {
                row(503, 14, "connectFailed", Backend, "no backend took the connection")
            }
            Self::ConnectTimeout => {
                row(503, 14, "connectTimeout", Backend, "no backend took the connection in time")
            }
            Self::BackendReset => {
                row(502, 14, "backendReset", Backend, "the backend broke the connection")
            }
            Self::RequestTimeout => {
                row(504, 4, "requestTimeout", Backend, "the backend did not answer in time")
            }
            Self::BackendProtocol => {
                row(502, 13, "backendProtocol", Backend, "the backend speaks another protocol")
            }
            Self::BadRequest => row(400, 3, "badRequest", Client, "the request is malformed"),
            Self::HeadTooLarge => {
                row(431, 3, "headTooLarge", Client, "the head of the request is too large")
            }
            Self::TargetTooLong => {
                row(414, 3, "targetTooLong", Client, "the target of the request is too long")
            }
            Self::Unsupported => {
                let text = "the declared protocol of the Service cannot carry this request";
                row(501, 12, "unsupported", Client, text)
            }
            Self::Loop => {
                row(508, 9, "loop", Client, "the connection would come back to the mesh itself")
            }
            Self::NoRoute => {
                row(404, 12, "noRoute", Client, "no rule of the Routes fits the request")
            }
            Self::RouteFault => {
                row(500, 13, "routeFault", Mesh, "the rule of the Route cannot be served")
            }
            Self::Redirected => row(
                302,
                12,
                "redirected",
                Client,
                "the rule of the Route sends the client elsewhere",
            ),
            Self::Overloaded => row(503, 8, "overloaded", Mesh, "there is no room for more calls"),
            Self::NotAllowed => {
                row(403, 7, "notAllowed", Client, "this caller is not on the allow list")
            }
            Self::IdleTimeout => {
                row(408, 4, "idleTimeout", Client, "nothing was said for too long")
            }
            Self::Draining => row(503, 14, "draining", Mesh, "the mesh is shutting down"),
            Self::NoPath => {
                row(503, 14, "noPath", Mesh, "no Link leads to a node that has a backend")
            }
            Self::Unauthenticated => {
                row(401, 16, "unauthenticated", Client, "the ingress wants a valid token")
            }
            Self::NoRule => row(404, 5, "noRule", Client, "no Rule takes this message"),
            Self::RulePaused => row(503, 14, "rule-paused", Client, "the Rule is paused"),
            Self::RuleWaiting => {
                row(503, 14, "ruleWaiting", Mesh, "the Rule waits for one of its Endpoints")
            }
            Self::RuleFault => {
                row(500, 13, "ruleFault", Mesh, "the Rule cannot be served as it is written")
            }
            Self::BodyTooLarge => {
                row(413, 8, "bodyTooLarge", Client, "the body is larger than the Rule takes")
            }
            Self::ExternalName => row(
                501,
                12,
                "externalName",
                Client,
                "the Service is an ExternalName: call the name that it stands for",
            ),
            Self::ProxyProtocol => row(
                501,
                12,
                "proxyProtocol",
                Client,
                "the Service takes PROXY protocol: call it by its address, or by CONNECT",
            ),
        }
    }

    /// How long to stay away, where that is known.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unhealthy { retry_after } => {
                Some(retry_after)
            }
            Self::NoService
            | Self::NoPort
            | Self::NoBackend
            | Self::NoLocalBackend
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::BackendReset
            | Self::RequestTimeout
            | Self::BackendProtocol
            | Self::BadRequest
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::Unsupported
            | Self::Loop
            | Self::Overloaded
            | Self::Draining
            | Self::NoRoute
            | Self::RouteFault
            | Self::Redirected
            | Self::ExternalName
            | Self::ProxyProtocol
            | Self::NotAllowed
            | Self::IdleTimeout
            | Self::NoPath
            | Self::Unauthenticated
            | Self::NoRule
            | Self::RulePaused
            | Self::RuleWaiting
            | Self::RuleFault
            | Self::BodyTooLarge => None,
        }
    }

    /// Whether another node may still serve what one refused so, before it dialled anybody: then no
    /// byte has reached a backend, and any call may be tried there.
    pub const fn is_of_one_node(self) -> bool {
        match self {
            // Its records may be younger or older than ours.
            Self::NoService | Self::NoPort | Self::NoBackend | Self::NoLocalBackend => true,
            // A limit on the server's side is each node's own.
            Self::RateLimited { .. } | Self::Unhealthy { .. } => true,
            Self::ConnectFailed | Self::ConnectTimeout => true,
            Self::Overloaded | Self::Draining | Self::NoPath => true,
            Self::NoRoute
            | Self::RouteFault
            | Self::Redirected
            | Self::BackendReset
            | Self::RequestTimeout
            | Self::BackendProtocol
            | Self::BadRequest
            | Self::NotAllowed
            | Self::IdleTimeout
            | Self::HeadTooLarge
            | Self::TargetTooLong
            | Self::Unsupported
            | Self::Loop
            | Self::ExternalName
            | Self::ProxyProtocol
            | Self::Unauthenticated
            | Self::NoRule
            | Self::RulePaused
            | Self::RuleWaiting
            | Self::RuleFault
            | Self::BodyTooLarge => false,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.row().text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_label() {
        let wait = Duration::from_secs(1);
        for (i, label) in Refusal::LABELS.into_iter().enumerate() {
            let refusal = Refusal::from_label(label, wait).expect(label);
            assert_eq!((refusal.row().label, refusal.index()), (label, i));
            assert!((300..600).contains(&refusal.row().http), "{refusal:?}");
            assert!((1..=16).contains(&refusal.row().grpc), "{refusal:?}");
            assert!(refusal.retry_after().is_none_or(|said| said == wait), "{refusal:?}");
        }
        assert_eq!(Refusal::from_label("ofTomorrow", wait), None);
    }
}
