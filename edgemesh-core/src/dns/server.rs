//! Serves DNS on sockets: decides at once what can be decided, lets the rest wait for upstreams.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::dns::alias;
use crate::dns::answer::{Domain, Outcome, QUERY_MAX, answer};
use crate::dns::bind::Sockets;
use crate::dns::cache::Cache;
use crate::dns::names::Names;
use crate::dns::reply::{self, Code, Transport};
use crate::dns::tcp;
use crate::dns::upstream::{Answer, Forwarder};
use crate::dns::wire;

/// Most queries that wait for upstreams at a time; past it, SERVFAIL at once. At a second each,
/// that is as many lost queries a second as a host without uplink makes.
pub const WAITING_MAX: usize = 256;
/// Pause after a socket error, which may be about memory or descriptors: retrying at once would spin.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// What the name server has done since it started; for metrics.
#[derive(Debug, Default)]
pub struct Counters {
    /// Mesh names answered with authority, NXDOMAIN included.
    pub answered: AtomicU64,
    /// Queries that an upstream answered.
    pub forwarded: AtomicU64,
    /// Queries answered from the cache, expired answers included.
    pub cached: AtomicU64,
    /// Queries that no upstream answered: SERVFAIL.
    pub failed: AtomicU64,
    /// What we would not take: unreadable, unsupported, over a bound.
    pub refused: AtomicU64,
}

pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The name server. Its sockets, tasks and stop signal belong to the caller.
pub struct Server {
    domain: Domain,
    names: Arc<dyn Names>,
    forwarder: Forwarder,
    cache: Mutex<Cache>,
    waiting: Arc<Semaphore>,
    counters: Arc<Counters>,
}

/// What is to be done about a message.
pub(super) enum Step {
    /// Send this.
    Reply(Vec<u8>),
    /// Call [`Server::wait`] with it.
    Wait(Waiting),
    /// Nothing.
    Drop,
}

/// A query that has to be asked upstream, with its place among the bounded number of those.
pub(super) struct Waiting {
    bytes: Vec<u8>,
    transport: Transport,
    /// The name outside that the asked one stands for.
    alias: Option<Box<str>>,
    _place: OwnedSemaphorePermit,
}

impl Server {
    /// Answers names of `names` under `domain`, and asks `forwarder` for the rest.
    pub fn new(domain: Domain, names: Arc<dyn Names>, forwarder: Forwarder) -> Arc<Self> {
        Arc::new(Self {
            domain,
            names,
            forwarder,
            cache: Mutex::default(),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            counters: Arc::default(),
        })
    }

    /// The counters, which stay valid after the server is gone.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Serves one address by tasks on `tasks`, until `stop`. May be called for several addresses.
    pub fn serve(
        self: &Arc<Self>,
        sockets: Sockets,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let Sockets { udp, tcp } = sockets;
        let datagrams = Arc::clone(self).datagrams(Arc::new(udp), tasks.clone(), stop.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(datagrams));
        let connections = tcp::accept(Arc::clone(self), tcp, tasks.clone(), stop.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(connections));
    }

    async fn datagrams(
        self: Arc<Self>,
        socket: Arc<UdpSocket>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) {
        // One octet more than allowed: a longer query is then seen to be too long.
        let mut buffer = vec![0; QUERY_MAX + 1];
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    warn!(%error, "cannot receive DNS queries");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match self.step(&buffer[..length], Transport::Udp) {
                Step::Reply(reply) => send(&socket, &reply, client).await,
                Step::Drop => {}
                Step::Wait(waiting) => {
                    let (server, socket) = (Arc::clone(&self), Arc::clone(&socket));
                    let work = async move {
                        let reply = server.wait(waiting).await;
                        send(&socket, &reply, client).await;
                    };
                    tasks.spawn(stop.clone().run_until_cancelled_owned(work));
                }
            }
        }
    }

    /// Decides about a message as far as that goes without waiting.
    pub(super) fn step(&self, bytes: &[u8], transport: Transport) -> Step {
        let refused = |reply| {
            count(&self.counters.refused);
            Step::Reply(reply)
        };
        let (query, alias) = match answer(bytes, transport, &*self.names, &self.domain) {
            Outcome::Reply(reply) => {
                count(&self.counters.answered);
                return Step::Reply(reply);
            }
            Outcome::Refuse(reply) => return refused(reply),
            Outcome::Drop => {
                count(&self.counters.refused);
                return Step::Drop;
            }
            Outcome::Forward(query) => (query, None),
            Outcome::Alias(query, name) => (query, Some(name)),
        };
        if let Some(reply) = self.remembered(&query, alias.as_deref(), transport) {
            count(&self.counters.cached);
            return Step::Reply(reply);
        }
        match Arc::clone(&self.waiting).try_acquire_owned() {
            Ok(_place) => Step::Wait(Waiting { bytes: bytes.to_vec(), transport, alias, _place }),
            Err(_) => refused(reply::refusal(&query, Code::ServFail)),
        }
    }

    /// Asks the upstreams; else memory, however old within bounds; else SERVFAIL. Takes at most
    /// [`BUDGET`](crate::dns::upstream::BUDGET).
    pub(super) async fn wait(&self, waiting: Waiting) -> Vec<u8> {
        let Waiting { bytes, transport, alias, _place } = waiting;
        // Read for the second time, since the first reading borrowed from the socket's buffer.
        let Ok(query) = wire::query(&bytes) else { return Vec::new() };
        let Some(name) = alias else { return self.ask(&query, transport).await };
        let Some(asked) = alias::question(&query, &name) else {
            return reply::refusal(&query, Code::ServFail);
        };
        let Ok(outside) = wire::query(&asked) else { return Vec::new() };
        let said = self.ask_whole(&outside).await;
        alias::reply(&query, &name, &said, transport)
    }

    /// As [`Server::ask`], and by TCP where the answer is too long for a datagram.
    async fn ask_whole(&self, query: &wire::Query<'_>) -> Vec<u8> {
        let said = self.ask(query, Transport::Udp).await;
        match wire::u16_at(&said, 2).unwrap_or_default() & wire::flag::TC {
            0 => said,
            _ => self.ask(query, Transport::Tcp).await,
        }
    }

    /// What is remembered of a query, or of the name outside that it is really about.
    fn remembered(
        &self,
        query: &wire::Query<'_>,
        alias: Option<&str>,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let Some(name) = alias else {
            let reply = self.cache.lock().fresh(query, now())?;
            return Some(reply::fit(reply, query, transport));
        };
        let asked = alias::question(query, name)?;
        let said = self.cache.lock().fresh(&wire::query(&asked).ok()?, now())?;
        Some(alias::reply(query, name, &said, transport))
    }

    async fn ask(&self, query: &wire::Query<'_>, transport: Transport) -> Vec<u8> {
        let answer = self.forwarder.ask(query, transport).await;
        let settled = answer.as_ref().is_some_and(Answer::settled);
        let reply = match answer {
            Some(answer) if settled => {
                self.cache.lock().store(query, &answer.bytes, &answer.records, now());
                count(&self.counters.forwarded);
                answer.bytes
            }
            unsettled => match (self.cache.lock().stale(query, now()), unsettled) {
                (Some(old), _) => {
                    count(&self.counters.cached);
                    old
                }
                (None, Some(answer)) => {
                    count(&self.counters.forwarded);
                    answer.bytes
                }
                (None, None) => {
                    count(&self.counters.failed);
                    reply::refusal(query, Code::ServFail)
                }
            },
        };
        reply::fit(reply, query, transport)
    }
}

pub(super) fn counters(server: &Server) -> &Counters {
    &server.counters
}

/// The moment, by the runtime's clock, which tests can pause.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Replies from the address that was asked: the socket is bound to it.
async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    match socket.send_to(reply, client).await {
        Ok(_) => {}
        // The client is gone, or its address cannot be reached any more: its own affair.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        Err(error) => tracing::debug!(%client, %error, "cannot send a DNS reply"),
    }
}

#[cfg(test)]
mod tests;
