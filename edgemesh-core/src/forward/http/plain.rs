//! Requests of HTTP/1.1 that are only to be passed on: read, decided, sent and answered in one task,
//! over sockets without anybody between them and us.
//!
//! What a request is sent as is written down while it is read, and so is its answer, so that no table
//! of fields is made. To another node a request goes in one Message ([`across`]), and of one that comes
//! in a Message the same is made here ([`passed`]). Whatever takes more than that — Routes, Rules, gRPC,
//! upgrades, chunked requests, long bodies for another node, mistakes — is left to hyper with all that
//! was read of it, and what follows on its connection with it. The account of a call, its decision and its outcome are those of
//! [`Call`] in either case.

mod across;
mod alarm;
mod answered;
mod asked;
mod asking;
mod chunks;
mod client;
mod delivery;
mod fields;
mod passed;
mod passing;
mod upload;
mod wire;

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use edgemesh_proto::record::HashKey;
use http::HeaderMap;
use tokio::net::TcpStream;
use tokio_util::sync::WaitForCancellationFuture;

use crate::forward::http::call::{Call, Unserved};
use crate::forward::http::ending::Ending;
use crate::forward::http::plain::alarm::Alarm;
use crate::forward::http::plain::asked::{Asked, Said};
use crate::forward::http::plain::asking::{Unanswered, ask};
use crate::forward::http::plain::delivery::deliver;
use crate::forward::http::plain::fields::spelled;
use crate::forward::http::plain::upload::Upload;
use crate::forward::http::serve::{Begun, HEAD_TIMEOUT as IDLE, turn_of};
use crate::forward::http::upstream::HEAD_TIMEOUT;
use crate::forward::http::{Origin, Turn, Version};
use crate::io::{Prefixed, now};
use crate::plan::{Head, Purpose, Target, resolve};
use crate::snapshot::{Found, Snapshot};
use crate::sniff::Declared;

pub(super) use passed::Stream;
pub use passed::{Chosen, PlainRequest};
pub(super) use wire::Wire;

/// Serves the plain requests of a connection to `to`, of which `prefix` was read. Gives it back when
/// something else comes, with what was read of that.
pub(super) async fn converse(
    origin: &Arc<Origin>,
    to: SocketAddr,
    stream: TcpStream,
    prefix: Vec<u8>,
) -> Option<Prefixed<TcpStream>> {
    let turn = turn_of(origin, Version::Http1);
    turn.heard(&prefix);
    let caller = origin.caller().map(|caller| caller.to_string()).unwrap_or_default();
    // Before the connection, so that it is dropped after it.
    let begun = Begun::new(origin.clone(), Version::Http1, turn.clone());
    let mut stopped = pin!(origin.shared.stop.cancelled());
    let (client, alarm) = (Wire::client(stream, prefix), Alarm::new());
    let mut ours = Conversation { origin, to, turn, caller, client, alarm, known: None };
    loop {
        let asked = loop {
            match ours.said() {
                Said::Plain(asked) => break asked,
                Said::Other => return Some(ours.leave()),
                Said::Part => {}
            }
            match ours.hear(stopped.as_mut()).await {
                Heard::More => {}
                Heard::Stop if ours.client.unread.is_empty() => return None,
                Heard::Stop => return Some(ours.leave()),
                Heard::Late => {
                    begun.late();
                    return None;
                }
                Heard::End => return None,
            }
        };
        let Some(goes_on) = ours.exchange(&asked).await else { return Some(ours.leave()) };
        if !goes_on {
            return None;
        }
        ours.turn.answered(!ours.client.unread.is_empty());
        ours.alarm.set(now(), IDLE);
    }
}

/// A client's connection.
struct Conversation<'o> {
    origin: &'o Arc<Origin>,
    to: SocketAddr,
    turn: Arc<Turn>,
    /// Who calls, as its Backends are told.
    caller: String,
    client: Wire,
    alarm: Alarm,
    /// How the requests of the Service go, by the Snapshot of that number.
    known: Option<(u64, Plainness)>,
}

/// What came while nothing was under way.
enum Heard {
    /// Something.
    More,
    /// The client's end.
    End,
    /// The mesh's.
    Stop,
    /// Nothing, for as long as may be.
    Late,
}

impl Conversation<'_> {
    fn said(&self) -> Said {
        match self.client.unread.is_empty() {
            true => Said::Part,
            false => asked::read(&self.client.unread, &self.caller),
        }
    }

    /// Leaves the connection to others: what was read is read again.
    fn leave(self) -> Prefixed<TcpStream> {
        self.turn.answered(false);
        self.client.into_prefixed()
    }

    async fn hear(&mut self, mut stopped: Pin<&mut WaitForCancellationFuture<'_>>) -> Heard {
        let before = self.client.unread.len();
        let heard = poll_fn(|cx| match self.client.poll_read(cx) {
            Poll::Ready(Ok(read)) if read > 0 => Poll::Ready(Heard::More),
            Poll::Ready(Ok(_) | Err(_)) => Poll::Ready(Heard::End),
            Poll::Pending if stopped.as_mut().poll(cx).is_ready() => Poll::Ready(Heard::Stop),
            Poll::Pending => self.alarm.poll(cx).map(|()| Heard::Late),
        })
        .await;
        self.turn.heard(&self.client.unread[before.min(self.client.unread.len())..]);
        heard
    }

    /// Answers one request; whether another may follow. `None` = it is not plain, and nothing was done.
    async fn exchange(&mut self, asked: &Asked) -> Option<bool> {
        let begun = self.begin(asked)?;
        self.turn.busy();
        self.client.used(asked.came);
        let mut ending = match begun {
            Ok(ending) => ending,
            Err(unserved) => return Some(self.refuse(&unserved, asked).await),
        };
        self.alarm.set(ending.call.began, HEAD_TIMEOUT);
        let uploaded = ending.call.uploaded.clone();
        let mut upload = Upload::new(&mut self.client, asked.later, uploaded);
        match ask(&mut ending, asked, &mut upload, &mut self.alarm).await {
            Ok((upstream, answered)) => {
                let closes = asked.closes || self.origin.shared.stop.is_cancelled();
                Some(deliver(upload, ending, upstream, answered, closes).await && !closes)
            }
            Err(Unanswered::Gone) => Some(false),
            Err(Unanswered::Refused { refusal, backends_fault }) => {
                let unserved = ending.unanswered(refusal, backends_fault);
                Some(self.refuse(&unserved, asked).await)
            }
        }
    }

    /// Decides where a request goes. `None` = that takes more than this.
    fn begin(&mut self, asked: &Asked) -> Option<Result<Box<Ending>, Unserved>> {
        let snapshot = self.origin.shared.live.load();
        let known = self.known.filter(|(serial, _)| *serial == snapshot.serial);
        let (_, plainness) = known.unwrap_or_else(|| {
            let found = resolve(&snapshot, Target::Address(self.to));
            let of = |found| Plainness::of(&snapshot, found, Some(self.to.ip()));
            (snapshot.serial, found.map_or(Plainness::Not, of))
        });
        self.known = Some((snapshot.serial, plainness));
        match plainness {
            Plainness::Dialled => {}
            Plainness::Linked if asked.later == 0 => {}
            Plainness::Linked | Plainness::Not => return None,
        }
        let mut call = Call::plain(self.origin.clone(), &asked.named, asked.body);
        // What is plain goes by no field.
        let planned = call.plan_by(&snapshot, Purpose::Call, asked.head(&HeaderMap::new()));
        Some(match planned {
            Ok(hop) => Ok(Ending::plain(call, hop)),
            Err(refusal) => Err(call.refused(refusal)),
        })
    }

    /// Says why a request is not served; whether another may follow.
    async fn refuse(&mut self, why: &Unserved, asked: &Asked) -> bool {
        let closes = asked.closes || asked.later > 0 || self.origin.shared.stop.is_cancelled();
        let (said, mut sent) = (spelled(&why.answer(), asked.is_head(), closes), 0);
        let written = poll_fn(|cx| self.client.poll_write(cx, &said, &mut sent)).await.is_ok();
        if written && asked.later > 0 {
            self.client.linger().await;
        }
        written && !closes
    }
}

impl Asked {
    /// What of it a decision may want to know.
    fn head<'h>(&'h self, headers: &'h HeaderMap) -> Head<'h> {
        Head { method: &self.named.method, uri: &self.named.uri, headers }
    }
}

/// How requests of a Service port go, whatever their fields say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plainness {
    /// On to a Backend that this node dials, and nothing else is to be done about them.
    Dialled,
    /// On to a Backend that this node dials, or to the agent of its node.
    Linked,
    /// More is due.
    Not,
}

impl Plainness {
    /// `like`: an address of the family that the client has dialled.
    fn of(snapshot: &Snapshot, found: Found<'_>, like: Option<IpAddr>) -> Self {
        let (policy, port) = (&found.service.policy, found.port());
        let retries = policy.retries;
        let keeps_requests = retries.attempts > 0 && (retries.on_reset || retries.on_503);
        let plain = matches!(port.declared, Declared::Http | Declared::Unknown)
            && port.routes.is_none()
            && !snapshot.rules.may_take(&found.service.name)
            && policy.request_timeout.is_none()
            && matches!(policy.hash_key, HashKey::SourceIp)
            && !keeps_requests;
        match plain {
            false => Self::Not,
            true if found.pool(like.map(|ip| ip.to_canonical())).is_linked => Self::Linked,
            true => Self::Dialled,
        }
    }
}
