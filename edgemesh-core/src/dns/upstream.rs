//! Asks the upstreams: a fresh socket and id per try, UDP first, TCP for what is long.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use uuid::Uuid;

use crate::dns::reply::{self, Transport, UDP_MAX};
use crate::dns::resolv::Upstreams;
use crate::dns::wire::{self, Query, Record, flag, put_u16};

/// How long one upstream may take before the next is asked.
pub const TRY: Duration = Duration::from_millis(400);
/// How long a client waits at most, over all tries: SERVFAIL within a second.
pub const BUDGET: Duration = Duration::from_millis(900);
/// Most tries for one query. A lone upstream is asked again: datagrams get lost.
pub const TRIES: usize = 3;
/// Datagrams looked at per try. Whoever guesses ids gets this many guesses, and a flood of wrong
/// ones cannot keep us busy.
pub const DATAGRAMS_MAX: usize = 16;
/// Longest answer by UDP, in octets; more than the size that we announce, for those who ignore it.
const DATAGRAM_MAX: usize = 4096;

/// Makes the sockets towards upstreams.
///
/// The seam for the mesh's fwmark: without it, the capture rules would send our own questions back
/// to us. Sockets come unconnected and not bound to a port of the caller's choice, so that the
/// kernel draws a random source port for each.
pub trait Connect: Send + Sync {
    /// A UDP socket of the upstream's family, bound to port 0.
    ///
    /// # Errors
    /// What the operating system says.
    fn udp(&self, upstream: SocketAddr) -> io::Result<UdpSocket>;

    /// A TCP socket of the upstream's family.
    ///
    /// # Errors
    /// What the operating system says.
    fn tcp(&self, upstream: SocketAddr) -> io::Result<TcpSocket>;
}

/// Sockets without a mark, for embedders and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unmarked;

impl Connect for Unmarked {
    fn udp(&self, upstream: SocketAddr) -> io::Result<UdpSocket> {
        let any = match upstream {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let socket = std::net::UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }

    fn tcp(&self, upstream: SocketAddr) -> io::Result<TcpSocket> {
        match upstream {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        }
    }
}

/// An answer that belongs to the question.
#[derive(Debug)]
pub struct Answer {
    /// The message, with the client's id.
    pub bytes: Vec<u8>,
    /// Its records, by offsets.
    pub records: Vec<Record>,
}

impl Answer {
    fn flags(&self) -> u16 {
        wire::u16_at(&self.bytes, 2).unwrap_or_default()
    }

    /// Cut short by the upstream.
    fn truncated(&self) -> bool {
        self.flags() & flag::TC != 0
    }

    /// NOERROR or NXDOMAIN: the upstream knows. Anything else, another upstream may know better.
    pub(super) fn settled(&self) -> bool {
        matches!(self.flags() & flag::RCODE, 0 | 3)
    }
}

/// Asks the upstreams in order, beginning with the one that answered last, so that a dead first
/// upstream costs [`TRY`] once and not per query.
pub struct Forwarder {
    upstreams: Arc<Upstreams>,
    connect: Arc<dyn Connect>,
    preferred: AtomicUsize,
}

impl Forwarder {
    /// Asks `upstreams`, on sockets that `connect` makes.
    pub fn new(upstreams: Arc<Upstreams>, connect: Arc<dyn Connect>) -> Self {
        Self { upstreams, connect, preferred: AtomicUsize::new(0) }
    }

    /// The best answer within [`BUDGET`]: a settled one, else an upstream's error. `None` when
    /// nobody answered.
    pub async fn ask(&self, query: &Query<'_>, transport: Transport) -> Option<Answer> {
        let list = self.upstreams.get();
        let end = Instant::now() + BUDGET;
        let first = self.preferred.load(Ordering::Relaxed);
        let mut second_best = None;
        for turn in 0..TRIES.max(list.len()) {
            let now = Instant::now();
            if list.is_empty() || now >= end {
                break;
            }
            let index = first.wrapping_add(turn) % list.len();
            let until = end.min(now + TRY);
            match self.ask_one(query, list[index], transport, until).await {
                Ok(answer) if answer.settled() => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Some(answer);
                }
                Ok(answer) => second_best = Some(answer),
                Err(error) => debug!(upstream = %list[index], %error, "no answer"),
            }
            // An error from every upstream is an answer; asking them again is for lost datagrams.
            if turn + 1 >= list.len() && second_best.is_some() {
                break;
            }
        }
        second_best
    }

    async fn ask_one(
        &self,
        query: &Query<'_>,
        upstream: SocketAddr,
        transport: Transport,
        until: Instant,
    ) -> io::Result<Answer> {
        let short = match transport {
            Transport::Tcp => None,
            Transport::Udp => {
                let answer = within(until, self.by_udp(query, upstream)).await?;
                if !answer.truncated() {
                    return Ok(answer);
                }
                Some(answer)
            }
        };
        match (within(until, self.by_tcp(query, upstream)).await, short) {
            (Ok(answer), _) => Ok(answer),
            // The client gets the mark "truncated" and can decide for itself.
            (Err(_), Some(short)) => Ok(short),
            (Err(error), None) => Err(error),
        }
    }

    async fn by_udp(&self, query: &Query<'_>, upstream: SocketAddr) -> io::Result<Answer> {
        let socket = self.connect.udp(upstream)?;
        // Connected: the kernel drops what others send, and an unreachable port is an error at once.
        socket.connect(upstream).await?;
        let (id, asked) = disguise(query);
        socket.send(&asked).await?;
        let mut buffer = vec![0; DATAGRAM_MAX];
        for _ in 0..DATAGRAMS_MAX {
            let length = socket.recv(&mut buffer).await?;
            if let Some(answer) = check(query, id, &buffer[..length]) {
                return Ok(answer);
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "only datagrams that answer something else"))
    }

    async fn by_tcp(&self, query: &Query<'_>, upstream: SocketAddr) -> io::Result<Answer> {
        let mut stream = self.connect.tcp(upstream)?.connect(upstream).await?;
        let (id, asked) = disguise(query);
        let mut framed = u16::try_from(asked.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec();
        framed.extend_from_slice(&asked);
        stream.write_all(&framed).await?;
        let length = usize::from(stream.read_u16().await?);
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await?;
        check(query, id, &bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "answers something else"))
    }
}

async fn within<T>(until: Instant, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout_at(until, work).await.unwrap_or_else(|late| Err(late.into()))
}

/// The query as we ask it: under an id that nobody can guess, and for datagrams that need no
/// fragments.
fn disguise(query: &Query<'_>) -> (u16, Vec<u8>) {
    // The first two octets of a version 4 UUID come straight from the system's random source.
    let random = Uuid::new_v4();
    let id = u16::from_be_bytes([random.as_bytes()[0], random.as_bytes()[1]]);
    let mut bytes = query.bytes.to_vec();
    put_u16(&mut bytes, 0, id);
    if let Some(edns) = query.edns {
        let size = edns.size.min(u16::try_from(UDP_MAX).unwrap_or(u16::MAX));
        put_u16(&mut bytes, edns.size_at, size);
    }
    (id, bytes)
}

/// The answer under the client's id, if it is one to this query under our id.
fn check(query: &Query<'_>, id: u16, bytes: &[u8]) -> Option<Answer> {
    if wire::u16_at(bytes, 0) != Ok(id) {
        return None;
    }
    let mut bytes = bytes.to_vec();
    put_u16(&mut bytes, 0, query.id());
    match wire::response(&bytes, query.question()) {
        Ok(records) => Some(Answer { bytes, records }),
        Err(_) if cut_short(&bytes, query.question()) => {
            // Some cut in the middle of a record. The client gets what is whole: the mark.
            bytes.truncate(query.question_end);
            bytes[6..wire::HEADER].fill(0);
            reply::append_opt(&mut bytes, query, 0);
            Some(Answer { bytes, records: Vec::new() })
        }
        Err(_) => None,
    }
}

fn cut_short(bytes: &[u8], question: &[u8]) -> bool {
    let flags = wire::u16_at(bytes, 2).unwrap_or_default();
    let wanted = flag::QR | flag::TC;
    flags & wanted == wanted && wire::same_question(bytes, question)
}
