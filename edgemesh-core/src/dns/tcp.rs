//! Serves DNS by TCP: frames, many queries at a time on one connection, bounds on everything.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::dns::answer::QUERY_MAX;
use crate::dns::reply::Transport;
use crate::dns::server::{self, PAUSE, Server, Step, count};

/// Most connections at a time on one address; the next one is closed at once.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may go without a whole query or a reply (RFC 7766 §6.2.3: seconds).
const IDLE: Duration = Duration::from_secs(10);
/// How long a client may take to accept a reply.
const WRITE: Duration = Duration::from_secs(2);
/// Most queries of one connection that wait for upstreams; reading rests meanwhile.
const PIPELINE: usize = 16;
/// Octets of the length in front of each message.
const LENGTH: usize = 2;
/// Room for what is read at first, in octets: a few ordinary queries.
const INPUT: usize = 512;

/// Accepts for as long as it is polled.
pub(super) async fn accept(
    server: Arc<Server>,
    listener: TcpListener,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "cannot accept DNS connections");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            count(&server::counters(&server).refused);
            continue;
        };
        let connection = Connection::new(Arc::clone(&server), stream, &tasks, &stop);
        let work = async move {
            if let Err(error) = connection.run().await {
                debug!(%error, "DNS connection ended");
            }
            drop(place);
        };
        tasks.spawn(stop.clone().run_until_cancelled_owned(work));
    }
}

struct Connection {
    server: Arc<Server>,
    stream: TcpStream,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// What was read and not yet understood: part of a query, or the next ones while enough wait.
    input: Vec<u8>,
    /// Replies of the queries that wait; their number.
    replies: (mpsc::Sender<Vec<u8>>, mpsc::Receiver<Vec<u8>>),
    waiting: usize,
}

/// What woke a connection.
enum Event {
    Read(usize),
    Reply(Vec<u8>),
    Idle,
}

impl Connection {
    fn new(
        server: Arc<Server>,
        stream: TcpStream,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let (tasks, stop) = (tasks.clone(), stop.clone());
        let (input, replies) = (Vec::with_capacity(INPUT), mpsc::channel(PIPELINE));
        Self { server, stream, tasks, stop, input, replies, waiting: 0 }
    }

    /// Answers in the order in which answers come, which is not that of the queries (RFC 7766 §7).
    async fn run(mut self) -> io::Result<()> {
        let mut reading = true;
        let mut idle_at = Instant::now() + IDLE;
        loop {
            while let Some(query) = self.next_query()? {
                self.take(&query).await?;
                idle_at = Instant::now() + IDLE;
            }
            if !reading && self.waiting == 0 {
                return Ok(());
            }
            let event = tokio::select! {
                read = self.stream.read_buf(&mut self.input), if reading && self.waiting < PIPELINE => {
                    Event::Read(read?)
                }
                Some(reply) = self.replies.1.recv() => Event::Reply(reply),
                () = sleep_until(idle_at) => Event::Idle,
            };
            match event {
                // A client may close its side first and still wait for replies.
                Event::Read(0) => reading = false,
                Event::Read(_) => {}
                Event::Reply(reply) => {
                    self.waiting -= 1;
                    self.write(&reply).await?;
                    idle_at = Instant::now() + IDLE;
                }
                Event::Idle => return Ok(()),
            }
        }
    }

    /// The next whole query, unless enough are waiting.
    fn next_query(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some((length, rest)) = self.input.split_first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > QUERY_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "query too long"));
        }
        if rest.len() < length || self.waiting >= PIPELINE {
            return Ok(None);
        }
        let query = rest[..length].to_vec();
        self.input.drain(..LENGTH + length);
        Ok(Some(query))
    }

    async fn take(&mut self, query: &[u8]) -> io::Result<()> {
        match self.server.step(query, Transport::Tcp) {
            Step::Reply(reply) => self.write(&reply).await,
            Step::Drop => Ok(()),
            Step::Wait(waiting) => {
                self.waiting += 1;
                let (server, done) = (Arc::clone(&self.server), self.replies.0.clone());
                let work = async move {
                    // An error means that the connection is gone, and nobody waits.
                    let _ = done.send(server.wait(waiting).await).await;
                };
                self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(work));
                Ok(())
            }
        }
    }

    async fn write(&mut self, reply: &[u8]) -> io::Result<()> {
        let Ok(length) = u16::try_from(reply.len()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "reply too long"));
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(reply);
        timeout(WRITE, self.stream.write_all(&framed)).await?
    }
}
