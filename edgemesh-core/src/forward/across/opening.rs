//! The first Message of a call to another node, and connections of bytes that it opens.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::time::Duration;

use bytes::Bytes;
use edgemesh_proto::message::{Body, Caller, Connect, MAX_BACKED, Message, Target};
use tokio::time::timeout;
use uuid::Uuid;

use crate::forward::Shared;
use crate::forward::across::{LINK_TRIES, link, refused_for};
use crate::link::{Duplex, Failure, LinkError, Operation, Reply, Writer, pipe};
use crate::plan::Hop;
use crate::refusal::{Culprit, Refusal};
use crate::snapshot::Who;
use crate::tunnel::now_ms;

/// A call of a Backend of another node.
#[derive(Clone, Copy)]
pub(crate) struct Calling<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) hop: &'a Hop,
    /// Who calls; `None` = the embedding application.
    pub(crate) caller: Option<IpAddr>,
    /// Names it in the logs of both nodes.
    pub(crate) message: Uuid,
}

impl Calling<'_> {
    /// The first Message, that says `body` of the Backend; `left` is the time for the answer.
    pub(crate) fn opening(
        &self,
        left: Option<Duration>,
        body: impl FnOnce(Target) -> Body,
    ) -> Message {
        let node = self.hop.backend().node.as_ref().map_or("", |node| &node.0);
        let route = [&*self.shared.node.0, node];
        let body = body(self.target());
        let mut opening = Message::of_link(self.message, now_ms(), route, body);
        // Rounded up: 0 is no bound at all.
        let millis = left.map_or(0, |left| left.as_micros().div_ceil(1000).max(1));
        opening.header.deadline_ms = u64::try_from(millis).unwrap_or(u64::MAX);
        opening
    }

    fn target(&self) -> Target {
        let (hop, shared) = (self.hop, self.shared);
        let service = hop.service();
        let port = service.ports[hop.port()].port;
        Target {
            service: service.name.clone(),
            port: NonZeroU16::new(port).unwrap_or(NonZeroU16::MIN),
            hostname: hop.hostname().map(Into::into),
            backend: Some(hop.address()),
            caller: vouched(self.caller, shared.live.load().callers.who(self.caller)),
        }
    }
}

/// What this node says of a caller.
fn vouched(address: Option<IpAddr>, who: Option<&Who>) -> Caller {
    let Some(who) = who else { return Caller { address, ..Caller::default() } };
    let service = |service: &edgemesh_proto::record::ServiceName| -> Box<str> {
        match who.namespace.as_deref() == Some(&*service.namespace) {
            true => service.name.clone(),
            false => service.to_string().into(),
        }
    };
    Caller {
        address,
        namespace: who.namespace.as_deref().map(Into::into),
        workload: who.workload.as_deref().map(Into::into),
        services: who.services.iter().take(MAX_BACKED).map(service).collect(),
    }
}

/// Why a connection of bytes was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unopened {
    pub(crate) refusal: Refusal,
    /// Something of it may have reached a Backend.
    pub(crate) sent: bool,
    pub(crate) backends_fault: bool,
}

impl Unopened {
    const fn unsent(refusal: Refusal) -> Self {
        Self { refusal, sent: false, backends_fault: false }
    }

    /// What another node refused.
    pub(crate) fn by_peer(refusal: Refusal) -> Self {
        let backends_fault = match refusal {
            // Each caller has a limit of its own, and a Backend that is spared is no worse for it.
            Refusal::Unhealthy { .. } => false,
            refusal => refusal.row().culprit == Culprit::Backend,
        };
        Self { refusal, sent: !refusal.is_of_one_node(), backends_fault }
    }
}

/// Opens a connection of bytes to the Backend of a Hop, within `time`. `early` goes along with the
/// first Message, so that it costs no time of its own. Where a Hop races, the answer comes once the
/// server has spoken, however long that takes.
pub(crate) async fn open_stream(
    calling: Calling<'_>,
    early: &[u8],
    time: Duration,
) -> Result<Duplex, Unopened> {
    let race = calling.hop.is_race();
    let opening = calling.opening(None, |target| Body::Connect(Connect { target, race }));
    let mut tries = 0;
    loop {
        let link = link(calling.shared, calling.hop, time).await.map_err(Unopened::unsent)?;
        let (writer, rest) = pipe();
        if !early.is_empty() {
            writer.send(Bytes::copy_from_slice(early));
        }
        // The agent there takes its time to connect, and says itself that it took too long.
        let within = if race { Duration::MAX } else { time.saturating_mul(2) };
        let opened = timeout(within, link.open(Operation::Stream, &opening, rest)).await;
        tries += 1;
        match opened {
            Ok(Ok(reply)) => return accepted(calling, reply, writer),
            Ok(Err(error)) if error.kind() == Failure::NotSent && tries < LINK_TRIES => {}
            Ok(Err(error)) => return Err(unopened(&error, early)),
            Err(_) => {
                let (sent, backends_fault) = (!early.is_empty(), true);
                return Err(Unopened { refusal: Refusal::ConnectTimeout, sent, backends_fault });
            }
        }
    }
}

fn accepted(
    Calling { shared, hop, .. }: Calling<'_>,
    Reply { opening, body }: Reply,
    writer: Writer,
) -> Result<Duplex, Unopened> {
    match opening.body.as_deref() {
        Some(Body::Accepted(_)) => Ok(Duplex::new(writer, body)),
        Some(Body::Refused(why)) => Err(Unopened::by_peer(refused_for(shared, hop, why))),
        _ => {
            tracing::debug!(operation = opening.route.operation, "no answer to a Connect");
            Err(Unopened { sent: true, ..Unopened::unsent(Refusal::BackendProtocol) })
        }
    }
}

fn unopened(error: &LinkError, early: &[u8]) -> Unopened {
    tracing::debug!("no connection over a Link: {error}");
    let refusal = match error.kind() {
        Failure::NotSent => return Unopened::unsent(Refusal::NoPath),
        Failure::Protocol => Refusal::BackendProtocol,
        Failure::TimedOut => Refusal::ConnectTimeout,
        Failure::Cancelled | Failure::Broken => Refusal::BackendReset,
    };
    Unopened { refusal, sent: !early.is_empty(), backends_fault: false }
}

#[cfg(test)]
mod tests {
    use edgemesh_proto::record::ServiceName;

    use super::*;

    #[test]
    fn callers_are_vouched_for() {
        let address: IpAddr = [10, 2, 0, 1].into();
        let caller = vouched(Some(address), None);
        assert_eq!(caller, Caller { address: Some(address), ..Caller::default() });
        let who = Who {
            namespace: Some("shop".into()),
            workload: Some("shop/web".into()),
            services: vec![ServiceName::new("shop", "web"), ServiceName::new("lab", "db")],
            ..Who::default()
        };
        let caller = vouched(None, Some(&who));
        assert_eq!((caller.address, caller.namespace.as_deref()), (None, Some("shop")));
        assert_eq!(caller.services, ["web".into(), Box::from("lab/db")]);
    }

    #[test]
    fn whose_fault_a_refusal_of_a_peer_is() {
        let wait = Duration::from_secs(1);
        for (refusal, sent, backends_fault) in [
            (Refusal::NoLocalBackend, false, true),
            (Refusal::ConnectFailed, false, true),
            (Refusal::RateLimited { retry_after: wait }, false, false),
            (Refusal::Unhealthy { retry_after: wait }, false, false),
            (Refusal::Draining, false, false),
            (Refusal::NoPath, false, false),
            (Refusal::NotAllowed, true, false),
            (Refusal::BackendReset, true, true),
        ] {
            assert_eq!(Unopened::by_peer(refusal), Unopened { refusal, sent, backends_fault });
        }
    }
}
