//! A connection of bytes: decide once, dial, carry, account.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::dial::DialError;
use crate::forward::bytes::{Carriage, Early, Side, carry};
use crate::forward::{Access, Shared, What};
use crate::io::now;
use crate::listen::reset_on_close;
use crate::metrics::{Carried, Ended};
use crate::plan::{Arrival, Destination, Hop, Outcome, Purpose, Target, confirm, plan};
use crate::proxy::Spoken;
use crate::refusal::Refusal;

/// Longest connect to a place that is no Service: what common clients wait for.
const PASS_THROUGH_CONNECT: Duration = Duration::from_secs(10);

/// A captured connection that is not HTTP (or is not known yet). Dropped before its end, it was
/// cut by the mesh or left by its client.
pub(super) struct Connection<'s> {
    shared: &'s Arc<Shared>,
    client: SocketAddr,
    to: Option<SocketAddr>,
    began: Instant,
}

/// What the line of a connection says beside its outcome.
#[derive(Default)]
struct Line<'h> {
    hop: Option<&'h Hop>,
    server_name: Option<&'h str>,
    attempts: u8,
    up: u64,
    down: u64,
}

impl<'s> Connection<'s> {
    pub(super) fn new(shared: &'s Arc<Shared>, client: SocketAddr, to: Option<SocketAddr>) -> Self {
        Self { shared, client, to, began: now() }
    }

    /// Resets the connection and says why in the log: bytes have no other way to say no.
    pub(super) fn refuse(&self, stream: &TcpStream, carried: Carried, refusal: Refusal) {
        reset_on_close(stream);
        self.end(carried, Ended::Refused(refusal), &Line::default());
    }

    /// Ends a connection on which the client never said anything.
    pub(super) fn silent(&self) {
        self.end(Carried::Opaque, Ended::Cancelled, &Line::default());
    }

    /// Carries a destination that is no Service to where it was going.
    pub(super) async fn pass_through(self, client: TcpStream, to: SocketAddr) {
        self.shared.metrics.passed_through.fetch_add(1, Relaxed);
        match Box::pin(self.shared.connect(to, PASS_THROUGH_CONNECT)).await {
            Ok(backend) => {
                let guard = Cut { connection: &self, carried: Carried::Opaque, over: false };
                let carriage = carry(client, backend, Early::default()).await;
                guard.disarm();
                let Carriage { up, down, broken } = carriage;
                self.end(Carried::Opaque, ended(broken), &Line { up, down, ..Line::default() });
            }
            Err(error) => self.refuse(&client, Carried::Opaque, error.refusal()),
        }
    }

    /// Carries a connection to a Backend of the Service at its address.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps each argument twice, in every connection"
    )]
    pub(super) fn carry(
        self,
        client: TcpStream,
        spoken: Box<Spoken>,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let Spoken { early, carried, server_name, raced } = *spoken;
            let carried = carried.unwrap_or(Carried::Opaque);
            let mut attempts = 1;
            let reached = Box::pin(self.reach(raced, &mut attempts)).await;
            let server_name = server_name.as_deref();
            let (hop, backend) = match reached {
                Ok(reached) => reached,
                Err(refusal) => {
                    reset_on_close(&client);
                    let line = Line { server_name, attempts, ..Line::default() };
                    return self.end(carried, Ended::Refused(refusal), &line);
                }
            };
            let guard = Cut { connection: &self, carried, over: false };
            let Carriage { up, down, broken } = carry(client, backend, early).await;
            guard.disarm();
            let line = Line { hop: Some(&hop), server_name, attempts, up, down };
            self.end(carried, ended(broken), &line);
            // A Backend that takes a connection only to reset it before it said a word is not well.
            let bad = broken == Some(Side::Backend) && down == 0;
            hop.finish(if bad { Outcome::Bad } else { Outcome::Good }, now());
        }
    }

    /// The Backend that was raced, or one that takes the connection.
    async fn reach(
        &self,
        raced: Option<(Hop, TcpStream)>,
        attempts: &mut u8,
    ) -> Result<(Hop, TcpStream), Refusal> {
        if let Some((mut hop, backend)) = raced {
            return confirm(&mut hop, now()).map(|()| (hop, backend));
        }
        let to = self.to.ok_or(Refusal::NoService)?;
        let (mut tried, mut failed) = (Vec::new(), None);
        loop {
            let purpose = if failed.is_none() { Purpose::Call } else { Purpose::Retry(&tried) };
            let destination =
                Destination { to: Target::Address(to), arrival: Arrival::Captured, purpose };
            let planned = plan(&self.shared.live.load(), &destination, now());
            let hop = planned.map_err(|refusal| failed.unwrap_or(refusal))?;
            match self.dial(&hop).await {
                Ok(backend) => return Ok((hop, backend)),
                Err(Dialled::Loop) => return Err(Refusal::Loop),
                Err(Dialled::Failed(error)) => {
                    let refusal = error.refusal();
                    let retries = hop.service().policy.retries;
                    tried.push(hop.address());
                    let bad = error.blames_backend();
                    hop.finish(if bad { Outcome::Bad } else { Outcome::Neutral }, now());
                    if !retries.on_connect || *attempts > retries.attempts {
                        return Err(refusal);
                    }
                    failed = Some(refusal);
                    *attempts += 1;
                    self.shared.metrics.retries.fetch_add(1, Relaxed);
                }
            }
        }
    }

    async fn dial(&self, hop: &Hop) -> Result<TcpStream, Dialled> {
        if self.shared.is_own(hop.address()) {
            return Err(Dialled::Loop);
        }
        let timeout = hop.service().policy.connect_timeout;
        self.shared.connect(hop.address(), timeout).await.map_err(Dialled::Failed)
    }

    fn end(&self, carried: Carried, ended: Ended, line: &Line<'_>) {
        self.shared.metrics.bytes_up.fetch_add(line.up, Relaxed);
        self.shared.metrics.bytes_down.fetch_add(line.down, Relaxed);
        let found = match (line.hop, self.to) {
            (Some(hop), _) => Some(hop.service().name.clone()),
            (None, Some(to)) => {
                let snapshot = self.shared.live.load();
                let found = crate::plan::resolve(&snapshot, Target::Address(to)).ok();
                found.map(|found| found.service.name.clone())
            }
            (None, None) => None,
        };
        self.shared.ended(&Access {
            carried,
            client: self.client,
            destination: self.to,
            service: found.as_ref(),
            backend: line.hop.map(|hop| (hop.address(), hop.via())),
            what: line.server_name.map_or(What::Bytes, What::ServerName),
            status: None,
            ended,
            attempts: line.attempts,
            up: line.up,
            down: line.down,
            took: now().saturating_duration_since(self.began),
        });
    }
}

enum Dialled {
    Loop,
    Failed(DialError),
}

/// Writes the line of a connection that the mesh cuts while it is carried.
struct Cut<'c, 's> {
    connection: &'c Connection<'s>,
    carried: Carried,
    over: bool,
}

impl Cut<'_, '_> {
    fn disarm(mut self) {
        self.over = true;
    }
}

impl Drop for Cut<'_, '_> {
    fn drop(&mut self) {
        if !self.over {
            let ended = Ended::Refused(Refusal::Draining);
            self.connection.end(self.carried, ended, &Line::default());
        }
    }
}

const fn ended(broken: Option<Side>) -> Ended {
    match broken {
        None => Ended::Ok,
        Some(Side::Client) => Ended::Cancelled,
        Some(Side::Backend) => Ended::Failed,
    }
}
