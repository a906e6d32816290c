//! A connection of bytes as one account: it begins once, and ends in exactly one line.
//!
//! A [`Flow`] that is dropped before its end says so itself: its client left, or the mesh cut it.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use edgemesh_proto::record::ServiceName;
use tokio::net::TcpStream;

use crate::dial::DialError;
use crate::forward::bytes::{Carriage, Early, Side, Traffic, carry};
use crate::forward::idle::Idle;
use crate::forward::proxy_protocol::introduce;
use crate::forward::{Access, Shared, What};
use crate::io::now;
use crate::listen::reset_on_close;
use crate::metrics::{Carried, Ended};
use crate::plan::{Arrival, Destination, Hop, Outcome, Purpose, Target, confirm, plan, resolve};
use crate::refusal::Refusal;

/// What the client said it wants.
#[derive(Debug)]
pub enum Said {
    /// Bytes show nothing.
    Nothing,
    /// A TLS server name.
    ServerName(Box<str>),
    /// The host of a CONNECT.
    Connect(Box<str>),
}

/// A connection of bytes under way, or one of which nobody knows yet what it is.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    client: SocketAddr,
    to: Option<SocketAddr>,
    began: Instant,
    /// What it turned out to be.
    pub carried: Carried,
    /// What its client said.
    pub said: Said,
    /// HTTP status of the answer to a CONNECT.
    pub status: Option<u16>,
    /// Attempts that were made.
    pub attempts: u8,
    /// Bytes that went through so far.
    pub traffic: Traffic,
    service: Option<ServiceName>,
    hop: Option<Hop>,
    over: bool,
}

impl Flow {
    /// Begins the account. Boxed, since thousands of connections carry one for long.
    pub fn begin(shared: &Arc<Shared>, client: SocketAddr, to: Option<SocketAddr>) -> Box<Self> {
        Box::new(Self {
            shared: shared.clone(),
            client,
            to,
            began: now(),
            carried: Carried::Opaque,
            said: Said::Nothing,
            status: None,
            attempts: 0,
            traffic: Traffic::default(),
            service: None,
            hop: None,
            over: false,
        })
    }

    /// It became HTTP, where each request has an account of its own. Gives what was dialled.
    pub fn became_http(mut self: Box<Self>) -> Option<SocketAddr> {
        self.over = true;
        self.to
    }

    /// Takes over a dial that was made while nobody had spoken.
    pub fn adopt(&mut self, mut hop: Hop) -> Result<(), Refusal> {
        self.attempts = self.attempts.max(1);
        let caller = Some(self.shared.caller(self.client));
        let confirmed = confirm(&self.shared.live.load(), &mut hop, caller, now());
        self.is_for(hop);
        confirmed
    }

    fn is_for(&mut self, hop: Hop) {
        self.service = Some(hop.service().name.clone());
        self.hop = Some(hop);
    }

    /// Finds a Backend that takes the connection, within what the Policy allows to try.
    pub async fn reach(&mut self, to: Target<'_>, arrival: Arrival) -> Result<TcpStream, Refusal> {
        let (mut tried, mut failed) = (Vec::new(), None);
        self.attempts = 1;
        loop {
            let purpose = if failed.is_none() { Purpose::Call } else { Purpose::Retry(&tried) };
            let destination = Destination {
                caller: self.caller(arrival),
                ..Destination::new(to, arrival, purpose)
            };
            let snapshot = self.shared.live.load_full();
            let hop = match plan(&snapshot, &destination, now()) {
                Ok(hop) => hop,
                Err(refusal) => {
                    let found = resolve(&snapshot, to).ok();
                    self.service = found.map(|found| found.service.name.clone());
                    return Err(failed.unwrap_or(refusal));
                }
            };
            if failed.is_some() {
                // Only now is it known that a Backend is left to try.
                self.attempts += 1;
                self.shared.metrics.retries.fetch_add(1, Relaxed);
            }
            let (address, spot) = (hop.address(), hop.spot());
            let policy = &hop.service().policy;
            let (retries, timeout) = (policy.retries, policy.connect_timeout);
            let introduced = hop.service().proxy_protocol;
            self.is_for(hop);
            if self.shared.is_own(address) {
                return Err(Refusal::Loop);
            }
            let mut connected = self.shared.connect(address, timeout).await;
            if let (true, Ok(backend)) = (introduced, &mut connected) {
                let told = introduce(backend, self.client, self.to.unwrap_or(address)).await;
                connected = told.map_err(DialError::Connect).and(connected);
            }
            let error = match connected {
                Ok(backend) => {
                    if let Some(hop) = &self.hop {
                        hop.connected(now());
                    }
                    return Ok(backend);
                }
                Err(error) => error,
            };
            self.blame(&error);
            tried.push(spot);
            if !retries.on_connect || self.attempts > retries.attempts {
                return Err(error.refusal());
            }
            failed = Some(error.refusal());
        }
    }

    fn caller(&self, arrival: Arrival) -> Option<IpAddr> {
        match arrival {
            Arrival::Captured | Arrival::Proxy | Arrival::Ingress => {
                Some(self.shared.caller(self.client))
            }
            Arrival::Library | Arrival::Link => None,
        }
    }

    /// Where it is carried to, once [`Flow::reach`] found somebody.
    pub fn backend(&self) -> Option<SocketAddr> {
        self.hop.as_ref().map(Hop::address)
    }

    /// Notes that the Backend answered, for connections that others carry.
    pub fn answered(&mut self) {
        if let Some(hop) = &mut self.hop {
            hop.answered(now());
        }
    }

    fn blame(&mut self, error: &DialError) {
        let outcome = if error.blames_backend() { Outcome::Bad } else { Outcome::Neutral };
        if let Some(hop) = self.hop.take() {
            hop.finish(outcome, now());
        }
    }

    /// Carries everything between two sockets, and ends.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps each argument twice, in every connection"
    )]
    pub fn carry(
        mut self: Box<Self>,
        client: TcpStream,
        backend: TcpStream,
        early: Early,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let carriage = {
                let Self { traffic, hop, .. } = &mut *self;
                let longest = hop.as_ref().and_then(|hop| hop.service().policy.idle_timeout);
                let mut idle = longest.map(|t| Box::new(Idle::new(t, now().into())));
                let mut carrying = pin!(carry(client, backend, early, traffic));
                poll_fn(|cx| {
                    let over = carrying.as_mut().poll(cx).map(Some);
                    // A probe need not wait for the end of a connection that lives for hours.
                    if let Some(hop) = hop.as_mut().filter(|hop| hop.is_probe())
                        && traffic.has_answered()
                    {
                        hop.answered(now());
                    }
                    match &mut idle {
                        Some(idle) if over.is_pending() => idle.poll(cx, traffic).map(|()| None),
                        Some(_) | None => over,
                    }
                })
                .await
            };
            match carriage {
                Some(carriage) => self.carried(carriage),
                None => self.end(Ended::Refused(Refusal::IdleTimeout)),
            }
        }
    }

    /// Ends as its bytes ended.
    pub fn carried(mut self: Box<Self>, carriage: Carriage) {
        let (ended, outcome) = carriage.verdict();
        self.settle(ended);
        if let Some(hop) = self.hop.take() {
            hop.finish(outcome, now());
        }
    }

    /// Resets the client's connection and says why in the log: bytes have no other way to say no.
    pub fn refuse(self: Box<Self>, client: &TcpStream, refusal: Refusal) {
        reset_on_close(client);
        self.end(Ended::Refused(refusal));
    }

    /// Ends without having carried anything; what was dialled says nothing about its Backend.
    pub fn end(mut self: Box<Self>, ended: Ended) {
        self.settle(ended);
    }

    /// Writes the one line, once.
    fn settle(&mut self, ended: Ended) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        let Carriage { up, down, .. } = self.traffic.so_far();
        self.shared.metrics.bytes_up.fetch_add(up, Relaxed);
        self.shared.metrics.bytes_down.fetch_add(down, Relaxed);
        let service = self.service.take().or_else(|| self.service_at_address());
        self.shared.ended(&Access {
            carried: self.carried,
            client: self.client,
            destination: self.to,
            service: service.as_ref(),
            backend: self.hop.as_ref().map(|hop| (hop.address(), hop.via())),
            what: match &self.said {
                Said::Nothing => What::Bytes,
                Said::ServerName(name) => What::ServerName(name),
                Said::Connect(host) => What::Request { method: "CONNECT", host, path: "", id: "" },
            },
            status: self.status,
            ended,
            attempts: self.attempts,
            up,
            down,
            took: now().saturating_duration_since(self.began),
        });
    }

    fn service_at_address(&self) -> Option<ServiceName> {
        let snapshot = self.shared.live.load();
        let found = resolve(&snapshot, Target::Address(self.to?)).ok()?;
        Some(found.service.name.clone())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.settle(self.shared.dropped());
    }
}

impl Carriage {
    /// What it says of the flow and of its Backend. A Backend that takes a connection only to
    /// reset it before it said a word is not well.
    pub const fn verdict(&self) -> (Ended, Outcome) {
        match self.broken {
            None => (Ended::Ok, Outcome::Good),
            Some(Side::Client) => (Ended::Cancelled, Outcome::Good),
            Some(Side::Backend) if self.down == 0 => (Ended::Failed, Outcome::Bad),
            Some(Side::Backend) => (Ended::Failed, Outcome::Good),
        }
    }
}
