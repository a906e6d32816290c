//! What another node says of a call that it passes on.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use edgemesh_proto::message::{Header, Message, Target as Meant};
use edgemesh_proto::record::{NodeName, ServiceName};

use crate::plan::{Arrival, Destination, Purpose, Target, Vouched};
use crate::snapshot::Who;

/// A call that another node passes on: whom it means, and who calls.
#[derive(Debug)]
pub struct Passed {
    target: Meant,
    from: Vouched,
    /// Names it in the logs of both nodes.
    message: Box<str>,
    /// Time for the answer, from its arrival on; `None` = no bound.
    left: Option<Duration>,
    came: Instant,
}

impl Passed {
    /// What `opening` says that came at `now`. The node in its route is the one that vouches: that
    /// of the peer, or the one that the hub names.
    pub fn new(opening: &Message, target: Meant, now: Instant) -> Self {
        let node = NodeName(opening.route.source.as_str().into());
        let namespace = target.caller.namespace.as_deref();
        let service = |said: &str| match (said.split_once('/'), namespace) {
            (Some((namespace, name)), _) => Some(ServiceName::new(namespace, name)),
            (None, Some(namespace)) => Some(ServiceName::new(namespace, said)),
            (None, None) => None,
        };
        let who = Who {
            namespace: namespace.map(Into::into),
            workload: target.caller.workload.as_deref().map(Into::into),
            node: Some(node.clone()),
            services: target.caller.services.iter().filter_map(|said| service(said)).collect(),
        };
        let Header { id, deadline_ms, .. } = &opening.header;
        let left = (*deadline_ms > 0).then(|| Duration::from_millis(*deadline_ms));
        let message = id.as_str().into();
        Self { target, from: Vouched { node, who }, message, left, came: now }
    }

    /// Where it goes.
    pub fn destination<'a>(&'a self, purpose: Purpose<'a>) -> Destination<'a> {
        Destination {
            caller: self.caller(),
            from: Some(&self.from),
            wish: self.target.backend,
            ..Destination::new(self.to(), Arrival::Link, purpose)
        }
    }

    /// Who calls, for [`confirm`](crate::plan::confirm).
    pub const fn calling(&self) -> (Option<IpAddr>, Option<&Vouched>) {
        (self.caller(), Some(&self.from))
    }

    /// The Service that is meant.
    pub fn to(&self) -> Target<'_> {
        meant(&self.target)
    }

    /// Address of whoever calls; `None` = the application that embeds the mesh there.
    pub const fn caller(&self) -> Option<IpAddr> {
        self.target.caller.address
    }

    /// The same, for whoever wants one with a port.
    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(self.caller().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), 0)
    }

    /// The node that passes it on.
    pub const fn node(&self) -> &NodeName {
        &self.from.node
    }

    /// Names it in the logs of both nodes.
    pub const fn message(&self) -> &str {
        &self.message
    }

    /// Time for the answer, from `began` on.
    pub fn left(&self, began: Instant) -> Option<Duration> {
        Some(self.left?.saturating_sub(began.saturating_duration_since(self.came)))
    }
}

/// The Service that another node means.
pub fn meant(Meant { service, port, hostname, .. }: &Meant) -> Target<'_> {
    Target::Service { service, port: port.get(), hostname: hostname.as_deref() }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use edgemesh_proto::message::{Body, Caller, Connect};
    use uuid::Uuid;

    use super::*;
    use crate::io::now;

    #[test]
    fn what_a_message_says() {
        let caller = Caller {
            address: Some([10, 2, 0, 1].into()),
            namespace: Some("shop".into()),
            workload: None,
            services: vec!["web".into(), "lab/db".into()],
        };
        let target = Meant {
            service: ServiceName::new("default", "api"),
            port: NonZeroU16::MIN,
            hostname: Some("h1".into()),
            backend: None,
            caller,
        };
        let body = Body::Connect(Connect { target: target.clone(), race: false });
        let mut opening = Message::of_link(Uuid::nil(), 0, ["edge-2", "edge-1"], body);
        opening.header.deadline_ms = 1500;
        let came = now();
        let passed = Passed::new(&opening, target, came);
        assert_eq!((&*passed.node().0, passed.message().len()), ("edge-2", 36));
        assert_eq!(passed.from.who.node.as_ref(), Some(passed.node()));
        let services: Vec<_> = passed.from.who.services.iter().map(ToString::to_string).collect();
        assert_eq!(services, ["shop/web", "lab/db"]);
        let after = came + Duration::from_millis(600);
        assert_eq!(passed.left(after), Some(Duration::from_millis(900)));
        assert_eq!(passed.left(came + Duration::from_secs(9)), Some(Duration::ZERO));
        let Target::Service { hostname, .. } = passed.to() else { panic!("a Service is meant") };
        assert_eq!((hostname, passed.caller()), (Some("h1"), Some([10, 2, 0, 1].into())));
    }
}
