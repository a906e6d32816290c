//! What the connection to a broker and those who use it share: how it stands, and what is wanted of it.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use edgemesh_core::forward::inbox::Undelivered;
use edgemesh_core::io::now;
use edgemesh_core::refusal::Refusal;
use edgemesh_core::snapshot::rules::Filter;
use edgemesh_core::tunnel::now_ms;
use edgemesh_proto::record::NodeName;
use rumqttc::AsyncClient;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::providers::connect::{CONNECT_WITHIN, Connect, Place, Unreached};
use crate::providers::eventbus::filters::{Wanted, cover};
use crate::providers::eventbus::shrink::Mark;
use crate::providers::eventbus::{BadBroker, BrokerConfig, BrokerState};

/// How long a connection is kept after the last publication, if no Rule needs it.
const IDLE_AFTER: Duration = Duration::from_secs(300);

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: BrokerConfig,
    pub(super) place: Place,
    pub(super) client_id: Box<str>,
    pub(super) connect: Connect,
    pub(super) stop: CancellationToken,
    /// Filters of Rules that begin here.
    pub(super) wanted: watch::Sender<Wanted>,
    /// When somebody last had something to publish.
    used: watch::Sender<Option<Instant>>,
    /// Whether the broker may hold a subscription of this client.
    holds: watch::Sender<bool>,
    /// What the connection is kept for when everything ends: messages that are under way, in and out.
    pub(super) busy: TaskTracker,
    /// Tells messages that were too large.
    pub(super) mark: Mark,
    /// Whether somebody takes messages.
    pub(super) followed: AtomicBool,
    status: watch::Sender<Status>,
    /// What Rules wanted when this process began, and so most likely when the one before it ended.
    first: OnceLock<BTreeSet<Filter>>,
}

#[derive(Debug)]
struct Status {
    phase: Phase,
    /// Milliseconds since 1970.
    since: i64,
    /// What the broker does not let this client read, in words.
    refused: Option<Box<str>>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Nobody takes what the broker keeps for this client, or another process of this node does. The
    /// broker must not hear of us: messages would come, and to the other one no more.
    Unbegun,
    /// Nothing needs a connection.
    Resting,
    /// The first attempt is under way.
    Connecting,
    /// There is one, until the token is cancelled.
    Connected(AsyncClient, CancellationToken),
    /// There is none, and why; it is tried again.
    Away(Unreached),
}

impl Shared {
    pub(super) fn new(
        node: &NodeName,
        config: BrokerConfig,
        connect: Connect,
        stop: CancellationToken,
    ) -> Result<Self, BadBroker> {
        let place = config.place()?;
        let client_id = config.client_id.clone();
        let client_id = client_id.unwrap_or_else(|| format!("edgemesh-{}", node.0).into());
        let status = Status { phase: Phase::Unbegun, since: now_ms(), refused: None };
        Ok(Self {
            config,
            place,
            client_id,
            connect,
            stop,
            wanted: watch::Sender::default(),
            used: watch::Sender::default(),
            holds: watch::Sender::default(),
            busy: TaskTracker::new(),
            mark: Mark::new(),
            followed: AtomicBool::new(false),
            status: watch::Sender::new(status),
            first: OnceLock::new(),
        })
    }

    /// For those who publish: the connection, once the first attempt is decided.
    pub(super) async fn client(&self) -> Result<(AsyncClient, CancellationToken), Undelivered> {
        // In this order: while it rests, the use wakes it up, and resting is no answer.
        let mut status = self.status.subscribe();
        self.used.send_replace(Some(now()));
        let decided =
            status.wait_for(|status| matches!(status.phase, Phase::Connected(..) | Phase::Away(_)));
        let decided = tokio::select! {
            biased;
            // The attempt ends by itself within its own time. While there is a connection, what is
            // under way may use it, even if everything ends.
            decided = timeout(CONNECT_WITHIN * 2, decided) => decided,
            () = self.stop.cancelled() => {
                let (refusal, reason) = (Refusal::Draining, Refusal::Draining.to_string().into());
                return Err(Undelivered { refusal, sent: false, reason });
            }
        };
        let phase = decided.ok().and_then(Result::ok).map(|status| status.phase.clone());
        match phase {
            Some(Phase::Connected(client, ended)) => Ok((client, ended)),
            Some(Phase::Unbegun | Phase::Away(_) | Phase::Resting | Phase::Connecting) | None => {
                Err(self.unsent())
            }
        }
    }

    /// Nothing was sent, for this reason.
    pub(super) fn unsent(&self) -> Undelivered {
        let Unreached { refusal, reason } = self.why();
        Undelivered { refusal, sent: false, reason }
    }

    /// The connection broke before something was confirmed.
    pub(super) fn cut(&self) -> Undelivered {
        let Unreached { reason, .. } = self.why();
        let reason = format!("{reason} before it confirmed the message").into();
        Undelivered { refusal: Refusal::BackendReset, sent: true, reason }
    }

    fn why(&self) -> Unreached {
        match &self.status.borrow().phase {
            Phase::Away(why) => why.clone(),
            Phase::Unbegun => self.broken("is not this process's to speak with yet"),
            Phase::Resting | Phase::Connecting | Phase::Connected(..) => {
                self.broken("closed the connection")
            }
        }
    }

    /// A fault of the broker, in words that follow its name.
    pub(super) fn broken(&self, why: &str) -> Unreached {
        let reason = format!("the broker at {} {why}", self.place).into();
        Unreached { refusal: Refusal::ConnectFailed, reason }
    }

    /// From now on there may be connections.
    pub(super) fn begin(&self) {
        self.enter(Phase::Resting);
    }

    pub(super) fn state(&self) -> BrokerState {
        let status = self.status.borrow();
        let (connected, reason) = match &status.phase {
            Phase::Connected(..) => (true, status.refused.clone()),
            Phase::Away(why) => (false, Some(why.reason.clone())),
            Phase::Unbegun | Phase::Resting | Phase::Connecting => (false, None),
        };
        BrokerState { connected, since: status.since, reason }
    }

    fn enter(&self, phase: Phase) {
        let before = self.status.send_replace(Status { phase, since: now_ms(), refused: None });
        // After the reason is known: those who wait for a confirmation tell it.
        if let Phase::Connected(_, ended) = before.phase {
            ended.cancel();
        }
    }
}

/// For the session.
impl Shared {
    /// Waits until a connection is needed.
    pub(super) async fn needed(&self) {
        let (mut wanted, mut used) = (self.wanted.subscribe(), self.used.subscribe());
        while !self.is_needed() {
            self.rest();
            tokio::select! {
                _ = wanted.changed() => {}
                _ = used.changed() => {}
            }
        }
        let is_first = matches!(self.status.borrow().phase, Phase::Resting);
        if is_first {
            self.enter(Phase::Connecting);
        }
    }

    /// Waits until none is.
    pub(super) async fn unneeded(&self) {
        let (mut wanted, mut holds) = (self.wanted.subscribe(), self.holds.subscribe());
        while self.is_needed() {
            tokio::select! {
                _ = wanted.changed() => {}
                _ = holds.changed() => {}
                () = sleep(IDLE_AFTER) => {}
            }
        }
    }

    fn is_needed(&self) -> bool {
        let lately = |used: Instant| now().saturating_duration_since(used) < IDLE_AFTER;
        // Until the broker has taken back what no Rule wants any more, it would keep messages for us.
        let holds = *self.holds.borrow();
        holds || !self.wanted.borrow().is_empty() || self.used.borrow().is_some_and(lately)
    }

    /// Waits before the next attempt; not so long, if somebody wants to publish.
    pub(super) async fn pause(&self, least: Duration, most: Duration) {
        let mut used = self.used.subscribe();
        sleep(least).await;
        tokio::select! {
            _ = used.changed() => {}
            () = sleep(most.saturating_sub(least)) => {}
        }
    }

    /// There is a connection, until it is [`Shared::lost`] or [`Shared::rest`] is called.
    pub(super) fn connected(&self, client: AsyncClient) {
        tracing::info!(broker = %self.place, "connected to the broker");
        self.enter(Phase::Connected(client, CancellationToken::new()));
    }

    /// There is none; said once for each reason.
    pub(super) fn lost(&self, why: Unreached) {
        let known = match &self.status.borrow().phase {
            Phase::Away(before) => *before == why,
            Phase::Unbegun | Phase::Resting | Phase::Connecting | Phase::Connected(..) => false,
        };
        if !known {
            tracing::warn!(reason = %why.reason, "no connection to the broker; trying again");
            self.enter(Phase::Away(why));
        }
    }

    /// Nothing needs a connection.
    pub(super) fn rest(&self) {
        if !matches!(self.status.borrow().phase, Phase::Resting) {
            self.enter(Phase::Resting);
        }
    }

    /// Whether the broker may hold anything for this client.
    pub(super) fn holds(&self, anything: bool) {
        self.holds.send_if_modified(|before| std::mem::replace(before, anything) != anything);
    }

    /// What the broker holds for this client is decided; this it refuses.
    pub(super) fn refused<'f>(&self, filters: impl Iterator<Item = &'f Filter>) {
        let texts: Vec<_> = filters.map(Filter::as_str).collect();
        let text: Option<Box<str>> = (!texts.is_empty())
            .then(|| format!("the broker does not let this node read {}", texts.join(", ")).into());
        let is_new = self.status.borrow().refused != text;
        if let Some(reason) = text.as_ref().filter(|_| is_new) {
            tracing::warn!(%reason, "Rules get no messages");
        }
        self.status.send_modify(|status| status.refused = text);
    }
}

/// For what comes in.
impl Shared {
    /// What Rules take.
    pub(super) fn want(&self, wanted: Wanted) {
        self.first.get_or_init(|| cover(wanted.values()));
        self.wanted.send_if_modified(|before| {
            let is_new = *before != wanted;
            *before = wanted;
            is_new
        });
    }

    /// What the broker may hold for this client since before this process.
    pub(super) fn inherited(&self) -> impl Iterator<Item = Filter> {
        self.first.get().into_iter().flatten().cloned()
    }
}
