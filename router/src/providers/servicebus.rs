//! Endpoint type `servicebus` as a source: applications of a node POST `{"method","targetURL","payload"}` to a
//! port of its loopback address, as in KubeEdge.
//!
//! Who listens there is decided by the Snapshot: nobody, unless a Rule begins so on this node; and each
//! call by the one in force, so that a Rule that is gone takes nothing more. Of KubeEdge's answers this
//! keeps the form and the words, and puts right what it loses: the method, the payload, the status.

mod call;
mod guard;
mod reply;

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edgemesh_core::listen::{Accepted, Listener};
use edgemesh_core::snapshot::Snapshot;
use edgemesh_core::snapshot::rules::{Rule, Source, rank};
use edgemesh_proto::record::NodeName;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::providers::servicebus::call::{Call, Refused};
use crate::providers::servicebus::guard::is_from_here;
use crate::providers::servicebus::reply::Reply;
use crate::providers::whole::{Unread, whole};
use crate::providers::{Failure, Here};

/// Where KubeEdge's applications look for it.
pub const USUAL_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9060);

/// Largest request, in bytes: KubeEdge's bound.
const MAX_REQUEST: usize = 5_000_000;
/// Longest time for the head of a request, and for its body.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
const BODY_WITHIN: Duration = Duration::from_secs(60);
/// Longest time for an answer to come to its end, where the Rule has none; Rules of this source do.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Longest time in which a client takes nothing of its answer: its place is another's then.
const TAKEN_WITHIN: Duration = Duration::from_secs(60);
/// Connections at once. More wait to be accepted.
const CONNECTIONS: usize = 256;
/// A port that is in use is tried again.
const BIND_AGAIN: Duration = Duration::from_secs(1);

/// Serves the applications of this node at `address`, whenever a Rule begins with them.
pub fn serve(here: Here, address: SocketAddr, tasks: &TaskTracker, stop: CancellationToken) {
    let bus = ServiceBus { here, address, tasks: tasks.clone() };
    tasks.spawn(stop.run_until_cancelled_owned(bus.run()));
}

#[derive(Clone, Debug)]
struct ServiceBus {
    here: Here,
    address: SocketAddr,
    tasks: TaskTracker,
}

impl ServiceBus {
    async fn run(mut self) {
        while self.wait_until(true).await {
            let Some(listener) = self.listener().await else { continue };
            tracing::info!(address = %self.address, "the ServiceBus listens");
            let closed = CancellationToken::new();
            let _close = closed.clone().drop_guard();
            let accepting = self.clone();
            tokio::select! {
                () = accepting.accept(&listener, &closed) => {}
                _ = self.wait_until(false) => {
                    tracing::info!(address = %self.address, "the ServiceBus is closed: no Rule begins there");
                }
            }
        }
    }

    /// Waits until there are Rules, or none; `false` when that will never be told.
    async fn wait_until(&mut self, wanted: bool) -> bool {
        loop {
            self.here.changed.mark_unchanged();
            if beginning_on(&self.here.node, &self.here.live.load()).next().is_some() == wanted {
                return true;
            }
            if self.here.changed.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Listens; `None` where no Rule wants that any more.
    async fn listener(&mut self) -> Option<Listener> {
        let mut said = false;
        loop {
            match Listener::bind(self.address) {
                Ok(listener) => return Some(listener),
                Err(error) if !said => {
                    said = true;
                    let source = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(%error, source, "no ServiceBus; trying again");
                }
                Err(_) => {}
            }
            tokio::select! {
                _ = self.wait_until(false) => return None,
                () = sleep(BIND_AGAIN) => {}
            }
        }
    }

    async fn accept(&self, listener: &Listener, closed: &CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else { return };
            let (Accepted::Served(stream, _) | Accepted::NoFiles(stream, _)) =
                listener.accept(|| {}).await;
            let (bus, closed) = (self.clone(), closed.clone());
            self.tasks.spawn(async move {
                bus.connection(stream, closed).await;
                drop(place);
            });
        }
    }

    /// Serves one connection. What is under way when the port closes is still answered.
    async fn connection(self, stream: TcpStream, closed: CancellationToken) {
        let service = service_fn(move |request| {
            let bus = self.clone();
            async move { Ok::<_, Infallible>(bus.request(request).await) }
        });
        give_up_after(TAKEN_WITHIN, &stream);
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
        let serving = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(serving);
        tokio::select! {
            // A client that leaves is nobody's fault.
            _ = serving.as_mut() => return,
            () = closed.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        serving.await.ok();
    }

    async fn request(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if !is_from_here(request.headers(), self.address) {
            return Reply::forbidden();
        }
        let reply = match self.answer(request.into_body()).await {
            Ok(reply) => reply,
            Err(refused) => Reply::refused(&refused),
        };
        reply.into_response()
    }

    async fn answer(&self, body: Incoming) -> Result<Reply, Refused> {
        let read = timeout(BODY_WITHIN, whole(body, MAX_REQUEST)).await;
        let read = read.map_err(|_| Refused::TooSlow)?.map_err(|unread| match unread {
            Unread::TooLarge => Refused::TooLarge,
            Unread::Broken(_) => Refused::Invalid,
        })?;
        let call = Call::parse(&read)?;
        let rule = rule(&self.here.node, &self.here.live.load(), &call.target_url);
        let rule = rule.ok_or(Refused::NotAllowed(call.target_url))?;
        let sent = self.here.deliver.send(rule.name.clone(), call.request);
        Ok(match sent.await {
            Ok(answer) => Reply::of(answer, rule.timeout.unwrap_or(ANSWER_WITHIN)).await,
            Err(Failure { refusal, reason }) => Reply::failed(refusal, &reason),
        })
    }
}

/// Has the system break a connection whose other side takes nothing of what is written for so long.
fn give_up_after(silence: Duration, stream: &TcpStream) {
    // Where the system cannot, a client holds its place, which others wait for.
    SockRef::from(stream).set_tcp_user_timeout(Some(silence)).ok();
}

/// Rules that begin with applications of `node`. One that waits or is faulty says so when it is called.
fn beginning_on<'s>(
    node: &NodeName,
    snapshot: &'s Snapshot,
) -> impl Iterator<Item = (&'s Arc<Rule>, &'s str)> {
    snapshot.rules.all().filter_map(move |rule| match &rule.source {
        Some(Source::ServiceBus { url, .. }) if rule.is_heard_on(node) => Some((rule, &**url)),
        Some(
            Source::ServiceBus { .. }
            | Source::EventBus { .. }
            | Source::Rest { .. }
            | Source::Service { .. },
        )
        | None => None,
    })
}

/// The Rule that takes calls for `url`: one of this node before one of each, then as [`rank`] says.
fn rule(node: &NodeName, snapshot: &Snapshot, url: &str) -> Option<Arc<Rule>> {
    let is_of_each =
        |rule: &Rule| matches!(&rule.source, Some(Source::ServiceBus { node: None, .. }));
    let fits = beginning_on(node, snapshot).filter(|(_, of)| *of == url).map(|(rule, _)| rule);
    let order = |one: &Rule, other: &Rule| {
        is_of_each(one).cmp(&is_of_each(other)).then_with(|| rank(one, other))
    };
    fits.min_by(|one, other| order(one, other)).cloned()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// A client that reads now and then keeps its connection, one that does not loses it.
    #[tokio::test]
    async fn who_takes_nothing_is_given_up() {
        let silence = Duration::from_secs(1);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let (client, served) = tokio::join!(TcpStream::connect(at), listener.accept());
        let (mut client, (mut served, _)) = (client.unwrap(), served.unwrap());
        give_up_after(silence, &served);
        // There is no end to what is written: how much the system takes for the client is its own
        // affair, and grows while the client reads.
        let much = vec![b'x'; 1 << 20];
        let mut writing = Box::pin(async move {
            loop {
                if let Err(error) = served.write_all(&much).await {
                    return error;
                }
            }
        });
        let mut some = vec![0; 1 << 20];
        for _ in 0..6 {
            let waited = timeout(silence / 2, &mut writing).await;
            assert!(waited.is_err(), "who reads keeps its connection: {waited:?}");
            client.read_exact(&mut some).await.unwrap();
        }
        let broken = timeout(Duration::from_secs(20), writing).await.expect("it is given up");
        assert_eq!(broken.kind(), std::io::ErrorKind::TimedOut);
    }
}
