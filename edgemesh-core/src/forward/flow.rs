//! A connection of bytes as one account: it begins once, and ends in exactly one line.
//!
//! A [`Flow`] that is dropped before its end says so itself: its client left, or the mesh cut it.

mod carrying;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use edgemesh_proto::record::ServiceName;
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::dial::DialError;
use crate::forward::across::{Calling, Passed, Unopened, open_stream};
use crate::forward::bytes::{Carriage, Early, Reached, Side, Traffic};
use crate::forward::counting::count;
use crate::forward::proxy_protocol::introduce;
use crate::forward::{Access, Shared, What};
use crate::io::now;
use crate::listen::reset_on_close;
use crate::metrics::{Carried, Ended};
use crate::plan::{
    Arrival, Destination, Hop, Outcome, Purpose, Target, confirm, plan, resolve, rule_of,
};
use crate::refusal::Refusal;
use crate::snapshot::rules::Rule;
use crate::tunnel::message_id;

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
    /// The Rule by which it goes.
    rule: Option<Arc<Rule>>,
    across: Across,
    over: bool,
}

/// Whether a flow crosses nodes.
#[derive(Debug)]
enum Across {
    No,
    /// To another one, by the Message of that id.
    To(Uuid),
    /// From another one.
    From(Arc<Passed>),
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
            rule: None,
            across: Across::No,
            over: false,
        })
    }

    /// It became HTTP, where each request has an account of its own. Gives what was dialled.
    pub fn became_http(mut self: Box<Self>) -> Option<SocketAddr> {
        self.over = true;
        self.to
    }

    /// Takes over a dial that was made while nobody had spoken; `message` asked for it, where that
    /// was another node's to make.
    pub fn adopt(&mut self, mut hop: Hop, message: Option<Uuid>) -> Result<(), Refusal> {
        self.attempts = self.attempts.max(1);
        self.across = message.map_or(Across::No, Across::To);
        let caller = Some(self.shared.caller(self.client));
        let confirmed = confirm(&self.shared.live.load(), &mut hop, (caller, None), now());
        self.is_for(hop);
        confirmed
    }

    fn is_for(&mut self, hop: Hop) {
        self.service = Some(hop.service().name.clone());
        self.rule = hop.rule().cloned();
        self.hop = Some(hop);
    }

    /// Finds a Backend that takes the connection, within what the Policy allows to try. What goes
    /// to another node along with the question is taken from `early`.
    pub async fn reach(
        &mut self,
        to: Target<'_>,
        arrival: Arrival,
        early: &mut Early,
    ) -> Result<Reached, Refusal> {
        let caller = match arrival {
            Arrival::Captured | Arrival::Proxy | Arrival::Ingress => {
                Some(self.shared.caller(self.client))
            }
            Arrival::Library | Arrival::Link => None,
        };
        let asked = Destination { caller, ..Destination::new(to, arrival, Purpose::Call) };
        self.search(asked, early).await
    }

    /// The same for a connection that another node passes on, or races.
    pub async fn reach_passed(&mut self, passed: Passed, race: bool) -> Result<TcpStream, Refusal> {
        let passed = Arc::new(passed);
        self.across = Across::From(passed.clone());
        let purpose = if race { Purpose::Race(&[]) } else { Purpose::Call };
        match self.search(passed.destination(purpose), &mut Early::default()).await? {
            Reached::Socket(backend) => Ok(backend),
            // What came over a Link goes over no other.
            Reached::Link(_) => Err(Refusal::NoLocalBackend),
        }
    }

    /// What another node raced became a connection: takes what that costs.
    pub fn confirm_passed(&mut self) -> Result<(), Refusal> {
        let (Some(hop), Across::From(passed)) = (&mut self.hop, &self.across) else {
            return Ok(());
        };
        confirm(&self.shared.live.load(), hop, passed.calling(), now())
    }

    async fn search(
        &mut self,
        asked: Destination<'_>,
        early: &mut Early,
    ) -> Result<Reached, Refusal> {
        let (mut tried, mut failed) = (Vec::new(), None);
        self.attempts = 1;
        loop {
            let purpose = if failed.is_none() { asked.purpose } else { Purpose::Retry(&tried) };
            let snapshot = self.shared.live.load_full();
            let hop = match plan(&snapshot, &Destination { purpose, ..asked }, now()) {
                Ok(hop) => hop,
                Err(refusal) => {
                    self.rule = rule_of(&snapshot, &asked).cloned();
                    let found = resolve(&snapshot, asked.to).ok();
                    self.service = found.map(|found| found.service.name.clone());
                    return Err(failed.unwrap_or(refusal));
                }
            };
            if failed.is_some() {
                // Only now is it known that a Backend is left to try.
                self.attempts += 1;
                self.shared.metrics.retries.fetch_add(1, Relaxed);
            }
            let (spot, retries) = (hop.spot(), hop.service().policy.retries);
            self.is_for(hop);
            let unreached = match self.dial(asked.caller, early).await {
                Ok(backend) => {
                    if let Some(hop) = &self.hop {
                        hop.connected(now());
                    }
                    return Ok(backend);
                }
                Err(unreached) => unreached,
            };
            self.blame(unreached);
            tried.push(spot);
            // Whoever passes a call on tries elsewhere by itself.
            let may = retries.on_connect && asked.arrival != Arrival::Link && !unreached.sent;
            if !may || self.attempts > retries.attempts {
                return Err(unreached.refusal);
            }
            failed = Some(unreached.refusal);
        }
    }

    /// Connects to the Backend that was chosen, or asks the agent of its node.
    async fn dial(
        &mut self,
        caller: Option<IpAddr>,
        early: &mut Early,
    ) -> Result<Reached, Unopened> {
        let failed = |refusal| Unopened { refusal, sent: false, backends_fault: false };
        let Some(hop) = &self.hop else { return Err(failed(Refusal::NoBackend)) };
        let (address, timeout) = (hop.address(), hop.service().policy.connect_timeout);
        if !hop.backend().is_dialled() {
            let message = message_id();
            self.across = Across::To(message);
            let calling = Calling { shared: &self.shared, hop, caller, message };
            let link = open_stream(calling, &early.up, timeout).await?;
            self.traffic.went_up(early.up.len());
            early.up = Vec::new();
            return Ok(Reached::Link(Box::new(link)));
        }
        if self.shared.is_own(address) {
            return Err(failed(Refusal::Loop));
        }
        let mut connected = self.shared.connect(address, timeout).await;
        if let (true, Ok(backend)) = (hop.service().proxy_protocol, &mut connected) {
            let told = introduce(backend, self.client, self.to.unwrap_or(address)).await;
            connected = told.map_err(DialError::Connect).and(connected);
        }
        connected.map(Reached::Socket).map_err(|error| Unopened {
            refusal: error.refusal(),
            sent: false,
            backends_fault: error.blames_backend(),
        })
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

    fn blame(&mut self, Unopened { refusal, backends_fault, .. }: Unopened) {
        let Some(mut hop) = self.hop.take() else { return };
        if let Refusal::Unhealthy { retry_after } = refusal {
            hop.rest(retry_after, now()); // the agent of its node leaves it alone
        }
        hop.finish(if backends_fault { Outcome::Bad } else { Outcome::Neutral }, now());
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
        self.count_on_rule(ended);
        let mut id_text = Uuid::encode_buffer();
        let Carriage { up, down, .. } = self.traffic.so_far();
        self.shared.metrics.bytes_up.fetch_add(up, Relaxed);
        self.shared.metrics.bytes_down.fetch_add(down, Relaxed);
        let service = self.service.take().or_else(|| self.service_at_address());
        self.shared.ended(&Access {
            carried: self.carried,
            client: self.client,
            destination: self.to,
            service: service.as_ref(),
            rule: self.rule.as_ref().map(|rule| &rule.name),
            backend: self.hop.as_ref().map(|hop| (hop.address(), hop.via())),
            what: match &self.said {
                Said::Nothing => What::Bytes,
                Said::ServerName(name) => What::ServerName(name),
                Said::Connect(host) => What::Request { method: "CONNECT", host, path: "", id: "" },
            },
            status: self.status,
            ended,
            from: match &self.across {
                Across::From(passed) => Some(passed.node()),
                Across::No | Across::To(_) => None,
            },
            message: match &self.across {
                Across::No => None,
                Across::To(id) => Some(id.hyphenated().encode_lower(&mut id_text)),
                Across::From(passed) => Some(passed.message()),
            },
            attempts: self.attempts,
            up,
            down,
            took: now().saturating_duration_since(self.began),
        });
    }

    /// A connection of bytes that went by a Rule is one message, counted where it entered the mesh.
    fn count_on_rule(&self, ended: Ended) {
        let is_entry = !matches!(self.across, Across::From(_));
        let Some(rule) = self.rule.as_ref().filter(|_| is_entry) else { return };
        let ended = match ended {
            // Who leaves a connection that has carried something is done with it.
            Ended::Cancelled if self.traffic.so_far().up > 0 => Ended::Ok,
            ended => ended,
        };
        count(rule, ended, self.began, |refusal| refusal.row().text.to_owned());
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
