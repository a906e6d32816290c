//! Refusals by label: how metrics count them, and how they come back over a Link.

use std::time::Duration;

use crate::refusal::Refusal;

impl Refusal {
    /// Every label, in the order of [`Refusal::index`].
    pub const LABELS: [&'static str; 32] = [
        "noService",
        "noPort",
        "noBackend",
        "noLocalBackend",
        "rateLimited",
        "unhealthy",
        "connectFailed",
        "connectTimeout",
        "backendReset",
        "requestTimeout",
        "backendProtocol",
        "badRequest",
        "headTooLarge",
        "targetTooLong",
        "unsupported",
        "loop",
        "overloaded",
        "draining",
        "noRoute",
        "routeFault",
        "redirected",
        "externalName",
        "proxyProtocol",
        "notAllowed",
        "idleTimeout",
        "noPath",
        "unauthenticated",
        "noRule",
        "rule-paused",
        "ruleWaiting",
        "ruleFault",
        "bodyTooLarge",
    ];

    /// Index into per-reason tables.
    pub const fn index(self) -> usize {
        match self {
            Self::NoService => 0,
            Self::NoPort => 1,
            Self::NoBackend => 2,
            Self::NoLocalBackend => 3,
            Self::RateLimited { .. } => 4,
            Self::Unhealthy { .. } => 5,
            Self::ConnectFailed => 6,
            Self::ConnectTimeout => 7,
            Self::BackendReset => 8,
            Self::RequestTimeout => 9,
            Self::BackendProtocol => 10,
            Self::BadRequest => 11,
            Self::HeadTooLarge => 12,
            Self::TargetTooLong => 13,
            Self::Unsupported => 14,
            Self::Loop => 15,
            Self::Overloaded => 16,
            Self::Draining => 17,
            Self::NoRoute => 18,
            Self::RouteFault => 19,
            Self::Redirected => 20,
            Self::ExternalName => 21,
            Self::ProxyProtocol => 22,
            Self::NotAllowed => 23,
            Self::IdleTimeout => 24,
            Self::NoPath => 25,
            Self::Unauthenticated => 26,
            Self::NoRule => 27,
            Self::RulePaused => 28,
            Self::RuleWaiting => 29,
            Self::RuleFault => 30,
            Self::BodyTooLarge => 31,
        }
    }

    /// The reason of that label, as it comes back over a Link. `None` = a newer version's.
    pub fn from_label(label: &str, retry_after: Duration) -> Option<Self> {
        let all = [
            Self::NoService,
            Self::NoPort,
            Self::NoBackend,
            Self::NoLocalBackend,
            Self::RateLimited { retry_after },
            Self::Unhealthy { retry_after },
            Self::ConnectFailed,
            Self::ConnectTimeout,
            Self::BackendReset,
            Self::RequestTimeout,
            Self::BackendProtocol,
            Self::BadRequest,
            Self::HeadTooLarge,
            Self::TargetTooLong,
            Self::Unsupported,
            Self::Loop,
            Self::Overloaded,
            Self::Draining,
            Self::NoRoute,
            Self::RouteFault,
            Self::Redirected,
            Self::ExternalName,
            Self::ProxyProtocol,
            Self::NotAllowed,
            Self::IdleTimeout,
            Self::NoPath,
            Self::Unauthenticated,
            Self::NoRule,
            Self::RulePaused,
            Self::RuleWaiting,
            Self::RuleFault,
            Self::BodyTooLarge,
        ];
        let index = Self::LABELS.iter().position(|known| *known == label)?;
        all.into_iter().find(|refusal| refusal.index() == index)
    }
}
